"""What is behind ``current`` and ``booted``: the runner of microvm.nix's ``lib/runner.nix``.

On a sound host it is a directory of the store, but the link that leads there is the microvm user's
(see `untrusted`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from microvm_exporter.collectors.untrusted import (
    Tally,
    exists,
    has_entry,
    is_missing,
    open_directory,
    read_file,
)
from microvm_exporter.model import Interface, InterfaceType, Runner, is_device_name

__all__ = ["INTERFACES_MAX", "read_runner"]

INTERFACES_MAX: Final = 64
"""Most interfaces of a kind that are taken, and most names of a file that are looked at."""

_TAP: Final = "share/microvm/tap-interfaces"
_MACVTAP: Final = "share/microvm/macvtap-interfaces"
_PCI: Final = "share/microvm/pci-devices"
_VIRTIOFS: Final = "share/microvm/virtiofs"
_HYPERVISOR: Final = "share/microvm/hypervisor"

# Tested by the conditions of the unit family: those in bin/ since 2024-12, those in share/ before.
# ExecStop= of microvm@ runs bin/microvm-shutdown.
_MEMBERS: Final = (
    "bin/microvm-run",
    "bin/microvm-shutdown",
    "bin/tap-up",
    "bin/macvtap-up",
    "bin/pci-setup",
    "bin/virtiofsd-run",
    _TAP,
    _MACVTAP,
    _PCI,
    _VIRTIOFS,
)

_HYPERVISORS: Final = (
    "qemu",
    "cloud-hypervisor",
    "firecracker",
    "crosvm",
    "kvmtool",
    "stratovirt",
    "alioth",
    "vfkit",
)
_STORE_NAME: Final = re.compile(rf"[^-]+-microvm-({'|'.join(_HYPERVISORS)})-.+", re.DOTALL)


def read_runner(name: str, *, dir_fd: int, tally: Tally) -> Runner | None:
    """Read the runner that ``name`` under ``dir_fd`` leads to; None when that cannot be done.

    What is not a directory is a runner without any member, as it is to systemd.
    """
    try:
        with open_directory(name, dir_fd=dir_fd) as fd:
            return _read_members(fd, tally)
    except NotADirectoryError:
        return Runner()
    except OSError as error:
        if not is_missing(error):
            tally.unreadable += 1
        return None


def _read_members(fd: int, tally: Tally) -> Runner:
    files = _share(tuple(member for member in _MEMBERS if _has(member, fd, tally)))
    tally.check_time()
    return Runner(
        files=files,
        interfaces=_read_interfaces(fd, files, tally),
        pci=_PCI in files and bool((read_file(_PCI, dir_fd=fd) or b"").strip()),
        virtiofs=_VIRTIOFS in files and has_entry(_VIRTIOFS, dir_fd=fd),
        hypervisor=_read_hypervisor(fd, tally),
    )


def _has(member: str, fd: int, tally: Tally) -> bool:
    tally.check_time()
    return exists(member, dir_fd=fd)


@cache
def _share(members: tuple[str, ...]) -> frozenset[str]:
    """Give the runners that have the same members the same set: of a thousand, most do."""
    return frozenset(members)


def _read_interfaces(fd: int, files: frozenset[str], tally: Tally) -> tuple[Interface, ...]:
    """Read the names of the TAPs and macvtaps, without those that no device could have."""
    found: dict[Interface, None] = {}
    if _TAP in files:
        # A name a line; before 2022-08 all in one line. Scripts have always split at white space.
        words = (read_file(_TAP, dir_fd=fd) or b"").split(None, INTERFACES_MAX)
        names = _take_first(words, tally)
        found.update(dict.fromkeys(_valid(InterfaceType.TAP, names, tally)))
    if _MACVTAP in files:
        lines = (read_file(_MACVTAP, dir_fd=fd) or b"").strip().split(b"\n", INTERFACES_MAX)
        lines = _take_first(lines, tally)
        names = [fields[0] for line in lines if (fields := line.split(None, 1))]  # ID MAC LINK MODE
        found.update(dict.fromkeys(_valid(InterfaceType.MACVTAP, names, tally)))
    return tuple(found)


def _take_first(parts: list[bytes], tally: Tally) -> list[bytes]:
    """Leave the rest of a file out: 30,000 planted names in each of 5,000 VMs take minutes."""
    tally.unreadable += len(parts[INTERFACES_MAX:])
    return parts[:INTERFACES_MAX]


def _valid(kind: InterfaceType, names: list[bytes], tally: Tally) -> Iterator[Interface]:
    for raw in names:
        name = raw.decode(errors="surrogateescape")
        if is_device_name(name):
            yield Interface(kind, name)
        else:
            tally.unreadable += 1


def _read_hypervisor(fd: int, tally: Tally) -> str | None:
    """Read which of the known hypervisors it runs; nothing else ever becomes a label."""
    try:
        data = read_file(_HYPERVISOR, dir_fd=fd)
        name = _find_in_store_name(fd) if data is None else data.decode(errors="replace").strip()
    except OSError:
        tally.unreadable += 1
        return None
    return next((known for known in _HYPERVISORS if known == name), None)


def _find_in_store_name(fd: int) -> str | None:
    """Read the hypervisor off the runner's name, for runners from before 2026-03."""
    match = _STORE_NAME.fullmatch(Path(f"/proc/self/fd/{fd}").readlink().name)
    return match[1] if match else None
