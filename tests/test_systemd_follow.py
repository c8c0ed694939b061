"""What the systemd collector makes of signals, beside what a look at everything shows."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from host import Fleet, Machine, Vm
from host.layout import STATE, UNITS
from host.machine import eventually
from microvm_exporter.collectors import missed, unit_list, units
from microvm_exporter.collectors.bus import Bus
from microvm_exporter.collectors.bus_terms import Listed
from microvm_exporter.collectors.file_turns import FileTurns
from microvm_exporter.collectors.signals import Signals
from microvm_exporter.collectors.systemd import SystemdCollector
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Unit, UnitTable

Act = Callable[[Fleet], object]

MINDED = frozenset({"microvm-tap-interfaces@web.service", "microvm-virtiofsd@spare.service"})
"""The helpers whose checks are asked of."""


GRACE = 0.4
"""Seconds in which a change that was seen is told of on a host that does nothing else."""


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "_GRACE", GRACE)


@pytest.fixture
def address(machine: Machine) -> str:
    return f"unix:path={machine.path('/run/dbus/system_bus_socket')}"


@pytest.fixture
def collector(fleet: Fleet, address: str) -> Iterator[SystemdCollector]:
    """One that has looked at a host with two VMs, one of them running."""
    fleet.declare(Vm("web", taps=("vm-web",)), Vm("spare", autostart=False))
    fleet.switch()
    fleet.settle()
    collector = SystemdCollector(address=address)
    collector.collect(Cause.RESYNC)
    collector.mind(MINDED)
    yield collector
    collector.close()


def fresh(address: str) -> UnitTable:
    collector = SystemdCollector(address=address)
    try:
        collector.collect(Cause.RESYNC)
        return collector.mind(MINDED)
    finally:
        collector.close()


def told(table: UnitTable) -> UnitTable:
    """Without the checks that systemd has forgotten, and without what no signal tells."""
    units = {n: replace(unit, need_daemon_reload=False) for n, unit in table.units.items()}
    return replace(table, units=units, failed_checks={})


def assert_follows(collector: SystemdCollector, address: str) -> None:
    """By events alone it comes to what a look at everything shows."""

    def agrees() -> bool:
        return told(collector.collect(Cause.EVENT)) == told(fresh(address))

    eventually("what was followed is what is there", agrees, timeout=5)


def assert_nothing_missed(collector: SystemdCollector) -> None:
    """A look at everything finds nothing that nobody had told of."""
    collector.collect(Cause.RESYNC)
    time.sleep(GRACE)  # what it found changed has that long to be told
    collector.collect(Cause.EVENT)
    assert collector.following.missed == 0


def is_readable(collector: SystemdCollector, seconds: float = 0.0) -> bool:
    return bool(select.select([collector.fileno()], [], [], seconds)[0])


def crash(fleet: Fleet) -> None:
    fleet.machine.write(fleet.vms["web"].runner / "bin/microvm-run", "#!/bin/sh\nexit 3\n", 0o755)
    fleet.machine.systemctl("kill", "-s", "KILL", "microvm@web.service")
    time.sleep(0.5)


def spoil(fleet: Fleet) -> None:
    fleet.machine.remove(fleet.vms["web"].runner / "bin/microvm-run")
    fleet.machine.systemctl("restart", "microvm@web.service", check=False)


def load(fleet: Fleet) -> None:
    fleet.machine.systemctl("start", "microvm@ghost.service", check=False)


def load_escaped(fleet: Fleet) -> None:
    """As whoever escapes the name of a VM with systemd-escape does."""
    fleet.machine.systemctl("start", "microvm-set-booted@a\\x2db.service", check=False)


def load_and_forget(fleet: Fleet) -> None:
    load(fleet)
    fleet.machine.systemctl("reset-failed")


def mask(fleet: Fleet) -> None:
    fleet.machine.systemctl("mask", "--runtime", "microvm@spare.service")
    fleet.machine.systemctl("daemon-reload")


def declare(fleet: Fleet) -> None:
    fleet.declare(Vm("new"))
    fleet.switch()


CHANGES: dict[str, Act] = {
    "stop": lambda fleet: fleet.machine.systemctl("stop", "microvm@web.service"),
    "restart": lambda fleet: fleet.machine.systemctl("restart", "microvm@web.service"),
    "first start": lambda fleet: fleet.machine.systemctl("start", "microvm@spare.service"),
    "crash loop": crash,
    "unmet condition": spoil,
    "unit loaded": load,
    "unit with a backslash loaded": load_escaped,
    "unit forgotten": load_and_forget,
    "undeclared": lambda fleet: fleet.undeclare("web"),
    "declared": declare,
    "masked": mask,
    "reexec": lambda fleet: fleet.machine.systemctl("daemon-reexec"),
}


@pytest.mark.parametrize("act", CHANGES.values(), ids=CHANGES)
def test_change_is_followed(
    act: Act, fleet: Fleet, collector: SystemdCollector, address: str
) -> None:
    act(fleet)
    assert_follows(collector, address)
    assert_nothing_missed(collector)
    assert collector.following.active
    assert collector.following.events > 0


@pytest.mark.parametrize("name", ["masked", "undeclared"])
def test_what_a_reload_changes_just_before_a_resync_is_not_missed(
    name: str, fleet: Fleet, collector: SystemdCollector
) -> None:
    """No signal tells of it but that of the reload."""
    before = collector.collect(Cause.EVENT)
    CHANGES[name](fleet)
    time.sleep(0.2)  # all signals are there
    assert_nothing_missed(collector)
    assert collector.collect(Cause.EVENT) != before


@pytest.mark.parametrize("name", ["stop", "first start", "unit forgotten", "undeclared", "reexec"])
def test_change_between_two_lists_of_a_look_is_followed(
    name: str,
    fleet: Fleet,
    collector: SystemdCollector,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The units are listed a template at a time."""
    list_units, acts = Bus.list_units, [CHANGES[name]]

    def change_after_the_first(bus: Bus, patterns: Sequence[str]) -> list[Listed]:
        rows = list_units(bus, patterns)
        while acts:
            acts.pop()(fleet)
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(Bus, "list_units", change_after_the_first)
        collector.collect(Cause.RESYNC)
    assert not acts
    assert_follows(collector, address)
    assert_nothing_missed(collector)


