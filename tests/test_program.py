"""The program on a real host: under real systemd, scraped by a real Prometheus."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from signal import Signals

import pytest

from host import BEFORE_SET_BOOTED, Fleet, Machine, Vm, cases, eventually
from host.exporter import COMMAND, DECLARATION, PORT, USER, Exporter, check_json, run_check
from host.layout import STATE
from host.prometheus import Prometheus
from tools import tool

SUCCESS = "microvm_exporter_collector_success"
COLLECTORS = ("declaration", "systemd", "links", "state")


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    fleet.declare(Vm("web", taps=("vm-web",)), Vm("db"))
    fleet.switch()
    fleet.settle()
    fleet.write_declaration(DECLARATION)
    return fleet


@pytest.fixture
def exporter(running: Fleet) -> Iterator[Exporter]:
    with Exporter(running.machine, f"--declaration.file={DECLARATION}") as exporter:
        yield exporter


def fetch(machine: Machine, port: int, path: str) -> bytes:
    """Request a page from a server in the machine."""
    host, outside = machine.forward(port, 0)
    with urllib.request.urlopen(f"http://{host}:{outside}{path}", timeout=10) as answer:
        body: bytes = answer.read()
    return body


def collectors(exporter: Exporter) -> dict[str, float]:
    return {labels["collector"]: value for labels, value in exporter.samples()[SUCCESS]}


def all_but(*failed: str) -> dict[str, float]:
    return {name: float(name not in failed) for name in COLLECTORS}


# ---------------------------------------------------------------------------------- isolation


def test_owners_that_the_kernel_does_not_tell_are_unknown(running: Fleet) -> None:
    cases.add_tap(running, "vm-leak")
    done = running.machine.run(
        *("systemd-run", "--wait", "--pipe", "--quiet", "--property=PrivateUsers=yes"),
        *("--property=User=microvm-exporter", COMMAND, "check", "--format=json"),
        check=False,
    )
    report = json.loads(done.stdout)
    assert (done.returncode, report["status"]) == (2, "unknown")
    assert "PrivateUsers" in report["collectors"]["links"]["error"]


# ------------------------------------------------------------------------------------ signals


@pytest.mark.parametrize("signal", [Signals.SIGTERM, Signals.SIGINT])
def test_stop_takes_less_than_a_second(running: Fleet, signal: Signals) -> None:
    exporter = Exporter(running.machine)
    exporter.wait_until_ready()
    begin = time.monotonic()
    exporter.process.send_signal(signal)
    _, log = exporter.process.communicate(timeout=10)
    assert time.monotonic() - begin < 1
    assert exporter.process.returncode == 0
    assert "msg=stopping" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("first", [Signals.SIGTERM, Signals.SIGINT])
def test_stop_when_signals_come_in_a_row(running: Fleet, first: Signals) -> None:
    for _ in range(5):
        exporter = Exporter(running.machine)
        exporter.wait_until_ready()
        pid = exporter.process.command_pid
        for signal in (first, Signals.SIGTERM, Signals.SIGINT, Signals.SIGTERM):
            with suppress(ProcessLookupError):
                os.kill(pid, signal)
        exporter.process.communicate(timeout=2)
        assert exporter.process.returncode == 0


def test_stop_when_nobody_reads_the_log(running: Fleet) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    process = running.machine.popen(COMMAND, user=USER, stderr=write)
    time.sleep(1)
    begin = time.monotonic()
    process.terminate()
    process.wait(5)
    assert time.monotonic() - begin < 1
    os.close(read)
    os.close(write)


def test_unit_of_type_notify_is_ready_with_the_first_snapshot(running: Fleet) -> None:
    machine = running.machine
    machine.run(
        "systemd-run",
        "--unit=exporter",
        "--property=Type=notify",
        "--property=WatchdogSec=1s",
        "--property=User=microvm-exporter",
        COMMAND,
        f"--declaration.file={DECLARATION}",
        "--collect.interval=10s",
    )
    try:
        ready = fetch(machine, PORT, "/-/ready")
        time.sleep(2.5)  # a watchdog that is not fed ends it after one
        shown = machine.show("exporter.service", "ActiveState", "StatusText", "NRestarts")
        told = machine.run("journalctl", "-u", "exporter", "-p", "info..info", "-o", "cat").stdout
    finally:
        machine.systemctl("stop", "exporter.service")
    result = machine.show("exporter.service", "Result")
    machine.systemctl("reset-failed", "exporter.service", check=False)
    assert ready == b"ready\n"
    assert shown == {
        "ActiveState": "active",
        "StatusText": "No drift: what is there is what is declared.",
        "NRestarts": "0",
    }
    assert result == {"Result": "success"}
    (line,) = (line for line in told.splitlines() if "msg=listening" in line)
    assert line.startswith("time="), "the priority is the journal's, not the line's"


def test_port_in_use_is_told(running: Fleet, exporter: Exporter) -> None:
    second = running.machine.run(COMMAND, check=False)
    assert second.returncode == 2
    assert f"127.0.0.1:{PORT}" in second.stderr
    assert "in use" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize(
    ("sink", "status", "told"),
    [("| head -c 1", 0, ""), (">/dev/full", 2, "standard output could not be written: [Errno 28]")],
)
def test_report_that_nobody_takes(running: Fleet, sink: str, status: int, told: str) -> None:
    command = f"{COMMAND} check --declaration.file={DECLARATION} {sink}"
    done = running.machine.run("bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}", check=False)
    assert done.returncode == status
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_check_says_that_it_waits_for_pending_jobs(running: Fleet) -> None:
    machine = running.machine
    cases.undeclare_stopped(running, "web")
    running.write_declaration(DECLARATION)
    drop_in = Path("/run/systemd/system/microvm@web.service.d/slow.conf")
    until = "until test -e /run/go-on; do sleep 0.1; done"
    machine.write(drop_in, f"[Service]\nExecStartPre=/bin/sh -c '{until}'\n")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "--no-block", "microvm@web.service")
    check = machine.popen(COMMAND, "check", f"--declaration.file={DECLARATION}", user=USER)
    assert check.stderr is not None
    told = check.stderr.readline()
    machine.write("/run/go-on", "")
    report, more = check.communicate(timeout=60)
    machine.remove(drop_in.parent)
    machine.remove("/run/go-on")
    assert 'msg="waiting for systemd\'s pending jobs" seconds=30.0' in told
    assert more == ""
    assert check.returncode == 1
    assert "undeclared_running: microvm@web.service is active" in report


def test_mistake_in_the_command_line_is_one_line(machine: Machine) -> None:
    done = machine.run(COMMAND, "--collect.interval=15", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("microvm-exporter: --collect.interval: expected a duration")
    assert done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------- the bus goes


def test_restart_of_the_bus_is_survived(running: Fleet, exporter: Exporter) -> None:
    machine = running.machine
    for _ in range(3):
        machine.systemctl("restart", "dbus.service")
        eventually("the bus", lambda: machine.path("/run/dbus/system_bus_socket").exists())
        exporter.refresh(2)
        assert collectors(exporter) == all_but()
    cases.stop_autostarted(running, "db")
    exporter.refresh(2)
    assert exporter.findings() == ["critical not_running db microvm@db.service"]


@pytest.mark.parametrize("fleet", [BEFORE_SET_BOOTED], indirect=True, ids=lambda era: era.name)
def test_reexec_of_the_manager_is_survived_and_failed_checks_are_still_heard(
    running: Fleet, exporter: Exporter
) -> None:
    running.machine.systemctl("daemon-reexec")
    exporter.refresh(2)
    assert collectors(exporter) == all_but()
    assert exporter.findings() == []
    cases.start_removed(running, "db")
    running.write_declaration(DECLARATION)
    exporter.refresh(2)
    assert exporter.findings() == ["critical condition_unmet db microvm@db.service"]


def test_bus_that_is_gone_is_unknown_until_it_is_back(running: Fleet, exporter: Exporter) -> None:
    machine = running.machine
    pid = int(machine.show("dbus.service", "MainPID")["MainPID"])
    machine.systemctl("stop", "dbus.socket", "dbus.service", check=False)
    exporter.refresh(2)
    assert collectors(exporter) == all_but("systemd")
    names = set(exporter.samples())
    assert "microvm_present_units" not in names
    assert "microvm_vm_running" not in names
    assert exporter.value("microvm_declared_vms") == 2
    assert exporter.value("microvm_drift_findings", kind="not_running") is None
    assert exporter.value("microvm_drift_findings", kind="outdated") == 0
    status, report = check_json(machine, f"--declaration.file={DECLARATION}")
    assert (status, report["status"]) == (2, "unknown")
    assert "no system bus" in report["collectors"]["systemd"]["error"]
    assert report["counts"]["present_units"] is None
    machine.systemctl("start", "dbus.socket", "dbus.service")
    assert int(machine.show("dbus.service", "MainPID")["MainPID"]) != pid
    exporter.refresh(2)
    assert collectors(exporter) == all_but()


# ----------------------------------------------------------------------------------- bad input


def test_declaration_that_breaks_is_unknown_and_told_once(
    running: Fleet, exporter: Exporter
) -> None:
    machine = running.machine
    exporter.refresh(1)
    machine.write(DECLARATION, '{"version": 1, "vms": {"web": {"origin": "declared"}}}')
    exporter.refresh(4)
    assert collectors(exporter) == all_but("declaration")
    assert exporter.findings() == []
    assert exporter.value("microvm_declared_vms") is None
    assert exporter.value("microvm_vm_running", vm="web") == 1
    running.write_declaration(DECLARATION)
    exporter.refresh(2)
    assert collectors(exporter) == all_but()
    log = exporter.stop()
    told = [line for line in log.splitlines() if "collector failed" in line]
    assert len(told) == 1
    assert str(DECLARATION) in told[0]
    assert '$.vms[\\"web\\"].origin' in told[0]
    assert 'msg="collector works again" collector=declaration' in log


@pytest.mark.parametrize(
    ("flags", "collector", "told"),
    [
        (("--declaration.file=/no/such.json",), "declaration", "/no/such.json"),
        (("--state-dir=/no/such",), "state", "/no/such"),
        (("--microvm.user=nobody-such",), "links", "nobody-such"),
        (("--dbus.address=unix:path=/no/such",), "systemd", "/no/such"),
    ],
)
def test_source_that_is_not_there_is_unknown(
    running: Fleet, flags: tuple[str, ...], collector: str, told: str
) -> None:
    status, report = check_json(running.machine, f"--declaration.file={DECLARATION}", *flags)
    assert (status, report["status"]) == (2, "unknown")
    failed = {name for name, fared in report["collectors"].items() if not fared["success"]}
    assert failed == {collector}
    assert told in report["collectors"][collector]["error"]
    status, out, err = run_check(running.machine, f"--declaration.file={DECLARATION}", *flags)
    assert status == 2
    assert f"could not read {collector}" in out
    assert "Traceback" not in out + err


def test_host_without_microvms_at_all(machine: Machine) -> None:
    """No module, no unit, no state directory: unknown where nothing could be looked at."""
    status, report = check_json(machine, "--state-dir=/var/empty-such")
    assert status == 2
    assert report["collectors"]["systemd"]["success"]
    assert report["counts"]["declared_vms"] == 0


def test_hostile_state_directory_fools_nobody(running: Fleet, exporter: Exporter) -> None:
    """What the user that owns it could plant there: 20,000 entries and every kind of trap."""
    state = running.machine.path(STATE)
    for number in range(10_000):
        (state / f"planted-{number:05}").mkdir()
        (state / f"file-{number:05}").touch()
    evil = state / "evil"
    evil.mkdir()
    (evil / "current").symlink_to("current")
    (evil / "booted").symlink_to("/proc/self/root")
    subprocess.run(["mkfifo", str(evil / "flake")], check=True)
    for name in (b'a"quote', b"new\nline", b"not-utf8-\xff", b"-rf", b"$(reboot)"):
        Path(str(state), name.decode(errors="surrogateescape")).mkdir()
    share = state / "planted-00000" / "share" / "microvm"
    share.mkdir(parents=True)
    (state / "planted-00000" / "current").symlink_to(".")
    subprocess.run(["mkfifo", str(share / "tap-interfaces")], check=True)
    (share / "hypervisor").write_bytes(b"x" * 1_000_000)
    share = state / "planted-00001" / "share" / "microvm"
    share.mkdir(parents=True)
    (state / "planted-00001" / "current").symlink_to(".")
    (share / "tap-interfaces").write_bytes(b'a"b\nvm-web\n\xff\xfe\n' + b"y" * 40_000)
    exporter.refresh(2, timeout=60)
    assert collectors(exporter) == all_but()
    samples = exporter.samples()
    left_out = {
        labels["reason"]: value
        for labels, value in samples["microvm_exporter_left_out_objects"]
        if labels["collector"] == "state"
    }
    # The cap is 5,000: the two that are declared are within it, whatever comes before by name.
    assert left_out["limit"] == 10_000 + 2 + 2 - 5_000
    assert left_out["name"] == 4
    assert exporter.value("microvm_vm_running", vm="web") == 1
    assert [line for line in exporter.findings() if " web " in line or " db " in line] == []
    report = run_check(running.machine, f"--declaration.file={DECLARATION}")[1]
    assert [c for c in report if not (c.isprintable() or c == "\n")] == []


# ---------------------------------------------------------------------------------- Prometheus


def test_promtool_accepts_the_metrics_without_a_remark(running: Fleet, exporter: Exporter) -> None:
    promtool = tool("promtool")
    cases.add_tap(running, 'vm"odd')
    running.machine.path(STATE / "leftover").mkdir()
    exporter.refresh(2)
    assert len(exporter.findings()) == 2
    check = [promtool, "check", "metrics"]
    lint = subprocess.run(check, input=exporter.get("/metrics"), capture_output=True, check=False)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, b"", b"")


def test_prometheus_scrapes_it(running: Fleet, exporter: Exporter) -> None:
    tool("prometheus")
    address = exporter.url.removeprefix("http://")
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "microvm", "static_configs": [{"targets": [address]}]}],
    }
    with Prometheus(json.dumps(config)) as prometheus:
        cases.add_tap(running, "vm-leak")
        stray = 'microvm_drift_finding{kind="stray_tap"}'
        eventually("the finding", lambda: prometheus.query(stray), 30)
        (up,) = prometheus.query("up")
        (declared,) = prometheus.query("microvm_declared_vms")
        (finding,) = prometheus.query(stray)
    assert up["value"][1] == "1"
    assert declared["value"][1] == "2"
    assert finding["metric"] == {
        "__name__": "microvm_drift_finding",
        "instance": address,
        "job": "microvm",
        "kind": "stray_tap",
        "object": "vm-leak",
        "severity": "warning",
    }, "a label without a value is one that is not there"


def test_formats_over_http(exporter: Exporter) -> None:
    text = exporter.get("/metrics")
    assert text.startswith(b"# HELP")
    wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
    assert exporter.get("/metrics", wanted).endswith(b"# EOF\n")
    zipped = exporter.get("/metrics", {"Accept-Encoding": "gzip"})
    assert gzip.decompress(zipped).startswith(b"# HELP")
    assert b"No drift" in exporter.get("/")
    assert exporter.get("/-/healthy") == b"healthy\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        exporter.get("/nothing")


def test_not_ready_before_the_first_snapshot(running: Fleet) -> None:
    """A bus that accepts and never answers holds the first look up until its deadline."""
    silent = (
        "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('/run/silent'); "
        "s.listen(9); time.sleep(60)"
    )
    bus = running.machine.popen(sys.executable, "-c", silent)
    eventually("the socket", lambda: running.machine.path("/run/silent").exists())
    running.machine.path("/run/silent").chmod(0o666)
    exporter = Exporter(running.machine, "--dbus.address=unix:path=/run/silent")
    try:
        eventually("it listens", lambda: _answers(exporter))
        assert exporter.get("/-/healthy") == b"healthy\n"
        with pytest.raises(urllib.error.HTTPError, match="503"):
            exporter.get("/-/ready")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            exporter.get("/metrics")
        exporter.wait_until_ready()
        assert exporter.value(SUCCESS, collector="systemd") == 0
        assert exporter.value(SUCCESS, collector="links") == 1
    finally:
        exporter.stop()
        bus.kill()
        bus.communicate()
        running.machine.remove("/run/silent")


def _answers(exporter: Exporter) -> bool:
    try:
        return exporter.get("/-/healthy") == b"healthy\n"
    except OSError:
        return False
