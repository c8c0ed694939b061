"""The command line that boots a machine, and what it needs of the machine that it runs on."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from host.cgroup import Cgroup, own_groups

CHECKOUT = Path(__file__).resolve().parents[2]

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    "LANG": "C.UTF-8",
    "HOME": "/",
    "PYTHONDONTWRITEBYTECODE": "1",  # the checkout is read-only in a machine
    "SYSTEMD_BUS_TIMEOUT": "10min",  # `Machine.run` knows how long to wait for a busy PID 1
}

_PACKAGES = {
    "/usr/lib/systemd/systemd": "systemd",
    "/usr/bin/systemd-nspawn": "systemd-container",
    "/usr/bin/dbus-daemon": "dbus",
    "/usr/bin/ip": "iproute2",
    "/usr/bin/nsenter": "util-linux",
}
"""What a machine is made of, and the Debian package that brings it."""

_NSPAWN = (
    "systemd-nspawn",
    "--quiet",
    "--directory=/",
    "--volatile=yes",  # only /usr is the running machine's; the rest is a tmpfs
    "--boot",
    "--private-network",
    "--capability=CAP_NET_ADMIN",
    "--register=no",
    "--keep-unit",  # neither machined nor the running machine's systemd is asked
    "--console=pipe",
    "--link-journal=no",
    "--resolv-conf=off",
    "--timezone=off",
)
_SYSTEMD = (
    "systemd.unit=multi-user.target",
    "systemd.firstboot=no",  # it would ask on the console
    "systemd.condition-first-boot=no",  # presets would enable every service that /usr has
    "systemd.mask=console-getty.service",
    "systemd.mask=systemd-logind.service",
)
# The arguments are the groups to join, "--" and the command. What nspawn leaves under /run/systemd
# stays in a mount namespace that ends with it.
_START = """
while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
exec "$@"
"""


def missing() -> str | None:
    """Why no machine can be booted here, in one line; None when one can."""
    if os.geteuid() != 0:
        return "a disposable host needs root"
    packages = [package for path, package in _PACKAGES.items() if not Path(path).exists()]
    if packages:
        return f"a disposable host needs the Debian packages {', '.join(packages)}"
    groups = list(own_groups())
    if not groups or not all(os.access(group, os.W_OK) for group in groups):
        return "a disposable host needs a cgroup of its own, and cgroups are read-only here"
    if not Path("/dev/net/tun").exists():
        return "a disposable host needs /dev/net/tun"
    return None


def command(name: str, cgroup: Cgroup) -> list[str]:
    """Boots machine `name`. When its parent dies, or unshare does, nothing of it survives."""
    return [
        *("setpriv", "--pdeathsig=KILL"),
        # nspawn alone, when killed, leaves what it booted behind; its PID namespace does not.
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("sh", "-euc", _START, "sh", *map(str, cgroup.paths), "--"),
        *_NSPAWN,
        f"--machine={name}",
        f"--uuid={uuid.uuid4()}",
        *(f"--bind-ro={path}" for path in bound_paths()),
        "--",
        *_SYSTEMD,
    ]


def bound_paths() -> list[Path]:
    """What a machine shares with the running one beside /usr: the checkout and its Python."""
    wanted = {CHECKOUT}
    for prefix in (Path(sys.prefix), Path(sys.base_prefix)):
        wanted |= {prefix, prefix.resolve()}
    return sorted(
        path
        for path in wanted
        if not path.is_relative_to("/usr")
        and not any(path.is_relative_to(other) for other in wanted - {path})
    )
