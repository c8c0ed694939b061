"""What was asked of the bus and is not answered yet."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from microvm_exporter.collectors.bus_terms import BusTimeout

__all__ = ["Pending"]


class Pending(Future[Any]):
    """An answer, or many of which ``come`` tells how many there are by now."""

    def __init__(self) -> None:
        super().__init__()
        self.come = 0

    def settle(self, outcome: object) -> None:
        """Give the answer, or the error in its place, unless somebody was faster."""
        with suppress(InvalidStateError):
            if isinstance(outcome, Exception):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)

    def wait(self, patience: float) -> Any:
        """Give the answer. Raises `BusTimeout` once none has come for as many seconds.

        So there is patience with a systemd that is busy, and none with a silent one.
        """
        while True:
            before = self.come
            with suppress(TimeoutError):
                return self.result(patience)
            if self.come == before:
                raise BusTimeout("no answer in time")