def test_nothing_new_is_the_same_table(collector: SystemdCollector) -> None:
    collector.collect(Cause.EVENT)
    first = collector.collect(Cause.EVENT)
    assert collector.collect(Cause.EVENT) is first
    assert collector.collect(Cause.INTERVAL) is first
    assert collector.collect(Cause.RESYNC) is first


def test_name_of_no_vm_counts_as_long_as_it_is_loaded(
    fleet: Fleet, collector: SystemdCollector, address: str
) -> None:
    fleet.machine.systemctl("start", "microvm-set-booted@.hidden.service", check=False)
    assert_follows(collector, address)
    assert collector.collect(Cause.EVENT).left_out.name > 0
    fleet.machine.systemctl("reset-failed")
    assert_follows(collector, address)
    assert collector.collect(Cause.EVENT).left_out.name == 0


def test_only_what_changed_is_another_record(fleet: Fleet, collector: SystemdCollector) -> None:
    before = collector.collect(Cause.EVENT).units
    fleet.machine.systemctl("stop", "microvm@web.service")
    eventually(
        "it is seen to stop",
        lambda: (
            collector.collect(Cause.EVENT).units["microvm@web.service"].active_state == "inactive"
        ),
    )
    after = collector.collect(Cause.EVENT).units
    same = {name for name in before if before[name] is after[name]}
    assert {name for name in before if "spare" in name} <= same
    assert "microvm@web.service" not in same


def test_descriptor_is_readable_once_something_was_told(
    fleet: Fleet, collector: SystemdCollector
) -> None:
    collector.collect(Cause.EVENT)
    assert select.select([collector.fileno()], [], [], 0)[0] == []
    fleet.machine.systemctl("stop", "microvm@web.service")
    assert select.select([collector.fileno()], [], [], 5)[0]
    eventually("all is told", lambda: not _told_more(collector))


def _told_more(collector: SystemdCollector) -> bool:
    collector.collect(Cause.EVENT)
    return bool(select.select([collector.fileno()], [], [], 0.1)[0])


def test_forgotten_check_is_known_with_its_time(fleet: Fleet, collector: SystemdCollector) -> None:
    before = time.time()
    fleet.machine.systemctl("start", "microvm-pci-devices@ghost.service")
    unit = "microvm-pci-devices@ghost.service"
    eventually("it is told", lambda: unit in collector.collect(Cause.EVENT).failed_checks)
    assert before < collector.collect(Cause.EVENT).failed_checks[unit].at < time.time()


