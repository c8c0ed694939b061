"""What may be done here, and being someone who may not, also where the tests run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


def can_run(*command: str) -> bool:
    """Whether there is such a command, and it may do what it does."""
    is_there = shutil.which(command[0]) is not None
    return is_there and subprocess.run(command, check=False).returncode == 0


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, if root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """Make a directory that nobody can reach too, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
