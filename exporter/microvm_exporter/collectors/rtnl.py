"""Ask the kernel for TAP and macvtap devices over rtnetlink, and hear of their changes.

The only module that imports pyroute2. Numbers are those of ``linux/netlink.h``,
``linux/if_link.h``, ``linux/if_tun.h`` and ``linux/filter.h``. A message is the payload of an
``RTM_NEWLINK``: a ``struct ifinfomsg`` and attributes, rtnetlink(7).

What is needed is decoded here: pyroute2 makes an object of each of the 40 attributes of a link. For
1,000 links that takes 260 ms instead of 30, and the objects refer to each other and pile up.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pyroute2 import IPRSocket
from pyroute2.netlink import NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR
from pyroute2.netlink.rtnl import RTM_GETLINK, RTMGRP_LINK

from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Link, LinkKind

__all__ = ["KINDS", "Interrupted", "Lost", "Monitor", "ask", "dump", "index_of", "is_up", "read"]

KINDS: Final = ("tun", "macvtap")

_ATTEMPTS: Final = 10
_BUFFER: Final = 65536  # the kernel puts at most half of it into one batch
_SKIP_STATS: Final = 8  # RTEXT_FILTER_SKIP_STATS, since Linux 4.5

_HEARD_AT_MOST: Final = 2000
"""Messages read at once. The buffer holds some 900, but they may come as fast as they are read."""

_MESSAGE: Final = struct.Struct("IHHII")  # length, type, flags, sequence, port
_LINK: Final = struct.Struct("BxHiII")  # family, type, index, flags, change
_ATTRIBUTE: Final = struct.Struct("HH")  # length, type
_ATTRIBUTE_TYPE: Final = 0x3FFF  # less NLA_F_NESTED and NLA_F_NET_BYTEORDER

_IFF_UP: Final = 1
_IFNAME: Final = 3
_LINKINFO: Final = 18
_EXT_MASK: Final = 29
_CARRIER: Final = 33
_INFO_KIND: Final = 1
_INFO_DATA: Final = 2
_TUN_OWNER: Final = 1
_TUN_TYPE: Final = 3
_TUN_PERSIST: Final = 6
_TYPE_TAP: Final = 2  # IFF_TAP; IFF_TUN, a layer 3 device, is 1

_Attributes = dict[int, bytes]


class Interrupted(CollectorError):
    """The list of devices changed while the kernel told it, time and again."""


class Lost(Exception):
    """The kernel dropped messages: they came faster than they were read."""


# ----------------------------------------------------------------------------------------- asking


def dump(kind: str) -> list[bytes]:
    """List the devices of a kind, a message each.

    The kernel is asked for a kind by name, so that a host full of other devices costs nothing. One
    that does not know it (no macvtap module is loaded) answers with every device. Asks again when
    the list changed meanwhile or the socket ran full; such a socket is of no more use. Raises
    `Interrupted`, or `CollectorError` when the kernel does not tell.
    """
    for _ in range(_ATTEMPTS):
        try:
            with IPRSocket() as sock:
                # Nothing is decoded meanwhile: the list must not change before it is whole.
                return list(_dump_once(sock, kind))
        except Interrupted:
            continue
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise CollectorError(f"rtnetlink: cannot list {kind} devices: {error}") from error
    raise Interrupted(
        f"rtnetlink: the list of {kind} devices changed during each of {_ATTEMPTS} looks"
    )


def ask(indexes: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
    """Ask for devices one by one, whatever their kind; None: there is no such device."""
    try:
        with IPRSocket() as sock:
            for index in indexes:
                yield index, _ask(sock, index)
    except OSError as error:
        raise CollectorError(f"rtnetlink: cannot ask for a device: {error}") from error


def _dump_once(sock: IPRSocket, kind: str) -> Iterator[bytes]:
    of_kind = _attribute(_LINKINFO, _attribute(_INFO_KIND, kind.encode()))
    sock.send(_request(NLM_F_REQUEST | NLM_F_DUMP, 0, of_kind))
    while True:
        for type_, flags, payload in _messages(sock.recv(_BUFFER)):
            if flags & NLM_F_DUMP_INTR:
                raise Interrupted
            if type_ in (NLMSG_DONE, NLMSG_ERROR):
                _raise(payload)
                return
            yield payload


def _ask(sock: IPRSocket, index: int) -> bytes | None:
    sock.send(_request(NLM_F_REQUEST, index))
    [(type_, _, payload)] = _messages(sock.recv(_BUFFER))
    if type_ == NLMSG_ERROR:
        try:
            _raise(payload)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        return None
    return payload


def _raise(payload: bytes) -> None:
    status = int.from_bytes(payload[:4], sys.byteorder, signed=True)
    if status != 0:
        raise OSError(-status, os.strerror(-status))


def _request(flags: int, index: int, attributes: bytes = b"") -> bytes:
    body = _LINK.pack(0, 0, index, 0, 0)
    body += _attribute(_EXT_MASK, _SKIP_STATS.to_bytes(4, sys.byteorder)) + attributes
    return _MESSAGE.pack(_MESSAGE.size + len(body), RTM_GETLINK, flags, 0, 0) + body


# ---------------------------------------------------------------------------------------- hearing


class Monitor:
    """A subscription to the changes of TAPs, other tuns and macvtaps, in the caller's namespace.

    Its buffer is of 1 MiB, pyroute2's default, or of ``net.core.rmem_max`` when that is less.
    """

    def __init__(self) -> None:
        self._socket = IPRSocket()
        try:
            _filter(self._socket.socket)
            self._socket.socket.setblocking(False)
            self._socket.socket.bind((0, RTMGRP_LINK))
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Give the descriptor that is readable while there is something to read."""
        return int(self._socket.fileno())

    def read(self) -> Iterator[int]:
        """Yield the index of the device of each message; raise `Lost` when some were dropped."""
        for _ in range(_HEARD_AT_MOST):
            try:
                message = self._socket.recv(_HEAD)
            except BlockingIOError:
                return
            except OSError as error:
                raise Lost from error
            yield index_of(message[_MESSAGE.size :])

    def close(self) -> None:
        """End the subscription; any thread may do it, and do it again."""
        self._socket.close()


