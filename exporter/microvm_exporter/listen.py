"""Addresses to listen on: ``127.0.0.1:10686``, ``[::1]:10686``, ``localhost:10686``, ``:10686``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["ListenAddress", "parse_listen_address"]

_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[^:]*))?")
_BARE_IPV6: Final = re.compile(r"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:")
_LABEL: Final = "[A-Za-z0-9_-]{1,63}"
_HOST_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_PORT: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A host and a port. No host, or ``::``, is every address of the host, IPv4 and IPv6.

    Port 0 leaves the choice to the kernel.
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_listen_address(text: str) -> ListenAddress:
    """Read an address as the flag takes it; ValueError says what is wrong with it."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError("an IPv6 address stands in brackets" if _BARE_IPV6.match(text) else "")
    port = _port(match["port"])
    if match["v6"] is not None:
        return ListenAddress(str(ipaddress.IPv6Address(match["v6"])), port)
    return ListenAddress(_host(match["host"]), port)


def _host(host: str) -> str:
    if re.fullmatch(r"[0-9.]+", host):
        return str(ipaddress.IPv4Address(host))
    if host and not _HOST_NAME.fullmatch(host):
        raise ValueError("no such host can be")
    return host


def _port(port: str | None) -> int:
    if port is None:
        raise ValueError("the port is missing")
    if not _PORT.fullmatch(port) or int(port) > 65_535:
        raise ValueError("the port is not a number from 0 to 65535")
    return int(port)
