"""The unit family that the host module of microvm.nix installs, in its three eras.

The facts are those of `nixos-modules/host/default.nix` at the commits that began each era; the
texts are ours. NixOS has symbolic links into the store where plain files are written here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from typing import NamedTuple

from host.machine import Machine

STATE = PurePosixPath("/var/lib/microvms")
GCROOTS = PurePosixPath("/nix/var/nix/gcroots/microvm")
STORE = PurePosixPath("/nix/store")
UNITS = PurePosixPath("/etc/systemd/system")
TARGET = "microvms.target"
HOST_SCRIPTS = STORE / "h0stscr1p7s0000000000000000000a0-microvm-host-scripts"


@dataclass(frozen=True, slots=True)
class Era:
    """A time in which the units of microvm.nix behaved the same."""

    name: str
    since: date
    runner_has_scripts: bool
    """A helper's scripts and condition are the runner's `bin/…`, not the host's and `share/…`."""
    has_set_booted: bool
    """`booted` is made and removed by a unit that outlives the VM, not by the VM's own."""
    runner_names_hypervisor: bool
    """The runner has a file `share/microvm/hypervisor`."""

    @property
    def templates(self) -> tuple[str, ...]:
        """The names before the `@`; the VM's own comes last."""
        set_booted = ("microvm-set-booted",) if self.has_set_booted else ()
        return (*HELPERS, *set_booted, "microvm")

    def units(self, name: str) -> list[str]:
        """All unit instances of VM `name`, to be named together in a safe `systemctl stop`."""
        return [f"{template}@{name}.service" for template in reversed(self.templates)]


SHARE_CONDITIONS = Era("share-conditions", date(2022, 8, 1), False, False, False)
BEFORE_SET_BOOTED = Era("before-set-booted", date(2024, 12, 3), True, False, False)
TODAY = Era("today", date(2026, 2, 21), True, True, True)
ERAS = (SHARE_CONDITIONS, BEFORE_SET_BOOTED, TODAY)


class Helper(NamedTuple):
    """A unit that `microvm@N` requires. Names are below the runner's `bin` and `share/microvm`."""

    description: str
    start: str
    stop: str | None
    metadata: str
    after: str
    needs_booted: bool


HELPERS = {
    "microvm-tap-interfaces": Helper(
        "Setup MicroVM '%i' TAP interfaces",
        *("tap-up", "tap-down", "tap-interfaces", "network.target", True),
    ),
    "microvm-macvtap-interfaces": Helper(
        "Setup MicroVM '%i' MACVTAP interfaces",
        *("macvtap-up", "macvtap-down", "macvtap-interfaces", "", True),
    ),
    "microvm-pci-devices": Helper(
        "Setup MicroVM '%i' devices for passthrough",
        *("pci-setup", None, "pci-devices", "", False),
    ),
    "microvm-virtiofsd": Helper(
        "VirtioFS daemons for MicroVM '%i'",
        *("virtiofsd-run", None, "virtiofs", "local-fs.target", True),
    ),
}
"""By template. `microvm-set-booted` is none of them: it has no condition and no script."""

DROP_INS = ("microvm", "microvm-tap-interfaces", "microvm-pci-devices", "microvm-virtiofsd")
"""The templates of which a declared VM has a drop-in; the others never get one."""


def install(machine: Machine, era: Era) -> None:
    """Writes the templates and the target, wanted at boot. The manager is not told."""
    for template in HELPERS:
        machine.write(UNITS / f"{template}@.service", _helper(era, template))
    if era.has_set_booted:
        machine.write(UNITS / "microvm-set-booted@.service", _SET_BOOTED)
    machine.write(UNITS / "microvm@.service", _vm(era))
    machine.link(UNITS / "multi-user.target.wants" / TARGET, UNITS / TARGET)
    write_target(machine, ())
    if not era.runner_has_scripts:
        for name, text in _HOST_SCRIPTS.items():
            machine.write(HOST_SCRIPTS / name, text, 0o755)


def uninstall(machine: Machine) -> None:
    """Removes what `install` wrote in any era, and nothing of the VMs. The manager is not told."""
    for template in TODAY.templates:
        machine.remove(UNITS / f"{template}@.service")
    machine.remove(UNITS / "multi-user.target.wants" / TARGET)
    machine.remove(UNITS / TARGET)
    machine.remove(HOST_SCRIPTS)


def write_target(machine: Machine, autostart: Iterable[str]) -> None:
    """Writes `microvms.target`, which wants the VMs of the option `microvm.autostart`."""
    wants = " ".join(f"microvm@{name}.service" for name in autostart)
    machine.write(UNITS / TARGET, f"[Unit]\nWants={wants}\n")


def install_unit(name: str, era: Era, script: PurePosixPath, once: bool) -> str:
    """The text of `install-microvm-N.service`; `once`: it runs only while N has no state."""
    condition = f"ConditionPathExists=!{STATE / name}" if once else ""
    return f"""\
[Unit]
Description=Install MicroVM '{name}'
Before={" ".join(era.units(name))}
PartOf=microvm@{name}.service
{condition}

[Service]
Type=oneshot
ExecStart={script}
SyslogIdentifier=install-microvm-{name}
"""


