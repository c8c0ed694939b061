"""The systemd collector on a real systemd and real buses, also on those that let it down."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from host import Fleet, Machine, Origin, Vm
from host.layout import STATE, UNITS
from host.machine import eventually
from microvm_exporter.collectors import units
from microvm_exporter.collectors.bus import Bus
from microvm_exporter.collectors.bus_terms import Property, object_path, unit_name
from microvm_exporter.collectors.failed_checks import FailedChecks
from microvm_exporter.collectors.signals import Signals
from microvm_exporter.collectors.systemd import SystemdCollector
from microvm_exporter.collectors.window import Window
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Condition, FailedCheck, Template, Unit, UnitTable

SYSTEM_BUS = "/run/dbus/system_bus_socket"
GHOST = "microvm-pci-devices@ghost.service"
"""A unit that nothing refers to: systemd forgets it when its start is skipped."""

Open = Callable[..., SystemdCollector]


@pytest.fixture
def open_collector(capfd: pytest.CaptureFixture[str]) -> Iterator[Open]:
    """Makes collectors; in the end, none of them may have written anything."""
    collectors: list[SystemdCollector] = []

    def open_collector(address: str, **options: object) -> SystemdCollector:
        collectors.append(SystemdCollector(address=address, **options))  # type: ignore[arg-type]
        return collectors[-1]

    yield open_collector
    for collector in collectors:
        collector.close()
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def address(machine: Machine) -> str:
    return f"unix:path={machine.path(SYSTEM_BUS)}"


@pytest.fixture
def collector(fleet: Fleet, address: str, open_collector: Open) -> SystemdCollector:
    return open_collector(address)


# ---------------------------------------------------------------------------------------- a look


def test_look_shows_units_and_what_is_wanted(fleet: Fleet, collector: SystemdCollector) -> None:
    fleet.declare(Vm("web", taps=("vm-web",)), Vm("spare", autostart=False))
    fleet.declare(Vm("hand", Origin.IMPERATIVE))
    before = time.time()
    fleet.switch()

    table = collector.collect(Cause.RESYNC)

    assert table.autostarted == {"web", "hand"}
    assert table.declared == {"web", "spare"}
    assert str(UNITS) in table.unit_path
    assert {unit.vm for unit in table.units.values()} == {"web", "hand", "spare"}
    web = table.units["microvm@web.service"]
    assert (web.active_state, web.sub_state, web.job) == ("active", "running", False)
    assert (web.result, web.restarts, web.condition_result) == ("success", 0, True)
    assert before < web.active_enter_timestamp < time.time()
    tap = table.units["microvm-tap-interfaces@web.service"]
    assert (tap.template, tap.vm, tap.active_state) == (Template.TAP, "web", "active")
    assert table.failed_checks == {}


def test_failed_check_keeps_its_conditions_over_a_reload(
    fleet: Fleet, collector: SystemdCollector
) -> None:
    fleet.declare(Vm("web"))
    fleet.machine.remove(fleet.vms["web"].runner / "bin/microvm-run")
    before = time.time()
    fleet.switch()
    path = f"{STATE}/web/current/bin/microvm-run"

    first = collector.collect(Cause.RESYNC).units["microvm@web.service"]
    fleet.machine.systemctl("daemon-reload")
    second = collector.collect(Cause.RESYNC).units["microvm@web.service"]

    assert not first.condition_result
    assert before < first.condition_timestamp < time.time()
    assert first.conditions == (Condition("ConditionPathExists", path, state=-1),)
    assert second == first


def test_failed_unit_tells_how(fleet: Fleet, collector: SystemdCollector) -> None:
    fleet.machine.systemctl("start", "microvm-set-booted@gone.service", check=False)
    unit = collector.collect(Cause.RESYNC).units["microvm-set-booted@gone.service"]
    assert (unit.active_state, unit.result, unit.exec_main_status) == ("failed", "exit-code", 200)


def test_crash_loop_tells_restarts(fleet: Fleet, collector: SystemdCollector) -> None:
    fleet.declare(Vm("web", autostart=False))
    fleet.switch()
    fleet.machine.systemctl("start", "install-microvm-web.service")
    fleet.machine.write(fleet.vms["web"].runner / "bin/microvm-run", "#!/bin/sh\nexit 3\n", 0o755)
    fleet.machine.write(
        UNITS / "microvm@web.service.d/fast.conf",
        "[Service]\nRestartSec=50ms\n[Unit]\nStartLimitBurst=0\n",
    )
    fleet.machine.systemctl("daemon-reload")
    fleet.machine.systemctl("start", "microvm@web.service", check=False)

    def looks_twice() -> bool:
        unit = collector.collect(Cause.RESYNC).units["microvm@web.service"]
        return unit.restarts >= 2 and (unit.result, unit.exec_main_status) == ("exit-code", 3)

    eventually("two restarts are counted", looks_twice)


def test_changed_file_needs_reload_until_reloaded(
    fleet: Fleet, collector: SystemdCollector
) -> None:
    fleet.declare(Vm("web"))
    fleet.switch()
    assert not collector.collect(Cause.RESYNC).units["microvm@web.service"].need_daemon_reload
    fleet.machine.write(UNITS / "microvm@web.service.d/later.conf", "[Service]\n")
    assert collector.collect(Cause.RESYNC).units["microvm@web.service"].need_daemon_reload
    fleet.machine.systemctl("daemon-reload")
    assert not collector.collect(Cause.RESYNC).units["microvm@web.service"].need_daemon_reload


def test_unit_on_the_move_has_a_job(fleet: Fleet, collector: SystemdCollector) -> None:
    text = "[Service]\nType=oneshot\nExecStart=sleep infinity\n"
    fleet.machine.write(UNITS / "install-microvm-slow.service", text)
    fleet.machine.systemctl("daemon-reload")
    fleet.machine.systemctl("start", "--no-block", "install-microvm-slow.service")
    unit = collector.collect(Cause.RESYNC).units["install-microvm-slow.service"]
    assert (unit.active_state, unit.job) == ("activating", True)


def test_units_beyond_the_limit_are_counted(
    fleet: Fleet, address: str, open_collector: Open
) -> None:
    fleet.machine.systemctl(
        "start", *(f"microvm-set-booted@{vm}.service" for vm in "abc"), check=False
    )
    fleet.declare(Vm("z", light=True))
    fleet.switch()

    table = open_collector(address, limit=2).collect(Cause.RESYNC)

    assert {unit.vm for unit in table.units.values()} == {"a", "z"}
    assert table.autostarted == table.declared == {"z"}
    assert table.left_out.limit == 2


def test_name_of_no_vm_is_counted_and_a_mention_is_not(
    fleet: Fleet, collector: SystemdCollector
) -> None:
    text = "[Unit]\nWants=install-microvm-mentioned.service\n"
    fleet.machine.write(UNITS / "microvm@only.service.d/mention.conf", text)
    fleet.machine.systemctl("daemon-reload")
    names = ("microvm-set-booted@.hidden.service", "microvm-set-booted@only.service")
    fleet.machine.systemctl("start", *names, check=False)
    fleet.machine.systemctl("start", "microvm@only.service", check=False)

    table = collector.collect(Cause.RESYNC)

    assert "install-microvm-mentioned.service" not in table.units
    assert {unit.vm for unit in table.units.values()} == {"only"}
    assert table.left_out.name == 6  # with the others that it orders


def test_host_without_microvms_is_an_empty_table(
    machine: Machine, address: str, open_collector: Open
) -> None:
    table = open_collector(address).collect(Cause.RESYNC)
    assert table == UnitTable(unit_path=table.unit_path)
    assert table.unit_path


# -------------------------------------------------------------------------- forgotten by systemd


def test_failed_check_is_seen_though_the_unit_is_forgotten(
    fleet: Fleet, address: str, open_collector: Open
) -> None:
    shift = 0.0
    collector = open_collector(address, clock=lambda: time.time() + shift)
    collector.collect(Cause.RESYNC)
    before = time.time()
    fleet.machine.systemctl("start", GHOST)

    eventually("it is heard of", partial(remembers, collector, GHOST))
    table = collector.collect(Cause.RESYNC)
    assert GHOST not in table.units
    assert before < table.failed_checks[GHOST].at < time.time()

    shift = 3590
    assert GHOST in collector.collect(Cause.RESYNC).failed_checks
    shift = 3610
    assert collector.collect(Cause.RESYNC).failed_checks == {}


def test_failed_check_of_a_look_is_remembered(fleet: Fleet, collector: SystemdCollector) -> None:
    fleet.machine.systemctl("start", "microvm@ghost.service", check=False)  # set-booted fails
    collector.mind(frozenset({GHOST}))
    assert GHOST in collector.collect(Cause.RESYNC).units
    fleet.machine.systemctl("reset-failed", "microvm-set-booted@ghost.service")
    before = time.time() - 60
    assert before < collector.collect(Cause.RESYNC).failed_checks[GHOST].at < time.time()


def test_failed_check_is_over_once_one_held(fleet: Fleet, collector: SystemdCollector) -> None:
    collector.collect(Cause.RESYNC)
    fleet.machine.systemctl("start", GHOST)
    eventually("it is heard of", partial(remembers, collector, GHOST))
    script = STATE / "ghost/current/bin/pci-setup"
    fleet.machine.write(script, "#!/bin/sh\n", 0o755)
    fleet.machine.systemctl("restart", GHOST)
    fleet.machine.systemctl("stop", GHOST)
    eventually("it is over", lambda: not collector.collect(Cause.RESYNC).failed_checks)


def test_failed_checks_keep_the_last_of_each_unit() -> None:
    checks = FailedChecks(limit=10)
    why = (Condition("ConditionPathExists", "/there"),)
    checks.note(FailedCheck(GHOST, 150.0))
    checks.part(Unit(GHOST, Template.PCI, "ghost", condition_timestamp=100.0))
    assert checks.remembered((), now=200.0) == {GHOST: FailedCheck(GHOST, 150.0)}
    checks.part(Unit(GHOST, Template.PCI, "ghost", condition_timestamp=150.0, conditions=why))
    checks.note(FailedCheck(GHOST, 150.0))
    assert checks.remembered((), now=200.0) == {GHOST: FailedCheck(GHOST, 150.0, why)}
    assert checks.remembered({GHOST}, now=200.0) == {}
    checks.settle(GHOST)
    assert checks.remembered((), now=200.0) == {}


def test_failed_checks_are_bounded() -> None:
    checks = FailedChecks(limit=3)
    for number in range(1000):
        checks.note(FailedCheck(f"microvm@{number}.service", 100.0))
    left = checks.remembered((), now=200.0)
    assert list(left) == [f"microvm@{number}.service" for number in (997, 998, 999)]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ConditionResult": False},
        {"ConditionResult": False, "ConditionTimestamp": 0},
        {"ConditionResult": True, "ConditionTimestamp": 7_500_000},
    ],
)
def test_change_without_a_failed_check_says_nothing(values: dict[str, object]) -> None:
    assert units.read_check(GHOST, values) is None


def test_change_with_a_failed_check_says_so() -> None:
    values = {"ConditionResult": False, "ConditionTimestamp": 7_500_000}
    assert units.read_check(GHOST, values) == FailedCheck(GHOST, 7.5)


def test_object_path_leads_back_to_the_unit() -> None:
    unit = "microvm@web_1.lan:2.service"
    path = object_path(unit)
    assert path == "/org/freedesktop/systemd1/unit/microvm_40web_5f1_2elan_3a2_2eservice"
    assert unit_name(path) == unit


@pytest.mark.parametrize(
    "answers",
    [
        {"NeedDaemonReload": "yes"},
        {"ConditionTimestamp": "yesterday"},
        {"ConditionTimestamp": 1, "ConditionResult": False, "Conditions": [("ConditionHost",)]},
    ],
)
def test_answer_that_makes_no_sense_is_refused(answers: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        units.complete(Unit(GHOST, Template.PCI, "ghost"), None, answers)


def test_object_that_is_gone_is_skipped(machine: Machine, address: str) -> None:
    bus = Bus(address, Signals(), prefixes=(), names=(), patience=5)
    there, gone = object_path("basic.target"), "/org/freedesktop/systemd1/nothing"
    try:
        bus.open()
        assert bus.read([Property(path, units.UNIT, "Id") for path in (gone, there)]) == [
            None,
            "basic.target",
        ]
    finally:
        bus.close()


# -------------------------------------------------------------------------- buses that come and go


def restart_bus(machine: Machine) -> None:
    machine.systemctl("reset-failed", "dbus.service")  # it may be restarted only so often
    machine.systemctl("restart", "dbus.service")


def works(collector: SystemdCollector) -> bool:
    try:
        collector.collect(Cause.RESYNC)
    except CollectorError:
        return False
    return True


def remembers(collector: SystemdCollector, unit: str) -> bool:
    return unit in collector.collect(Cause.RESYNC).failed_checks


def open_things() -> list[int]:
    """How many descriptors and threads this process has."""
    folders = Path("/proc/self/fd"), Path("/proc/self/task")
    return [len(list(folder.iterdir())) for folder in folders]


def test_collector_survives_restarts_of_the_bus(
    fleet: Fleet, collector: SystemdCollector, request: pytest.FixtureRequest
) -> None:
    collector.collect(Cause.RESYNC)
    fleet.machine.systemctl("start", GHOST)
    eventually("it is heard of", partial(remembers, collector, GHOST))
    gc.collect()  # what earlier tests left
    gc.disable()  # a connection must not need it to be gone
    request.addfinalizer(gc.enable)
    descriptors, threads = open_things()
    for number in range(10):
        restart_bus(fleet.machine)
        # At once, or when systemd is back on the bus.
        eventually("it is back", lambda: works(collector), timeout=5)
        unit = f"microvm-pci-devices@after{number}.service"
        fleet.machine.systemctl("start", unit)
        eventually("it hears", partial(remembers, collector, unit))
    assert len(collector.collect(Cause.RESYNC).failed_checks) == 11
    now_descriptors, now_threads = open_things()
    assert now_descriptors <= descriptors
    assert now_threads <= threads


def test_collector_survives_a_reexec_of_systemd(fleet: Fleet, collector: SystemdCollector) -> None:
    fleet.declare(Vm("web", light=True))
    fleet.switch()
    collector.collect(Cause.RESYNC)
    fleet.machine.systemctl("daemon-reexec")
    assert "microvm@web.service" in collector.collect(Cause.RESYNC).units
    fleet.machine.systemctl("start", GHOST)
    eventually("it hears", partial(remembers, collector, GHOST))


def test_collector_slows_down_when_the_bus_limits_it(
    fleet: Fleet, collector: SystemdCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []
    refuse = Window.refuse

    def note(self: Window, number: int) -> bool:
        refused.append(number)
        return refuse(self, number)

    monkeypatch.setattr(Window, "refuse", note)
    fleet.declare(*(Vm(f"vm{number}", autostart=False) for number in range(20)))
    fleet.switch()
    machine = fleet.machine
    config = "/etc/dbus-1/system-local.conf"
    limit = '<busconfig><limit name="max_replies_per_connection">3</limit></busconfig>'
    machine.write(config, limit)
    try:
        restart_bus(machine)
        eventually("it is back", lambda: works(collector), timeout=5)
        assert refused
        units = collector.collect(Cause.RESYNC).units.values()
        assert {unit.vm for unit in units} == fleet.vms.keys()
    finally:
        machine.remove(config)
        restart_bus(machine)


def test_window_narrows_to_what_is_borne_and_does_everything() -> None:
    under_way: list[int] = []
    done: set[int] = set()
    most = 0
    window = Window(100)
    while not window.is_done:
        window.fill(under_way.append)
        while len(under_way) > 3:
            assert window.refuse(under_way.pop())
        done.add(under_way.pop(0))
        window.finish()
        window.fill(under_way.append)
        most = max(most, len(under_way))
    assert (done, most) == (set(range(100)), 3)


def test_window_needs_a_pause_when_nothing_is_borne() -> None:
    started: list[int] = []
    window = Window(1)
    window.fill(started.append)
    assert not window.refuse(0)
    window.fill(started.append)
    assert started == [0, 0]


# --------------------------------------------------------------------------- buses that are no good


def complaint(collector: SystemdCollector) -> str:
    with pytest.raises(CollectorError) as raised:
        collector.collect(Cause.RESYNC)
    return str(raised.value)


@pytest.fixture
def silent_bus(tmp_path: Path) -> Iterator[Path]:
    """A bus that takes connections and never says a word."""
    path = tmp_path / "bus"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield path


def test_no_bus_is_said_so(open_collector: Open, tmp_path: Path) -> None:
    address = f"unix:path={tmp_path}/bus"
    collector = open_collector(address)
    text = complaint(collector)
    assert text.startswith(f"no system bus at {address}: is dbus running? (")
    assert "No such file or directory" in text
    assert complaint(collector) == text


@pytest.mark.parametrize("address", ["nonsense", "teapot:x=y", "unix:path=\udcff"])
def test_address_that_makes_no_sense_is_said_so(open_collector: Open, address: str) -> None:
    text = complaint(open_collector(address))
    assert text.startswith(f"--dbus.address: {address!r} is not the address of a bus")


def test_silent_bus_ends_by_the_deadline(open_collector: Open, silent_bus: Path) -> None:
    collector = open_collector(f"unix:path={silent_bus}", patience=0.2)
    before = open_things()
    start = time.monotonic()
    for _ in range(3):
        assert "did not answer within 0.2 s" in complaint(collector)
    assert time.monotonic() - start < 2
    assert open_things()[1] <= before[1] + 2  # GLib's own


def test_silent_bus_that_goes_is_no_bus(open_collector: Open, tmp_path: Path) -> None:
    collector = open_collector(f"unix:path={tmp_path}/bus", patience=0.2)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "bus"))
        server.listen()
        assert "did not answer" in complaint(collector)
    eventually("it is tried anew", lambda: "is dbus running?" in complaint(collector))


def test_bus_without_systemd_is_said_so(open_collector: Open, tmp_path: Path) -> None:
    address = f"unix:path={tmp_path}/bus"
    command = ["dbus-daemon", "--session", "--nofork", f"--address={address}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
        try:
            eventually("there is a bus", (tmp_path / "bus").exists)
            text = complaint(open_collector(address))
        finally:
            daemon.terminate()
    assert text.startswith(f"the bus at {address} works but org.freedesktop.systemd1 is not on it")


def test_systemd_that_hangs_ends_by_the_deadline(
    machine: Machine, address: str, open_collector: Open
) -> None:
    collector = open_collector(address, patience=0.3)
    collector.collect(Cause.RESYNC)
    bus = int(machine.show("dbus.service", "MainPID")["MainPID"])
    machine.run("sh", "-c", f"kill -STOP {bus}")
    try:
        assert "systemd did not answer within 0.3 s" in complaint(collector)
    finally:
        machine.run("sh", "-c", f"kill -CONT {bus}")
    eventually("it is back", lambda: works(collector), timeout=5)


def test_close_does_not_wait_for_a_silent_bus(silent_bus: Path) -> None:
    collector = SystemdCollector(address=f"unix:path={silent_bus}", patience=0.1)
    complaint(collector)
    start = time.monotonic()
    collector.close()
    assert time.monotonic() - start < 1
    assert "the exporter ends" in complaint(collector)


def test_patience_is_for_silence_and_not_for_much_work(machine: Machine) -> None:
    """PID 1 that starts hundreds of VMs answers, but slowly."""
    address = f"unix:path={machine.path('/run/dbus/system_bus_socket')}"
    bus = Bus(address, Signals(), prefixes=(), names=(), patience=0.5)
    wanted = [Property("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "Version")]
    done = threading.Event()

    def slow_down() -> None:
        while not done.wait(0.01):
            os.kill(machine.leader, signal.SIGSTOP)
            time.sleep(0.15)
            os.kill(machine.leader, signal.SIGCONT)

    bus.open()
    slow = threading.Thread(target=slow_down)
    slow.start()
    try:
        began = time.monotonic()
        versions = bus.read(wanted * 1000)
        took = time.monotonic() - began
    finally:
        done.set()
        slow.join()
        bus.close()
    assert (len(versions), len(set(versions))) == (1000, 1)
    assert took > 0.6
