"""The links collector against the kernel of this machine, in network namespaces of its own."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import os
import pwd
import resource
import select
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest
from pyroute2.netlink.rtnl import RTMGRP_LINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from microvm_exporter.collectors import missed, rtnl
from microvm_exporter.collectors.links import LinkCollector
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Following, Leftouts, Link, LinkKind, LinkTable

T = TypeVar("T")

OWNER = "daemon"  # stands for the microvm user
FOREIGNER = "nobody"
MYSELF = pwd.getpwuid(os.getuid()).pw_name  # the only user that there is where Nix builds
TAP_INDEX = 70_001

host = pytest.mark.host


def look(*, user: str = OWNER, limit: int = 100) -> LinkTable:
    return LinkCollector(user=user, limit=limit, follow=False).collect(Cause.RESYNC)


class Namespace:
    """A thread with a network namespace and a /dev of its own; both go with it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=self._unshare)
        self._elsewhere: Namespace | None = None
        self.held: dict[str, int] = {}
        """Descriptors of TAPs that are held open, by name."""

    @staticmethod
    def _unshare() -> None:
        clone_newns, clone_newnet = 0x00020000, 0x40000000
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(clone_newns | clone_newnet) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev"], check=True)
        Path("/dev/net").mkdir()
        os.mknod("/dev/net/tun", stat.S_IFCHR | 0o666, os.makedev(10, 200))

    def run(self, function: Callable[[], T]) -> T:
        return self._thread.submit(function).result(timeout=60)

    def ip(self, *arguments: str | bytes) -> None:
        self.run(lambda: subprocess.run(["ip", *arguments], check=True))

    def batch(self, *lines: str) -> None:
        text = "\n".join(lines)
        self.run(lambda: subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True))

    def add_tap(self, name: str, *more: str, user: str | None = OWNER) -> None:
        owner = () if user is None else ("user", user)
        self.ip("tuntap", "add", "name", name, "mode", "tap", *owner, *more)

    def open_tap(self, name: str) -> int:
        """Attach to a TAP as a hypervisor does; one that is not there comes and goes with it."""

        def attach() -> int:
            tunsetiff, iff_tap, iff_no_pi = 0x400454CA, 0x0002, 0x1000
            device = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(
                device, tunsetiff, struct.pack("16sH22x", name.encode(), iff_tap | iff_no_pi)
            )
            return device

        return self.run(attach)

    def collect(self, limit: int = 100, user: str = OWNER) -> LinkTable:
        return self.run(lambda: look(user=user, limit=limit))

    def elsewhere(self) -> Namespace:
        """Give another namespace, to send devices to."""
        if self._elsewhere is None:
            self._elsewhere = Namespace()
        return self._elsewhere

    def task(self) -> int:
        """Give the number of the thread, by which ``ip`` finds the namespace."""
        return self.run(threading.get_native_id)

    def close(self) -> None:
        for device in self.held.values():
            os.close(device)
        if self._elsewhere is not None:
            self._elsewhere.close()
        self._thread.shutdown()


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Give a namespace that has the loopback device and no other."""
    namespace = Namespace()
    yield namespace
    namespace.close()


@host
def test_no_device_gives_an_empty_table(namespace: Namespace) -> None:
    assert namespace.collect() == LinkTable()


@host
def test_a_tap_of_the_user_is_ours(namespace: Namespace) -> None:
    namespace.add_tap("vm-a", "vnet_hdr")
    [link] = namespace.collect().links.values()
    assert link == Link("vm-a", link.index, LinkKind.TAP, ours=True, persistent=True)


@host
@pytest.mark.parametrize("user", [FOREIGNER, "root", None])
def test_a_tap_of_another_or_of_nobody_in_particular_is_not_ours(
    namespace: Namespace, user: str | None
) -> None:
    namespace.add_tap("vpn0", user=user)
    assert not namespace.collect().links["vpn0"].ours


@host
def test_an_unowned_tap_is_not_roots_when_the_user_is_root(namespace: Namespace) -> None:
    namespace.add_tap("vpn0", user=None)
    table = namespace.collect(user="root")
    assert not table.links["vpn0"].ours


@host
def test_a_tap_of_many_queues_is_one(namespace: Namespace) -> None:
    namespace.add_tap("vm-a", "multi_queue")
    [link] = namespace.collect().links.values()
    assert (link.name, link.kind, link.ours) == ("vm-a", LinkKind.TAP, True)


@host
def test_carrier_is_that_of_an_attached_device(namespace: Namespace) -> None:
    namespace.add_tap("vm-a")
    namespace.ip("link", "set", "vm-a", "up")
    assert not namespace.collect().links["vm-a"].carrier
    device = namespace.open_tap("vm-a")
    assert namespace.collect().links["vm-a"].carrier
    os.close(device)
    assert not namespace.collect().links["vm-a"].carrier


@host
def test_a_tap_that_goes_with_its_program_is_not_persistent(namespace: Namespace) -> None:
    device = namespace.open_tap("tap0")
    assert not namespace.collect().links["tap0"].persistent
    os.close(device)
    assert namespace.collect() == LinkTable()


@host
def test_other_kinds_of_device_are_not_listed(namespace: Namespace) -> None:
    namespace.ip("tuntap", "add", "name", "layer3", "mode", "tun", "user", OWNER)
    namespace.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    namespace.ip("link", "add", "br0", "type", "bridge")
    assert namespace.collect() == LinkTable()


@host
def test_a_device_that_was_removed_is_gone(namespace: Namespace) -> None:
    namespace.add_tap("vm-a")
    namespace.add_tap("vm-b")
    namespace.ip("link", "del", "vm-a")
    assert list(namespace.collect().links) == ["vm-b"]


@host
def test_a_device_of_another_network_namespace_is_not_listed(namespace: Namespace) -> None:
    other = Namespace()
    other.add_tap("elsewhere")
    assert namespace.collect() == LinkTable()
    other.close()


@host
@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b'q"uote', 'q"uote'),
        (b"back\\slash", "back\\slash"),
        ("zürich".encode(), "zürich"),
        (b"\xff\xfe", "\\xff\\xfe"),
    ],
)
def test_any_name_of_the_kernel_gives_text(namespace: Namespace, raw: bytes, name: str) -> None:
    namespace.add_tap("plain")
    namespace.ip("link", "set", "plain", "name", raw)
    assert list(namespace.collect().links) == [name]


@pytest.fixture
def macvtap(namespace: Namespace) -> Namespace:
    """Add the macvtap ``vm-m``; its device file is left to the test."""
    namespace.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    namespace.ip(
        *("link", "add", "link", "veth0", "name", "vm-m", "index", str(TAP_INDEX)),
        *("type", "macvtap", "mode", "bridge"),
    )
    return namespace


def make_device_file(owner: str, kind: int = stat.S_IFCHR) -> None:
    os.mknod(f"/dev/tap{TAP_INDEX}", kind | 0o660, os.makedev(1, 3))
    os.chown(f"/dev/tap{TAP_INDEX}", pwd.getpwnam(owner).pw_uid, -1)


@host
def test_a_macvtap_is_ours_when_its_device_file_is(macvtap: Namespace) -> None:
    macvtap.run(lambda: make_device_file(OWNER))
    assert macvtap.collect().links == {"vm-m": Link("vm-m", TAP_INDEX, LinkKind.MACVTAP, ours=True)}


@host
@pytest.mark.parametrize(
    "device_file",
    [
        pytest.param(lambda: None, id="missing"),
        pytest.param(lambda: make_device_file(FOREIGNER), id="of another"),
        pytest.param(lambda: make_device_file(OWNER, stat.S_IFREG), id="a regular file"),
        pytest.param(lambda: make_device_file(OWNER, stat.S_IFIFO), id="a fifo"),
        pytest.param(lambda: Path(f"/dev/tap{TAP_INDEX}").symlink_to("null"), id="a link"),
    ],
)
def test_a_macvtap_without_a_device_file_of_the_user_is_not_ours(
    macvtap: Namespace, device_file: Callable[[], None]
) -> None:
    macvtap.run(device_file)
    assert macvtap.collect().links == {
        "vm-m": Link("vm-m", TAP_INDEX, LinkKind.MACVTAP, ours=False)
    }


@host
def test_beyond_four_devices_a_vm_the_foreign_ones_are_left_out_first(
    namespace: Namespace,
) -> None:
    for name in ("a0", "a1"):
        namespace.add_tap(name, user=FOREIGNER)
    for name in ("b0", "b1", "b2"):
        namespace.add_tap(name)
    table = namespace.collect(limit=1)
    assert list(table.links) == ["b0", "b1", "b2", "a0"]
    assert table.left_out == Leftouts(limit=1)


@host
def test_a_kind_unknown_to_the_kernel_is_answered_with_all_devices_and_lists_none(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without the macvtap module: the filter is ignored, the result is right."""
    monkeypatch.setattr(rtnl, "KINDS", ("tun", "no-such-kind"))
    namespace.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    namespace.add_tap("vm-a")
    answered = namespace.run(lambda: rtnl.dump("no-such-kind"))
    assert len(answered) == 4
    assert list(namespace.collect().links) == ["vm-a"]


