"""The host's TAP and macvtap devices, followed by what the kernel announces.

A message of the kernel only says which device to ask for. ``ip tuntap add`` registers a device,
which is announced, and sets its owner and persistence afterwards, which is not: the kernel
announces the ioctls of a TAP, and its carrier, only while it is up (``netdev_state_change``).
Nothing announces the owner of a macvtap's ``/dev/tap<ifindex>``. So the first are asked each
interval while they are down, and the second always.
"""

from __future__ import annotations

import contextlib
import logging
import pwd
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from microvm_exporter.collectors import rtnl
from microvm_exporter.collectors.missed import Missed
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Following, Leftouts, Link, LinkKind, LinkTable

__all__ = ["LinkCollector"]

_log = logging.getLogger(__name__)

_LINKS_PER_VM: Final = 4
"""``limit`` counts VMs; few have more devices than this, and the whole stays bounded."""

_HELD_PER_VM: Final = 8
"""A host with more devices than this for each of ``limit`` VMs is not followed."""

_ASKED_AT_MOST: Final = 64
"""Devices asked for each interval without an event; to list all is cheaper than to ask for more."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A device as it was told last; ``link`` is None when it was not what it should be."""

    digest: int
    link: Link | None
    up: bool

    def macvtap(self) -> bool:
        """Tell whether there is more to it than the kernel's message: a device file."""
        return self.link is not None and self.link.kind is LinkKind.MACVTAP

    def silent(self) -> bool:
        """Tell whether something of it can change without an event."""
        return not self.up or self.macvtap()

    def told(self) -> object:
        """Give what cannot change without an event."""
        if self.link is None or not self.silent():
            return self.link
        return replace(self.link, ours=False) if self.up else (self.link.name, self.link.kind)


