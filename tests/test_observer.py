"""What a look at a real host puts together of the collectors."""

from __future__ import annotations

import time

import pytest

from host import SHARE_CONDITIONS, Fleet, Vm
from host.exporter import DECLARATION
from host.layout import GCROOTS, STATE
from microvm_exporter.collectors.systemd import SystemdCollector
from microvm_exporter.config import Sources
from microvm_exporter.drift import Kind
from microvm_exporter.model import Cause, UnitTable
from microvm_exporter.observer import Observer

SLOWLY = 0.3
"""Seconds that a look at the units takes longer."""


def test_duration_is_that_of_all_that_was_asked(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks of helpers are asked in a second step, when it is known which matter."""
    fleet.declare(Vm("web", taps=("vm-web",), runner_era=SHARE_CONDITIONS))
    fleet.switch()
    fleet.settle()
    fleet.write_declaration(DECLARATION)
    path = fleet.machine.path
    sources = Sources(
        declaration_file=str(path(DECLARATION)),
        state_dir=str(path(STATE)),
        gcroots_dir=str(path(GCROOTS)),
        unit_dirs=(),
        microvm_user="root",
        dbus_address=f"unix:path={path('/run/dbus/system_bus_socket')}",
        max_vms=10,
    )
    collect = SystemdCollector.collect

    def collect_slowly(
        self: SystemdCollector, cause: Cause, *, files_changed: bool = False
    ) -> UnitTable:
        time.sleep(SLOWLY)
        return collect(self, cause, files_changed=files_changed)

    monkeypatch.setattr(SystemdCollector, "collect", collect_slowly)
    observer = Observer(sources, follow=False)
    try:
        judgement = observer.look(Cause.RESYNC)
    finally:
        observer.close()
    unmet = [f.object for f in judgement.findings if f.kind is Kind.CONDITION_UNMET]
    assert unmet == ["microvm-tap-interfaces@web.service"]
    assert judgement.snapshot.systemd.duration > SLOWLY