def drop_in(template: str, toplevel: PurePosixPath) -> str:
    """The text of a declared VM's `overrides.conf`; a change of the VM changes its own unit's."""
    text = "[Service]\nX-RestartIfChanged=\nX-RestartIfChanged=false\n"
    if template == "microvm":
        text = f"[Unit]\nX-Restart-Triggers={toplevel}\n\n{text}Type=simple\n"
    return text


def _helper(era: Era, template: str) -> str:
    helper = HELPERS[template]
    current, booted = f"{STATE}/%i/current", f"{STATE}/%i/booted"
    if era.runner_has_scripts:
        condition = start = f"{current}/bin/{helper.start}"
        stop = f"{booted}/bin/{helper.stop}"
    else:
        condition = f"{current}/share/microvm/{helper.metadata}"
        start, stop = f"{HOST_SCRIPTS}/{helper.start} %i", f"{HOST_SCRIPTS}/{helper.stop} %i"
    set_booted = era.has_set_booted and helper.needs_booted
    return f"""\
[Unit]
Description={helper.description}
Before=microvm@%i.service
After={helper.after} {"microvm-set-booted@%i.service" if set_booted else ""}
PartOf=microvm@%i.service
ConditionPathExists={condition}

[Service]
X-RestartIfChanged=false
SyslogIdentifier={template}@%i
ExecStart={start}
{_DAEMONS if template == "microvm-virtiofsd" else _ONCE}
{f"ExecStop={stop}" if helper.stop else ""}
"""


_ONCE = """\
Type=oneshot
RemainAfterExit=true"""

_DAEMONS = f"""\
Type=notify
NotifyAccess=all
WorkingDirectory={STATE}/%i
Restart=always
RestartSec=5s
KillMode=mixed
PrivateTmp=yes
LimitNOFILE=1048576"""

# Without `current`, readlink prints nothing and `ln` makes a link of the name `booted` to itself.
_SET_BOOTED = f"""\
[Unit]
Description=Save MicroVM '%i' booted configuration
Before=microvm@%i.service
PartOf=microvm@%i.service

[Service]
X-RestartIfChanged=false
SyslogIdentifier=microvm-set-booted@%i
{_ONCE}
WorkingDirectory={STATE}/%i
User=microvm
Group=kvm
ExecStart=/bin/sh -ec 'rm -f booted; ln -s $(readlink current) booted'
ExecStop=/bin/rm booted
"""

_BOOTED_IN_VM = """\
ExecStartPre=/bin/sh -ec 'rm -f booted; ln -s $(readlink current) booted'
ExecStopPost=/bin/sh -ec 'rm booted'"""

_REGISTER_IN_VM = "\n".join(
    f"Exec{when}=+/bin/sh -c 'if [ -x {script} ]; then {script} $MAINPID; fi'"
    for when, script in (
        ("StartPost", f"{STATE}/%i/current/bin/microvm-register"),
        ("StopPost", f"{STATE}/%i/current/bin/microvm-unregister"),
    )
)


def _vm(era: Era) -> str:
    helpers = " ".join(f"{template}@%i.service" for template in era.templates[:-1])
    return f"""\
[Unit]
Description=MicroVM '%i'
Requires={helpers}
After=network.target systemd-modules-load.service {helpers}
ConditionPathExists={STATE}/%i/current/bin/microvm-run

[Service]
X-RestartIfChanged=false
SyslogIdentifier=microvm@%i
Type=simple
NotifyAccess=all
User=microvm
Group=kvm
WorkingDirectory={STATE}/%i
ExecStart={STATE}/%i/current/bin/microvm-run
ExecStop={STATE}/%i/booted/bin/microvm-shutdown
{_REGISTER_IN_VM if era.has_set_booted else _BOOTED_IN_VM}
TimeoutSec=150
Restart=always
RestartSec=5s
LimitNOFILE=1048576
LimitMEMLOCK=infinity
"""


_HOST_SCRIPTS = {
    "tap-up": f"""#!/bin/sh
set -eu
cd {STATE}/"$1"/current/share/microvm
for id in $(cat tap-interfaces); do
    if [ -e "/sys/class/net/$id" ]; then ip link delete "$id"; fi
    ip tuntap add name "$id" mode tap user microvm $(cat tap-flags)
    ip link set "$id" up
done
""",
    "tap-down": f"""#!/bin/sh
for id in $(cat {STATE}/"$1"/current/share/microvm/tap-interfaces); do
    ip link delete "$id"
done
""",
    "macvtap-up": f"""#!/bin/sh
set -eu
while read -r id mac link mode; do
    if [ -e "/sys/class/net/$id" ]; then ip link delete "$id"; fi
    ip link add link "$link" name "$id" address "$mac" type macvtap mode "$mode"
    ip link set "$id" up
done < {STATE}/"$1"/current/share/microvm/macvtap-interfaces
""",
    "macvtap-down": f"""#!/bin/sh
while read -r id _; do
    ip link delete "$id"
done < {STATE}/"$1"/current/share/microvm/macvtap-interfaces
""",
    "pci-setup": "#!/bin/sh\n",
    "virtiofsd-run": "#!/bin/sh\nsystemd-notify --ready\nexec sleep infinity\n",
}
"""What the units of the oldest era run, with the VM's name."""
