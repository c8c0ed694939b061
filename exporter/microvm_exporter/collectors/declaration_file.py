"""The declaration file as it changes: followed by inotify, and looked at each time besides."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from microvm_exporter.collectors.declaration import parse_declaration
from microvm_exporter.collectors.json_document import Unfit
from microvm_exporter.collectors.missed import Missed
from microvm_exporter.collectors.watch import Watcher, WatchesLost
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Declaration, Following

__all__ = ["DeclarationFile"]

_log = logging.getLogger(__name__)

_BYTES_MAX: Final = 16 * 1024 * 1024

_Version = tuple[int, ...]


class DeclarationFile:
    """A declaration file, read again only when it has changed.

    With ``follow`` every directory and link on the way to it is watched, whether or not it is
    there. ``clock`` gives monotonic seconds.
    """

    def __init__(
        self,
        path: str,
        *,
        limit: int,
        follow: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._limit = limit
        self._follow = follow
        self._watcher: Watcher | None = None
        self._trouble: str | None = None
        self._events = 0
        self._missed: Missed[str] = Missed(clock)
        self._read: tuple[_Version, Declaration | Unfit] | None = None
        self._declared: Declaration | None = None
        self._found: Declaration | str | None = None
        self._following = Following()

    def collect(self, cause: Cause) -> Declaration:
        """Return what the file declares, the first ``limit`` VMs by name.

        A look costs one stat(2), so it is taken whatever the cause. Records that are equal to those
        of before are the same objects, also after a time in which the file was bad. Raises
        `CollectorError` with the file, the place in it, what was expected and what was found.
        """
        followed = self._watcher is not None
        heard = self._hear(cause)
        found = self._look()
        if found != self._found and followed and self._watcher and not heard:
            self._missed.suspect([self._path])
        self._found = found
        active = self._watcher is not None
        self._following = Following(active, self._events, self._missed.count())
        if isinstance(found, str):
            raise CollectorError(found)
        return found

    @property
    def following(self) -> Following:
        """Tell how changes were heard of, up to the last look that has come to its end."""
        return self._following

    def fileno(self) -> int | None:
        """Return what is readable when something was heard of, None when not following."""
        return self._watcher.fileno() if self._watcher else None

    def close(self) -> None:
        """Follow the file no more."""
        if self._watcher:
            self._watcher.close()
            self._watcher = None

    def _hear(self, cause: Cause) -> bool:
        """Tell whether something was heard of; at a resync, begin to follow if that is not so."""
        heard = 0
        try:
            if self._watcher:
                heard = self._listen(self._watcher)
            elif self._follow and cause is Cause.RESYNC:
                self._begin()
        except (WatchesLost, OSError) as error:
            self._give_up(str(error))
        return heard > 0

    def _begin(self) -> None:
        self._watcher = Watcher()
        self._watcher.watch(self._path, self._path, contents=False)
        self._trouble = None

    def _listen(self, watcher: Watcher) -> int:
        heard = len(watcher.read())
        if watcher.blind:
            raise WatchesLost("a directory on the way to it may not be read any more")
        if heard:
            self._events += heard
            self._missed.acquit([self._path])
        return heard

    def _give_up(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning(
                "cannot follow the declaration file: it is looked at each time instead",
                extra={"file": self._path, "error": trouble},
            )
        self._trouble = trouble
        self._missed.clear()
        self.close()

    def _look(self) -> Declaration | str:
        """Return what is there, or what is wrong with it."""
        try:
            version = _file_version(Path(self._path).stat())
            if self._read is None or self._read[0] != version:
                version, data = _read_file(self._path)
                self._read = version, self._understand(data)
            if isinstance(self._read[1], Unfit):
                raise self._read[1]
        except OSError as error:
            return f"{self._path}: expected a readable file, found: {error.strerror}"
        except Unfit as error:
            return f"{self._path}: {error}"
        return self._read[1]

    def _understand(self, data: bytes) -> Declaration | Unfit:
        """Give what is wrong as a value: that too is only worked out when the file changes."""
        try:
            self._declared = parse_declaration(data, limit=self._limit, before=self._declared)
        except Unfit as error:
            return error
        return self._declared


def _file_version(status: os.stat_result) -> _Version:
    """Tell one version of a regular file from the next; raise `Unfit` when it is something else.

    The time of modification does not suffice: all files in the Nix store have the same.
    """
    if not stat.S_ISREG(status.st_mode):
        types = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a fifo", stat.S_IFSOCK: "a socket"}
        found = types.get(stat.S_IFMT(status.st_mode), "a device")
        raise Unfit(f"expected a regular file, found {found}")
    if status.st_size > _BYTES_MAX:
        raise Unfit("expected at most 16 MiB, found more")
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _read_file(path: str) -> tuple[_Version, bytes]:
    # O_NONBLOCK: a fifo may have taken the file's place since it was looked at.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(handle, "rb") as file:
        version = _file_version(os.fstat(handle))
        data = file.read(_BYTES_MAX)
    return version, data
