"""The watches of the state collector, which work on when there are none to be had."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import cast

from microvm_exporter.collectors.watch import Watcher, WatchesLost

__all__ = ["Event", "Key", "Place", "Watches"]

_log = logging.getLogger(__name__)


class Place(StrEnum):
    """What a watched directory is."""

    STATE = "the state directory"
    VM = "a VM's directory in it"
    GCROOTS = "the gcroots directory"
    UNITS = "a unit directory"
    PART = "a directory in a unit directory"


Key = tuple[Place, str]
"""A watched directory: the VM's name, or the path where there are several."""

Event = tuple[Key, str | None]
"""What was touched: an entry of a directory, or with None the directory or the way to it."""


class Watches:
    """A `Watcher` that can be lost. Without ``follow`` there never is one.

    ``heard`` counts what it told. One thread at a time.
    """

    def __init__(self, *, follow: bool) -> None:
        self.heard = 0
        self._follow = follow
        self._watcher: Watcher | None = None
        self._denied: set[Key] = set()

    @property
    def active(self) -> bool:
        """Whether what is watched is heard of."""
        return self._watcher is not None

    def open(self) -> bool:
        """Try to have a watcher if there is none. Tells whether there is a new one."""
        if not self._follow or self._watcher is not None:
            return False
        try:
            self._watcher = Watcher()
        except WatchesLost as error:
            self._lose(error)
            return False
        return True

    def watch(self, key: Key, path: str, *, contents: bool = True, way: bool = True) -> bool:
        """Watch what `Watcher.watch` says, and tell whether all of it is."""
        if self._watcher is None:
            return False
        try:
            self._watcher.watch(key, path, contents=contents, way=way)
        except WatchesLost as error:
            self._lose(error)
            return False
        except OSError as error:
            self._deny(key, path, error)
            return False
        self._denied.discard(key)
        return True

    def forget(self, key: Key) -> None:
        """Watch something no more."""
        self._denied.discard(key)
        if self._watcher is not None:
            self._watcher.forget(key)

    def drain(self) -> set[Event]:
        """Return what was touched since the last time; nothing when that was lost."""
        if self._watcher is None:
            return set()
        try:
            told = cast(set[Event], self._watcher.read())
        except WatchesLost as error:
            self._lose(error)
            return set()
        self.heard += len(told)
        return told

    def fileno(self) -> int | None:
        """Return what is readable when something was touched."""
        return self._watcher.fileno() if self._watcher else None

    def close(self) -> None:
        """Give all watches back."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()

    def _deny(self, key: Key, path: str, error: OSError) -> None:
        """Tell once what may not be watched; of the VMs' directories, guests can make thousands."""
        if key not in self._denied and key[0] is not Place.VM:
            _log.warning(
                "cannot follow a directory: it is looked at each time instead",
                extra={"directory": path, "error": str(error)},
            )
            self._denied.add(key)

    def _lose(self, error: WatchesLost) -> None:
        """Give up until the next resync opens another, so that this is not told more often."""
        _log.warning(
            "cannot follow the directories: all are looked at each time until the next resync",
            extra={"error": str(error)},
        )
        self.close()
