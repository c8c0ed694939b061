"""The documentation is what the code makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_docs_are_what_the_code_makes() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
