"""One look at the host: the four collectors, put together into a snapshot and judged."""

from __future__ import annotations

import math
import select
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from microvm_exporter.collectors.declaration import declare_from_host
from microvm_exporter.collectors.declaration_file import DeclarationFile
from microvm_exporter.collectors.links import LinkCollector
from microvm_exporter.collectors.state import StateCollector
from microvm_exporter.collectors.systemd import FILES_ASKED, SystemdCollector
from microvm_exporter.config import Sources
from microvm_exporter.drift import Judgement, judge
from microvm_exporter.drift.host import Host
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import (
    Cause,
    Collector,
    Declaration,
    Following,
    LinkTable,
    Reading,
    Snapshot,
    StateTree,
    UnitTable,
)
from microvm_exporter.worker import Follower, Worker

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
"""Seconds that a phase of a look may take; a full look at 1,000 VMs takes under 2."""


class Observer:
    """Looks at the host again and again, and remembers what a later look needs.

    `look` and `wait` are for one thread at a time; they never raise for what a source does. Without
    ``follow`` each look is at everything, and asks what on a big host would else be asked in turns.
    """

    def __init__(
        self, sources: Sources, *, follow: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._sources = sources
        self._clock = clock
        limit = sources.max_vms
        self._file = (
            DeclarationFile(sources.declaration_file, limit=limit, follow=follow)
            if sources.declaration_file
            else None
        )
        self._systemd = SystemdCollector(
            address=sources.dbus_address,
            limit=limit,
            clock=clock,
            files_asked=FILES_ASKED if follow else sys.maxsize,
        )
        self._links = LinkCollector(user=sources.microvm_user, limit=limit, follow=follow)
        self._state = StateCollector(gcroots_dir=sources.gcroots_dir, limit=limit, follow=follow)
        self._systemd_worker: Worker[UnitTable] = Worker(
            Collector.SYSTEMD, self._systemd, clock=clock
        )
        self._links_worker: Worker[LinkTable] = Worker(Collector.LINKS, self._links, clock=clock)
        self._state_worker: Worker[StateTree] = Worker(Collector.STATE, self._state, clock=clock)
        self._declaration_worker: Worker[Declaration] = Worker(
            Collector.DECLARATION,
            self._file or _Derived(self._systemd, self._state),
            clock=clock,
        )
        self._unit_path: Sequence[str] = DEFAULT_UNIT_PATH
        self._state_dir = DEFAULT_STATE_DIR
        self._files_seen = 0
        self._judgement: Judgement | None = None
        self._asked_for: Host | None = None

    def look(self, cause: Cause) -> Judgement:
        """Take a snapshot and judge it; give the last judgement if an event has changed nothing."""
        observation = cause is not Cause.EVENT
        judgement = judge(self._take(cause), self._judgement, observation=observation)
        self._judgement = self._look_closer(judgement)
        return self._judgement

    def wait(self, seconds: float) -> bool:
        """Wait until something is heard of, as long as that; tell whether anything was."""
        poll = select.poll()
        for worker in self._workers():
            if (descriptor := worker.fileno()) is not None:
                poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(math.ceil(seconds * 1000)))

    def close(self) -> None:
        """End the threads, and what the collectors hold."""
        for worker in self._workers():
            worker.close()

    def _workers(self) -> tuple[Worker[Any], ...]:
        return (
            self._declaration_worker,
            self._systemd_worker,
            self._links_worker,
            self._state_worker,
        )

    def _look_closer(self, judgement: Judgement) -> Judgement:
        """Ask of the checks of those helpers for which there is a device, now that it is known."""
        snapshot, host = judgement.snapshot, judgement.host
        if host is self._asked_for or not host.sources >= {Collector.SYSTEMD, Collector.STATE}:
            return judgement
        self._asked_for = host
        helpers = frozenset().union(*(vm.helpers for vm in host.vms.values()))
        self._systemd_worker.start(partial(self._systemd.mind, helpers))
        units = self._systemd_worker.finish(time.monotonic() + _DEADLINE)
        if units.value is snapshot.systemd.value:
            return judgement
        units = replace(units, duration=snapshot.systemd.duration + units.duration)
        return judge(replace(snapshot, systemd=units), judgement, observation=False)

    def _take(self, cause: Cause) -> Snapshot:
        taken_at = self._clock()
        deadline = time.monotonic() + _DEADLINE
        if self._file:
            self._declaration_worker.start(partial(self._file.collect, cause))
        self._start_systemd(cause)
        self._links_worker.start(partial(self._links.collect, cause))
        written = self._declaration_worker.finish(deadline) if self._file else None
        systemd = self._systemd_worker.finish(deadline)
        # The state directory comes second: what is declared and loaded is read first there.
        state = self._read_state(cause, written.value if written else None, systemd.value)
        return Snapshot(
            taken_at=taken_at,
            declaration=written or self._declared_by_host(systemd, state.value),
            systemd=systemd,
            links=self._links_worker.finish(deadline),
            state=state,
        )

    def _start_systemd(self, cause: Cause) -> None:
        events = self._state.unit_file_events
        files_changed = events != self._files_seen or not self._state.following.active
        look = partial(self._systemd.collect, cause, files_changed=files_changed)
        if self._systemd_worker.start(look):
            self._files_seen = events

    def _read_state(
        self, cause: Cause, declaration: Declaration | None, units: UnitTable | None
    ) -> Reading[StateTree]:
        sources = self._sources
        if units and units.unit_path:
            self._unit_path = units.unit_path
        if declaration:
            self._state_dir = declaration.state_dir or DEFAULT_STATE_DIR
        look = partial(
            self._state.collect,
            cause,
            state_dir=sources.state_dir or self._state_dir,
            unit_dirs=sources.unit_dirs or self._unit_path,
            prefer=_names(declaration, units),
        )
        self._state_worker.start(look)
        return self._state_worker.finish(time.monotonic() + _DEADLINE)

    def _declared_by_host(
        self, systemd: Reading[UnitTable], tree: StateTree | None
    ) -> Reading[Declaration]:
        units = systemd.value
        before = self._judgement.snapshot.declaration.value if self._judgement else None

        def declare() -> Declaration:
            if units is None:
                raise CollectorError(
                    "there is no --declaration.file, and the host's own units could not be read: "
                    f"{systemd.error}"
                )
            return declare_from_host(units, tree, before)

        self._declaration_worker.start(declare)
        return self._declaration_worker.finish(time.monotonic() + _DEADLINE)


@dataclass(frozen=True, slots=True)
class _Derived:
    """What stands in for the declaration's collector where there is no file to follow."""

    systemd: Follower
    state: Follower

    @property
    def following(self) -> Following:
        return Following(self.systemd.following.active and self.state.following.active)

    def fileno(self) -> None:
        return None

    def close(self) -> None:
        pass


def _names(declaration: Declaration | None, units: UnitTable | None) -> frozenset[str]:
    names: set[str] = set()
    if declaration:
        names |= declaration.vms.keys() | declaration.imperative
    if units:
        names |= units.declared | units.autostarted | {unit.vm for unit in units.units.values()}
    return frozenset(names)
