"""The script of nix/vm-test.nix, where there is no nixpkgs to make its two machines of.

A disposable host stands in for the one, and a Prometheus with its rules for the other: it is seen
that the script is right, though not that NixOS is.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

import nix_eval
from host import Fleet, Vm
from host.exporter import COMMAND, DECLARATION, PORT
from host.nixos_unit import UNIT, install, uninstall
from host.prometheus import Prometheus
from host.service import missing
from microvm_exporter.drift import Kind
from microvm_exporter.metrics import METRICS
from microvm_exporter.model import Collector

pytestmark = pytest.mark.skipif(bool(nix_eval.missing()), reason=str(nix_eval.missing()))

DRIVER = ("host", "monitor", "retry", "start_all", "subtest")
ROOT = nix_eval.ROOT
ALERTS = ROOT / "alerts/microvm.rules.yml"


@pytest.fixture(scope="module")
def script() -> str:
    text: str = nix_eval.evaluate(
        "(import ./nix/vm-test.nix { lib = { }; }).testScript"
        ' { nodes.host.system.build.toplevel = "/toplevel"; }'
    )
    return text


def test_script_is_python_that_knows_its_names(script: str) -> None:
    builtins = f"builtins = [{', '.join(map(repr, DRIVER))}]"
    lint = ("ruff", "check", "--isolated", "--select=E9,F", f"--config={builtins}", "-")
    done = subprocess.run(
        [sys.executable, "-m", *lint], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "''" not in script  # what Nix was to unescape


def test_script_names_what_there_is(script: str) -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert set(re.findall(r"\bMicrovm[A-Z]\w+", script)) <= alerts
    names = {metric.name for metric in METRICS}
    assert set(re.findall(r"\bmicrovm_\w+", script)) <= names
    assert set(re.findall(r'\("(\w+)", (?:MAIL|"web")\)', script)) <= set(Kind)
    assert set(re.findall(r'collector="(\w+)"', script)) <= set(Collector)


@pytest.mark.host
@pytest.mark.skipif(bool(missing("prometheus")), reason=str(missing("prometheus")))
def test_script_runs_on_a_host(fleet: Fleet, script: str, tmp_path: Path) -> None:
    machine = fleet.machine
    fleet.declare(*(Vm(name, taps=(f"vm-{name[:4]}",)) for name in ("db", "web", "mail.internal")))
    fleet.switch()
    fleet.write_declaration(DECLARATION)
    install(machine, COMMAND, [f"--declaration.file={DECLARATION}"])
    machine.systemctl("start", UNIT)
    command = f'#!/bin/sh\nexec {COMMAND} "$@" --declaration.file={DECLARATION}\n'
    machine.write("/opt/bin/microvm-exporter", command, 0o755)
    machine.write("/opt/bin/curl", f"#!{sys.executable}\n{CURL}", 0o755)

    def on_host(command: str) -> tuple[int, str]:
        if "switch-to-configuration" in command:
            fleet.undeclare("web", "mail.internal")
            fleet.write_declaration(DECLARATION)
            return 0, ""
        path = {"PATH": "/opt/bin:/usr/sbin:/usr/bin"}
        done = machine.run("bash", "-euo", "pipefail", "-c", command, check=False, env=path)
        return done.returncode, done.stdout

    def on_monitor(command: str) -> tuple[int, str]:
        if not command.startswith("curl"):
            return 0, "active\n"
        url = command.split("'")[1].replace("http://localhost:9090", "")
        return 0, prometheus.request(url).decode()

    try:
        with Prometheus(monitoring(*machine.forward(PORT, 0), tmp_path)) as prometheus:
            names = {"host": Node(on_host), "monitor": Node(on_monitor), "start_all": lambda: None}
            exec(script, {**names, "retry": retry, "subtest": subtest})
    finally:
        uninstall(machine)
        for path in (DECLARATION.parent, "/opt"):
            machine.remove(path)


class Node:
    """Of the test driver's machines what the script uses."""

    def __init__(self, execute: Callable[[str], tuple[int, str]]) -> None:
        self.execute = execute

    def succeed(self, command: str) -> str:
        status, output = self.execute(command)
        assert status == 0, (command, output)
        return output

    def fail(self, command: str) -> None:
        assert self.execute(command)[0] != 0, command

    def wait_for_unit(self, unit: str) -> None:
        self.wait_until_succeeds(f"systemctl is-active {unit}", 30)

    def wait_until_succeeds(self, command: str, timeout: float) -> None:
        retry(lambda _: self.execute(command)[0] == 0, timeout)

    def wait_until_fails(self, command: str, timeout: float) -> None:
        retry(lambda _: self.execute(command)[0] != 0, timeout)


def retry(holds: Callable[[bool], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not holds(False):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextmanager
def subtest(name: str) -> Iterator[None]:
    print(name)
    yield


CURL = """\
import sys, urllib.request

url = sys.argv[-1].replace("localhost", "127.0.0.1")  # a name that this host does not know
sys.stdout.buffer.write(urllib.request.urlopen(url).read())
"""


def monitoring(host: str, port: int, folder: Path) -> str:
    """The monitor's configuration, with waits that are shorter still."""
    settings, rules = folder / "settings.json", folder / "microvm.rules.yml"
    settings.write_text('{"time_scale": 0.004}')
    make = ("-m", "microvm_alerts", f"--settings={settings}", f"--output={rules}")
    subprocess.run([sys.executable, *make], check=True, env={"PYTHONPATH": "alerts"}, cwd=ROOT)
    target = {"targets": [f"{host}:{port}"], "labels": {"instance": "host:10686"}}
    return json.dumps(
        {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "microvm", "static_configs": [target]}],
        }
    )
