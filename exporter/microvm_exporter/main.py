"""The command ``microvm-exporter``."""

from __future__ import annotations

import os
import sys
from typing import NoReturn, assert_never

from microvm_exporter import log
from microvm_exporter.config import CheckConfig, ServeConfig, parse
from microvm_exporter.errors import UsageError

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and end the process with its exit status."""
    status = _run()
    sys.stderr.flush()
    # Not by sys.exit: a collector may hang in a thread, and one of GLib's that comes back while the
    # interpreter is taken down aborts the process ("PyGILState_Release: thread state … must be
    # current when releasing", seen in 1 of 20 stops with PyGObject 3.50).
    os._exit(status)


def _run() -> int:
    try:
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
    except UsageError as error:
        print(f"microvm-exporter: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # of standard output: everything else has a handler of its own
        print(f"microvm-exporter: the report could not be written: {error}", file=sys.stderr)
        return 2
    except SystemExit as done:  # --help and --version
        sys.stdout.flush()
        return int(done.code or 0)