def test_check_of_a_known_unit_is_kept_when_it_goes(
    fleet: Fleet, collector: SystemdCollector
) -> None:
    unit = "microvm@spare.service"
    fleet.machine.remove(fleet.vms["spare"].runner / "bin/microvm-run")
    fleet.machine.systemctl("start", unit, check=False)
    eventually(
        "it is told", lambda: collector.collect(Cause.EVENT).units[unit].condition_timestamp > 0
    )
    known = collector.collect(Cause.EVENT).units[unit]
    assert [c.parameter for c in known.conditions] == [f"{STATE}/spare/current/bin/microvm-run"]
    fleet.undeclare("spare")
    fleet.machine.systemctl("stop", "microvm-set-booted@spare.service")
    eventually("it is gone", lambda: unit not in collector.collect(Cause.EVENT).units)
    check = collector.collect(Cause.EVENT).failed_checks[unit]
    assert (check.at, check.conditions) == (known.condition_timestamp, known.conditions)


def test_checks_of_helpers_are_asked_of_those_that_matter(
    collector: SystemdCollector, address: str
) -> None:
    collector.mind(frozenset())
    pci, virtiofs = "microvm-pci-devices@web.service", "microvm-virtiofsd@web.service"
    assert collector.collect(Cause.EVENT).units[pci].condition_timestamp == 0

    units = collector.mind(frozenset({pci})).units

    assert units[pci].condition_timestamp > 0
    assert not units[pci].condition_result
    assert units[virtiofs].condition_timestamp == 0
    again = collector.collect(Cause.RESYNC).units
    assert again[pci] is units[pci]
    assert collector.mind(frozenset()).units[pci].condition_timestamp == 0


def test_check_that_held_is_forgotten_with_what_makes_it_matter(
    fleet: Fleet, collector: SystemdCollector, address: str
) -> None:
    tap = "microvm-tap-interfaces@web.service"
    fleet.machine.systemctl("stop", "microvm@web.service", tap)
    eventually(
        "it is seen to stop",
        lambda: collector.collect(Cause.EVENT).units[tap].active_state == "inactive",
    )
    assert collector.mind(frozenset({tap})).units[tap].condition_result
    assert not collector.mind(frozenset()).units[tap].condition_result


def test_files_are_asked_after_they_changed(fleet: Fleet, collector: SystemdCollector) -> None:
    unit = "microvm@web.service"
    fleet.machine.write(UNITS / f"{unit}.d/later.conf", "[Service]\n")
    assert not collector.collect(Cause.INTERVAL).units[unit].need_daemon_reload
    assert collector.collect(Cause.INTERVAL, files_changed=True).units[unit].need_daemon_reload
    fleet.machine.systemctl("daemon-reload")
    eventually(
        "it is read", lambda: not collector.collect(Cause.EVENT).units[unit].need_daemon_reload
    )


def test_files_are_asked_in_turns() -> None:
    turns = FileTurns(most=2)
    names = ["a", "b", "c"]
    turns.add_share(names)
    assert turns.take() == {"a", "b"}
    turns.add_share(names)
    assert turns.take() == {"c", "a"}
    turns.add_all(names)
    assert turns.take() == {"a", "b"}
    assert turns.take() == {"c"}
    assert turns.take() == frozenset()


def test_units_that_seem_to_go_in_a_reload_stay() -> None:
    signals = Signals()
    signals.reload(begins=True)
    signals.go("microvm@web.service", "/path")
    assert signals.is_reloading
    assert select.select([signals.fileno()], [], [], 0)[0] == []
    assert signals.take() is None
    signals.reload(begins=False)
    assert select.select([signals.fileno()], [], [], 0)[0]
    heard = signals.take()
    assert heard is not None
    assert (heard.reloaded, heard.gone) == (True, set())
    signals.close()


def test_last_words_of_a_unit_are_kept() -> None:
    signals = Signals()
    signals.change("/path", lambda: {"ConditionResult": False})
    signals.go("microvm@web.service", "/path")
    signals.come("microvm@web.service")
    signals.change("/path", lambda: {"ConditionResult": True})
    heard = signals.take()
    assert heard is not None
    assert heard.parting["/path"]() == {"ConditionResult": False}
    assert heard.changes["/path"]() == {"ConditionResult": True}
    assert (heard.new, heard.gone) == ({"microvm@web.service"}, {"microvm@web.service"})
    assert heard.count == 4
    signals.close()


