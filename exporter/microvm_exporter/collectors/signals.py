"""What systemd's signals have told, kept until a look takes it.

A unit that starts or stops sends some ten signals, each with all that can change. So the last one
counts, and what is in it is only read when a look takes it: a switch that restarts hundreds of VMs
costs little more than the units that it touched.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Heard", "Signals", "Values"]

Values = Callable[[], Mapping[str, Any]]
"""Reads the properties that a signal carries."""


@dataclass(slots=True)
class Heard:
    """The signals since the last look; objects are named by their paths, units by their names.

    ``changes`` are the last values of each object, ``parting`` those that came before its unit was
    unloaded. A unit may be ``gone`` and then ``new`` again. ``reloaded`` says that systemd has read
    its units anew, or may answer again, and ``lost`` that it or the connection was away.
    """

    count: int = 0
    changes: dict[str, Values] = field(default_factory=dict)
    parting: dict[str, Values] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    reloaded: bool = False
    lost: bool = False


class Signals:
    """Between the thread of the bus, which puts in, and the collector's, which takes out.

    ``fileno()`` is readable while there is something to take.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard = Heard()
        self._reload_began: float | None = None
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Give the descriptor to wait for."""
        return self._bell

    @property
    def is_reloading(self) -> bool:
        """Whether systemd reads its units just now: it answers nothing meanwhile."""
        return self._reload_began is not None

    def take(self, *, at_once: bool = False) -> Heard | None:
        """Give what was heard; None during a reload, unless it is wanted ``at_once``."""
        with self._lock:
            if self._bell >= 0:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
            if self.is_reloading and not at_once:
                return None
            heard, self._heard = self._heard, Heard()
            return heard

    def close(self) -> None:
        """Give the descriptor back. What comes later is not noted any more."""
        with self._lock:
            bell, self._bell = self._bell, -1
            if bell >= 0:
                os.close(bell)

    def ring(self) -> None:
        """Have who waits look again."""
        with self._lock:
            self._ring()

    def change(self, path: str, values: Values) -> None:
        """Note new values of an object's properties."""
        with self._lock:
            self._heard.changes[path] = values
            self._note()

    def come(self, unit: str) -> None:
        """Note that a unit was loaded. After a reload all of them were, and are known already."""
        with self._lock:
            self._heard.new.add(unit)
            self._note()

    def go(self, unit: str, path: str) -> None:
        """Note that a unit was unloaded, unless all of them are, to be read anew."""
        with self._lock:
            if self.is_reloading:
                return
            if values := self._heard.changes.pop(path, None):
                self._heard.parting[path] = values
            self._heard.gone.add(unit)
            self._heard.new.discard(unit)
            self._note()

    def reload(self, *, begins: bool) -> None:
        """Note that systemd begins to read its units, or has done so."""
        with self._lock:
            if begins:
                self._reload_began = time.monotonic()
            else:
                self._end_reload()

    def answer(self, asked_at: float) -> None:
        """Note that systemd has answered what it was asked then, in monotonic seconds.

        A reload that had begun before is over, though no signal may have told.
        """
        with self._lock:
            if self._reload_began is not None and self._reload_began < asked_at:
                self._end_reload()

    def make_up(self) -> None:
        """Note that everything is asked from now on: what was lost before does not matter."""
        with self._lock:
            self._heard.lost = False

    def appear(self) -> None:
        """Note that systemd is on the bus now; what it told while it was not, nobody heard."""
        with self._lock:
            self._heard.lost = True
            self._end_reload()

    def lose(self) -> None:
        """Note that the connection was closed: there are no signals without one."""
        with self._lock:
            self._heard.lost = True
            self._end_reload()

    def give_up(self) -> None:
        """Note that the connection is closed by who uses it, and so need not be told."""
        with self._lock:
            self._reload_began = None

    def _end_reload(self) -> None:
        self._reload_began = None
        self._heard.reloaded = True
        self._note()

    def _note(self) -> None:
        self._heard.count += 1
        if not self.is_reloading:
            self._ring()

    def _ring(self) -> None:
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)
