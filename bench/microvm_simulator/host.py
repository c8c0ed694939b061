"""A simulated host: a made-up `World` that lives in time, looked at by the exporter's own code.

Real: `judge`, the samples and the rendering, looks by cause as `serve` makes them, and what the
tally of them comes to. Simulated: the records that collectors would have brought, how long they
took, how many events they heard of, and the process's own ``process_*``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from microvm_exporter.activity import Tally
from microvm_exporter.drift import Judgement, judge
from microvm_exporter.exposition import Renderer
from microvm_exporter.model import (
    Cause,
    Collector,
    Following,
    Link,
    Reading,
    Snapshot,
    Template,
    Unit,
    VmState,
)
from microvm_exporter.samples import View
from world import World

__all__ = ["INTERVAL", "SimulatedHost"]

INTERVAL: Final = 15.0
"""Seconds between two looks, the default of ``--collect.interval``."""

_RESYNC: Final = 300.0

_DURATION: Final = {
    Collector.DECLARATION: 0.0004,
    Collector.SYSTEMD: 0.0031,
    Collector.LINKS: 0.0012,
    Collector.STATE: 0.0022,
}
"""Seconds that a collector takes at rest, as it does on a host of a dozen VMs."""


@dataclass(slots=True)
class _Process:
    """What an exporter's process uses; about what docs/performance.md measured on a small host."""

    start_time: float
    cpu_seconds: float = 0.55
    resident_memory: float = 47e6
    open_fds: float = 17

    def values(self) -> dict[bytes, float]:
        return {
            b"process_start_time_seconds": self.start_time,
            b"process_cpu_seconds_total": self.cpu_seconds,
            b"process_resident_memory_bytes": self.resident_memory,
            b"process_open_fds": self.open_fds,
        }


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a stopped VM had, for when it is started again."""

    units: dict[str, Unit]
    state: VmState
    links: dict[str, Link]


class SimulatedHost:
    """A host with its exporter. Its methods are what happens to it."""

    def __init__(self, name: str, world: World, now: float) -> None:
        self.name = name
        self.world = world
        self.following = dict.fromkeys(Collector, True)
        self.missed = 0
        self._random = Random(name)
        self._events = dict.fromkeys(Collector, 0)
        self._last_success: dict[Collector, float] = {}
        self._changed: set[Collector] = set()
        self._values: Snapshot | None = None
        self._kept: dict[str, _Kept] = {}
        self._crashing: set[str] = set()
        for unit in list(world.units.values()):
            if unit.active_enter_timestamp:
                self.world.change_unit(unit.name, active_enter_timestamp=now - 86_400 * 9)
        self.restart_exporter(now - 86_400 * 2)

    # ------------------------------------------------------------------------------ what happens

    def changed(self, *collectors: Collector) -> None:
        """Say what a change of the world is to be heard of by."""
        self._changed |= set(collectors)
        self._values = None

    def restart_exporter(self, now: float) -> None:
        """The exporter starts anew: nothing is remembered, and counters begin at 0."""
        self._renderer = Renderer()
        self._tally = Tally()
        self._tally.count(Cause.RESYNC)
        self._judgement: Judgement | None = None
        self._process = _Process(now)
        self._events = dict.fromkeys(Collector, 0)

    def undeclare(self, vm: str) -> None:
        """A switch to a configuration without the VM, which runs on."""
        self.world.undeclare(vm)
        self.changed(Collector.DECLARATION, Collector.SYSTEMD, Collector.STATE)

    def update(self, vm: str, runner: str) -> None:
        """A switch that installs another runner, and does not restart the VM."""
        current = self.world.vms[vm].current
        assert current
        self.world.change_state(vm, current=replace(current, target=runner))
        self.world.declared[vm] = replace(self.world.declared[vm], runner=runner)
        self.changed(Collector.DECLARATION, Collector.STATE)

    def declare_runner(self, vm: str, runner: str) -> None:
        """A declaration that names a runner which nobody installs."""
        self.world.declared[vm] = replace(self.world.declared[vm], runner=runner)
        self.changed(Collector.DECLARATION)

    def stop(self, vm: str) -> None:
        """``systemctl stop`` of the VM and its helpers."""
        world = self.world
        runner = world.vms[vm].current_runner
        devices = {interface.id for interface in runner.interfaces} if runner else set()
        self._kept[vm] = _Kept(
            {name: unit for name, unit in world.units.items() if unit.vm == vm},
            world.vms[vm],
            {name: link for name, link in world.links.items() if name in devices},
        )
        world.stop(vm)
        self.changed(Collector.SYSTEMD, Collector.LINKS, Collector.STATE)

    def start(self, vm: str, now: float) -> None:
        """Start a VM that was stopped."""
        kept = self._kept.pop(vm)
        self.world.units |= kept.units
        self.world.links |= kept.links
        self._crashing.discard(vm)
        self._runs_since(vm, now, restarts=0)
        self._boot(vm)
        self.changed(Collector.SYSTEMD, Collector.LINKS, Collector.STATE)

    def restart(self, vm: str, now: float) -> None:
        """``systemctl restart``."""
        self._crashing.discard(vm)
        self._runs_since(vm, now, restarts=0)
        self._boot(vm)
        self.changed(Collector.SYSTEMD, Collector.STATE)

    def crash(self, vm: str, now: float) -> None:
        """The hypervisor ended by itself once: systemd restarts it."""
        unit = self.world.units[_service(vm)]
        self._runs_since(vm, now, restarts=unit.restarts + 1)
        self.changed(Collector.SYSTEMD)

    def crash_loop(self, vm: str) -> None:
        """From now on the hypervisor ends as soon as it is started."""
        self._crashing.add(vm)

    def unread(self, collector: Collector, error: str | None) -> None:
        """The source cannot be read from now on; None: it can again."""
        if error is None:
            self.world.unread.pop(collector, None)
        else:
            self.world.unread[collector] = error
        self.following[collector] = error is None
        self.changed()

    # -------------------------------------------------------------------------------- the looks

    def live(self, since: float, now: float) -> None:
        """Have the exporter look as it would from ``since`` to ``now``."""
        for vm in self._crashing:
            self._crash_again(vm, since, now)
        if self._changed:
            for collector in self._changed:
                self._events[collector] += self._random.randint(2, 9)
            self._changed.clear()
            self._look(Cause.EVENT, now - 1)
            self._tally.observe(self._random.uniform(0.11, 0.24))
        for look in range(1, round((now - since) / INTERVAL) + 1):
            at = since + look * INTERVAL
            self._look(Cause.RESYNC if at % _RESYNC < INTERVAL else Cause.INTERVAL, at)

    def expose(self) -> bytes:
        """Give what a scrape would get now, as OpenMetrics."""
        assert self._judgement is not None
        _, page = self._renderer.render(View(self._judgement, self._tally.now()))
        return _with_process(page, self._process)

    @property
    def judgement(self) -> Judgement:
        """What the last look came to."""
        assert self._judgement is not None
        return self._judgement

    def _look(self, cause: Cause, now: float) -> None:
        snapshot = self._snapshot(now, slower=8.0 if cause is Cause.RESYNC else 1.0)
        observation = cause is not Cause.EVENT
        self._judgement = judge(snapshot, self._judgement, observation=observation)
        self._tally.count(cause)
        self._process.cpu_seconds += 0.03 if cause is Cause.RESYNC else 0.002
        self._process.resident_memory += self._random.choice((-8192, 0, 0, 0, 8192))

    def _snapshot(self, now: float, slower: float) -> Snapshot:
        """The world as it is; of what did not change, the same objects as before."""
        if self._values is None:
            self._values = self.world.snapshot()
        readings = {
            str(name): self._reading(name, reading, now, slower)
            for name, reading in self._values.readings().items()
        }
        return Snapshot(taken_at=now, **readings)

    def _reading(
        self, name: Collector, reading: Reading[Any], now: float, slower: float
    ) -> Reading[Any]:
        if reading.error is None:
            self._last_success[name] = now
        return replace(
            reading,
            duration=_DURATION[name] * slower * self._random.uniform(0.8, 1.3),
            last_success=self._last_success.get(name),
            following=Following(
                self.following[name],
                self._events[name],
                self.missed if name is Collector.LINKS else 0,
            ),
        )

    # ------------------------------------------------------------------------------------- units

    def _crash_again(self, vm: str, since: float, now: float) -> None:
        """RestartSec=5s and a second or two of life: about four restarts in half a minute."""
        unit = self.world.units[_service(vm)]
        up = self._random.random() < 0.25
        self.world.change_unit(
            unit.name,
            active_state="active" if up else "activating",
            sub_state="running" if up else "auto-restart",
            restarts=unit.restarts + round((now - since) / 7.5),
            active_enter_timestamp=now - 1,
        )
        self.changed(Collector.SYSTEMD)

    def _runs_since(self, vm: str, now: float, *, restarts: int) -> None:
        for unit in [unit for unit in self.world.units.values() if unit.vm == vm]:
            if unit.active_enter_timestamp:
                self.world.change_unit(unit.name, active_enter_timestamp=now)
        self.world.change_unit(
            _service(vm), active_state="active", sub_state="running", restarts=restarts
        )

    def _boot(self, vm: str) -> None:
        """Each start makes ``booted`` lead where ``current`` does."""
        state = self.world.vms[vm]
        assert state.current
        booted = replace(state.current, path=f"{state.path}/booted")
        self.world.change_state(vm, booted=booted, booted_runner=state.current_runner)


def _service(vm: str) -> str:
    return f"{Template.MICROVM}{vm}.service"


def _with_process(page: bytes, process: _Process) -> bytes:
    """Put the simulated process's figures where the page has those of this one."""
    values = process.values()
    lines = page.splitlines(keepends=True)
    return b"".join(
        b"%b %r\n" % (name, values[name])
        if line.startswith(b"process_") and (name := line.split(b" ", 1)[0]) in values
        else line
        for line in lines
    )
