"""Rules on network devices: the ones that are left over, and the ones that are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from microvm_exporter.drift import remedies
from microvm_exporter.drift.host import Host, Vm, is_down
from microvm_exporter.drift.kinds import Finding, Kind, found
from microvm_exporter.model import InterfaceType, Link, LinkKind, Template

__all__ = ["links_cut", "missing_interface", "owners_cut", "stray_macvtap", "stray_tap"]

_ON_HOST: Final = {InterfaceType.TAP: LinkKind.TAP, InterfaceType.MACVTAP: LinkKind.MACVTAP}
_NAME: Final = {LinkKind.TAP: "TAP", LinkKind.MACVTAP: "macvtap"}
_HELPER: Final = {LinkKind.TAP: Template.TAP, LinkKind.MACVTAP: Template.MACVTAP}


def missing_interface(host: Host) -> Iterator[Finding]:
    """``microvm@N`` is active and a device of its is not on the host."""
    for vm in host.vms.values():
        if not vm.active:
            continue
        for interface in sorted(set(vm.running_interfaces or ())):
            kind = _ON_HOST.get(interface.type)
            link = host.links.links.get(interface.id)
            if kind is None or (link and link.kind is kind):
                continue
            helper = f"{_HELPER[kind]}{vm.name}.service"
            yield found(
                Kind.MISSING_INTERFACE,
                vm.name,
                interface.id,
                f"{vm.name} runs but its {_NAME[kind]} {interface.id} is not on the host",
                (*remedies.look_at_unit(helper), *remedies.restart(vm)),
            )


def links_cut(host: Host) -> bool:
    """Some devices were left out, and any may be among them."""
    return host.links.left_out.limit > 0


def owners_cut(host: Host) -> bool:
    """Some VMs were left out, and any device may be theirs."""
    return host.wanted_cut or host.units.left_out.limit > 0


def stray_tap(host: Host) -> Iterator[Finding]:
    """A persistent TAP of the microvm user belongs to no VM that is up."""
    owners = _owners(host, LinkKind.TAP)
    for link in _unclaimed(host, LinkKind.TAP):
        if link.ours and link.persistent:
            yield _stray(Kind.STRAY_TAP, link, owners.get(link.name))


def stray_macvtap(host: Host) -> Iterator[Finding]:
    """The same for a macvtap that is the microvm user's or that some VM's metadata names."""
    owners = _owners(host, LinkKind.MACVTAP)
    for link in _unclaimed(host, LinkKind.MACVTAP):
        if link.ours or link.name in owners:
            yield _stray(Kind.STRAY_MACVTAP, link, owners.get(link.name))


def _unclaimed(host: Host, kind: LinkKind) -> Iterator[Link]:
    up = [vm for vm in host.vms.values() if _may_hold(vm, kind)]
    claimed = {i.id for vm in up for i in vm.claims if _ON_HOST.get(i.type) is kind}
    # A VM that is up and whose interfaces nothing tells may use any device that is in use.
    anyone = any(vm.running_interfaces is None for vm in up)
    for link in host.links.links.values():
        if link.kind is kind and link.name not in claimed and not (anyone and link.carrier):
            yield link


def _may_hold(vm: Vm, kind: LinkKind) -> bool:
    """``microvm@N`` or the helper that makes the devices is up, or on its way up or down."""
    helper = vm.units.get(_HELPER[kind])
    return not vm.stopped or (helper is not None and not is_down(helper))


def _owners(host: Host, kind: LinkKind) -> Mapping[str, Vm]:
    """The VM that names a device, by device. The first by name where several do."""
    owners: dict[str, Vm] = {}
    for vm in host.vms.values():
        for interface in vm.claims:
            if _ON_HOST.get(interface.type) is kind:
                owners.setdefault(interface.id, vm)
    return owners


def _stray(kind: Kind, link: Link, owner: Vm | None) -> Finding:
    whose = f"{owner.name}, which is not up," if owner else "no MicroVM"
    return found(
        kind,
        owner.name if owner else "",
        link.name,
        f"{_NAME[link.kind]} {link.name} belongs to {whose} and is still there",
        (remedies.delete_link(link, owner),),
    )
