"""The command ``microvm-exporter``."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn, assert_never

from microvm_exporter import log
from microvm_exporter.config import CheckConfig, ServeConfig, parse
from microvm_exporter.errors import UsageError

__all__ = ["main"]

_FAILED: Final = 2
"""Never 1, Python's own for a failure: it would say that there is drift."""


def main() -> NoReturn:
    """Run the command line and end the process with its exit status."""
    _provide_streams()
    status = _run()
    with suppress(OSError):
        sys.stderr.flush()
    # Not by sys.exit: a collector may hang in a thread, and one of GLib's that comes back while the
    # interpreter is taken down aborts the process ("PyGILState_Release: thread state … must be
    # current when releasing", seen in 1 of 20 stops with PyGObject 3.50).
    os._exit(status)


def _provide_streams() -> None:
    """Stand in for streams that whoever started the program has closed: None, to Python."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - up to the end of the process
    if sys.stdout is None:
        # What nobody can get is an error, as it is when it is written.
        sys.stdout = Path("/dev/full").open("w")  # noqa: SIM115


def _run() -> int:
    try:
        try:
            return _command()
        except SystemExit as done:  # --help and --version
            sys.stdout.flush()
            return int(done.code or 0)
    except UsageError as error:
        return _complain(str(error))
    except BrokenPipeError:  # `--help | head`: who reads has seen enough
        return 0
    except OSError as error:  # of standard output: everything else has a handler of its own
        return _complain(f"standard output could not be written: {error}")
    except Exception:
        with suppress(OSError):
            logging.getLogger(__name__).exception("unexpected")
        return _FAILED


def _command() -> int:
    config = parse(sys.argv[1:], os.environ)
    log.setup(config.log_level, config.log_format)
    # Imported late: --help and a mistake in the flags need neither D-Bus nor netlink.
    match config:
        case ServeConfig():
            from microvm_exporter.serve import serve

            serve(config)
            return 0
        case CheckConfig():
            from microvm_exporter.check import check

            return check(config)
        case _:
            assert_never(config)


def _complain(text: str) -> int:
    with suppress(OSError):
        log.complain(text)
    return _FAILED
