"""The flags, each declared once: the command line, the environment, ``--help`` and docs derive."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from microvm_exporter.durations import parse_duration
from microvm_exporter.listen import parse_listen_address
from microvm_exporter.log import LogFormat, LogLevel

__all__ = [
    "COLLECT_INTERVAL",
    "COLLECT_MAX_VMS",
    "COLLECT_RESYNC_INTERVAL",
    "DBUS_ADDRESS",
    "DECLARATION_FILE",
    "FLAGS",
    "FORMAT",
    "GCROOTS_DIR",
    "LOG_FORMAT",
    "LOG_LEVEL",
    "MICROVM_USER",
    "STATE_DIR",
    "UNIT_DIR",
    "WEB_LISTEN_ADDRESS",
    "WEB_TELEMETRY_PATH",
    "Command",
    "Flag",
    "ReportFormat",
]

T = TypeVar("T")


class Command(StrEnum):
    """What the program can be told to do."""

    SERVE = "serve"
    CHECK = "check"


class ReportFormat(StrEnum):
    """How ``check`` prints what it found."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Flag(Generic[T]):
    """One flag.

    ``parse`` raises ValueError, with a reason where ``expects`` does not already give it.
    ``default`` is parsed like a value; without one, ``unset`` says what happens instead. What is
    for people is Markdown.
    ``only`` is the one command that takes the flag, None when both do.
    """

    name: str
    metavar: str
    expects: str
    parse: Callable[[str], T]
    help: str
    default: str | None = None
    unset: str = ""
    repeatable: bool = False
    only: Command | None = None

    @property
    def variable(self) -> str:
        """The environment variable that stands in for the flag."""
        return "MICROVM_EXPORTER_" + re.sub(r"[.-]", "_", self.name.removeprefix("--")).upper()

    @property
    def fallback(self) -> str:
        """What holds without the flag, for people."""
        return self.unset if self.default is None else f"`{self.default}`"


# -------------------------------------------------------------------------------------- values

_MIN_INTERVAL: Final = 0.1
_MAX_INTERVAL: Final = 3600.0
_MAX_RESYNC_INTERVAL: Final = 86_400.0
_MAX_VMS: Final = 100_000
_OWN_PATHS: Final = frozenset({"/-/healthy", "/-/ready"})
_URL_PATH: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
_USER: Final = re.compile(r"[^\s:/]+")
_DBUS_ADDRESS: Final = re.compile(r"[a-z][a-z0-9-]*:\S*")


