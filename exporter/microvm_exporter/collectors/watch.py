"""Hearing of changes in directories: inotify(7), by way of libc.

A directory is watched, never a file: so a file that is written, replaced or made anew is heard of
by its name. To hear of a path that leads through links, every directory on the way is watched for
the one name that the way goes through. All watches have the same mask, as one directory (one inode)
has one watch, whoever asked for it. Numbers are those of ``linux/inotify.h``.

What cannot be heard of: a directory that is mounted over, a file changed under another of its
names, and one that is written to as long as it is kept open. Without ``way``, nor a directory
further up that was moved.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from microvm_exporter.collectors.untrusted import is_missing

__all__ = ["Watcher", "WatchesLost"]

_ATTRIB: Final = 0x4
_CLOSE_WRITE: Final = 0x8
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_UNMOUNT: Final = 0x2000
_Q_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_ONLYDIR: Final = 0x1000000

# Not IN_MODIFY: a VM writes to its disk images all the time.
_MASK: Final = (
    (_CREATE | _DELETE | _MOVED_FROM | _MOVED_TO | _CLOSE_WRITE | _ATTRIB)
    | (_DELETE_SELF | _MOVE_SELF)
    | _ONLYDIR
)
_GONE: Final = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED

_EVENT: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name with its padding
_CHUNK: Final = 65536
_EVENTS_MAX: Final = 8192  # half of the queue, by the default of fs.inotify.max_queued_events
_TOLD_MAX: Final = 4 * _EVENTS_MAX  # a directory is told under each of its keys
_LINKS_MAX: Final = 40  # MAXSYMLINKS
_STEPS_MAX: Final = 255  # real ways have 20; forty planted links can make one of 80,000

_EXHAUSTED: Final = {
    errno.ENOSPC: "raise fs.inotify.max_user_watches",
    errno.EMFILE: "raise fs.inotify.max_user_instances, or the limit on open files",
    errno.ENFILE: "raise fs.file-max",
    errno.ENOMEM: "the kernel has no memory for it",
    errno.ENOSYS: "this kernel has no inotify",
}

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_libc.inotify_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)

_Mark = tuple[int, bytes | None]
"""A watch, and the name that matters in its directory; None when all of them do."""


class WatchesLost(Exception):
    """Events were lost, or there are no more watches to be had; the text says what to do.

    What is heard from then on proves nothing: the watcher can only be closed.
    """


@dataclass(slots=True)
class _Watched:
    """What is watched under a key: the steps of the way to it, and the directory itself."""

    path: str
    contents: bool
    way: bool
    steps: tuple[_Mark, ...] = ()
    directory: int | None = None

    def marks(self) -> Iterator[_Mark]:
        yield from self.steps
        if self.directory is not None:
            yield self.directory, None

    def remember(self, marks: Collection[_Mark]) -> None:
        self.steps = tuple(mark for mark in marks if mark[1] is not None)
        self.directory = next((wd for wd, name in marks if name is None), None)


class Watcher:
    """Tells what changed in directories, by the keys that they are watched under.

    For one thread at a time. Raises `WatchesLost` when inotify cannot be had. ``blind`` holds the
    keys of which not all could be watched the last time, for want of permission as a rule.
    """

    def __init__(self) -> None:
        self.blind: set[Hashable] = set()
        self._watched: dict[Hashable, _Watched] = {}
        # Most watches have a single key, and are for the contents: thousands need to be small.
        self._owners: dict[int, Hashable] = {}
        self._shared: dict[int, dict[bytes | None, set[Hashable]]] = {}
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            code = ctypes.get_errno()
            hint = _EXHAUSTED.get(code, "see inotify_init(2)")
            raise WatchesLost(f"inotify cannot be had: {os.strerror(code)}: {hint}")

    def fileno(self) -> int:
        """Return what is readable while `read` has something to tell."""
        return self._fd

    def watch(self, key: Hashable, path: str, *, contents: bool = True, way: bool = True) -> None:
        """Watch a path, in place of what was watched under the key before.

        ``contents``: the directory that the path leads to. Its entries are told as (key, name),
        itself as (key, None). ``way``: whatever decides where the path leads, the last component
        included, and whether or not it is there: told as (key, None).

        What is not there is no error. Raises `WatchesLost` when there are no more watches, and
        `OSError` when something may not be watched: the rest is watched then nevertheless.
        """
        watched = self._watched.get(key)
        if watched is None:
            self._watched[key] = _Watched(path, contents, way)
        elif (watched.path, watched.contents, watched.way) != (path, contents, way):
            watched.path, watched.contents, watched.way = path, contents, way
        self._place(key)

    def forget(self, key: Hashable) -> None:
        """Watch no more what was watched under the key, if anything was."""
        self.blind.discard(key)
        watched = self._watched.pop(key, None)
        for mark in watched.marks() if watched else ():
            self._leave(mark, key)

    def read(self) -> set[tuple[Hashable, str | None]]:
        """Return what was touched since the last read, without waiting; see `watch`.

        A key told with None may lead elsewhere now, and all in it is to be read again: it is
        watched anew already. Of a flood, the rest is left for the next read. Raises `WatchesLost`
        when the kernel has dropped events, when it has no watches left for what came anew, or when
        there is more to tell than there were changes: thousands of links may lead to a directory.
        """
        told: set[tuple[Hashable, str | None]] = set()
        stale: set[Hashable] = set()
        for wd, mask, name in self._events():
            keys = self._keys(wd)
            if name:
                told.update((key, os.fsdecode(name)) for key in keys.get(None, ()))
                stale.update(keys.get(name, ()))
            elif mask & _GONE:
                stale.update(*keys.values())
            else:
                told.update((key, None) for key in keys.get(None, ()))
            if len(told) > _TOLD_MAX:
                raise WatchesLost("too many links lead to a directory that changes: remove them")
        self._renew(stale)
        return told.union((key, None) for key in stale)

    def close(self) -> None:
        """Give all watches back."""
        os.close(self._fd)

    def _events(self) -> Iterator[tuple[int, int, bytes]]:
        """Give the events in the queue as watch, mask and name; empty for the directory itself."""
        count = 0
        while count < _EVENTS_MAX:
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                return
            end = 0
            while end < len(data):
                wd, mask, _, length = _EVENT.unpack_from(data, end)
                if mask & _Q_OVERFLOW:
                    raise WatchesLost(
                        "more changed than inotify's queue holds: raise "
                        "fs.inotify.max_queued_events if that is usual"
                    )
                start = end + _EVENT.size
                end = start + length
                count += 1
                yield wd, mask, data[start:end].rstrip(b"\0")

    def _keys(self, wd: int) -> Mapping[bytes | None, Collection[Hashable]]:
        """Give the keys of a watch by name; none when it was taken away since the event."""
        if wd in self._owners:
            return {None: (self._owners[wd],)}
        return self._shared.get(wd, {})

    def _renew(self, keys: set[Hashable]) -> None:
        for key in keys:
            try:
                self._place(key)
            except OSError:
                continue  # blind

    def _place(self, key: Hashable) -> None:
        """Set the watches of a key, and then give back those that it had and needs no more."""
        watched = self._watched[key]
        if self._is_in_place(watched):
            return
        marks: dict[_Mark, None] = {}
        self.blind.discard(key)
        try:
            for mark in self._marks(watched):
                marks[mark] = None
                self._enter(mark, key)
        except OSError:
            self.blind.add(key)
            raise
        finally:
            old = tuple(watched.marks())
            if old != tuple(marks):
                watched.remember(marks)
            for mark in old:
                if mark not in marks:
                    self._leave(mark, key)

    def _is_in_place(self, watched: _Watched) -> bool:
        """Tell whether a directory without a way has its watch still, as most have."""
        if watched.way or not watched.contents or watched.directory is None:
            return False
        try:
            return self._add(watched.path) == watched.directory
        except OSError:
            return False

    def _marks(self, watched: _Watched) -> Iterator[_Mark]:
        """Watch all that there is to be watched, and say only then what could not be."""
        denied: OSError | None = None
        path = watched.path
        way = _steps(path) if watched.way else iter(())
        for directory, name in chain(way, [(path, None)] if watched.contents else []):
            try:
                wd = self._add(directory)
            except OSError as error:
                denied = error
                continue
            if wd is not None:
                yield wd, name
        if denied:
            raise denied

    def _add(self, directory: str) -> int | None:
        wd: int = _libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK)
        if wd >= 0:
            return wd
        code = ctypes.get_errno()
        error = OSError(code, os.strerror(code), directory)
        if is_missing(error):
            return None
        if code in _EXHAUSTED:
            raise WatchesLost(f"{directory}: no watch for it: {_EXHAUSTED[code]}")
        raise error

    def _enter(self, mark: _Mark, key: Hashable) -> None:
        wd, name = mark
        if name is None and wd not in self._shared and self._owners.setdefault(wd, key) == key:
            return
        names = self._shared.setdefault(wd, {})
        if wd in self._owners:
            names[None] = {self._owners.pop(wd)}
        names.setdefault(name, set()).add(key)

    def _leave(self, mark: _Mark, key: Hashable) -> None:
        """Undo `_enter`. A watch that nobody needs is given back, if it did not go by itself."""
        wd, name = mark
        if wd in self._owners:
            del self._owners[wd]
        else:
            names = self._shared[wd]
            names[name].remove(key)
            if not names[name]:
                del names[name]
            if names:
                return
            del self._shared[wd]
        _libc.inotify_rm_watch(self._fd, wd)


def _steps(path: str) -> Iterator[tuple[str, bytes]]:
    """Give each directory on the way, links resolved, with the name that is looked up in it.

    The name is looked up only when the next step is asked for. Whoever watches each directory as it
    comes hears of every later change, and needs not compare: the way ends where nothing is there.
    """
    directory = ""
    names = str(Path(path).absolute()).split("/")[::-1]
    links = steps = 0
    while names and links <= _LINKS_MAX and steps < _STEPS_MAX:
        name = names.pop()
        if name in ("", "."):
            continue
        if name == "..":
            directory = directory.rpartition("/")[0]
            continue
        steps += 1
        yield directory or "/", os.fsencode(name)
        try:
            target = str(Path(f"{directory}/{name}").readlink())
        except OSError as error:
            if is_missing(error):
                return
            if error.errno != errno.EINVAL:
                raise
            directory = f"{directory}/{name}"
            continue
        links += 1
        names.extend(target.split("/")[::-1])
        if target.startswith("/"):
            directory = ""
