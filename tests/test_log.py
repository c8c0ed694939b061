"""The log: a record is one line of UTF-8, whatever it is about."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microvm_exporter.log import LogFormat, LogLevel, setup

LOG = logging.getLogger("microvm_exporter.test")
LOGGERS = [logging.getLogger(name) for name in ("", "microvm_exporter", "waitress.queue")]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the logging of the test process as it was."""
    levels = [logger.level for logger in LOGGERS]
    handlers = logging.root.handlers[:]
    hooks = sys.excepthook, threading.excepthook
    # basicConfig closes the handlers that it replaces: pytest's must stay open.
    logging.root.handlers.clear()
    yield
    logging.captureWarnings(False)
    logging.root.handlers[:] = handlers
    sys.excepthook, threading.excepthook = hooks
    for logger, level in zip(LOGGERS, levels, strict=True):
        logger.setLevel(level)


def logged(
    message: str,
    /,
    format: LogFormat = LogFormat.LOGFMT,
    level: int = logging.INFO,
    **extra: object,
) -> str:
    stream = io.StringIO()
    setup(LogLevel.DEBUG, format, stream)
    LOG.log(level, message, extra=extra)
    return stream.getvalue()


PAIR = re.compile(r'([^\s="]+|"(?:[^"\\]|\\.)*")=([^\s="\\]+|"(?:[^"\\]|\\.)*")(?: |$)')


def parsed(line: str) -> dict[str, str]:
    """Read a logfmt line as a reader does, and fail on anything that is none."""
    pairs = PAIR.findall(line)
    assert "".join(match.group() for match in PAIR.finditer(line)) == line
    return dict(pairs)


# ------------------------------------------------------------------------------------------ look


def test_logfmt_looks_like_prometheus() -> None:
    line = logged("Listening on", address="127.0.0.1:10686", vms=3, reloaded=True, last=None)
    assert re.fullmatch(
        r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=INFO source=test_log\.py:\d+"
        r' msg="Listening on" address=127\.0\.0\.1:10686 vms=3 reloaded=true last=null\n',
        line,
    )


def test_json_is_an_object_a_line() -> None:
    line = logged("Listening", LogFormat.JSON, address="[::]:10686", seconds=0.5, last=None)
    assert line.endswith("}\n")
    record = json.loads(line)
    assert list(record) == ["time", "level", "source", "msg", "address", "seconds", "last"]
    assert (record["msg"], record["address"], record["seconds"]) == ("Listening", "[::]:10686", 0.5)
    assert datetime.fromisoformat(record["time"]).tzname() == "UTC"


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (logging.DEBUG, "DEBUG"),
        (logging.INFO, "INFO"),
        (logging.WARNING, "WARN"),
        (logging.ERROR, "ERROR"),
        (logging.CRITICAL, "ERROR"),
    ],
)
def test_levels_have_prometheus_names(level: int, name: str) -> None:
    assert parsed(logged("x", level=level).rstrip("\n"))["level"] == name


