"""What the program was told to do, by its command line and its environment."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar, assert_never

from microvm_exporter import __version__, flags
from microvm_exporter.errors import UsageError
from microvm_exporter.flags import FLAGS, Command, Flag, ReportFormat
from microvm_exporter.listen import ListenAddress
from microvm_exporter.log import LogFormat, LogLevel
from microvm_exporter.text import printable
from microvm_exporter.usage import help_text

__all__ = ["CheckConfig", "ServeConfig", "Sources", "parse"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look. None and an empty ``unit_dirs`` leave it to the declaration or the host."""

    declaration_file: str | None
    state_dir: str | None
    gcroots_dir: str
    unit_dirs: tuple[str, ...]
    microvm_user: str
    dbus_address: str | None
    max_vms: int


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """``serve``: publish what is seen, as it changes and at least every ``interval`` seconds.

    ``resync_interval``, in seconds, is never less than ``interval``.
    """

    sources: Sources
    listen_addresses: tuple[ListenAddress, ...]
    telemetry_path: str
    interval: float
    resync_interval: float
    log_level: LogLevel
    log_format: LogFormat


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """``check``: look once and print it."""

    sources: Sources
    format: ReportFormat
    log_level: LogLevel
    log_format: LogFormat


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> ServeConfig | CheckConfig:
    """Read the arguments (without the program's name) and the environment.

    Raises UsageError with one line that names the flag or the variable, what was expected and
    what was found. ``--help`` and ``--version`` print and raise SystemExit(0).
    """
    words, given = _tokens(argv)
    command = _command(words)
    _refuse_flags_of_others(given, command)
    values = _Values(given, environ)
    match command:
        case Command.SERVE:
            return _serve(values)
        case Command.CHECK:
            return _check(values)
        case _:
            assert_never(command)


def _serve(values: _Values) -> ServeConfig:
    interval = values.one(flags.COLLECT_INTERVAL)
    return ServeConfig(
        sources=_sources(values),
        listen_addresses=values.all(flags.WEB_LISTEN_ADDRESS),
        telemetry_path=values.one(flags.WEB_TELEMETRY_PATH),
        interval=interval,
        resync_interval=max(interval, values.one(flags.COLLECT_RESYNC_INTERVAL)),
        log_level=values.one(flags.LOG_LEVEL),
        log_format=values.one(flags.LOG_FORMAT),
    )


def _check(values: _Values) -> CheckConfig:
    return CheckConfig(
        sources=_sources(values),
        format=values.one(flags.FORMAT),
        log_level=values.one(flags.LOG_LEVEL),
        log_format=values.one(flags.LOG_FORMAT),
    )


def _sources(values: _Values) -> Sources:
    return Sources(
        declaration_file=values.optional(flags.DECLARATION_FILE),
        state_dir=values.optional(flags.STATE_DIR),
        gcroots_dir=values.one(flags.GCROOTS_DIR),
        unit_dirs=values.all(flags.UNIT_DIR),
        microvm_user=values.one(flags.MICROVM_USER),
        dbus_address=values.optional(flags.DBUS_ADDRESS),
        max_vms=values.one(flags.COLLECT_MAX_VMS),
    )


# -------------------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of the flags: of the command line, else of the environment, else the default."""

    given: Mapping[str, Sequence[str]]
    environ: Mapping[str, str]

    def all(self, flag: Flag[T]) -> tuple[T, ...]:
        """Give every value of a repeatable flag."""
        source, texts = self._texts(flag)
        return tuple(_parse_value(flag, source, text) for text in texts)

    def optional(self, flag: Flag[T]) -> T | None:
        """Give the value of a flag without a default. Given more than once, the last one wins."""
        values = self.all(flag)
        return values[-1] if values else None

    def one(self, flag: Flag[T]) -> T:
        """Give the value of a flag that has a default."""
        return self.all(flag)[-1]

    def _texts(self, flag: Flag[T]) -> tuple[str, Sequence[str]]:
        if flag.name in self.given:
            return flag.name, self.given[flag.name]
        if variable := self.environ.get(flag.variable, "").strip():
            return flag.variable, variable.split() if flag.repeatable else [variable]
        return flag.name, [] if flag.default is None else [flag.default]


def _parse_value(flag: Flag[T], source: str, text: str) -> T:
    try:
        return flag.parse(text)
    except ValueError as error:
        reason = f": {error}" if str(error) else ""
        message = f"{source}: expected {flag.expects}, found {text!r}{reason}"
        raise UsageError(message) from None


# -------------------------------------------------------------------------------- command line


class _Parser(argparse.ArgumentParser):
    """argparse as a splitter of words: what the flags mean is told by the flags themselves."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(printable(message))

    def format_help(self) -> str:
        return help_text()


def _tokens(argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Split the arguments into plain words and the texts that each flag was given."""
    parser = _Parser(prog="microvm-exporter", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("words", nargs="*")
    for flag in FLAGS:
        # Without a value the text is empty, which each flag refuses in its own words.
        parser.add_argument(
            flag.name,
            dest=flag.name,
            action="append",
            nargs="?",
            const="",
            default=argparse.SUPPRESS,
        )
    # Intermixed: flags may stand before and after the command.
    given = vars(parser.parse_intermixed_args(argv))
    words: list[str] = given.pop("words")
    return words, given


def _command(words: Sequence[str]) -> Command:
    match words:
        case []:
            return Command.SERVE
        case [word] if word in list(Command):
            return Command(word)
        case _:
            raise UsageError(f"expected the command serve or check, found {' '.join(words)!r}")


def _refuse_flags_of_others(given: Mapping[str, Sequence[str]], command: Command) -> None:
    for flag in FLAGS:
        if flag.name in given and flag.only not in {None, command}:
            raise UsageError(f"{flag.name}: expected with {flag.only} only, found with {command}")
