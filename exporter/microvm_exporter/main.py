"""The command ``microvm-exporter``."""

from __future__ import annotations

import os
import sys
from typing import assert_never

from microvm_exporter import log
from microvm_exporter.config import CheckConfig, ServeConfig, parse
from microvm_exporter.errors import UsageError

__all__ = ["main"]


def main() -> int:
    """Run the command line and give the exit status."""
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
    except BrokenPipeError:
        # `check | head`: who reads has seen enough. Nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