_HEAD: Final = _MESSAGE.size + _LINK.size

_SO_ATTACH_FILTER: Final = 26
_INSTRUCTION: Final = struct.Struct("HBBI")  # code, jump when true, when false, operand
_LOAD_BYTE, _LOAD_AT_X, _LOAD_NUMBER = 0x30, 0x40, 0x00
_X_NUMBER, _X_FROM_A = 0x01, 0x07
_EQUAL, _RETURN = 0x15, 0x06
_FIND, _FIND_WITHIN = 0xFFFFF00C, 0xFFFFF010  # SKF_AD_NLATTR, SKF_AD_NLATTR_NEST

_PROGRAM: Final = (
    (_LOAD_BYTE, 0, 0, _MESSAGE.size),  # the family; that of a bridge port tells of no device
    (_EQUAL, 0, 13, socket.AF_UNSPEC),
    (_LOAD_NUMBER, 0, 0, _HEAD),
    (_X_NUMBER, 0, 0, _LINKINFO),
    (_LOAD_BYTE, 0, 0, _FIND),
    (_EQUAL, 9, 0, 0),
    (_X_NUMBER, 0, 0, _INFO_KIND),
    (_LOAD_BYTE, 0, 0, _FIND_WITHIN),
    (_EQUAL, 6, 0, 0),
    (_X_FROM_A, 0, 0, 0),
    (_LOAD_AT_X, 0, 0, _ATTRIBUTE.size),
    (_EQUAL, 4, 0, int.from_bytes(b"tun\0", "big")),
    (_EQUAL, 0, 2, int.from_bytes(b"macv", "big")),
    (_LOAD_AT_X, 0, 0, _ATTRIBUTE.size + 4),
    (_EQUAL, 1, 0, int.from_bytes(b"tap\0", "big")),
    (_RETURN, 0, 0, 0),
    # All of it. The kernel cuts a message off for everyone who has not got it yet, the host's
    # networkd included (Linux 6.18, do_one_broadcast of af_netlink.c, which shares the buffer).
    (_RETURN, 0, 0, 0xFFFFFFFF),
)


def _filter(sock: socket.socket) -> None:
    """Have the kernel drop messages of other kinds of device.

    So a host that starts containers by the hundred neither wakes us nor fills the buffer.
    """
    program = b"".join(_INSTRUCTION.pack(*instruction) for instruction in _PROGRAM)
    held = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("HP", len(_PROGRAM), ctypes.addressof(held)),  # struct sock_fprog
    )


# ------------------------------------------------------------------------------------ the messages


def index_of(message: bytes) -> int:
    """Tell the index of the device."""
    index: int = _LINK.unpack_from(message)[2]
    return index


def is_up(message: bytes) -> bool:
    """Tell whether the device was set up, which is not whether it has a carrier."""
    flags: int = _LINK.unpack_from(message)[3]
    return flags & _IFF_UP != 0


def read(message: bytes, uid: int) -> Link | None:
    """Make a record of a TAP or macvtap, None of another device; KeyError: something is missing."""
    attributes = _attributes(message[_LINK.size :])
    info = _attributes(attributes.get(_LINKINFO, b""))
    kind = _text(info.get(_INFO_KIND, b""))
    if kind not in KINDS:
        return None
    index = index_of(message)
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
        carrier=carrier,
    )


def _device_owner(index: int) -> int | None:
    """Tell the owner of a macvtap's device file; None: there is none, or it is something else.

    A service with ``PrivateDevices=yes`` sees none of them.
    """
    try:
        status = Path(f"/dev/tap{index}").lstat()
    except OSError:
        return None
    return status.st_uid if stat.S_ISCHR(status.st_mode) else None


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


def _attribute(type_: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, type_) + value + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _text(value: bytes) -> str:
    """Read a C string. A device's name may have any byte but ``/``, ``:`` and white space."""
    return value.partition(b"\0")[0].decode(errors="backslashreplace")
