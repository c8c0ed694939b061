"""What to do about a finding: lines that can be pasted into a root shell.

Comments hold what a person has to decide. Stopping names every unit of the VM in one command:
`systemctl stop microvm@N` alone returns before the helpers are down, and a removal of the state
directory that follows at once makes them fail and leak the TAP (20 and 13 of 20 runs).
"""

from __future__ import annotations

from microvm_exporter.drift.host import Host, Vm
from microvm_exporter.model import Origin
from microvm_exporter.text import quote

__all__ = [
    "delete_link",
    "look_at_unit",
    "reinstall",
    "remove",
    "restart",
    "stop",
]


def stop(host: Host, vm: Vm) -> str:
    """Stop the VM and its helpers together."""
    return f"systemctl stop {' '.join(quote(unit) for unit in host.members(vm))}"


def restart(vm: Vm) -> str:
    """Start the VM anew, helpers included."""
    return f"systemctl restart {quote(f'microvm@{vm.name}.service')}"


def remove(host: Host, vm: Vm) -> tuple[str, ...]:
    """Remove everything the VM left, in an order that leaks nothing."""
    lines = [f"# to keep {vm.name}: declare it again, or accept it as imperative; to remove it:"]
    if vm.units:
        lines.append(stop(host, vm))
    if failed := [quote(u.name) for _, u in sorted(vm.units.items()) if u.active_state == "failed"]:
        lines.append(f"systemctl reset-failed {' '.join(failed)}")
    if vm.state is not None:
        lines.append("# its disk images may be in here: keep what is still needed")
        lines.append(f"rm -rf {quote(vm.state.path)}")
    gcroots = (host.tree.gcroots.get(vm.name), host.tree.booted_gcroots.get(vm.name))
    if links := [quote(link.path) for link in gcroots if link]:
        lines.append(f"rm -f {' '.join(links)}")
    return tuple(lines)


def reinstall(vm: Vm) -> tuple[str, ...]:
    """Bring ``STATE/N`` of a known VM back to what is wanted, and run that if it should run."""
    restarts = (restart(vm),) if vm.autostart or vm.running else ()
    if vm.declared is None or (vm.declared.origin is Origin.DEPLOYED and vm.state):
        # install-microvm-N is not for this one: it is absent, or skipped once STATE/N is there.
        return (f"microvm -u {quote(vm.name)}", *restarts)
    return (f"systemctl restart {quote(f'install-microvm-{vm.name}.service')}", *restarts)


def look_at_unit(unit: str) -> tuple[str, ...]:
    """See why a unit is as it is."""
    return (f"systemctl status {quote(unit)}", f"journalctl -b -u {quote(unit)} -n 50")


def delete_link(name: str) -> str:
    """Delete a device. ``ip tuntap del`` would have to be told its flags."""
    return f"ip link delete dev {quote(name)}"
