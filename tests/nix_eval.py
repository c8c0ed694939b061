"""What the project's Nix files evaluate to, with Debian's Nix and without a store or a library."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NIX = ROOT / "nix"
FILES = sorted((ROOT / "flake.nix", ROOT / "default.nix", *NIX.rglob("*.nix")))


class NixError(Exception):
    """Nix did not evaluate or parse something: what it said."""


def missing() -> str | None:
    """Why nothing can be evaluated here, in one line; None when it can."""
    return None if shutil.which("nix-instantiate") else "needs the Debian package nix-bin"


def evaluate(expression: str) -> Any:
    """The value of an expression, to its last leaf. `./` in it is the checkout.

    The store is none, so that nothing is written, and what would need one is an error.
    """
    return json.loads(_instantiate("--eval", "--strict", "--json", "--expr", expression))


def parse(source: Path | str) -> str:
    """A file or an expression, with its sugar taken out, its names looked up, its paths whole."""
    return _instantiate("--parse", *(["--expr", source] if isinstance(source, str) else [source]))


def _instantiate(*arguments: str | Path) -> str:
    command = ("nix-instantiate", "--store", "dummy://", "--readonly-mode", *arguments)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise NixError(done.stderr)
    return done.stdout