def test_nothing_is_to_be_taken_in_a_reload() -> None:
    signals = Signals()
    signals.come("microvm@web.service")
    signals.reload(begins=True)
    assert signals.take() is None
    assert select.select([signals.fileno()], [], [], 0)[0] == []
    heard = signals.take(at_once=True)
    assert heard is not None
    assert heard.new == {"microvm@web.service"}
    signals.close()


def test_reload_is_over_when_systemd_answers() -> None:
    signals = Signals()
    before = time.monotonic()
    signals.reload(begins=True)
    signals.answer(before)  # to a question that came before it
    assert signals.take() is None
    signals.answer(time.monotonic())
    assert select.select([signals.fileno()], [], [], 0)[0]
    signals.close()


@contextmanager
def slow_reloads(machine: Machine) -> Iterator[None]:
    """Have systemd take three seconds to read its units."""
    generator = "/etc/systemd/system-generators/slow"
    machine.write(generator, "#!/bin/sh\nsleep 3\n", 0o755)
    try:
        yield
    finally:
        machine.remove(generator)


def test_look_is_not_put_off_twice_by_a_reload(fleet: Fleet, collector: SystemdCollector) -> None:
    """A reload whose end nobody told, or one after the other, would hide what happens."""
    with slow_reloads(fleet.machine):
        began = time.monotonic()
        reload = fleet.machine.popen("systemctl", "daemon-reload")
        time.sleep(1)
        before = collector.collect(Cause.INTERVAL)
        assert collector.collect(Cause.EVENT) is before
        assert reload.poll() is None
        collector.collect(Cause.INTERVAL)  # has an answer, which systemd only gives afterwards
        assert time.monotonic() - began > 3
        assert reload.wait(5) == 0


def test_checks_that_matter_during_a_reload_are_asked_for_after_it(
    fleet: Fleet, collector: SystemdCollector
) -> None:
    pci = "microvm-pci-devices@web.service"
    collector.mind(frozenset())
    with slow_reloads(fleet.machine):
        reload = fleet.machine.popen("systemctl", "daemon-reload")
        time.sleep(1)
        before = collector.collect(Cause.EVENT)
        assert collector.mind(frozenset({pci})) is before
        assert reload.poll() is None
        assert reload.wait(10) == 0
        eventually("it is asked", lambda: collector.collect(Cause.EVENT) is not before)
        assert collector.collect(Cause.EVENT).units[pci].condition_timestamp > 0


def test_each_restart_of_a_loop_is_counted(fleet: Fleet, collector: SystemdCollector) -> None:
    fast = "[Service]\nRestartSec=1\n[Unit]\nStartLimitBurst=0\n"
    fleet.machine.write(UNITS / "microvm@web.service.d/fast.conf", fast)
    fleet.machine.write(fleet.vms["web"].runner / "bin/microvm-run", "#!/bin/sh\nexit 3\n", 0o755)
    fleet.machine.systemctl("daemon-reload")
    fleet.machine.systemctl("kill", "--signal=KILL", "microvm@web.service")
    seen = []

    def counts_to_four() -> bool:
        seen.append(collector.collect(Cause.EVENT).units["microvm@web.service"].restarts)
        return seen[-1] >= 4

    eventually("four restarts are counted", counts_to_four, 15)
    assert seen == sorted(seen)


def test_forgotten_restarts_are_found_and_not_missed(
    fleet: Fleet, collector: SystemdCollector
) -> None:
    """No signal tells of `systemctl reset-failed` while a unit is not failed."""
    if units.forgets_restarts(fleet.machine.systemctl("show", "--property=Version", "--value")):
        pytest.skip("this systemd forgets restarts by itself, and they are counted on")

    def now() -> Unit:
        return collector.collect(Cause.EVENT).units["microvm@web.service"]

    def kill() -> None:
        fleet.machine.systemctl("kill", "--signal=KILL", "microvm@web.service")

    fleet.machine.write(UNITS / "microvm@web.service.d/soon.conf", "[Service]\nRestartSec=1\n")
    fleet.machine.systemctl("daemon-reload")
    kill()
    eventually("it failed", lambda: (now().sub_state, now().result) == ("auto-restart", "signal"))
    fleet.machine.systemctl("reset-failed")
    collector.collect(Cause.RESYNC)
    assert now().result == "success"
    eventually("it is up again", lambda: (now().active_state, now().restarts) == ("active", 1))

    fleet.machine.systemctl("reset-failed")
    assert_nothing_missed(collector)
    assert now().restarts == 0

    kill()
    eventually("it is up again", lambda: (now().active_state, now().restarts) == ("active", 1))
    fleet.machine.systemctl("reset-failed")
    assert collector.collect(Cause.INTERVAL).units["microvm@web.service"].restarts == 0