def _interval(longest: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        seconds = parse_duration(text)
        if not _MIN_INTERVAL <= seconds <= longest:
            raise ValueError
        return seconds

    return parse


def _telemetry_path(text: str) -> str:
    if text in _OWN_PATHS or not _URL_PATH.fullmatch(text):
        raise ValueError
    return text


def _path(text: str) -> str:
    """Give the path from the root, without the slashes and dots that it does not need.

    Findings show it, and the working directory is that of the start.
    """
    if not text or not text.isprintable():
        raise ValueError
    try:
        return str(Path(text).absolute())
    except OSError:
        raise ValueError("the working directory is gone: give the path from /") from None


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError
        return text

    return parse


def _max_vms(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= _MAX_VMS:
        raise ValueError
    return int(text)


E = TypeVar("E", bound=StrEnum)


def _choice(choices: type[E]) -> Callable[[str], E]:
    def parse(text: str) -> E:
        if text not in list(choices):
            raise ValueError
        return choices(text)

    return parse


# --------------------------------------------------------------------------------------- flags

_A_PATH: Final = "a path"

WEB_LISTEN_ADDRESS: Final = Flag(
    "--web.listen-address",
    "ADDRESS",
    expects="HOST:PORT, [IPV6]:PORT or :PORT",
    parse=parse_listen_address,
    help="Address to serve HTTP on; `[::]:10686` and `:10686` mean all addresses, IPv4 and IPv6.",
    default="127.0.0.1:10686",
    repeatable=True,
    only=Command.SERVE,
)
WEB_TELEMETRY_PATH: Final = Flag(
    "--web.telemetry-path",
    "PATH",
    expects="a path such as /metrics, not / and none of the exporter's own",
    parse=_telemetry_path,
    help="Path of the metrics.",
    default="/metrics",
    only=Command.SERVE,
)
COLLECT_INTERVAL: Final = Flag(
    "--collect.interval",
    "DURATION",
    expects="a duration from 100ms to 1h, such as 15s or 1m30s",
    parse=_interval(_MAX_INTERVAL),
    help="Longest time between two looks at the host, from 100ms to 1h; changes that are announced "
    "are read sooner. A scrape gets the latest snapshot.",
    default="15s",
    only=Command.SERVE,
)
COLLECT_RESYNC_INTERVAL: Final = Flag(
    "--collect.resync-interval",
    "DURATION",
    expects="a duration from 100ms to 24h, such as 5m or 1h30m",
    parse=_interval(_MAX_RESYNC_INTERVAL),
    help="Time between two looks that read everything again, as if nothing were known, from 100ms "
    "to 24h; never less than `--collect.interval`.",
    default="5m",
    only=Command.SERVE,
)
COLLECT_MAX_VMS: Final = Flag(
    "--collect.max-vms",
    "NUMBER",
    expects=f"a whole number from 1 to {_MAX_VMS}",
    parse=_max_vms,
    help="Most MicroVMs to look at; any beyond that are left out, and counted.",
    default="5000",
)
DECLARATION_FILE: Final = Flag(
    "--declaration.file",
    "PATH",
    expects=_A_PATH,
    parse=_path,
    help="The declared MicroVMs as JSON.",
    unset="they are read off the host's own units",
)
STATE_DIR: Final = Flag(
    "--state-dir",
    "PATH",
    expects=_A_PATH,
    parse=_path,
    help="State directory of the MicroVMs, `microvm.stateDir` in NixOS.",
    unset="the declaration's, else `/var/lib/microvms`",
)
GCROOTS_DIR: Final = Flag(
    "--gcroots-dir",
    "PATH",
    expects=_A_PATH,
    parse=_path,
    help="Directory of the garbage collector roots of imperative and deployed MicroVMs.",
    default="/nix/var/nix/gcroots/microvm",
)
UNIT_DIR: Final = Flag(
    "--unit-dir",
    "PATH",
    expects=_A_PATH,
    parse=_path,
    help="Directory of unit files.",
    unset="the service manager's `UnitPath`",
    repeatable=True,
)
MICROVM_USER: Final = Flag(
    "--microvm.user",
    "USER",
    expects="a user name",
    parse=_matching(_USER),
    help="Owner of the TAP devices.",
    default="microvm",
)
DBUS_ADDRESS: Final = Flag(
    "--dbus.address",
    "ADDRESS",
    expects="a D-Bus address such as unix:path=/run/dbus/system_bus_socket",
    parse=_matching(_DBUS_ADDRESS),
    help="Address of the bus that the service manager is on.",
    unset="the system bus",
)
FORMAT: Final = Flag(
    "--format",
    "FORMAT",
    expects="text or json",
    parse=_choice(ReportFormat),
    help="Format of the report: text or json.",
    default="text",
    only=Command.CHECK,
)
LOG_LEVEL: Final = Flag(
    "--log.level",
    "LEVEL",
    expects="debug, info, warn or error",
    parse=_choice(LogLevel),
    help="Log messages of this severity and above: debug, info, warn or error.",
    default="info",
)
LOG_FORMAT: Final = Flag(
    "--log.format",
    "FORMAT",
    expects="logfmt or json",
    parse=_choice(LogFormat),
    help="Format of the log on standard error: logfmt or json.",
    default="logfmt",
)

FLAGS: Final[tuple[Flag[Any], ...]] = (
    WEB_LISTEN_ADDRESS,
    WEB_TELEMETRY_PATH,
    COLLECT_INTERVAL,
    COLLECT_RESYNC_INTERVAL,
    FORMAT,
    COLLECT_MAX_VMS,
    DECLARATION_FILE,
    STATE_DIR,
    GCROOTS_DIR,
    UNIT_DIR,
    MICROVM_USER,
    DBUS_ADDRESS,
    LOG_LEVEL,
    LOG_FORMAT,
)
"""Every flag, in the order in which people are shown them."""
