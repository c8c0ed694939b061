"""What is asked of the bus, what it tells, and how it fails: plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = [
    "BadAddress",
    "BusClosed",
    "BusError",
    "BusTimeout",
    "Listed",
    "Property",
    "Watch",
]


class BusError(Exception):
    """A call failed. ``name`` is the D-Bus error's, empty when it came from neither end."""

    def __init__(self, text: str, name: str = "") -> None:
        super().__init__(text)
        self.name = name


class BadAddress(BusError):
    """No connection can ever be made by such an address."""


class BusClosed(BusError):
    """The connection is closed, by whichever end."""


class BusTimeout(BusError):
    """There was no answer for as long as there is patience."""


class Listed(NamedTuple):
    """A loaded unit, as it was when all were listed. ``job`` tells whether it has one."""

    name: str
    load_state: str
    active_state: str
    sub_state: str
    job: bool


class Property(NamedTuple):
    """A property of an object of systemd's."""

    path: str
    interface: str
    name: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Changes to hear of: properties of an interface, of the objects below some paths.

    ``told`` is called in the thread of the bus, with an object's path and the values that came.
    """

    interface: str
    prefixes: tuple[str, ...]
    names: tuple[str, ...]
    told: Callable[[str, Mapping[str, Any]], None]
