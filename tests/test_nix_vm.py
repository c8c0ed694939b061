"""The script of nix/vm-test.nix, as far as it can be told without its machines.

It runs where there is nixpkgs, by `nix flake check`; the test driver checks it in this way, too.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

import nix_eval
from microvm_exporter.drift import Kind
from microvm_exporter.metrics import METRICS
from microvm_exporter.model import Collector

pytestmark = pytest.mark.skipif(bool(nix_eval.missing()), reason=str(nix_eval.missing()))

DRIVER = ("host", "monitor", "retry", "start_all", "subtest")
ALERTS = nix_eval.ROOT / "alerts/microvm.rules.yml"


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
