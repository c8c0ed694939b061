"""What people read of the flags: ``--help`` and the table of the README."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Final

from microvm_exporter.flags import FLAGS, WEB_LISTEN_ADDRESS, Command, Flag

__all__ = ["flags_table", "help_text"]

_WIDTH: Final = 79

_USAGE: Final = """\
Finds drift between the MicroVMs that a NixOS host declares and what is there.

Usage:
  microvm-exporter [serve] [flags]    publish metrics over HTTP until stopped
  microvm-exporter check [flags]      look once and print every finding
  microvm-exporter --help | --version
"""

_ENVIRONMENT: Final = f"""\
Each flag can also come from the environment, by its name in upper case with
underscores: {WEB_LISTEN_ADDRESS.name} is {WEB_LISTEN_ADDRESS.variable}.
White space separates the values of a repeatable one. The flag wins, and an
empty variable counts as unset.
"""

_EXIT_STATUS: Final = """\
  0  check: no drift; serve: stopped by SIGTERM or SIGINT
  1  check: drift
  2  check: unknown, because not everything could be read; serve: an address
     cannot be listened on; both: the command line is wrong
"""


def help_text() -> str:
    """Give the whole of ``--help``, the same on every terminal."""
    sections = (
        _USAGE,
        _section("Flags of serve", lambda flag: flag.only is Command.SERVE),
        _section("Flags of check", lambda flag: flag.only is Command.CHECK),
        _section("Flags of both", lambda flag: flag.only is None),
        "Environment:\n" + textwrap.indent(_ENVIRONMENT, "  "),
        "Exit status:\n" + _EXIT_STATUS,
    )
    return "\n".join(sections)


def flags_table() -> str:
    """Give the Markdown table of the flags, with a line feed at its end."""
    rows = ["| flag | default | |", "| --- | --- | --- |"]
    rows += [f"| `{flag.name}` | {flag.fallback} | {_meaning(flag)} |" for flag in FLAGS]
    return "\n".join(rows) + "\n"


def _section(title: str, belongs: Callable[[Flag[Any]], bool]) -> str:
    lines = [line for flag in FLAGS if belongs(flag) for line in _help_lines(flag)]
    return "\n".join([f"{title}:", *lines, ""])


def _help_lines(flag: Flag[Any]) -> Iterator[str]:
    repeatable = ", repeatable" if flag.repeatable else ""
    text = f"{flag.help} (default: {flag.fallback}{repeatable})"
    yield f"  {flag.name}={flag.metavar}"
    yield from textwrap.wrap(
        text.replace("`", ""),
        _WIDTH,
        initial_indent=" " * 6,
        subsequent_indent=" " * 6,
        break_on_hyphens=False,
    )


def _meaning(flag: Flag[Any]) -> str:
    notes = ["Repeatable."] if flag.repeatable else []
    notes += [f"Only `{flag.only}`."] if flag.only else []
    return " ".join([flag.help, *notes])
