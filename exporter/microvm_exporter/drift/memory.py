"""What one look hands on to the next, and what of that which is found counts by it.

Some kinds have to be seen in two observations running, and what shows while systemd has a job
pending may be over in a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from microvm_exporter.drift.changes import differing
from microvm_exporter.drift.found import Found
from microvm_exporter.drift.host import Host
from microvm_exporter.drift.kinds import Key
from microvm_exporter.drift.rules import RULES
from microvm_exporter.model import Collector, Interface

__all__ = ["Memory", "remember", "weigh"]

TRANSIT_MAX: Final = 60.0
"""Seconds for which a pending job of systemd's excuses what shows of its VM."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered from look to look.

    ``since`` tells for everything that was found, fired or not, when that began (Unix seconds),
    and ``fired`` what of it was a finding. ``candidates`` were found in the last observation and in
    every look since, and count when the next observation finds them too. ``interfaces`` are those
    of the VMs that are up: a VM whose state directory is deleted under it keeps its devices.
    """

    since: Mapping[Key, float] = field(default_factory=dict)
    fired: frozenset[Key] = frozenset()
    candidates: frozenset[Key] = frozenset()
    interfaces: Mapping[str, tuple[Interface, ...]] = field(default_factory=dict)


def weigh(
    found: Found,
    host: Host,
    memory: Memory,
    *,
    now: float,
    observation: bool,
) -> tuple[frozenset[Key], Memory]:
    """Tell what counts of that which was found, and what to remember of it.

    What was found of a kind that cannot be judged now is neither confirmed nor over.
    """
    keys = frozenset(finding.key for finding in found)
    since = {key: began for key, began in memory.since.items() if key[0] not in found.judged}
    since |= {key: memory.since.get(key, now) for key in keys}
    counting = frozenset(
        key
        for key in keys
        if key in memory.fired
        or (
            _is_confirmed(key, memory, observation=observation)
            and not _may_pass(key, host, age=now - since[key])
        )
    )
    waiting = frozenset(key for key in keys - counting if RULES[key[0]].twice)
    candidates = waiting if observation else waiting & memory.candidates
    return counting, Memory(
        since,
        counting | _unjudged(memory.fired, found),
        candidates | _unjudged(memory.candidates, found),
        memory.interfaces,
    )


def _is_confirmed(key: Key, memory: Memory, *, observation: bool) -> bool:
    """What needs two observations is confirmed by the second: never by an event's look."""
    return not RULES[key[0]].twice or (observation and key in memory.candidates)


def _may_pass(key: Key, host: Host, *, age: float) -> bool:
    """A job is pending for the VM, and does not take its time yet."""
    vm = host.vms.get(key[1])
    return vm is not None and vm.in_transit and age < TRANSIT_MAX


def _unjudged(keys: frozenset[Key], found: Found) -> frozenset[Key]:
    return frozenset(key for key in keys if key[0] not in found.judged)


def remember(
    host: Host, before: Host | None, interfaces: Mapping[str, tuple[Interface, ...]]
) -> Mapping[str, tuple[Interface, ...]]:
    """Keep what is known of the interfaces of every VM that is up, or that nobody can look at.

    ``before`` is the host of which ``interfaces`` are remembered.
    """
    if Collector.SYSTEMD not in host.sources:
        return interfaces
    if before is None or host.sources != before.sources:
        return _interfaces(host, host.vms.keys())
    changed = differing(host.vms, before.vms)
    if not changed:
        return interfaces
    kept = {name: known for name, known in interfaces.items() if name not in changed}
    return {**kept, **_interfaces(host, changed)}


def _interfaces(host: Host, names: Iterable[str]) -> dict[str, tuple[Interface, ...]]:
    return {
        name: interfaces
        for name in names
        if (vm := host.vms.get(name))
        and not vm.stopped
        and (interfaces := vm.running_interfaces) is not None
    }
