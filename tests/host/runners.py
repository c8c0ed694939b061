"""The runner that Nix would build for a VM: scripts for the host's units, and what they are about.

The scripts are for /bin/sh and use only what is in /usr. They do for real what the host sees of
them: TAPs and macvtaps come and go, and the stand-in for the hypervisor holds its TAPs open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from host.layout import STORE, Era
from host.machine import PYTHON, Machine
from host.vms import Vm

UPLINK = "uplink0"
"""The link that the macvtaps of all VMs are put on."""

_HOLD_TAPS = STORE / "h01d7aps0000000000000000000000a0-hold-taps.py"
_HOLD_TAPS_TEXT = """\
import fcntl, os, signal, struct, sys

TUNSETIFF = 0x400454CA
flags = int(sys.argv[1], 16)
for name in sys.argv[2:]:
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
signal.pause()
"""
_TAP_FLAGS = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR of <linux/if_tun.h>
_MULTI_QUEUE = 0x0100


def write_common(machine: Machine) -> None:
    """Writes what all runners share."""
    machine.write(_HOLD_TAPS, _HOLD_TAPS_TEXT)


def write_runner(machine: Machine, vm: Vm, era: Era) -> None:
    """Writes the runner of a VM, built for hosts of `era`, and the system that it boots."""
    for name, text in _scripts(vm, era):
        machine.write(vm.runner / "bin" / name, f"#!/bin/sh\nset -eu\n{text}", 0o755)
    for name, text in _metadata(vm, era):
        machine.write(vm.runner / "share/microvm" / name, text)
    machine.write(vm.toplevel / "nixos-version", "26.05\n")
    machine.link(vm.runner / "share/microvm/system", vm.toplevel)


def _scripts(vm: Vm, era: Era) -> Iterator[tuple[str, str]]:
    yield "microvm-run", _run(vm)
    if vm.hypervisor.can_shut_down:
        yield "microvm-shutdown", _SHUTDOWN
    if era.runner_has_scripts:
        yield from _helper_scripts(vm)


def _helper_scripts(vm: Vm) -> Iterator[tuple[str, str]]:
    """Only those that the VM has a use for: their absence is a helper's unmet condition."""
    if vm.taps:
        yield "tap-up", "" if vm.light else "".join(_tap_up(vm, tap) for tap in vm.taps)
        yield "tap-down", "" if vm.light else "".join(f"ip link delete {tap}\n" for tap in vm.taps)
    if vm.macvtaps:
        yield "macvtap-up", "".join(_macvtap_up(vm, macvtap) for macvtap in vm.macvtaps)
        yield "macvtap-down", "".join(_macvtap_down(macvtap) for macvtap in vm.macvtaps)
    if vm.pci:
        yield "pci-setup", ""
    if vm.virtiofs:
        yield "virtiofsd-run", "systemd-notify --ready\nexec sleep infinity\n"


def _metadata(vm: Vm, era: Era) -> Iterator[tuple[str, str]]:
    yield "tap-flags", _tap_flags(vm).replace(" ", "\n") + "\n"
    if vm.taps:
        yield "tap-interfaces", "".join(f"{tap}\n" for tap in vm.taps)
    if vm.macvtaps:
        lines = (f"{macvtap} {_mac(vm, macvtap)} {UPLINK} bridge\n" for macvtap in vm.macvtaps)
        yield "macvtap-interfaces", "".join(lines)
    for tag in vm.virtiofs:
        yield f"virtiofs/{tag}/source", f"/srv/{tag}\n"
        yield f"virtiofs/{tag}/socket", f"{vm.name}-virtiofs-{tag}.sock\n"
    if vm.pci:
        yield "pci-devices", "".join(f"{device}\n" for device in vm.pci)
    if era.runner_names_hypervisor:
        yield "hypervisor", f"{vm.hypervisor}\n"


def _run(vm: Vm) -> str:
    if vm.light or not vm.taps:
        return "exec sleep infinity\n"
    flags = _TAP_FLAGS | (_MULTI_QUEUE if vm.multi_queue else 0)
    return f"exec {PYTHON} -ISE {_HOLD_TAPS} {flags:x} {' '.join(vm.taps)}\n"


# systemd gives the main process, and `microvm-shutdown` returns when the hypervisor has.
_SHUTDOWN = """\
kill "$MAINPID"
while kill -0 "$MAINPID" 2>/dev/null; do sleep 0.02; done
"""


def add_tap(vm: Vm, tap: str) -> list[str]:
    """The commands, without their `ip`, that make one of a VM's TAPs."""
    flags = _tap_flags(vm)
    return [f"tuntap add name {tap} mode tap user microvm {flags}", f"link set {tap} up"]


def _tap_flags(vm: Vm) -> str:
    return "vnet_hdr multi_queue" if vm.multi_queue else "vnet_hdr"


def _tap_up(vm: Vm, tap: str) -> str:
    commands = "\n".join(f"ip {command}" for command in add_tap(vm, tap))
    return f"""\
if [ -e /sys/class/net/{tap} ]; then ip link delete {tap}; fi
{commands}
"""


def _macvtap_up(vm: Vm, macvtap: str) -> str:
    # The kernel makes /dev/tapN on the running machine; a real host is that machine itself.
    return f"""\
if [ -e /sys/class/net/{macvtap} ]; then ip link delete {macvtap}; fi
ip link add link {UPLINK} name {macvtap} address {_mac(vm, macvtap)} type macvtap mode bridge
ip link set {macvtap} up
read -r index < /sys/class/net/{macvtap}/ifindex
IFS=: read -r major minor < /sys/class/macvtap/tap$index/dev
mknod /dev/tap$index c $major $minor
chown microvm:kvm /dev/tap$index
"""


def _macvtap_down(macvtap: str) -> str:
    return f"""\
read -r index < /sys/class/net/{macvtap}/ifindex
ip link delete {macvtap}
rm /dev/tap$index
"""


def _mac(vm: Vm, macvtap: str) -> str:
    digest = hashlib.sha256(f"{vm.name} {macvtap}".encode()).digest()
    return ":".join(["02", *(f"{byte:02x}" for byte in digest[:5])])
