"""The six hosts of the history, as they are when it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from microvm_exporter.model import Origin, UnitFile, UnitFileKind
from world import World, macvtap, tap

__all__ = ["BUILDERS"]


def _alder() -> World:
    """The one with most to tell: fifteen VMs of all origins, and leftovers that are old."""
    world = World()
    for name in ("web", "api", "firewall", "mail.internal", "db", "cache", "queue", "metrics"):
        world.add(name, interfaces=(tap(f"vm-{name[:8]}"),))
    world.add("ci", Origin.FLAKE, interfaces=(tap("vm-ci"),))
    world.add("builder", Origin.FLAKE, interfaces=(macvtap("mv-builder"),))
    world.add("wiki", Origin.DEPLOYED, interfaces=(tap("vm-wiki"),))
    world.add("chat", Origin.DEPLOYED, interfaces=(tap("vm-chat"),))
    world.add("scratch", Origin.IMPERATIVE, interfaces=(tap("vm-scratch"),), autostart=False)
    world.add("spare", running=False, autostart=False)
    world.add("old-backup", running=False, autostart=False)
    world.undeclare("old-backup")
    file = "/etc/systemd/system/microvm@old-dns.service.d/override.conf"
    world.unit_files.append(
        UnitFile(file, UnitFileKind.DROP_IN, "microvm@old-dns.service", "old-dns")
    )
    _hypervisors(world, cache="cloud-hypervisor", queue="firecracker", ci="crosvm")
    return world


def _birch() -> World:
    world = World()
    for name in ("web", "api", "db", "grafana", "loki", "registry", "proxy"):
        world.add(name, interfaces=(tap(f"vm-{name}"),))
    return world.add("nightly", Origin.FLAKE, running=False, autostart=False)


def _cedar() -> World:
    world = World()
    for name in ("dns1", "dns2", "ntp", "radius", "vpn.edge"):
        world.add(name, Origin.DEPLOYED, interfaces=(tap(f"vm-{name[:6]}"),))
    return world.add("lab", Origin.IMPERATIVE, interfaces=(macvtap("mv-lab"),), autostart=False)


def _elm() -> World:
    world = World()
    for number in range(1, 11):
        world.add(f"worker-{number}", interfaces=(tap(f"vm-worker{number}"),))
    _hypervisors(world, **{f"worker-{n}": "cloud-hypervisor" for n in range(1, 11)})
    return world


def _fir() -> World:
    world = World()
    for number in range(1, 13):
        world.add(f"tenant-{number:02}", interfaces=(tap(f"vm-tenant{number:02}"),))
    return world


def _oak() -> World:
    world = World()
    for name in ("edge-1", "edge-2", "edge-3", "edge-4"):
        world.add(name, interfaces=(tap(f"vm-{name}"),))
    return world


def _hypervisors(world: World, **by_vm: str) -> None:
    for vm, hypervisor in by_vm.items():
        world.declared[vm] = replace(world.declared[vm], hypervisor=hypervisor)


BUILDERS: Final[Mapping[str, Callable[[], World]]] = {
    "alder": _alder,
    "birch": _birch,
    "cedar": _cedar,
    "elm": _elm,
    "fir": _fir,
    "oak": _oak,
}
"""The hosts by name, as they are at the beginning."""