@pytest.mark.parametrize("format", LogFormat)
def test_journald_is_told_the_priority_and_nobody_else(
    format: LogFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    end = os.fstat(write)
    for stream in (f"{end.st_dev}:{end.st_ino}", f"{end.st_dev}:{end.st_ino + 1}", ""):
        monkeypatch.setenv("JOURNAL_STREAM", stream)
        with os.fdopen(os.dup(write), "w") as text:
            setup(LogLevel.DEBUG, format, text)
            for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                LOG.log(level, "x")
    os.close(write)
    with os.fdopen(read) as text:
        begins = [line[:3] for line in text]
    plain = "{" if format is LogFormat.JSON else "t"
    assert begins[:4] == ["<7>", "<6>", "<4>", "<3>"]
    assert [begin[0] for begin in begins[4:]] == [plain] * 8


def test_journald_is_told_the_priority_of_what_ends_the_program() -> None:
    read, write = os.pipe()
    end = os.fstat(write)
    environ = {**os.environ, "JOURNAL_STREAM": f"{end.st_dev}:{end.st_ino}"}
    program = [sys.executable, "-m", "microvm_exporter", "--bogus"]
    result = subprocess.run(program, env=environ, stderr=write, timeout=30, check=False)
    os.close(write)
    with os.fdopen(read) as text:
        assert text.read() == "<3>microvm-exporter: unrecognized arguments: --bogus\n"
    assert result.returncode == 2


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("C:\\", r'"C:\\"'),
        ("a\nlevel=ERROR", r'"a\nlevel=ERROR"'),
        ("\x1b[2J\x9b", r'"\x1b[2J\x9b"'),
        ("\u2028\u202e", r'"\u2028\u202e"'),
        ("caf\u00e9\u2192", "caf\u00e9\u2192"),
        (os.fsdecode(b"\xff"), r'"\\udcff"'),
    ],
)
def test_values_that_could_be_misread_are_quoted(value: str, written: str) -> None:
    assert logged("x", vm=value).endswith(f" msg=x vm={written}\n")


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        (LogLevel.DEBUG, ["debug", "info", "warning", "library warning"]),
        (LogLevel.INFO, ["info", "warning", "library warning"]),
        (LogLevel.WARN, ["warning", "library warning"]),
        (LogLevel.ERROR, []),
    ],
)
def test_libraries_are_heard_from_warnings_on(level: LogLevel, heard: list[str]) -> None:
    stream = io.StringIO()
    setup(level, LogFormat.JSON, stream)
    for word in ("debug", "info", "warning"):
        getattr(LOG, word)(word)
        getattr(logging.getLogger("waitress"), word)(f"library {word}")
        getattr(logging.getLogger("waitress.queue"), word)("a busy moment")
    assert [json.loads(line)["msg"] for line in stream.getvalue().splitlines()] == heard


# -------------------------------------------------------------------------------------- one line

anything = st.text(st.characters() | st.sampled_from("\n\r\\\"' =\x85\u2028\udcff"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=anything, vm=anything)
def test_no_value_forges_a_line_or_a_field(message: str, vm: str) -> None:
    line = logged(message, vm=vm)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert line.encode("utf-8")
    assert list(parsed(line.rstrip("\n"))) == ["time", "level", "source", "msg", "vm"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=anything, vm=anything)
def test_json_gives_back_what_was_logged(message: str, vm: str) -> None:
    line = logged(message, LogFormat.JSON, vm=vm)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    record = json.loads(line)
    assert record["msg"] == message.encode("utf-8", "backslashreplace").decode()
    assert record["vm"] == vm.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize("format", LogFormat)
def test_exception_is_kept_in_the_line(format: LogFormat) -> None:
    stream = io.StringIO()
    setup(LogLevel.INFO, format, stream)
    try:
        raise ValueError("first\nlevel=ERROR")
    except ValueError:
        LOG.exception("Collector failed")
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "Traceback (most recent call last)" in line
    assert r"ValueError: first\nlevel=ERROR" in line


def test_exception_in_a_thread_and_a_warning_are_records() -> None:
    stream = io.StringIO()
    setup(LogLevel.INFO, LogFormat.JSON, stream)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # The context has put back what setup changed.
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old\nways", stacklevel=1)
    crash, warning = (json.loads(line) for line in stream.getvalue().splitlines())
    assert crash["msg"] == "uncaught exception"
    assert "ZeroDivisionError" in crash["exception"]
    assert "old\nways" in warning["msg"]


def test_process_that_dies_leaves_one_line_of_utf8_in_any_locale() -> None:
    program = (
        "from microvm_exporter.log import *\n"
        "setup(LogLevel.INFO, LogFormat.LOGFMT)\n"
        "raise ValueError('caf\\u00e9\\n\\udcff')\n"
    )
    environ = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, timeout=30, check=False
    )
    assert result.returncode == 1
    (line,) = result.stderr.decode("utf-8").splitlines()
    assert parsed(line)["level"] == "ERROR"
    assert r"ValueError: café\n\\udcff" in line
