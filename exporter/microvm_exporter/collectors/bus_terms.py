"""What is asked of the bus, what it tells, and how it fails: plain values."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = [
    "MANAGER",
    "MANAGER_PATH",
    "BadAddress",
    "BusClosed",
    "BusError",
    "BusTimeout",
    "Listed",
    "Property",
    "object_path",
    "unit_name",
]

MANAGER: Final = "org.freedesktop.systemd1.Manager"
"""The interface of the service manager itself, whose object is at `MANAGER_PATH`."""

MANAGER_PATH: Final = "/org/freedesktop/systemd1"
_UNIT_PATH: Final = f"{MANAGER_PATH}/unit/"


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


def object_path(unit: str) -> str:
    """Give the D-Bus object of a unit, or the beginning of it for the beginning of a name."""
    return _UNIT_PATH + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):02x}", unit)


def unit_name(path: str) -> str:
    """Give the unit that an object is."""
    name = path.removeprefix(_UNIT_PATH)
    return re.sub(r"_([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), name)
