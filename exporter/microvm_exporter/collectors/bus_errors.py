"""What to tell people when the bus or systemd lets us down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from microvm_exporter.collectors.bus_terms import BadAddress, BusClosed, BusError, BusTimeout

__all__ = ["SYSTEM_BUS", "Explainer"]

SYSTEM_BUS: Final = "unix:path=/run/dbus/system_bus_socket"
"""Where the system bus is, unless somebody says otherwise (dbus-daemon(1))."""

_NOT_THERE: Final = frozenset(
    {"org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"}
)


@dataclass(frozen=True, slots=True)
class Explainer:
    """Words for the errors of one bus. ``patience`` is how many seconds an answer may take."""

    address: str
    patience: float

    def opening(self, error: BusError) -> str:
        """Say why there is no connection."""
        match error:
            case BadAddress():
                return (
                    f"--dbus.address: {self.address!r} is not the address of a bus, as"
                    f" {SYSTEM_BUS!r} is one ({error})"
                )
            case BusTimeout():
                return (
                    f"the bus at {self.address} accepts connections but did not answer within"
                    f" {self.patience:g} s"
                )
            case _:
                return f"no system bus at {self.address}: is dbus running? ({error})"

    def asking(self, error: BusError) -> str:
        """Say why there is no answer."""
        match error:
            case BusTimeout():
                return (
                    f"systemd did not answer within {self.patience:g} s on the bus at"
                    f" {self.address}"
                )
            case BusClosed():
                return f"the connection to the bus at {self.address} broke: {error}"
            case BusError(name=name) if name in _NOT_THERE:
                return (
                    f"the bus at {self.address} works but org.freedesktop.systemd1 is not on it:"
                    f" is it the system bus, and is systemd running? ({error})"
                )
            case _:
                return (
                    f"the bus at {self.address} works but org.freedesktop.systemd1 does not"
                    f" answer: {error}"
                )
