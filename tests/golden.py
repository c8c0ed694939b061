"""Expected output in files. ``ACCEPT=1 make test`` writes them anew, to be read in the diff."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, actual: str) -> None:
    """Compare with ``tests/golden/NAME``."""
    path = FOLDER / name
    if os.environ.get("ACCEPT"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(actual)
    assert path.is_file(), f"{path} is not there: ACCEPT=1 makes it"
    assert actual == path.read_text()
