"""The host's TAP and macvtap devices, over rtnetlink. The only module that imports pyroute2.

The kernel is asked for the two kinds by name, so that a host full of other devices costs nothing.
A kernel that does not know a kind (no macvtap module is loaded) answers with every device: what
comes back is judged by its own kind. Numbers are those of ``linux/netlink.h``, ``linux/if_link.h``
and ``linux/if_tun.h``.

What is needed is decoded here: pyroute2 makes an object of each of the 40 attributes of a link. For
1,000 links that takes 260 ms instead of 30, and the objects refer to each other and pile up.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyroute2 import IPRSocket
from pyroute2.netlink import NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
from pyroute2.netlink.rtnl import RTM_GETLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Leftouts, Link, LinkKind, LinkTable

__all__ = ["collect_links"]

_LINKS_PER_VM: Final = 4
"""``limit`` counts VMs; few have more devices than this, and the whole stays bounded."""

_KINDS: Final = ("tun", "macvtap")
_ATTEMPTS: Final = 10
_BUFFER: Final = 65536  # the kernel puts at most half of it into one batch
_SKIP_STATS: Final = 8  # RTEXT_FILTER_SKIP_STATS, since Linux 4.5

_MESSAGE: Final = struct.Struct("IHHII")  # length, type, flags, sequence, port
_LINK: Final = struct.Struct("BxHiII")  # family, type, index, flags, change
_ATTRIBUTE: Final = struct.Struct("HH")  # length, type
_ATTRIBUTE_TYPE: Final = 0x3FFF  # less NLA_F_NESTED and NLA_F_NET_BYTEORDER

_IFNAME: Final = 3
_LINKINFO: Final = 18
_CARRIER: Final = 33
_INFO_KIND: Final = 1
_INFO_DATA: Final = 2
_TUN_OWNER: Final = 1
_TUN_TYPE: Final = 3
_TUN_PERSIST: Final = 6
_TUN_MULTI_QUEUE: Final = 7
_TYPE_TAP: Final = 2  # IFF_TAP; IFF_TUN, a layer 3 device, is 1

_Attributes = dict[int, bytes]


def collect_links(*, user: str, limit: int) -> LinkTable:
    """List the TAP and macvtap devices of the calling thread's network namespace.

    At most four devices for each of ``limit`` VMs are kept, those of ``user`` first. Raises
    `CollectorError` when there is no such user or the kernel does not tell.
    """
    uid = _uid(user)
    links: list[Link] = []
    unreadable = 0
    for message in [message for kind in _KINDS for message in _dump(kind)]:
        try:
            link = _translate(message, uid)
        except KeyError:
            unreadable += 1
            continue
        if link is not None:
            links.append(link)
    links.sort(key=lambda link: (not link.ours, link.name))
    kept = links[: limit * _LINKS_PER_VM]
    return LinkTable(
        {link.name: link for link in kept},
        Leftouts(limit=len(links) - len(kept), unreadable=unreadable),
    )


def _uid(user: str) -> int:
    """Look the user up; raise `CollectorError` when the kernel would not tell of it as an owner."""
    uid = _look_up(user)
    # In a user namespace that does not map it, the owner of every device reads as 65534.
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= uid < first + count:
            return uid
    raise CollectorError(
        f"the owner of a device cannot be told: user {user!r} is not in this user namespace;"
        " run the exporter without PrivateUsers="
    )


def _look_up(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        raise CollectorError(
            f"no user {user!r} on this host: --microvm.user must name the owner of the MicroVMs'"
            " TAP devices"
        ) from None


# ------------------------------------------------------------------------------------- the kernel


def _dump(kind: str) -> list[bytes]:
    """Ask for the devices of a kind, again when the list changed meanwhile or the socket ran full.

    Such a socket is of no more use, so each look has its own.
    """
    for _ in range(_ATTEMPTS):
        try:
            with IPRSocket() as sock:
                return list(_dump_once(sock, kind))
        except NetlinkDumpInterrupted:
            continue
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise CollectorError(f"rtnetlink: cannot list {kind} devices: {error}") from error
    raise CollectorError(
        f"rtnetlink: the list of {kind} devices changed during each of {_ATTEMPTS} looks"
    )


def _dump_once(sock: IPRSocket, kind: str) -> Iterator[bytes]:
    """Yield the payload of each answer. pyroute2 0.9 leaves NLM_F_DUMP_INTR to its caller."""
    sock.put(_request(kind), RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP)
    while True:
        for type_, flags, payload in _messages(sock.recv(_BUFFER)):
            if flags & NLM_F_DUMP_INTR:
                raise NetlinkDumpInterrupted
            if type_ in (NLMSG_DONE, NLMSG_ERROR):
                status = int.from_bytes(payload[:4], sys.byteorder, signed=True)
                if status != 0:
                    raise OSError(-status, os.strerror(-status))
                return
            yield payload


def _request(kind: str) -> ifinfmsg:
    message = ifinfmsg()
    message["attrs"] = [
        ("IFLA_EXT_MASK", _SKIP_STATS),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]}),
    ]
    return message


def _messages(batch: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Split what one read gave into type, flags and payload (``struct nlmsghdr``, netlink(7))."""
    at = 0
    while at + _MESSAGE.size <= len(batch):
        length, type_, flags, _, _ = _MESSAGE.unpack_from(batch, at)
        yield type_, flags, batch[at + _MESSAGE.size : at + length]
        at += _aligned(max(length, _MESSAGE.size))


