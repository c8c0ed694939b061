"""Many jobs under way at once, and no more than the one who does them bears."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Window"]

# dbus-daemon allows a connection 128 calls without a reply by default (dbus-daemon(1)).
_WIDTH: Final = 32


class Window:
    """The jobs 0 to ``count`` - 1, to be started in turn, at most 32 of them at once.

    Who starts a job says later that it is finished, or was refused because there are too many.
    """

    def __init__(self, count: int) -> None:
        self._left = deque(range(count))
        self._under_way = 0
        self._width = _WIDTH

    @property
    def is_done(self) -> bool:
        """All jobs are finished."""
        return not self._left and not self._under_way

    def fill(self, start: Callable[[int], None]) -> None:
        """Start as many as there is room for, by their numbers."""
        while self._left and self._under_way < self._width:
            self._under_way += 1
            start(self._left.popleft())

    def finish(self) -> None:
        """Make room for another."""
        self._under_way -= 1

    def refuse(self, number: int) -> bool:
        """Put a job back, and let there be no more at once than are under way now.

        False when there is none: nothing is going to finish, so it takes a pause to go on.
        """
        self._under_way -= 1
        self._left.append(number)
        self._width = max(1, self._under_way)
        return self._under_way > 0