def test_vm_beyond_the_limit_comes_whole_and_is_not_missed(
    fleet: Fleet, collector: SystemdCollector, address: str
) -> None:
    load(fleet)
    fleet.machine.systemctl("start", "microvm@later.service", check=False)
    limited = SystemdCollector(address=address, limit=3)
    try:
        first = limited.collect(Cause.RESYNC)
        assert {unit.vm for unit in first.units.values()} == {"web", "spare", "ghost"}
        fleet.machine.systemctl("reset-failed", "microvm*@ghost.service")
        fleet.machine.systemctl("start", "microvm-pci-devices@later.service", check=False)
        eventually(
            "one is gone",
            lambda: (
                {unit.vm for unit in limited.collect(Cause.EVENT).units.values()}
                == {"web", "spare"}
            ),
        )
        assert limited.collect(Cause.EVENT).left_out.limit == 1
        assert_nothing_missed(limited)
        now = limited.collect(Cause.EVENT)
        assert {unit.vm for unit in now.units.values()} == {"web", "spare", "later"}
        assert now.left_out.limit == 0
        assert_follows_all_but_checks(limited, address)
    finally:
        limited.close()


def assert_follows_all_but_checks(collector: SystemdCollector, address: str) -> None:
    ours, fresh_one = collector.collect(Cause.EVENT), SystemdCollector(address=address)
    try:
        assert told(ours) == told(fresh_one.collect(Cause.RESYNC))
    finally:
        fresh_one.close()


def test_what_is_lost_is_made_up_for_at_once_and_then_when_it_is_time(
    fleet: Fleet, collector: SystemdCollector
) -> None:
    def restart_the_bus() -> None:
        fleet.machine.systemctl("reset-failed", "dbus.service")
        fleet.machine.systemctl("restart", "dbus.service")
        assert is_readable(collector, 5)

    def is_active() -> bool:
        with suppress(CollectorError):
            collector.collect(Cause.EVENT)
        return collector.following.active

    restart_the_bus()
    eventually("it is followed again", is_active)
    eventually("all is told", lambda: not _told_more(collector))
    restart_the_bus()
    before = collector.collect(Cause.EVENT)
    fleet.machine.systemctl("stop", "microvm@web.service")
    assert collector.collect(Cause.EVENT) is before
    following = collector.following
    assert not following.active
    eventually("it is time", lambda: _looked(collector))
    assert collector.following.active
    assert collector.collect(Cause.EVENT).units["microvm@web.service"].active_state == "inactive"


def _looked(collector: SystemdCollector) -> bool:
    with suppress(CollectorError):
        collector.collect(Cause.INTERVAL)
        return True
    return False


def test_systemd_that_hangs_is_asked_again_when_it_is_time(
    fleet: Fleet, collector: SystemdCollector, address: str
) -> None:
    impatient = SystemdCollector(address=address, patience=0.5)
    impatient.collect(Cause.RESYNC)
    eventually("all is told", lambda: not _told_more(impatient))
    os.kill(fleet.machine.leader, signal.SIGSTOP)
    try:
        with pytest.raises(CollectorError, match="systemd did not answer within"):
            impatient.collect(Cause.INTERVAL)
        assert not is_readable(impatient, 1)
    finally:
        os.kill(fleet.machine.leader, signal.SIGCONT)
    eventually("it is followed again", lambda: _looked(impatient))
    assert impatient.following.active
    impatient.close()


def test_defect_in_a_look_does_not_pass_for_a_host_without_units(
    collector: SystemdCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_rows: object) -> object:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(unit_list, "parse_rows", fail)
        with pytest.raises(ZeroDivisionError):
            collector.collect(Cause.RESYNC)
    assert not collector.following.active
    with pytest.raises(CollectorError, match="unexpected ZeroDivisionError"):
        collector.collect(Cause.EVENT)
    assert collector.collect(Cause.INTERVAL).units
    assert collector.following.active
