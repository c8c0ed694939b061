"""One look at the host: the four collectors, put together into a snapshot and judged."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from microvm_exporter.collectors.declaration import DeclarationFile, declare_from_host
from microvm_exporter.collectors.links import LinkCollector
from microvm_exporter.collectors.state import collect_state
from microvm_exporter.collectors.systemd import FILES_ASKED, SystemdCollector
from microvm_exporter.config import Sources
from microvm_exporter.drift import Judgement, judge
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import (
    Cause,
    Collector,
    Declaration,
    LinkTable,
    Reading,
    Snapshot,
    StateTree,
    UnitTable,
)
from microvm_exporter.worker import Worker

__all__ = ["Observer"]

DEFAULT_STATE_DIR: Final = "/var/lib/microvms"
"""``microvm.stateDir``'s default."""

DEFAULT_UNIT_PATH: Final = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
"""Stands in for the manager's UnitPath until systemd has told it (systemd.unit(5))."""

_DEADLINE: Final = 10.0
"""Seconds that a phase of a look may take; a full look at 1,000 VMs takes under 3."""


class Observer:
    """Looks at the host again and again, and remembers what a later look needs.

    `look` is for one thread at a time; it never raises for what a source does. ``thorough`` asks in
    each look what on a big host would else be asked in turns.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        thorough: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sources = sources
        self._clock = clock
        limit = sources.max_vms
        self._file = (
            DeclarationFile(sources.declaration_file, limit=limit)
            if sources.declaration_file
            else None
        )
        self._systemd = SystemdCollector(
            address=sources.dbus_address,
            limit=limit,
            clock=clock,
            files_asked=sys.maxsize if thorough else FILES_ASKED,
        )
        self._declaration_worker: Worker[Declaration] = Worker(Collector.DECLARATION, clock=clock)
        self._systemd_worker: Worker[UnitTable] = Worker(Collector.SYSTEMD, clock=clock)
        self._links_worker: Worker[LinkTable] = Worker(Collector.LINKS, clock=clock)
        self._state_worker: Worker[StateTree] = Worker(Collector.STATE, clock=clock)
        self._unit_path: Sequence[str] = DEFAULT_UNIT_PATH
        self._state_dir = DEFAULT_STATE_DIR
        self._judgement: Judgement | None = None

    def look(self) -> Judgement:
        """Take a snapshot and judge it."""
        self._judgement = judge(self._take(), self._judgement)
        return self._judgement

    def close(self) -> None:
        """End the threads and the connection to the bus."""
        for worker in (
            self._declaration_worker,
            self._systemd_worker,
            self._links_worker,
            self._state_worker,
        ):
            worker.close()
        self._systemd.close()

    def _take(self) -> Snapshot:
        taken_at = self._clock()
        sources = self._sources
        deadline = time.monotonic() + _DEADLINE
        if self._file:
            self._declaration_worker.start(self._file.collect)
        self._systemd_worker.start(self._systemd.collect)
        self._links_worker.start(
            lambda: LinkCollector(
                user=sources.microvm_user, limit=sources.max_vms, follow=False
            ).collect(Cause.RESYNC)
        )
        written = self._declaration_worker.finish(deadline) if self._file else None
        systemd = self._systemd_worker.finish(deadline)
        # The state directory comes second: what is declared and loaded is read first there.
        state = self._read_state(written.value if written else None, systemd.value)
        return Snapshot(
            taken_at=taken_at,
            declaration=written or self._declared_by_host(systemd, state.value),
            systemd=systemd,
            links=self._links_worker.finish(deadline),
            state=state,
        )

    def _read_state(
        self, declaration: Declaration | None, units: UnitTable | None
    ) -> Reading[StateTree]:
        sources = self._sources
        if units and units.unit_path:
            self._unit_path = units.unit_path
        if declaration:
            self._state_dir = declaration.state_dir or DEFAULT_STATE_DIR
        state_dir = sources.state_dir or self._state_dir
        unit_dirs = sources.unit_dirs or self._unit_path
        prefer = _names(declaration, units)
        self._state_worker.start(
            lambda: collect_state(
                state_dir=state_dir,
                gcroots_dir=sources.gcroots_dir,
                unit_dirs=unit_dirs,
                limit=sources.max_vms,
                prefer=prefer,
            )
        )
        return self._state_worker.finish(time.monotonic() + _DEADLINE)

    def _declared_by_host(
        self, systemd: Reading[UnitTable], tree: StateTree | None
    ) -> Reading[Declaration]:
        units = systemd.value

        def declare() -> Declaration:
            if units is None:
                raise CollectorError(
                    "there is no --declaration.file, and the host's own units could not be read: "
                    f"{systemd.error}"
                )
            return declare_from_host(units, tree)

        self._declaration_worker.start(declare)
        return self._declaration_worker.finish(time.monotonic() + _DEADLINE)


def _names(declaration: Declaration | None, units: UnitTable | None) -> frozenset[str]:
    names: set[str] = set()
    if declaration:
        names |= declaration.vms.keys() | declaration.imperative
    if units:
        names |= units.declared | units.autostarted | {unit.vm for unit in units.units.values()}
    return frozenset(names)
