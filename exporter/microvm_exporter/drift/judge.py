"""Judge a snapshot: every rule whose sources could be read, in a stable order.

`judge` is a function from values to values. What has to be seen in two looks running goes in and
out as a `Memory`, which the caller keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from microvm_exporter.drift import conditions, declared, devices, undeclared, units
from microvm_exporter.drift.host import Host, join
from microvm_exporter.drift.kinds import Finding, Kind, finding_order
from microvm_exporter.model import Collector, Interface, Snapshot

__all__ = ["RULES", "Judgement", "Memory", "Rule", "judge"]

_DECLARATION, _SYSTEMD, _LINKS, _STATE = Collector


@dataclass(frozen=True, slots=True)
class Rule:
    """How a kind is found, and the sources without which it cannot be judged.

    ``twice``: fires only when the same object is found in two looks running. ``blind`` tells of a
    host on which the kind cannot be judged although its sources were read.
    """

    find: Callable[[Host], Iterator[Finding]]
    sources: frozenset[Collector]
    twice: bool = False
    blind: Callable[[Host], bool] | None = None

    def applies(self, host: Host) -> bool:
        """Tell whether what is needed to judge the kind is known."""
        return self.sources <= host.sources and not (self.blind and self.blind(host))


def _rule(
    find: Callable[[Host], Iterator[Finding]],
    *sources: Collector,
    twice: bool = False,
    blind: Callable[[Host], bool] | None = None,
) -> Rule:
    return Rule(find, frozenset(sources), twice, blind)


def _wanted_cut(host: Host) -> bool:
    return host.wanted_cut


_ALL_OF_VM: Final = (_DECLARATION, _SYSTEMD, _STATE)
_unwanted: Final = partial(_rule, blind=_wanted_cut)
_stray: Final = partial(_rule, twice=True, blind=devices.owners_cut)

RULES: Final[Mapping[Kind, Rule]] = {
    Kind.UNDECLARED_RUNNING: _unwanted(undeclared.undeclared_running, *_ALL_OF_VM),
    Kind.UNDECLARED_UNIT: _unwanted(undeclared.undeclared_unit, *_ALL_OF_VM),
    Kind.UNDECLARED_STATE: _unwanted(undeclared.undeclared_state, *_ALL_OF_VM),
    Kind.ORIGIN_UNKNOWN: _unwanted(undeclared.origin_unknown, *_ALL_OF_VM),
    Kind.MISSING_UNIT: _rule(declared.missing_unit, *_ALL_OF_VM),
    Kind.MISSING_STATE: _rule(declared.missing_state, _DECLARATION, _STATE),
    Kind.NOT_RUNNING: _rule(declared.not_running, _DECLARATION, _SYSTEMD),
    Kind.UNIT_FAILED: _rule(units.unit_failed, _SYSTEMD, _STATE),
    Kind.CONDITION_UNMET: _rule(conditions.condition_unmet, _SYSTEMD, _STATE),
    Kind.WOULD_NOT_START: _rule(conditions.would_not_start, *_ALL_OF_VM),
    Kind.RESTART_PENDING: _rule(declared.restart_pending, _SYSTEMD, _STATE),
    Kind.OUTDATED: _rule(declared.outdated, _DECLARATION, _STATE),
    Kind.DANGLING_LINK: _rule(declared.dangling_link, _STATE),
    Kind.HELPER_WITHOUT_VM: _rule(units.helper_without_vm, _SYSTEMD, twice=True),
    Kind.MISSING_INTERFACE: _rule(
        devices.missing_interface, _SYSTEMD, _LINKS, _STATE, blind=devices.links_cut
    ),
    Kind.STRAY_TAP: _stray(devices.stray_tap, _SYSTEMD, _LINKS, _STATE),
    Kind.STRAY_MACVTAP: _stray(devices.stray_macvtap, _SYSTEMD, _LINKS, _STATE),
    Kind.RESIDUAL_UNIT_FILE: _unwanted(undeclared.residual_unit_file, *_ALL_OF_VM),
    Kind.UNUSED_TEMPLATE: _rule(undeclared.unused_template, *_ALL_OF_VM),
    Kind.DAEMON_RELOAD_NEEDED: _rule(units.daemon_reload_needed, _SYSTEMD),
}

TRANSIT_MAX: Final = 60.0
"""Seconds for which a pending job of systemd's excuses what shows of its VM."""

Key = tuple[Kind, str, str]
"""Kind, VM and object: what makes two findings the same."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What one look hands on to the next.

    ``since`` tells for everything that was found, fired or not, when that began (Unix seconds),
    and ``fired`` what of it was a finding. ``interfaces`` are those of the VMs that are up: a VM
    whose state directory is deleted under it keeps its devices.
    """

    since: Mapping[Key, float] = field(default_factory=dict)
    fired: frozenset[Key] = frozenset()
    interfaces: Mapping[str, tuple[Interface, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The findings, in order, and the kinds that could be judged. The rest is unknown.

    ``unconfirmed`` tells that something was found that does not count yet.
    """

    snapshot: Snapshot
    host: Host
    findings: tuple[Finding, ...]
    judged: frozenset[Kind]
    unconfirmed: bool
    memory: Memory


def judge(snapshot: Snapshot, memory: Memory) -> Judgement:
    """Find every drift in the snapshot that its sources allow to judge."""
    host = join(snapshot, memory.interfaces)
    judged = frozenset(kind for kind, rule in RULES.items() if rule.applies(host))
    found: dict[Key, Finding] = {}
    for kind in judged:
        for finding in RULES[kind].find(host):
            found.setdefault((kind, finding.vm, finding.object), finding)
    since = {key: began for key, began in memory.since.items() if key[0] not in judged}
    since |= {key: memory.since.get(key, snapshot.taken_at) for key in found}
    counting = {key for key in found if _counts(key, host, memory, snapshot.taken_at)}
    fired = counting | {key for key in memory.fired if key[0] not in judged}
    return Judgement(
        snapshot=snapshot,
        host=host,
        findings=tuple(sorted((found[key] for key in counting), key=finding_order)),
        judged=judged,
        unconfirmed=len(counting) < len(found),
        memory=Memory(since, frozenset(fired), _interfaces(host, memory)),
    )


def _counts(key: Key, host: Host, memory: Memory, now: float) -> bool:
    """Tell whether what was found is a finding yet.

    What is found of a VM for which systemd has a job pending may be over in a moment, unless it was
    a finding before, or the job takes its time.
    """
    kind, vm, _ = key
    if key in memory.fired:
        return True
    if RULES[kind].twice and key not in memory.since:
        return False
    return not host.vm(vm).in_transit or now - memory.since.get(key, now) >= TRANSIT_MAX


def _interfaces(host: Host, memory: Memory) -> Mapping[str, tuple[Interface, ...]]:
    """Keep what is known of the interfaces of every VM that is up, or that nobody can look at."""
    if Collector.SYSTEMD not in host.sources:
        return memory.interfaces
    return {
        name: interfaces
        for name, vm in host.vms.items()
        if not vm.stopped and (interfaces := vm.running_interfaces) is not None
    }