@host
def test_a_refusal_of_the_kernel_is_told(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = rtnl._request

    def request_of_another_namespace(flags: int, index: int, _: bytes = b"") -> bytes:
        netnsid = 46  # IFLA_TARGET_NETNSID
        return request(flags, index, rtnl._attribute(netnsid, struct.pack("i", 4711)))

    monkeypatch.setattr(rtnl, "_request", request_of_another_namespace)
    with pytest.raises(
        CollectorError, match=r"^rtnetlink: cannot list tun devices: \[Errno 22\] Invalid argument$"
    ):
        namespace.collect()


def disturb(
    monkeypatch: pytest.MonkeyPatch, after_the_first_batch: Callable[[int], None]
) -> Iterator[int]:
    """Let something happen in the middle of each dump; it is told how many there were before."""
    dump_once = rtnl._dump_once
    numbers = itertools.count()

    def disturbed(sock: object, kind: str) -> Iterator[bytes]:
        for position, message in enumerate(dump_once(sock, kind)):
            if position == 0:
                after_the_first_batch(next(numbers))
            yield message

    monkeypatch.setattr(rtnl, "_dump_once", disturbed)
    return numbers


def add_device(number: int) -> None:
    subprocess.run(["ip", "tuntap", "add", "name", f"passing-{number}", "mode", "tun"], check=True)


@pytest.fixture
def many_taps(namespace: Namespace) -> frozenset[str]:
    """Add so many TAPs that the kernel needs several batches to tell them."""
    names = frozenset(f"vm-{number}" for number in range(150))
    namespace.batch(*(f"tuntap add name {name} mode tap user {OWNER}" for name in names))
    return names


@host
def test_a_list_that_changed_meanwhile_is_asked_for_again(
    namespace: Namespace, many_taps: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = disturb(monkeypatch, lambda number: add_device(number) if number < 3 else None)
    assert namespace.collect().links.keys() == many_taps
    assert next(numbers) == 4


@host
def test_a_list_that_never_holds_still_is_an_error(
    namespace: Namespace, many_taps: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(monkeypatch, add_device)
    with pytest.raises(
        CollectorError,
        match=r"^rtnetlink: the list of tun devices changed during each of 10 looks$",
    ):
        namespace.collect()


@host
def test_a_socket_that_ran_full_is_replaced(
    namespace: Namespace, many_taps: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_full(number: int) -> None:
        if number == 0:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    disturb(monkeypatch, run_full)
    assert namespace.collect().links.keys() == many_taps


@host
def test_a_table_taken_while_devices_come_and_go_is_whole(
    namespace: Namespace, many_taps: frozenset[str]
) -> None:
    churn = "\n".join(["tuntap add name c0 mode tun", "tuntap del name c0 mode tun"] * 100)
    process = namespace.run(lambda: subprocess.Popen(["ip", "-batch", "-"], stdin=subprocess.PIPE))
    assert process.stdin is not None
    process.stdin.write(churn.encode())
    process.stdin.close()
    looks = 0
    while process.poll() is None:
        assert namespace.collect().links.keys() == many_taps
        looks += 1
    assert looks > 1


def craft(*attributes: tuple[str, object]) -> bytes:
    message = ifinfmsg()
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data[16:])


TUN_INFO = [
    ("IFLA_INFO_KIND", "tun"),
    ("IFLA_INFO_DATA", {"attrs": [("IFLA_TUN_TYPE", 2), ("IFLA_TUN_PERSIST", 1)]}),
]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(
            craft(("IFLA_IFNAME", "vm-a"), ("IFLA_LINKINFO", {"attrs": TUN_INFO})),
            LinkTable({"vm-a": Link("vm-a", 0, LinkKind.TAP, ours=False, persistent=True)}),
            id="complete",
        ),
        pytest.param(
            craft(("IFLA_LINKINFO", {"attrs": TUN_INFO})),
            LinkTable(left_out=Leftouts(unreadable=1)),
            id="no name",
        ),
        pytest.param(
            craft(("IFLA_IFNAME", "vm-a"), ("IFLA_LINKINFO", {"attrs": TUN_INFO[:1]})),
            LinkTable(left_out=Leftouts(unreadable=1)),
            id="no data (before Linux 4.16)",
        ),
        pytest.param(craft(("IFLA_IFNAME", "eth0")), LinkTable(), id="no kind"),
        pytest.param(craft() + bytes(64), LinkTable(), id="attributes of no length"),
    ],
)
def test_a_message_that_is_not_what_it_should_be_is_counted(
    message: bytes, expected: LinkTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtnl, "dump", lambda kind: [message] if kind == "tun" else [])
    assert look(user=MYSELF) == expected


@pytest.mark.parametrize("user", ["no-such-user", "", "nul\0", "line\nbreak"])
def test_a_user_who_does_not_exist_is_an_error_that_names_the_flag(user: str) -> None:
    with pytest.raises(CollectorError) as error:
        look(user=user)
    assert str(error.value) == (
        f"no user {user!r} on this host: --microvm.user must name the owner of the MicroVMs'"
        " TAP devices"
    )


def test_no_descriptor_left_is_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(
            CollectorError, match=r"cannot list tun devices: .* Too many open files"
        ):
            rtnl.dump("tun")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptor_is_leaked_in_any_thread() -> None:
    """200 looks, 100 of them in a thread each; it needs no privilege."""
    look(user=MYSELF)
    before = open_descriptors()
    for _ in range(100):
        look(user=MYSELF)
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(look, user=MYSELF).result()
    assert open_descriptors() == before


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --------------------------------------------------------------------------------------- following


class Follower:
    """A collector that follows, in a namespace; ``table`` is what it gave last."""

    def __init__(self, namespace: Namespace, limit: int = 100) -> None:
        self.namespace = namespace
        self.limit = limit
        self.collector = LinkCollector(user=OWNER, limit=limit, follow=True)
        self.table = self.collect(Cause.RESYNC)

    def collect(self, cause: Cause) -> LinkTable:
        self.table = self.namespace.run(lambda: self.collector.collect(cause))
        return self.table

    def active(self) -> bool:
        return self.collector.following.active

    def heard(self, seconds: float = 0.0) -> bool:
        """Tell whether the kernel announces something within some time."""
        descriptor = self.collector.fileno()
        return descriptor is not None and bool(select.select([descriptor], [], [], seconds)[0])

    def hear(self, seconds: float = 2.0) -> LinkTable:
        """Wait for an event, and a moment more as the main loop does."""
        assert self.heard(seconds), "no event"
        time.sleep(0.05)
        return self.collect(Cause.EVENT)

    def hear_all(self, seconds: float = 0.0) -> LinkTable:
        while self.heard(seconds):
            self.collect(Cause.EVENT)
        return self.table

    def fresh(self) -> LinkTable:
        return self.namespace.collect(limit=self.limit)

    def lose(self) -> None:
        """Have the kernel announce more than the socket holds."""
        assert self.collector._monitor is not None
        sock = self.collector._monitor._socket.socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's least: 2304 bytes
        self.namespace.batch(*("link set witness down", "link set witness up") * 10)


@pytest.fixture
def follow(namespace: Namespace) -> Iterator[Callable[..., Follower]]:
    followers: list[Follower] = []

    def start(limit: int = 100) -> Follower:
        followers.append(Follower(namespace, limit))
        return followers[-1]

    yield start
    for follower in followers:
        follower.collector.close()


@pytest.fixture
def witness(namespace: Namespace) -> Namespace:
    """Add a TAP that is up: the kernel announces whatever becomes of it."""
    namespace.add_tap("witness")
    namespace.ip("link", "set", "witness", "up")
    return namespace


def own(device: int, user: str) -> None:
    tunsetowner = 0x400454CC
    fcntl.ioctl(device, tunsetowner, pwd.getpwnam(user).pw_uid)


def hold(namespace: Namespace, name: str) -> None:
    namespace.held[name] = namespace.open_tap(name)


def let_go(namespace: Namespace, name: str) -> None:
    os.close(namespace.held.pop(name))


def send_away(namespace: Namespace, name: str) -> None:
    namespace.ip("link", "set", name, "netns", str(namespace.elsewhere().task()))


def fetch_back(namespace: Namespace, name: str) -> None:
    namespace.elsewhere().ip("link", "set", name, "netns", str(namespace.task()))


def nothing(_: Namespace) -> None:
    pass


def hold_up(namespace: Namespace) -> None:
    add_up(namespace)
    hold(namespace, "vm-a")


def hold_and_set_up(namespace: Namespace) -> None:
    hold(namespace, "vm-a")
    namespace.ip("link", "set", "vm-a", "up")


def lend(namespace: Namespace) -> None:
    add_two(namespace)
    send_away(namespace, "vm-a")


def swap_names(namespace: Namespace) -> None:
    namespace.batch("link set vm-a name vm-c", "link set vm-b name vm-a", "link set vm-c name vm-b")


def add_two(namespace: Namespace) -> None:
    namespace.add_tap("vm-a")
    namespace.add_tap("vm-b", user=FOREIGNER)


def add_up(namespace: Namespace) -> None:
    namespace.add_tap("vm-a")
    namespace.ip("link", "set", "vm-a", "up")


def add_macvtap(namespace: Namespace) -> None:
    namespace.batch(
        "link add veth0 type veth peer name veth1",
        f"link add link veth0 name vm-m index {TAP_INDEX} type macvtap mode bridge",
    )


def put_a_veth_in_its_place(namespace: Namespace) -> None:
    namespace.batch(
        "link del vm-m", f"link add veth2 index {TAP_INDEX} type veth peer name veth3 index 80000"
    )


def put_a_macvtap_in_its_place(namespace: Namespace) -> None:
    namespace.batch(
        "link del vm-m", f"link add link veth1 name vm-n index {TAP_INDEX} type macvtap mode bridge"
    )


Act = Callable[[Namespace], object]


@host
@pytest.mark.parametrize(
    ("prepare", "act"),
    [
        pytest.param(nothing, add_two, id="TAPs are added"),
        pytest.param(nothing, add_up, id="a TAP is added and set up"),
        pytest.param(add_two, lambda ns: ns.ip("link", "del", "vm-a"), id="a TAP is deleted"),
        pytest.param(
            add_two, lambda ns: ns.ip("link", "set", "vm-a", "name", "vm-z"), id="renamed"
        ),
        pytest.param(add_two, swap_names, id="names are swapped"),
        pytest.param(add_up, lambda ns: hold(ns, "vm-a"), id="a hypervisor opens a TAP"),
        pytest.param(hold_up, lambda ns: let_go(ns, "vm-a"), id="it ends"),
        pytest.param(
            lambda ns: ns.add_tap("vm-a"),
            hold_and_set_up,
            id="a hypervisor opens a TAP before it is set up",
        ),
        pytest.param(nothing, lambda ns: hold(ns, "vm-t"), id="a TAP that is not to stay comes"),
        pytest.param(lambda ns: hold(ns, "vm-t"), lambda ns: let_go(ns, "vm-t"), id="and goes"),
        pytest.param(
            hold_up,
            lambda ns: own(ns.held["vm-a"], FOREIGNER),
            id="the owner of a TAP that is up is changed",
        ),
        pytest.param(add_two, lambda ns: send_away(ns, "vm-a"), id="moved to another namespace"),
        pytest.param(
            lend,
            lambda ns: fetch_back(ns, "vm-a"),
            id="moved back",
        ),
        pytest.param(nothing, add_macvtap, id="a macvtap is added"),
        pytest.param(
            add_macvtap, lambda ns: ns.ip("link", "del", "vm-m"), id="a macvtap is deleted"
        ),
        pytest.param(add_macvtap, put_a_veth_in_its_place, id="its index goes to a veth"),
        pytest.param(add_macvtap, put_a_macvtap_in_its_place, id="its index goes to another"),
    ],
)
def test_a_change_is_heard_of_when(
    namespace: Namespace,
    follow: Callable[..., Follower],
    monkeypatch: pytest.MonkeyPatch,
    prepare: Act,
    act: Act,
) -> None:
    monkeypatch.setattr(missed, "_GRACE", 0.0)
    namespace.add_tap("bystander")
    prepare(namespace)
    follower = follow()
    before = follower.table
    act(namespace)
    while follower.hear() != namespace.collect():
        pass
    assert follower.table != before
    assert follower.table.links["bystander"] is before.links["bystander"]
    assert follower.active()
    table = follower.hear_all()
    assert follower.collect(Cause.RESYNC) is table
    assert follower.collector.following.missed == 0


@host
def test_whoever_else_listens_hears_all_of_it(
    namespace: Namespace, follow: Callable[..., Follower]
) -> None:
    """The kernel hands one buffer round: what one listener has it cut off, the others miss."""

    def listen() -> socket.socket:
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        listener.bind((0, RTMGRP_LINK))
        listener.settimeout(5)
        return listener

    with namespace.run(listen) as listener:
        followers = [follow(), follow()]  # the kernel serves the last to come first
        namespace.add_tap("vm-a")
        assert b"vm-a\0" in listener.recv(65536)
    for follower in followers:
        assert "vm-a" in follower.collect(Cause.EVENT).links


@host
def test_nothing_new_gives_the_same_table(follow: Callable[..., Follower]) -> None:
    follower = follow()
    follower.namespace.add_tap("vm-a")
    table = follower.hear()
    for cause in (Cause.EVENT, Cause.INTERVAL, Cause.RESYNC):
        assert follower.collect(cause) is table


@host
def test_other_kinds_of_device_do_not_wake_anyone(
    witness: Namespace, follow: Callable[..., Follower]
) -> None:
    """Not even as a port of a bridge, for which the kernel announces one of ours too."""
    witness.batch("link add br0 type bridge", "link add veth0 type veth peer name veth1")
    follower = follow()
    table = follower.table
    for number in range(50):
        witness.batch(
            f"link add veth{number}a type veth peer name veth{number}b",
            f"link set veth{number}a master br0",
            f"link set veth{number}a up",
            f"link del veth{number}a",
            "link add link veth0 name vlan0 type macvlan",
            "link del vlan0",
        )
    assert not follower.heard(0.2)
    assert follower.collect(Cause.EVENT) is table
    assert follower.collector.following == Following(active=True)


@host
def test_what_no_event_tells_is_asked_for_at_an_interval(
    namespace: Namespace, follow: Callable[..., Follower]
) -> None:
    """The owner of a TAP that is down, and its carrier; the owner of a macvtap's device file."""
    add_macvtap(namespace)
    namespace.add_tap("vm-a", user=FOREIGNER)
    follower = follow()
    hold(namespace, "vm-a")
    own(namespace.held["vm-a"], OWNER)
    namespace.run(lambda: make_device_file(OWNER))
    assert not follower.heard(0.2)
    assert [link.ours for link in follower.collect(Cause.EVENT).links.values()] == [False, False]
    assert [link.ours for link in follower.collect(Cause.INTERVAL).links.values()] == [True, True]
    assert follower.table == follower.fresh()


@host
@pytest.mark.parametrize("cause", [Cause.INTERVAL, Cause.RESYNC])
def test_what_no_event_tells_is_not_missed(
    namespace: Namespace,
    follow: Callable[..., Follower],
    monkeypatch: pytest.MonkeyPatch,
    cause: Cause,
) -> None:
    """Of so many devices that they are listed at an interval, too."""
    monkeypatch.setattr(missed, "_GRACE", 0.0)
    add_macvtap(namespace)
    namespace.batch(*(f"tuntap add name t{n} mode tap user {OWNER}" for n in range(70)))
    follower = follow()
    hold(namespace, "t0")
    own(namespace.held["t0"], FOREIGNER)
    namespace.run(lambda: make_device_file(OWNER))
    before = follower.table
    assert follower.collect(cause) == follower.fresh() != before
    assert follower.collector.following == Following(active=True)


@host
def test_a_change_that_no_event_told_of_is_counted_as_missed(
    witness: Namespace, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missed, "_GRACE", 0.0)
    monkeypatch.setattr(rtnl, "_PROGRAM", rtnl._PROGRAM[-2:])  # it drops all there is to hear
    follower = follow()
    witness.add_tap("unheard-of")
    witness.ip("link", "del", "witness")
    assert not follower.heard(0.2)
    assert list(follower.collect(Cause.RESYNC).links) == ["unheard-of"]
    assert follower.collector.following == Following(active=True, missed=2)


@host
def test_a_change_that_is_seen_before_its_event_comes_is_not_missed(
    witness: Namespace, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = follow()
    dump = rtnl.dump

    def add_late(kind: str) -> list[bytes]:
        if kind == "tun":
            add_device_of_ours("late")
        return dump(kind)

    monkeypatch.setattr(rtnl, "dump", add_late)
    assert "late" in follower.collect(Cause.RESYNC).links
    table = follower.table
    assert follower.hear() is table
    monkeypatch.setattr(missed, "_GRACE", 0.0)
    follower.collect(Cause.INTERVAL)
    assert follower.collector.following == Following(active=True, events=1)


def add_device_of_ours(name: str) -> None:
    subprocess.run(["ip", "tuntap", "add", "name", name, "mode", "tap", "user", OWNER], check=True)


@host
def test_lost_events_are_made_good_for_at_once_and_once_an_interval(
    witness: Namespace, follow: Callable[..., Follower]
) -> None:
    follower = follow()
    witness.add_tap("vm-a")
    follower.lose()
    assert follower.hear() == follower.fresh()
    assert follower.active()
    witness.add_tap("vm-b")
    follower.lose()
    table = follower.table
    assert follower.hear() is table
    assert not follower.active()
    assert follower.collector.fileno() is None
    assert follower.collect(Cause.EVENT) is table
    assert list(follower.collect(Cause.INTERVAL).links) == ["vm-a", "vm-b", "witness"]
    assert follower.table.links["vm-a"] is table.links["vm-a"]
    assert follower.active()
    follower.lose()
    table = follower.table
    assert follower.hear() is table
    assert follower.collector.following == Following(active=True)


@host
@pytest.mark.parametrize("cause", [Cause.INTERVAL, Cause.RESYNC])
def test_a_loss_that_shows_when_it_is_time_to_look_is_made_good_for(
    witness: Namespace, follow: Callable[..., Follower], cause: Cause
) -> None:
    follower = follow()
    witness.add_tap("vm-a")
    follower.lose()
    assert list(follower.collect(cause).links) == ["vm-a", "witness"]
    assert follower.collector.following == Following(active=True)


@host
def test_a_thousand_taps_at_once_are_all_there(follow: Callable[..., Follower]) -> None:
    follower = follow(limit=1000)
    names = [f"t{number}" for number in range(1000)]
    follower.namespace.batch(*(f"tuntap add name {name} mode tap user {OWNER}" for name in names))
    follower.hear()
    assert list(follower.hear_all().links) == sorted(names)


@host
def test_a_collector_that_cannot_follow_looks_at_everything_each_interval(
    namespace: Namespace, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(rtnl, "Monitor", refuse)
        follower = follow()
        assert follower.collector.fileno() is None
        namespace.add_tap("vm-a")
        assert follower.collect(Cause.EVENT) == LinkTable()
        assert list(follower.collect(Cause.INTERVAL).links) == ["vm-a"]
        assert follower.collector.following == Following(active=False)
    follower.collect(Cause.INTERVAL)
    assert follower.collector.following == Following(active=True)
    namespace.add_tap("vm-b")
    assert list(follower.hear().links) == ["vm-a", "vm-b"]


@host
def test_a_collector_that_does_not_follow_looks_at_everything_at_any_cause(
    namespace: Namespace,
) -> None:
    collector = LinkCollector(user=OWNER, limit=1, follow=False)
    for number, cause in enumerate(Cause, start=1):
        namespace.add_tap(f"t{number}")
        table = namespace.run(partial(collector.collect, cause))
        assert len(table.links) == number
    assert collector.fileno() is None
    assert collector.following == Following()


@host
def test_an_event_before_the_first_look_is_answered_with_one(namespace: Namespace) -> None:
    namespace.add_tap("vm-a")
    collector = LinkCollector(user=OWNER, limit=1, follow=True)
    table = namespace.run(partial(collector.collect, Cause.EVENT))
    assert list(table.links) == ["vm-a"]
    assert collector.following == Following(active=True)
    collector.close()


@host
def test_the_limit_holds_as_devices_come_and_go(
    namespace: Namespace, follow: Callable[..., Follower]
) -> None:
    """With more than eight devices a VM the collector does not follow, but knows as much."""
    follower = follow(limit=1)
    for number in range(8):
        namespace.add_tap(f"t{number}", user=FOREIGNER if number < 3 else OWNER)
    assert list(follower.hear().links) == ["t3", "t4", "t5", "t6"]
    assert follower.table == follower.fresh()
    namespace.ip("link", "del", "t4")
    assert list(follower.hear().links) == ["t3", "t5", "t6", "t7"]
    namespace.add_tap("t8")
    namespace.add_tap("t4")
    assert list(follower.hear().links) == ["t3", "t4", "t5", "t6"]
    assert follower.table.left_out == Leftouts(limit=5)
    assert not follower.active()
    namespace.ip("link", "del", "t3")
    assert list(follower.collect(Cause.INTERVAL).links) == ["t4", "t5", "t6", "t7"]
    assert follower.active()


@host
def test_a_list_that_never_holds_still_is_no_error_while_events_tell_what_there_is(
    namespace: Namespace,
    many_taps: frozenset[str],
    follow: Callable[..., Follower],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follower = follow()
    disturb(monkeypatch, add_device)
    namespace.add_tap("vm-150")
    for cause in (Cause.INTERVAL, Cause.RESYNC):
        assert follower.collect(cause).links.keys() == many_taps | {"vm-150"}
        assert follower.active()
    namespace.add_tap("witness")
    follower.lose()
    assert follower.hear().links.keys() == many_taps | {"vm-150"}
    assert not follower.active()
    with pytest.raises(CollectorError, match="changed during each of 10 looks"):
        follower.collect(Cause.INTERVAL)


@host
def test_a_user_who_is_gone_is_an_error_until_there_is_one_again(
    witness: Namespace, follow: Callable[..., Follower]
) -> None:
    follower = follow()
    table = follower.table
    follower.collector._user = "no-such-user"
    for cause in (Cause.INTERVAL, Cause.EVENT, Cause.RESYNC):
        with pytest.raises(CollectorError, match=r"^no user 'no-such-user' on this host"):
            follower.collect(cause)
        assert follower.collector.fileno() is None
        assert not follower.active()
    follower.collector._user = OWNER
    with pytest.raises(CollectorError):
        follower.collect(Cause.EVENT)
    assert follower.collect(Cause.INTERVAL) is table
    assert follower.active()


@host
def test_a_user_with_another_number_has_other_devices(
    witness: Namespace, follow: Callable[..., Follower]
) -> None:
    witness.add_tap("vm-b", user=FOREIGNER)
    follower = follow()
    follower.collector._user = FOREIGNER
    links = follower.collect(Cause.INTERVAL).links
    assert {name: link.ours for name, link in links.items()} == {"vm-b": True, "witness": False}
    assert follower.collector.following == Following(active=True)


@host
def test_no_descriptor_is_leaked_by_losses(
    witness: Namespace, follow: Callable[..., Follower]
) -> None:
    before = open_descriptors()
    follower = follow()
    following = open_descriptors()
    for _ in range(40):
        follower.lose()
        follower.hear()
        follower.lose()
        follower.collect(Cause.INTERVAL)
        assert open_descriptors() == following
    follower.collector.close()
    follower.collector.close()
    assert open_descriptors() == before


@host
def test_hundreds_of_changes_lead_to_what_a_fresh_look_sees(
    namespace: Namespace, follow: Callable[..., Follower]
) -> None:
    random = Random(4)
    namespace.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    follower = follow()
    churn = Churn(namespace, random)
    for _ in range(300):
        churn.change()
        if random.random() < 0.3 and follower.heard():
            follower.collect(Cause.EVENT)
        if random.random() < 0.05:
            follower.collect(random.choice([Cause.INTERVAL, Cause.RESYNC]))
    follower.hear_all(1.2)  # the kernel announces a carrier up to a second later
    time.sleep(missed._GRACE)
    assert follower.collect(Cause.INTERVAL) == follower.fresh()
    following = follower.collector.following
    assert (following.active, following.missed) == (True, 0)
    assert following.events > 200


class Churn:
    """Random changes of TAPs and macvtaps; each is one that can be done."""

    def __init__(self, namespace: Namespace, random: Random) -> None:
        self._namespace = namespace
        self._random = random
        self._names = (f"d{number}" for number in itertools.count())
        self._here: set[str] = set()
        self._away: set[str] = set()
        self._macvtaps: set[str] = set()

    def change(self) -> None:
        changes = [self._add, self._add_macvtap]
        if self._here:
            changes += [self._delete, self._rename, self._set, self._set, self._hold, self._send]
        if self._away:
            changes += [self._fetch]
        if self._macvtaps:
            changes += [self._delete_macvtap, self._give_macvtap]
        self._random.choice(changes)()

    def _pick(self, names: set[str]) -> str:
        return self._random.choice(sorted(names))

    def _add(self) -> None:
        name = next(self._names)
        self._namespace.add_tap(name, user=self._random.choice([OWNER, FOREIGNER, None]))
        self._here.add(name)

    def _delete(self) -> None:
        name = self._pick(self._here)
        if device := self._namespace.held.pop(name, None):
            os.close(device)
        self._namespace.ip("link", "del", name)
        self._here.remove(name)

    def _rename(self) -> None:
        old, new = self._pick(self._here), next(self._names)
        self._namespace.ip("link", "set", old, "name", new)
        if (device := self._namespace.held.pop(old, None)) is not None:
            self._namespace.held[new] = device
        self._here.remove(old)
        self._here.add(new)

    def _set(self) -> None:
        state = self._random.choice(["up", "down"])
        self._namespace.ip("link", "set", self._pick(self._here), state)

    def _hold(self) -> None:
        name = self._pick(self._here)
        (let_go if name in self._namespace.held else hold)(self._namespace, name)

    def _send(self) -> None:
        name = self._pick(self._here)
        send_away(self._namespace, name)
        self._here.remove(name)
        self._away.add(name)

    def _fetch(self) -> None:
        name = self._pick(self._away)
        fetch_back(self._namespace, name)
        self._away.remove(name)
        self._here.add(name)

    def _add_macvtap(self) -> None:
        name = next(self._names)
        self._namespace.ip(
            "link", "add", "link", "veth0", "name", name, "type", "macvtap", "mode", "bridge"
        )
        self._macvtaps.add(name)

    def _delete_macvtap(self) -> None:
        name = self._pick(self._macvtaps)
        self._namespace.ip("link", "del", name)
        self._macvtaps.remove(name)

    def _give_macvtap(self) -> None:
        name = self._pick(self._macvtaps)

        def give() -> None:
            device = Path(f"/dev/tap{socket.if_nametoindex(name)}")
            if not device.exists():
                os.mknod(device, stat.S_IFCHR | 0o660, os.makedev(1, 3))
            owner = self._random.choice([OWNER, FOREIGNER])
            os.chown(device, pwd.getpwnam(owner).pw_uid, -1)

        self._namespace.run(give)
