"""A MicroVM as its owner describes it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from host.layout import STATE, STORE, Era

_NIX_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


class Origin(StrEnum):
    """How a VM came onto its host, which decides what it has there (domain.md's table of kinds)."""

    DECLARATIVE = "declarative"
    FLAKE = "flake"
    DEPLOYED = "deployed"
    """A flake with `updateFlake`: installed once by the host, then updated by hand."""
    IMPERATIVE = "imperative"
    """Made by `microvm -c`."""
    INSTALLED_ON_HOST = "installed_on_host"
    """Made by `deploy.installOnHost`; in the contract it counts as imperative."""

    @property
    def is_declared(self) -> bool:
        """The host's configuration names it."""
        return self in (Origin.DECLARATIVE, Origin.FLAKE, Origin.DEPLOYED)


class Hypervisor(StrEnum):
    """The hypervisors that microvm.nix runs on Linux."""

    QEMU = "qemu"
    CLOUD_HYPERVISOR = "cloud-hypervisor"
    FIRECRACKER = "firecracker"
    CROSVM = "crosvm"
    KVMTOOL = "kvmtool"
    STRATOVIRT = "stratovirt"
    ALIOTH = "alioth"

    @property
    def can_shut_down(self) -> bool:
        """Its runner has a `bin/microvm-shutdown`."""
        return self not in (Hypervisor.KVMTOOL, Hypervisor.STRATOVIRT, Hypervisor.ALIOTH)


@dataclass(frozen=True, slots=True)
class Vm:
    """A MicroVM. VMs that are equal have the same runner in the store."""

    name: str
    origin: Origin = Origin.DECLARATIVE
    autostart: bool = True
    """Named by `microvm.autostart`, which may name VMs that are not declared, too."""
    hypervisor: Hypervisor = Hypervisor.QEMU
    taps: tuple[str, ...] = ()
    multi_queue: bool = False
    """Of all its TAPs."""
    macvtaps: tuple[str, ...] = ()
    virtiofs: tuple[str, ...] = ()
    """Tags."""
    pci: tuple[str, ...] = ()
    """Addresses; nothing is done with the devices."""
    hostname: str = ""
    """The guest's own name, when it is not the VM's."""
    runner_era: Era | None = None
    """The age of the runner, when it is not that of the host."""
    light: bool = False
    """For many at once: is there without an install unit having run, its `microvm-run` only sleeps,
    and its TAPs exist from its declaration on, made in one go, and stay."""
    build: int = 0
    """Another number makes another runner."""

    @property
    def unit(self) -> str:
        """The VM's own unit."""
        return f"microvm@{self.name}.service"

    @property
    def state(self) -> PurePosixPath:
        """The VM's folder in the state directory."""
        return STATE / self.name

    @property
    def runner(self) -> PurePosixPath:
        """Where the runner is. Before 2026-03 only this name tells the hypervisor."""
        guest = self.hostname or self.name
        return STORE / f"{_store_hash(f'{self} runner')}-microvm-{self.hypervisor}-{guest}"

    @property
    def toplevel(self) -> PurePosixPath:
        """Where the guest's system is."""
        guest = self.hostname or self.name
        return STORE / f"{_store_hash(f'{self} toplevel')}-nixos-system-{guest}-26.05"


def _store_hash(text: str) -> str:
    """32 letters of the store's alphabet."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    return "".join(_NIX_BASE32[number >> 5 * place & 31] for place in range(32))