class LinkCollector:
    """Lists the TAP and macvtap devices of the network namespace of the thread that collects.

    At most four devices for each of ``limit`` VMs are kept, those of ``user`` first. With
    ``follow`` a look reads only what the kernel has announced since the one before.
    """

    def __init__(self, *, user: str, limit: int, follow: bool) -> None:
        self._user = user
        self._limit = limit
        self._follow = follow
        self._uid = -1
        self._table = LinkTable()
        self._held: dict[int, _Held] = {}
        self._looked = False
        self._error: str | None = None
        self._monitor: rtnl.Monitor | None = None
        self._trouble: str | None = None  # why there is none
        self._spare = False
        self._events = 0
        self._missed: Missed[int] = Missed()
        self._following = Following()

    @property
    def following(self) -> Following:
        """Tell how changes are heard of, as of the last look."""
        return self._following

    def fileno(self) -> int | None:
        """Give the descriptor that is readable once the kernel has announced something."""
        monitor = self._monitor
        return None if monitor is None else monitor.fileno()

    def close(self) -> None:
        """Follow no more."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.close()

    def collect(self, cause: Cause) -> LinkTable:
        """Look at the devices as closely as ``cause`` asks for.

        Raises `CollectorError` when there is no such user or the kernel does not tell, and again
        at each event until it is time to look again.
        """
        try:
            if cause is Cause.EVENT and self._follow and self._looked:
                self._look_again()
            else:
                self._look(cause)
            self._error = None
        except CollectorError as error:
            self._stop()
            self._error = str(error)
            raise
        finally:
            self._looked = True
            active = self._monitor is not None
            self._following = Following(active, self._events, self._missed.count())
        return self._table

    # ------------------------------------------------------------------------------- how to look

    def _look(self, cause: Cause) -> None:
        """Look because it is time to, also at what no event tells."""
        self._identify()
        self._spare = True
        if self._monitor is None:
            self._start()
            return
        silent = {index for index, held in self._held.items() if held.silent()}
        few = cause is Cause.INTERVAL and len(silent) <= _ASKED_AT_MOST
        try:
            self._hear(self._monitor, silent if few else frozenset())
        except rtnl.Lost:
            self._stop()
            self._start()
            return
        if not few:
            self._compare()

    def _look_again(self) -> None:
        """Look because of an event. Lost ones are made good for at once, but once an interval."""
        if self._error is not None:
            raise CollectorError(self._error)
        if self._monitor is None:
            return
        try:
            self._hear(self._monitor, frozenset())
        except rtnl.Lost:
            self._stop()
            if self._spare:
                self._spare = False
                with contextlib.suppress(rtnl.Interrupted):
                    self._start()

    def _start(self) -> None:
        """List all devices, and follow them from there on."""
        monitor = self._subscribe()  # before the list is made, so that nothing is lost between
        try:
            held = self._list()
        except CollectorError:
            if monitor is not None:
                monitor.close()
            raise
        self._monitor = monitor
        self._hold(held)

    def _subscribe(self) -> rtnl.Monitor | None:
        if not self._follow:
            return None
        try:
            monitor = rtnl.Monitor()
        except OSError as error:
            self._tell(str(error))
            return None
        self._trouble = None
        return monitor

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning(
                "cannot follow the network devices: they are listed each time instead",
                extra={"error": trouble},
            )
        self._trouble = trouble

    def _stop(self) -> None:
        self.close()
        self._missed.clear()

    def _hear(self, monitor: rtnl.Monitor, also: Set[int]) -> None:
        """Ask for the devices that the kernel has announced a change of, and for others."""
        heard = list(monitor.read())
        self._events += len(heard)
        self._missed.acquit(heard)
        asked = also | set(heard)
        if not asked:
            return
        held = dict(self._held)
        for index, message in rtnl.ask(sorted(asked)):
            device = None if message is None else self._read(message)
            if device is None:
                held.pop(index, None)
            else:
                held[index] = device
        if held != self._held:
            self._hold(held)

    def _compare(self) -> None:
        """List all devices, and take note of what no event has told of.

        A list that never holds still is no harm: the events tell what there is.
        """
        before = self._held
        try:
            held = self._list()
        except rtnl.Interrupted:
            return
        self._missed.suspect(
            index
            for index in before.keys() | held.keys()
            if not _as_told(before.get(index), held.get(index))
        )
        self._hold(held)

    # ------------------------------------------------------------------------------ what is there

    def _identify(self) -> None:
        uid = _uid(self._user)
        if uid != self._uid:
            self._stop()
            self._held = {}
            self._uid = uid

    def _list(self) -> dict[int, _Held]:
        messages = [message for kind in rtnl.KINDS for message in rtnl.dump(kind)]
        listed = [(rtnl.index_of(message), self._read(message)) for message in messages]
        return {index: device for index, device in listed if device is not None}

    def _read(self, message: bytes) -> _Held | None:
        """Read a device, unless it is told as it was; None: it is of another kind."""
        digest = hash(message)
        known = self._held.get(rtnl.index_of(message))
        if known is not None and known.digest == digest and not known.macvtap():
            return known
        up = rtnl.is_up(message)
        try:
            link = rtnl.read(message, self._uid)
        except KeyError:
            return _Held(digest, None, up)
        return None if link is None else _Held(digest, link, up)

    def _hold(self, held: dict[int, _Held]) -> None:
        """Make the table of what is there, of the records that it had where they are the same."""
        table = self._tabulate(held)
        if table != self._table:
            self._table = table
        if len(held) > self._limit * _HELD_PER_VM:
            self._stop()
            held = {}
        self._held = held

    def _tabulate(self, held: dict[int, _Held]) -> LinkTable:
        links = [device.link for device in held.values() if device.link is not None]
        links.sort(key=lambda link: (not link.ours, link.name))
        kept = links[: self._limit * _LINKS_PER_VM]
        had = self._table.links
        return LinkTable(
            {link.name: _same(had.get(link.name), link) for link in kept},
            Leftouts(limit=len(links) - len(kept), unreadable=len(held) - len(links)),
        )


def _same(old: Link | None, new: Link) -> Link:
    return old if old is not None and old == new else new


def _as_told(before: _Held | None, now: _Held | None) -> bool:
    if before is None or now is None:
        return before is now
    return before.told() == now.told()


# ----------------------------------------------------------------------------------------- the user


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