def _attributes(run: bytes) -> _Attributes:
    """Split a run of attributes (``struct nlattr``, netlink(7)) by type."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(run):
        length, type_ = _ATTRIBUTE.unpack_from(run, at)
        found[type_ & _ATTRIBUTE_TYPE] = run[at + _ATTRIBUTE.size : at + length]
        at += _aligned(max(length, _ATTRIBUTE.size))
    return found


def _aligned(length: int) -> int:
    return (length + 3) & ~3


# ------------------------------------------------------------------------------------ the records


def _translate(message: bytes, uid: int) -> Link | None:
    """Make a record of a TAP or macvtap, None of another device; KeyError: something is missing."""
    attributes = _attributes(message[_LINK.size :])
    info = _attributes(attributes.get(_LINKINFO, b""))
    kind = _text(info.get(_INFO_KIND, b""))
    if kind not in _KINDS:
        return None
    _, _, index, _, _ = _LINK.unpack_from(message)
    name = _text(attributes[_IFNAME])
    carrier = _number(attributes.get(_CARRIER, b"")) != 0
    if kind == "macvtap":
        ours = _device_owner(index) == uid
        return Link(name, index, LinkKind.MACVTAP, ours=ours, carrier=carrier)
    tun = _attributes(info[_INFO_DATA])
    if _number(tun[_TUN_TYPE]) != _TYPE_TAP:
        return None
    return Link(
        name,
        index,
        LinkKind.TAP,
        ours=_TUN_OWNER in tun and _number(tun[_TUN_OWNER]) == uid,
        persistent=_number(tun[_TUN_PERSIST]) != 0,
        multi_queue=_number(tun[_TUN_MULTI_QUEUE]) != 0,
        carrier=carrier,
    )


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _text(value: bytes) -> str:
    """Read a C string. A device's name may have any byte but ``/``, ``:`` and white space."""
    return value.partition(b"\0")[0].decode(errors="backslashreplace")


def _device_owner(index: int) -> int | None:
    """Tell the owner of a macvtap's device file; None: there is none, or it is something else.

    A service with ``PrivateDevices=yes`` sees none of them.
    """
    try:
        status = Path(f"/dev/tap{index}").lstat()
    except OSError:
        return None
    return status.st_uid if stat.S_ISCHR(status.st_mode) else None
