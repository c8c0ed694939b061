"""The unit that nix/unit.nix makes, with all its hardening, on a real host.

What is tried, one directive each forbids alone. The kernel's parameters, clock, name, modules and
log are out of reach for a user without capabilities anyway, whatever `Protect…=` says, and
`DevicePolicy=` closes nothing in a container, which has no device controller of its own.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import nix_eval
from host import Fleet, Machine, Vm, eventually
from host.exporter import COMMAND, DECLARATION, PORT, USER, Endpoint
from host.layout import UNITS
from host.machine import PYTHON
from host.nixos_unit import UNIT, install, uninstall
from host.runners import UPLINK

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(bool(nix_eval.missing()), reason=str(nix_eval.missing())),
]

FLAGS = (f"--declaration.file={DECLARATION}", "--collect.interval=100ms")

HOME = Path("/home/somebody")
PROBE = Path("/opt/probe.py")
PROBE_TEXT = """\
import ctypes, json, mmap, os, socket, sys

LIBC = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(LIBC, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def can(attempt):
    try:
        return attempt() is not False
    except OSError:
        return False

def set_user_id_bit():
    open("/tmp/tool", "w").close()
    os.chmod("/tmp/tool", 0o4755)

print(json.dumps({
    "arguments": sys.argv[1:],
    "can": [name for name, attempt in {
        "open a unix socket": lambda: socket.socket(socket.AF_UNIX),
        "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
        "open a socket to guests": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
        "write where all may": lambda: open("/opt/all/probe", "w"),
        "write to a /tmp of its own": lambda: open("/tmp/probe", "x"),
        "read homes": lambda: bool(os.listdir("/home")),
        "map memory to write and run": lambda: mmap.mmap(-1, 4096, prot=7),
        "make a user namespace": lambda: call("unshare", 0x10000000),
        "change its personality": lambda: call("personality", 8),
        "change its priority": lambda: os.nice(1),
        "make a set-user-ID file": set_user_id_bit,
        "see others' processes": lambda: os.path.exists("/proc/1"),
        "see the microvm user's device": lambda: os.stat("/dev/tap-probe").st_uid == %d,
        "be debugged": lambda: call("ptrace", 0, 0, 0, 0),
    }.items() if can(attempt)],
    "status": dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines()),
}))
"""


@pytest.fixture
def host(fleet: Fleet) -> Iterator[Fleet]:
    fleet.declare(
        Vm("web", taps=("vm-web",), macvtaps=("mv-web",)), Vm("mail.internal", taps=("vm-mail",))
    )
    fleet.switch()
    fleet.write_declaration(DECLARATION)
    yield fleet
    uninstall(fleet.machine)
    for path in (DECLARATION.parent, PROBE.parent):
        fleet.machine.remove(path)


def test_systemd_has_nothing_against_the_unit(host: Fleet) -> None:
    install(host.machine, COMMAND, FLAGS)
    verified = host.machine.run("systemd-analyze", "verify", "--man=no", str(UNITS / UNIT))
    assert (verified.stdout, verified.stderr) == ("", "")
    rated = host.machine.run(
        "systemd-analyze", "security", "--threshold=20", UNIT, check=False, env={"COLUMNS": "200"}
    )
    assert rated.returncode == 0, rated.stdout


def test_hardened_unit_sees_all_it_should(host: Fleet) -> None:
    machine = host.machine
    install(machine, COMMAND, FLAGS)
    machine.systemctl("start", UNIT)  # it returns once the unit has said that it is ready
    shown = machine.show(UNIT, "User", "StatusText", "WatchdogUSec", "NotifyAccess")
    address, port = machine.forward(PORT, 0)
    exporter = Endpoint(f"http://{address}:{port}")
    samples = exporter.samples()
    make_strays(machine)
    eventually("strays are found", lambda: len(exporter.findings()) == 2)

    assert shown == {
        "User": USER,
        "StatusText": "No drift: what is there is what is declared.",
        "WatchdogUSec": "2min",
        "NotifyAccess": "main",
    }
    collectors = ("declaration", "systemd", "links", "state")
    for metric in ("microvm_exporter_collector_success", "microvm_exporter_collector_following"):
        assert samples[metric] == [({"collector": name}, 1) for name in collectors]
    assert samples["process_start_time_seconds"]
    assert exporter.findings() == [
        "warning stray_macvtap - mv-old",
        "warning stray_tap - vm-old",
    ]
    assert machine.show(UNIT, "NRestarts") == {"NRestarts": "0"}


def test_hardened_unit_can_do_no_more_than_it_needs(host: Fleet) -> None:
    machine = host.machine
    arguments = ["--a=b c", "--d=100%h $HOME ${HOME}", "--e=\"'\\n", "--f=ö", ""]
    install(machine, f"{PYTHON} {PROBE}", arguments)
    machine.write(PROBE, PROBE_TEXT % machine.ids("microvm")[0])
    # /dev/null by another name, which no udev is here to give it
    machine.run("sh", "-ec", "mknod /dev/tap-probe c 1 3; chown microvm:kvm /dev/tap-probe")
    machine.write(HOME / "secret", "")
    machine.run("mkdir", "--mode=777", str(PROBE.parent / "all"))
    machine.systemctl("start", UNIT)
    machine.run("journalctl", "--sync")
    last = ("journalctl", "--quiet", "--lines=1", "--output=cat", f"_SYSTEMD_UNIT={UNIT}")
    found = json.loads(machine.run(*last).stdout)
    for path in ("/dev/tap-probe", HOME):
        machine.remove(path)

    assert found["arguments"] == ["serve", *arguments]
    assert found["can"] == [
        "open a unix socket",
        "open a netlink socket",
        "write to a /tmp of its own",
        "see the microvm user's device",
    ]
    nothing = "0" * 16
    assert (
        found["status"].items()
        >= {
            "CapEff": nothing,
            "CapBnd": nothing,
            "CapAmb": nothing,
            "NoNewPrivs": "1",
            "Seccomp": "2",
            "Umask": "0077",
        }.items()
    )


def make_strays(machine: Machine) -> None:
    """A TAP and a macvtap that no VM has, and that only their owner tells to be MicroVMs'."""
    machine.run("ip", *shlex.split("tuntap add name vm-old mode tap user microvm"))
    machine.run("ip", *shlex.split(f"link add link {UPLINK} name mv-old type macvtap mode bridge"))
    machine.run(
        "sh",
        "-ec",
        "read -r index < /sys/class/net/mv-old/ifindex;"
        "IFS=: read -r major minor < /sys/class/macvtap/tap$index/dev;"
        "mknod -m 600 /dev/tap$index c $major $minor; chown microvm:kvm /dev/tap$index",
    )
