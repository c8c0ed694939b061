"""The state directory: which VMs there are, kept up to date by what is heard of them.

It belongs to the microvm user (see `untrusted`), who can make more events than anyone could follow.
So between two intervals, what is heard has no more VMs read again than one look at everything, and
reading takes a few seconds at most.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from microvm_exporter.collectors.missed import Missed
from microvm_exporter.collectors.tables import keep, take_first
from microvm_exporter.collectors.untrusted import (
    Fingerprint,
    fingerprint,
    identify,
    open_directory,
)
from microvm_exporter.collectors.vm_state import VmLook, is_same, read_vm, tell, unread
from microvm_exporter.collectors.watches import Place, Watches
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Leftouts, VmState, is_instance_name

__all__ = ["StateDirectory"]

_READS: Final = 1000
"""VMs that are read between two intervals because of events, or as many as there are if more."""

_SECONDS: Final = 4.0
"""Seconds for reading until the next interval: 5,000 VMs take 1, and a planted one up to 0.5."""

_ENTRIES_MAX: Final = 500_000
"""Most entries that are listed: a million take 2 s each time."""

# `old` is what a gcroot leads to.
_MEMBERS: Final = frozenset({None, "current", "booted", "toplevel", "flake", "old"})


@dataclass(frozen=True, slots=True)
class _Known:
    look: VmLook
    watched: bool


class StateDirectory:
    """``STATE``: at most ``limit`` VMs, in ``vms`` by name.

    Beyond the limit it does not go by what is heard: that takes to know all names. ``store`` is the
    path of the store, with a slash at its end.
    """

    def __init__(self, *, limit: int, watches: Watches, store: str) -> None:
        self.vms: Mapping[str, VmState] = {}
        self.left_out = Leftouts()
        self.missed: Missed[str] = Missed()
        self._limit = limit
        self._watches = watches
        self._store = store
        self._seen: tuple[int | None, Fingerprint] = None, ()
        self._path = ""
        self._identity: Fingerprint = ()
        self._watched = False
        self._known: dict[str, _Known] = {}  # also those that turned out to be no directories
        self._odd: set[str] = set()  # no VM could be called so
        self._beyond = Leftouts()  # what is in neither
        self._touched: set[str] = set()
        self._due = True  # all of it is to be read
        self._error: str | None = None  # why that failed
        self._patience = 0  # reads until the next interval
        self._seconds = _SECONDS  # and what they may take

    @property
    def followed(self) -> bool:
        """Whether all is known by what was heard up to now."""
        return self._watches.active and self._watched and not self._due

    def distrust(self) -> None:
        """Read all of it the next time: nothing is watched any more."""
        self._due = True

    def hear(self, name: str | None) -> bool:
        """Take note that an entry was touched; with None, that the directory may be another.

        Tells, as `hear_vm` does, whether there is anything to be read.
        """
        if name is not None:
            return self._touch(name)
        self.missed.clear()
        self._due = True
        return True

    def hear_vm(self, vm: str, member: str | None) -> bool:
        """Take note that an entry of a VM's directory was touched, or with None itself."""
        return member in _MEMBERS and self._touch(vm)

    def read(self, cause: Cause, path: str, prefer: Sequence[Collection[str]]) -> Collection[str]:
        """Bring ``vms`` up to date, and return the names of those that were looked at.

        Raises `CollectorError` when the directory cannot be read.
        """
        if path != self._path:
            self._begin(path)
        if cause is not Cause.EVENT:
            self._patience, self._seconds = self._reads(), _SECONDS
            self._check(cause)
        compare = cause is Cause.RESYNC and self.followed
        if cause is Cause.RESYNC or self._is_too_much():
            self._due = True
        cost = len(self._known) + 1 if self._due else len(self._touched)
        if cause is Cause.EVENT:
            if cost > self._patience or self._seconds <= 0:
                self._wait()
                return self._nothing()
            self._patience -= cost
        return self._read(prefer, compare) if cost else ()

    def _nothing(self) -> Collection[str]:
        """Stay with what came of the last look, a failure too."""
        if self._error:
            raise CollectorError(self._error)
        return ()

    def _touch(self, name: str) -> bool:
        self.missed.acquit([name])
        if self._due:
            return False
        self._touched.add(name)
        if len(self._touched) > self._reads():
            self._touched.clear()
            self._due = True
        return True

    def _begin(self, path: str) -> None:
        for name in self._known:
            self._watches.forget((Place.VM, name))
        self._path = path
        self._known = {}
        self._due = True
        self._patience = self._reads()
        self.missed.clear()

    def _reads(self) -> int:
        return max(_READS, len(self._known) + 1)

    def _is_too_much(self) -> bool:
        """Tell whether a look at what was touched could cost more than one at everything."""
        unknown = len(self._touched - self._known.keys())
        room = self._limit - max(len(self._known), len(self._odd))
        return len(self._touched) > self._patience or unknown > room

    def _wait(self) -> None:
        """Leave everything to the next interval."""
        self._due = True
        self._patience = 0
        self._touched.clear()

    def _check(self, cause: Cause) -> None:
        """Find what no event tells: something was mounted, or the target of a link is gone."""
        if not self.followed or identify(self._path) != self._identity:
            self._due = True
        elif cause is Cause.INTERVAL:
            self._touched.update(self._moved())

    def _moved(self) -> list[str]:
        """Name those that lead elsewhere.

        That takes another mount or a link, and of targets in the store a change of its entries.
        """
        (mounts, store), self._seen = self._seen, (_mounts(), fingerprint(self._store))
        same_mounts = mounts is not None and mounts == self._seen[0]
        same_store = store == self._seen[1]
        until = time.monotonic() + _SECONDS / 2

        def has_moved(name: str, known: _Known) -> bool:
            if not known.watched:
                return True
            return time.monotonic() < until and not known.look.is_where_it_led(
                self._path_of(name), same_mounts=same_mounts, same_store=same_store
            )

        return [name for name, known in self._known.items() if has_moved(name, known)]

    def _read(self, prefer: Sequence[Collection[str]], compare: bool) -> Collection[str]:
        whole, self._due = self._due, True  # until it is done
        if whole:
            self._identity = identify(self._path)
            self._watched = self._watches.watch((Place.STATE, ""), self._path)
        try:
            with open_directory(self._path, listing=True) as fd:
                os.stat(".", dir_fd=fd)  # one that may be listed need not be one to enter
                names = self._read_all(fd, prefer, compare) if whole else self._read_touched(fd)
        except OSError as error:
            self._error = (
                f"cannot read the state directory {self._path}: {error.strerror}; "
                "name the host's microvm.stateDir with --state-dir, and let the exporter read it"
            )
            raise CollectorError(self._error) from error
        self._error = None
        self._due = False
        self._touched.clear()
        if self._beyond != Leftouts() or self._seconds <= 0:
            self._wait()
        self._publish()
        return names

    def _read_all(
        self, fd: int, prefer: Sequence[Collection[str]], compare: bool
    ) -> Collection[str]:
        names, beyond = take_first(self._candidates(fd), self._limit, prefer)
        self._beyond = replace(self._beyond, limit=beyond)
        gone = self._known.keys() - names
        for name in gone:
            self._forget(name)
        unexplained = gone.union(name for name in names if not self._look(name, fd))
        if compare:
            self.missed.suspect(unexplained - self._touched)
        return self._known.keys()

    def _candidates(self, fd: int) -> Iterator[str]:
        """Give the names that may be VMs, without a look at any of them: there may be a million."""
        self._odd = set()
        odd = 0
        with os.scandir(fd) as entries:
            for number, entry in enumerate(entries):
                if number >= _ENTRIES_MAX:
                    raise OSError(errno.EFBIG, f"it has more than {_ENTRIES_MAX:,} entries")
                if not (entry.is_symlink() or entry.is_dir(follow_symlinks=False)):
                    continue
                if is_instance_name(entry.name):
                    yield entry.name
                    continue
                odd += 1
                if odd <= self._limit:
                    self._odd.add(entry.name)
        self._beyond = Leftouts(name=odd - len(self._odd))

    def _read_touched(self, fd: int) -> Collection[str]:
        for name in self._touched:
            if self._seconds <= 0:
                break
            self._odd.discard(name)
            candidate = _is_candidate(name, fd)
            if candidate and is_instance_name(name):
                self._look(name, fd)
                continue
            if candidate:
                self._odd.add(name)
            if name in self._known:
                self._forget(name)
        return frozenset(self._touched)

    def _look(self, name: str, fd: int) -> bool:
        """Look at a VM, and tell whether it differs at most in what no event tells."""
        look, watched = self._read_in_time(name, fd)
        old = self._known.get(name)
        if old and is_same(old.look.state, look.state):
            look = replace(look, state=old.look.state)
        readable = look.state is None or look.state.readable
        new = _Known(look, watched and readable)
        self._known[name] = new
        return _explained(old, new)

    def _read_in_time(self, name: str, fd: int) -> tuple[VmLook, bool]:
        """Read a VM, or only that it is there when it is late; tell whether it is watched."""
        path = self._path_of(name)
        if self._seconds <= 0:
            return unread(name, path), False
        begun = time.monotonic()
        watched = self._watches.watch((Place.VM, name), path, way=False)
        look = read_vm(name, path, dir_fd=fd, store=self._store)
        self._seconds -= time.monotonic() - begun
        return look, watched

    def _forget(self, name: str) -> None:
        del self._known[name]
        self._watches.forget((Place.VM, name))

    def _path_of(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    def _publish(self) -> None:
        states = {
            name: state
            for name in sorted(self._known)
            if (state := self._known[name].look.state) is not None
        }
        self.vms = keep(self.vms, states)
        self.left_out = Leftouts(
            limit=self._beyond.limit,
            name=self._beyond.name + len(self._odd),
            unreadable=sum(known.look.unreadable for known in self._known.values()),
        )


def _mounts() -> int | None:
    """Give the same as before while nothing was mounted or unmounted, None when that is unknown."""
    try:
        return hash(Path("/proc/self/mountinfo").read_bytes())
    except OSError:
        return None


def _is_candidate(name: str, fd: int) -> bool:
    try:
        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    except OSError:  # a mount that only its owner may enter, or one that is dead
        return True
    return stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def _explained(old: _Known | None, new: _Known) -> bool:
    if old is None:
        return False
    if not old.watched or old.look.directory != new.look.directory:
        return True  # another directory: behind a link, or mounted
    same = old.look.state is new.look.state
    return same or tell(old.look.state) == tell(new.look.state)
