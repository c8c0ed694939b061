"""The log: a record is a line, in the look of Prometheus's own programs (Go's ``slog``).

``time=2026-08-09T12:34:56.789Z level=INFO source=web.py:42 msg=listening address=127.0.0.1:10686``,
or the same as a JSON object. Fields beyond the message come from ``extra`` of the standard
``logging``. Whatever a message or a field holds, a line break in the name of a file included, the
record stays one line of valid UTF-8, so nothing that the exporter looks at can forge another.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Final, TextIO, TypeAlias

from microvm_exporter.text import printable

__all__ = ["LogFormat", "LogLevel", "complain", "setup"]


class LogLevel(StrEnum):
    """The least severe record that is written, by Prometheus's names."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class LogFormat(StrEnum):
    """What a line looks like."""

    LOGFMT = "logfmt"
    JSON = "json"


Field: TypeAlias = str | int | float | bool | None

_LEVELS: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARN: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
_SLOG_LEVELS: Final = {logging.WARNING: "WARN", logging.CRITICAL: "ERROR"}
_PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
"""Those of syslog(3)."""
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
_PACKAGE: Final = __name__.partition(".")[0]


def setup(level: LogLevel, format: LogFormat, stream: TextIO | None = None) -> None:
    """Send the log of the whole process to the stream (standard error), and nothing elsewhere.

    Libraries are heard from ``warn`` on, Python's warnings among them. An exception that nothing
    caught, in any thread, is a record too. Where journald reads the stream it gets each record's
    priority, for ``journalctl -p``.
    """
    stream = _utf8(stream or sys.stderr)
    handler = logging.StreamHandler(stream)
    line = _JsonFormatter() if format is LogFormat.JSON else _LogfmtFormatter()
    handler.setFormatter(_JournalFormatter(line) if _feeds_journal(stream) else line)
    threshold = _LEVELS[level]
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    logging.getLogger(_PACKAGE).setLevel(threshold)
    # It warns of the traffic control that it could not do where /proc is restricted.
    logging.getLogger("pyroute2").setLevel(logging.ERROR)
    # How many requests wait for a thread is no news: they are answered in milliseconds.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


class _LogfmtFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{_word(key)}={_word(value)}" for key, value in _fields(record).items())


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(record))


class _JournalFormatter(logging.Formatter):
    """Puts the priority first, which journald takes off again (sd-daemon(3))."""

    def __init__(self, line: logging.Formatter) -> None:
        super().__init__()
        self._line = line

    def format(self, record: logging.LogRecord) -> str:
        return f"{_prefix(record.levelno)}{self._line.format(record)}"


def complain(text: str) -> None:
    """Say on standard error why the program ends, to whoever started it."""
    prefix = _prefix(logging.ERROR) if _feeds_journal(sys.stderr) else ""
    print(f"{prefix}microvm-exporter: {text}", file=sys.stderr)


def _prefix(level: int) -> str:
    return f"<{_PRIORITIES.get(level, _PRIORITIES[logging.INFO])}>"


def _feeds_journal(stream: TextIO) -> bool:
    """Tell whether the other end is journald, which ``$JOURNAL_STREAM`` names (systemd.exec(5))."""
    try:
        end = os.fstat(stream.fileno())
    except OSError:  # a stream that is no file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{end.st_dev}:{end.st_ino}"


def _fields(record: logging.LogRecord) -> dict[str, Field]:
    """Give all that the line says, in the order in which it says it."""
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    fields: dict[str, Field] = {
        "time": time.removesuffix("+00:00") + "Z",
        "level": _SLOG_LEVELS.get(record.levelno, record.levelname),
        "source": f"{record.filename}:{record.lineno}",
        "msg": _unicode(record.getMessage()),
    }
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    fields |= {key: _plain(value) for key, value in extra.items()}
    if record.exc_info:
        fields["exception"] = _unicode(logging.Formatter().formatException(record.exc_info))
    return fields


def _plain(value: object) -> Field:
    if value is None or isinstance(value, bool | int | float):
        return value
    return _unicode(str(value))


def _unicode(text: str) -> str:
    """Write out lone surrogates, as names that are not UTF-8 bring them: UTF-8 has none."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _word(value: Field) -> str:
    """Give a logfmt value, in quotes where a reader could not tell its end without them."""
    text = json.dumps(value) if isinstance(value, bool) or value is None else str(value)
    if text and text.isprintable() and not set(text) & set(' ="\\'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(escaped)}"'


def _utf8(stream: TextIO) -> TextIO:
    # A locale without UTF-8 must not change what the log is made of.
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logging.getLogger(_PACKAGE).critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
