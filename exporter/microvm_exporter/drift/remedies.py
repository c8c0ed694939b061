"""What to do about a finding: lines that can be pasted into a root shell.

Comments hold what a person has to decide. Each remedy is safe to paste after any other, in the
order in which they are printed: a device is only deleted while nobody uses it, and nothing that is
or may be wanted is deleted.

Stopping names every unit of the VM in one command: `systemctl stop microvm@N` alone returns before
the helpers are down, and a removal of the state directory that follows at once makes them fail and
leak the TAP (20 and 13 of 20 runs).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from microvm_exporter.drift.host import Site
from microvm_exporter.drift.vm import Vm
from microvm_exporter.model import HELPERS, Link, LinkKind, Origin, Template
from microvm_exporter.text import quote

__all__ = [
    "delete_link",
    "get_running",
    "look_at_unit",
    "mend",
    "remove",
    "restart",
    "start",
    "stop",
]

# Its volumes are made where they are not (``autoCreate``).
_MOUNT: Final = "# first mount what its disks are on, if it is not: it would start on empty ones"


def stop(vm: Vm) -> str:
    """Stop the VM and its helpers together."""
    return _stop(vm, (Template.MICROVM, *HELPERS))


def start(vm: Vm) -> str:
    """Start the VM, and with it its helpers."""
    return f"systemctl start {_service(vm)}"


def restart(vm: Vm) -> tuple[str, ...]:
    """Start the VM anew, helpers included."""
    return ("# restarts the guest:", f"systemctl restart {_service(vm)}")


def look_at_unit(unit: str) -> tuple[str, ...]:
    """See why a unit is as it is; in no pager, which would swallow the lines that follow."""
    return (
        f"systemctl --no-pager status {quote(unit)}",
        f"journalctl --no-pager -b -u {quote(unit)} -n 50",
    )


def get_running(vm: Vm) -> tuple[str, ...]:
    """See why the VM is down, and start it; systemd counts starts, and gives up after a few."""
    look = look_at_unit(f"{Template.MICROVM}{vm.name}.service")
    if vm.waiting_for_restart:
        return (*look, "# mend what it says: systemd goes on starting it by itself")
    return (*look, start(vm))


def remove(site: Site, vm: Vm) -> tuple[str, ...]:
    """Remove everything that the VM left, in an order that leaks nothing."""
    if site.may_be_wanted(vm):
        return ("# whether it is wanted cannot be told now: remove nothing",)
    lines = [*_removal(site, vm)]
    if vm.autostart:
        lines.append(f"# and take {vm.name} out of microvm.autostart")
    if not lines:
        return ("# nothing is left to remove: this finding goes an hour after the attempt",)
    keep = "# to keep it: declare it again, or accept it as imperative; to remove it:"
    return (keep, *lines)


def mend(site: Site, vm: Vm) -> tuple[str, ...]:
    """Bring what is installed back to what is wanted; remove what nobody wants.

    A guest that runs is not restarted by that: what is left to do then is a finding of its own.
    """
    if not vm.known:
        return remove(site, vm)
    if vm.state and not vm.state.readable:
        # What is in it decides what installs it.
        return ("# mend first that it cannot be read:", f"ls -la {quote(vm.state.path)}")
    install = _install(vm)
    if install is None:
        why = "microvm -c, or its deploy.installOnHost"
        return (f"# install {vm.name} on this host again, as it was before: {why}",)
    commands = f"{install} && {start(vm)}" if vm.autostart and not vm.active else install
    return (commands,) if vm.state or vm.state_unseen else (_MOUNT, commands)


def delete_link(link: Link, owner: Vm | None) -> str:
    """Delete a device, unless it has come into use since, be it by a hypervisor without a unit."""
    steps = [_is_held(link), f"ip link delete dev {quote(link.name)}"]
    if owner is not None:
        steps.insert(0, f"systemctl --quiet is-active {_service(owner)}")
    return " || ".join(steps)


def _is_held(link: Link) -> str:
    """Ask all descriptors. Their paths together can be too long for a command that gets them."""
    if link.kind is LinkKind.MACVTAP:
        index = f"$(cat {quote(f'/sys/class/net/{link.name}/ifindex')})"
        return f'find /proc/[0-9]*/fd -lname "/dev/tap{index}" 2>/dev/null | grep -q .'
    # A descriptor tells of the TAP that it holds, up or down (drivers/net/tun.c); the carrier of
    # one that is down cannot be read.
    return f"grep -rqs {quote(f'^iff:.{_literally(link.name)}$')} /proc/[0-9]*/fdinfo"


def _literally(text: str) -> str:
    """Give the basic regular expression that matches just this."""
    return re.sub(r"[\\[.*^$]", r"\\\g<0>", text)


def _removal(site: Site, vm: Vm) -> Iterator[str]:
    if vm.units:
        yield _stop(vm, Template)
    for link in _leaking(site, vm):
        # Another VM or program may have it by now, or it may be gone.
        yield f"{delete_link(link, None)} 2>/dev/null || true"
    if vm.units:
        yield f"systemctl reset-failed {' '.join(quote(unit) for unit in _failed(vm))}"
    if vm.state is not None:
        yield "# its disk images may be in here: keep what is still needed"
        yield f"rm -rf {quote(vm.state.path)}"
    roots = (vm.gcroot, vm.booted_gcroot, vm.old_gcroot)
    if links := [quote(link.path) for link in roots if link]:
        yield f"rm -f {' '.join(links)}"


def _leaking(site: Site, vm: Vm) -> list[Link]:
    """The devices that a stop leaves behind: tap-down is looked up in ``booted``.

    That is gone with the state directory, and before the helpers stop on a host of 2024-12 to
    2026-02 (`microvm_exporter.drift.units`). What a VM claims can be any name: those that are not
    of such a device, or another's, are not meant.
    """
    if vm.stopped or (vm.state and Template.SET_BOOTED in site.templates):
        return []
    claimed = ((kind, site.links.get(name)) for kind, name in sorted(vm.claims))
    return [
        link
        for kind, link in claimed
        if link and link.kind is kind and (link.ours or kind is LinkKind.MACVTAP)
    ]


def _install(vm: Vm) -> str | None:
    """What makes ``current``; None when nothing on the host can."""
    unit = quote(f"install-microvm-{vm.name}.service")
    # install-microvm-N of a deployed VM is skipped once STATE/N is there.
    if vm.declared and not (vm.declared.origin is Origin.DEPLOYED and vm.state):
        return f"systemctl restart {unit}"
    if vm.has_flake:
        return f"microvm -u {quote(vm.name)}"
    if vm.declared and vm.state:
        return _install_around(vm.state.path, unit)
    return None


def _install_around(path: str, unit: str) -> str:
    """Have a directory made that the unit skips where there is one, and keep what is in that.

    Its owner moves what is in it: to root, whoever broke out of a guest could put a link to another
    directory in its place meanwhile.
    """
    here, aside = quote(path), quote(f"{path}.old")
    state_dir = quote(path.rpartition("/")[0])
    ids = f'--reuid="$(stat -c %u {state_dir})" --regid="$(stat -c %g {state_dir})"'
    owner = f"setpriv {ids} --clear-groups"
    return " && ".join(
        (
            f"mv -T {here} {aside}",
            f"systemctl restart {unit}",
            f"{owner} rm -f {quote(f'{path}.old/current')}",
            f"{owner} find {aside} -mindepth 1 -maxdepth 1 -exec mv -nt {here} {{}} +",
            f"{owner} rmdir {aside}",
        )
    )


def _service(vm: Vm) -> str:
    return quote(f"{Template.MICROVM}{vm.name}.service")


def _stop(vm: Vm, templates: Iterable[Template]) -> str:
    units = (quote(vm.units[template].name) for template in templates if template in vm.units)
    return f"systemctl stop {' '.join(units)}"


def _failed(vm: Vm) -> Iterator[str]:
    """Give what matches all units of the VM: of a pattern it is no error that nothing is loaded.

    systemd takes a backslash in a pattern as it is (``FNM_NOESCAPE``).
    """
    yield f"microvm*@{vm.name}.service"
    install = vm.units.get(Template.INSTALL)
    if install and install.active_state == "failed":
        yield install.name
