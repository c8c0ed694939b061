"""The links collector against the kernel of this machine, in network namespaces of its own."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import os
import pwd
import resource
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from microvm_exporter.collectors import missed, rtnl
from microvm_exporter.collectors.links import LinkCollector
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Following, Leftouts, Link, LinkKind, LinkTable

T = TypeVar("T")

OWNER = "daemon"  # stands for the microvm user
FOREIGNER = "nobody"
TAP_INDEX = 70_001

host = pytest.mark.host


def look(*, user: str = OWNER, limit: int = 100) -> LinkTable:
    return LinkCollector(user=user, limit=limit, follow=False).collect(Cause.RESYNC)


class Namespace:
    """A thread with a network namespace and a /dev of its own; both go with it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=self._unshare)

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

    def close(self) -> None:
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
def test_multi_queue_is_told(namespace: Namespace) -> None:
    namespace.add_tap("one")
    namespace.add_tap("many", "multi_queue")
    table = namespace.collect()
    assert {link.name: link.multi_queue for link in table.links.values()} == {
        "one": False,
        "many": True,
    }


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
    answered = namespace.run(lambda: rtnl.dump("no-such-kind", rtnl.index_of))
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
    (
        "IFLA_INFO_DATA",
        {"attrs": [("IFLA_TUN_TYPE", 2), ("IFLA_TUN_PERSIST", 1), ("IFLA_TUN_MULTI_QUEUE", 0)]},
    ),
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
    def dump(kind: str, take: Callable[[bytes], T]) -> list[T]:
        return [take(message)] if kind == "tun" else []

    monkeypatch.setattr(rtnl, "dump", dump)
    assert look() == expected


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
            rtnl.dump("tun", rtnl.index_of)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptor_is_leaked_in_any_thread() -> None:
    """200 looks, 100 of them in a thread each; it needs no privilege."""
    look()
    before = open_descriptors()
    for _ in range(100):
        look()
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(look).result()
    assert open_descriptors() == before


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
