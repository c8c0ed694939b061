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
from microvm_exporter.model import Collector, Interface, LinkKind, Snapshot

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


def _rule(find: Callable[[Host], Iterator[Finding]], *sources: Collector) -> Rule:
    return Rule(find, frozenset(sources))


def _stray(find: Callable[[Host], Iterator[Finding]], kind: LinkKind) -> Rule:
    sources = frozenset({_SYSTEMD, _LINKS, _STATE})
    return Rule(find, sources, twice=True, blind=partial(devices.owners_unknown, kind=kind))


RULES: Final[Mapping[Kind, Rule]] = {
    Kind.UNDECLARED_RUNNING: _rule(undeclared.undeclared_running, _DECLARATION, _SYSTEMD, _STATE),
    Kind.UNDECLARED_UNIT: _rule(undeclared.undeclared_unit, _DECLARATION, _SYSTEMD, _STATE),
    Kind.UNDECLARED_STATE: _rule(undeclared.undeclared_state, _DECLARATION, _SYSTEMD, _STATE),
    Kind.ORIGIN_UNKNOWN: _rule(undeclared.origin_unknown, _DECLARATION, _SYSTEMD, _STATE),
    Kind.MISSING_UNIT: _rule(declared.missing_unit, _DECLARATION, _SYSTEMD, _STATE),
    Kind.MISSING_STATE: _rule(declared.missing_state, _DECLARATION, _STATE),
    Kind.NOT_RUNNING: _rule(declared.not_running, _DECLARATION, _SYSTEMD),
    Kind.UNIT_FAILED: _rule(units.unit_failed, _SYSTEMD, _STATE),
    Kind.CONDITION_UNMET: _rule(conditions.condition_unmet, _SYSTEMD, _STATE),
    Kind.WOULD_NOT_START: _rule(conditions.would_not_start, _DECLARATION, _SYSTEMD, _STATE),
    Kind.RESTART_PENDING: _rule(declared.restart_pending, _SYSTEMD, _STATE),
    Kind.OUTDATED: _rule(declared.outdated, _DECLARATION, _STATE),
    Kind.DANGLING_LINK: _rule(declared.dangling_link, _STATE),
    Kind.HELPER_WITHOUT_VM: Rule(units.helper_without_vm, frozenset({_SYSTEMD}), twice=True),
    Kind.MISSING_INTERFACE: _rule(devices.missing_interface, _SYSTEMD, _LINKS, _STATE),
    Kind.STRAY_TAP: _stray(devices.stray_tap, LinkKind.TAP),
    Kind.STRAY_MACVTAP: _stray(devices.stray_macvtap, LinkKind.MACVTAP),
    Kind.RESIDUAL_UNIT_FILE: _rule(undeclared.residual_unit_file, _DECLARATION, _SYSTEMD, _STATE),
    Kind.UNUSED_TEMPLATE: _rule(undeclared.unused_template, _DECLARATION, _SYSTEMD, _STATE),
    Kind.DAEMON_RELOAD_NEEDED: _rule(units.daemon_reload_needed, _SYSTEMD),
}


@dataclass(frozen=True, slots=True)
class Memory:
    """What one look hands on to the next.

    ``candidates`` are the (kind, object) pairs that fire when they are found again.
    ``interfaces`` are those of the VMs that are up: a VM whose state directory is deleted under
    it keeps its devices.
    """

    candidates: frozenset[tuple[Kind, str]] = frozenset()
    interfaces: Mapping[str, tuple[Interface, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The findings, in order, and the kinds that could be judged. The rest is unknown.

    ``unconfirmed`` tells that something has to be seen a second time before it counts.
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
    fired: list[Finding] = []
    candidates = {known for known in memory.candidates if known[0] not in judged}
    unconfirmed = False
    for kind in sorted(judged):
        rule = RULES[kind]
        for finding in rule.find(host):
            if not (rule.twice or host.vm(finding.vm).in_transit):
                fired.append(finding)
                continue
            candidates.add((kind, finding.object))
            if (kind, finding.object) in memory.candidates:
                fired.append(finding)
            else:
                unconfirmed = True
    return Judgement(
        snapshot=snapshot,
        host=host,
        findings=tuple(sorted(fired, key=finding_order)),
        judged=judged,
        unconfirmed=unconfirmed,
        memory=Memory(frozenset(candidates), _interfaces(host, memory)),
    )


def _interfaces(host: Host, memory: Memory) -> Mapping[str, tuple[Interface, ...]]:
    """Keep what is known of the interfaces of every VM that is up, or that nobody can look at."""
    if Collector.SYSTEMD not in host.sources:
        return memory.interfaces
    return {
        name: interfaces
        for name, vm in host.vms.items()
        if not vm.stopped and (interfaces := vm.running_interfaces) is not None
    }
