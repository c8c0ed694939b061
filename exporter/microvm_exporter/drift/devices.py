"""Rules on network devices: the ones that are left over, and the ones that are missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from microvm_exporter.drift import remedies
from microvm_exporter.drift.host import Host, Site
from microvm_exporter.drift.kinds import Finding, Kind, found
from microvm_exporter.drift.vm import DEVICE_KIND, HELPER, Device, Vm
from microvm_exporter.model import Link, LinkKind

__all__ = ["links_cut", "missing_interface", "owners_cut", "stray_macvtap", "stray_tap"]

_NAME: Final = {LinkKind.TAP: "TAP", LinkKind.MACVTAP: "macvtap"}


def missing_interface(site: Site, vm: Vm) -> Iterator[Finding]:
    """``microvm@N`` is active and one of its devices is not on the host."""
    if not vm.active:
        return
    for interface in sorted(set(vm.running_interfaces or ())):
        kind = DEVICE_KIND.get(interface.type)
        link = site.links.get(interface.id)
        if kind is None or (link and link.kind is kind):
            continue
        yield found(
            Kind.MISSING_INTERFACE,
            vm.name,
            interface.id,
            f"{vm.name} runs but its {_NAME[kind]} {interface.id} is not on the host",
            (*remedies.look_at_unit(f"{HELPER[kind]}{vm.name}.service"), *remedies.restart(vm)),
        )


def links_cut(site: Site) -> bool:
    """Some devices were left out, and any may be among them."""
    return site.links_cut


def owners_cut(site: Site) -> bool:
    """Some VMs were left out, and any device may be theirs."""
    return site.wanted_cut or site.units_cut


def stray_tap(host: Host) -> Iterator[Finding]:
    """A persistent TAP of the microvm user belongs to no VM that is up."""
    strays = [link for link in _unheld(host, LinkKind.TAP) if link.ours and link.persistent]
    owners = _owners(host) if strays else {}
    for link in strays:
        yield _stray(Kind.STRAY_TAP, link, owners.get((link.kind, link.name)))


def stray_macvtap(host: Host) -> Iterator[Finding]:
    """The same for a macvtap that belongs to the microvm user or that some VM names."""
    unheld = _unheld(host, LinkKind.MACVTAP)
    owners = _owners(host) if unheld else {}
    for link in unheld:
        owner = owners.get((link.kind, link.name))
        if link.ours or owner:
            yield _stray(Kind.STRAY_MACVTAP, link, owner)


def _unheld(host: Host, kind: LinkKind) -> list[Link]:
    """Give the devices of a kind that no VM which is up calls its own."""
    held = set().union(*(vm.holds for vm in host.vms.values()))
    links = [link for link in host.links.links.values() if link.kind is kind]
    unheld = [link for link in links if (kind, link.name) not in held]
    # A VM that is up and whose interfaces nothing tells may use any device that is in use.
    if unheld and any(kind in vm.may_hold for vm in host.vms.values()):
        return [link for link in unheld if not link.carrier]
    return unheld


def _owners(host: Host) -> dict[Device, Vm]:
    """The VM that names a device, by device. The first by name where several do."""
    owners: dict[Device, Vm] = {}
    for vm in host.vms.values():
        for device in vm.claims:
            owners.setdefault(device, vm)
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
