"""Everything that is found on a host, whether it counts yet or not; anew only where it may differ.

A rule on a VM goes by the VM and the site, so what it found stays as long as both do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from microvm_exporter.drift.changes import differing
from microvm_exporter.drift.host import Host, Site
from microvm_exporter.drift.kinds import Finding, Kind
from microvm_exporter.drift.rules import HOST_RULES, RULES, VM_RULES
from microvm_exporter.drift.vm import Vm
from microvm_exporter.model import LinkKind

__all__ = ["Found", "find_again", "find_all"]

Find = Callable[[Site, Vm], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Found:
    """What the rules found: VM by VM, of those that have something, and on the host as a whole.

    ``judged`` are the kinds that could be looked for.
    """

    judged: frozenset[Kind]
    on_vms: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)
    on_host: tuple[Finding, ...] = ()

    def __iter__(self) -> Iterator[Finding]:
        return chain(self.on_host, *self.on_vms.values())


def find_all(host: Host) -> Found:
    """Look for everything that the sources allow to judge."""
    judged = frozenset(kind for kind, rule in RULES.items() if rule.applies(host.site))
    on_vms = _on_vms(host, host.vms, judged)
    return Found(judged, {name: found for name, found in on_vms if found}, _on_host(host, judged))


def find_again(host: Host, before: Host, found: Found) -> Found:
    """Do the same, given what was found before; that very object when nothing differs."""
    if host is before:
        return found
    if host.site != before.site:
        return find_all(host)
    changed = differing(host.vms, before.vms)
    links = differing(host.links.links, before.links.links)
    judged = found.judged
    on_host = _on_host(host, judged) if changed or links else found.on_host
    differs = {
        name: findings
        for name, findings in _on_vms(host, changed | _claiming(host, links), judged)
        if findings != found.on_vms.get(name, ())
    }
    if not differs and on_host == found.on_host:
        return found
    on_vms = {**found.on_vms, **differs}
    return Found(judged, {name: findings for name, findings in on_vms.items() if findings}, on_host)


def _claiming(host: Host, links: Iterable[str]) -> frozenset[str]:
    """Name the VMs whose rules may ask for one of these devices."""
    devices = frozenset((kind, name) for kind in LinkKind for name in links)
    if not devices:
        return frozenset()
    return frozenset(name for name, vm in host.vms.items() if not devices.isdisjoint(vm.claims))


def _on_vms(
    host: Host, names: Iterable[str], judged: frozenset[Kind]
) -> Iterator[tuple[str, tuple[Finding, ...]]]:
    rules = [rule.find for kind, rule in VM_RULES.items() if kind in judged]
    for name in names:
        vm = host.vms.get(name)
        yield name, _once(find(host.site, vm) for find in rules) if vm else ()


def _on_host(host: Host, judged: frozenset[Kind]) -> tuple[Finding, ...]:
    return _once(rule.find(host) for kind, rule in HOST_RULES.items() if kind in judged)


def _once(found: Iterable[Iterator[Finding]]) -> tuple[Finding, ...]:
    """Of findings that are about the same, keep the first."""
    first: dict[tuple[Kind, str, str], Finding] = {}
    for finding in chain.from_iterable(found):
        first.setdefault(finding.key, finding)
    return tuple(first.values())
