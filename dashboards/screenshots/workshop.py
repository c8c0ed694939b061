"""Where the pictures are drawn: npm's packages and headless Chromium, kept out of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

HARNESS: Final = Path(__file__).parent / "harness"

_PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "chromium": ("chromium", "fonts-dejavu-core"),
    "node": ("nodejs",),
    "npm": ("npm",),
    "pngquant": ("pngquant",),
}
"""The Debian packages of each program that is needed."""

_NPM: Final = ("npm", "install", "--ignore-scripts", "--legacy-peer-deps", "--no-package-lock")
_ESBUILD: Final = (
    "node_modules/.bin/esbuild",
    "page.tsx",
    "--bundle",
    "--outfile=out/page.js",
    "--format=iife",
    "--jsx=automatic",
    "--minify",
    '--define:process.env.NODE_ENV="production"',
    "--loader:.svg=text",
    "--loader:.ttf=dataurl",
    "--log-level=error",
)


class WorkshopError(Exception):
    """Nothing can be drawn here: says what is missing, or what a program said."""


def missing() -> list[str]:
    """Give the Debian packages of what is not there."""
    absent = [program for program in _PACKAGES if not shutil.which(program)]
    return [package for program in absent for package in _PACKAGES[program]]


def open_workshop() -> Path:
    """Give a folder in which `draw` works; the first time it takes a minute or two."""
    if packages := missing():
        _install(packages)
    folder = _cache() / _digest("package.json")
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(HARNESS / "package.json", folder)
        _say("fetching Grafana's components with npm")
        _run(*_NPM, "--no-audit", "--no-fund", "--loglevel=error", folder=folder)
        (folder / "installed").touch()
    _bundle(folder)
    return folder


def draw(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Draw pictures, each as draw.mjs says; give the page's reports, in order."""
    path = folder / f"jobs-{os.getpid()}.json"
    path.write_text(json.dumps(jobs))
    try:
        printed = _run("node", "draw.mjs", path.name, folder=folder)
    finally:
        path.unlink()
    return [json.loads(line) for line in printed.splitlines()]


def shrink(pictures: Sequence[Path]) -> None:
    """Make pictures small enough for a repository: 256 colours, none of them dithered."""
    _run("pngquant", "--nofs", "--strip", "--force", "--ext=.png", *map(str, pictures))


def _bundle(folder: Path) -> None:
    sources = sorted(path for path in HARNESS.iterdir() if path.name != "package.json")
    stamp, wanted = folder / "out" / "stamp", _digest(*(path.name for path in sources))
    if stamp.exists() and stamp.read_text() == wanted:
        return
    for source in sources:
        shutil.copy(source, folder)
    _run(*_ESBUILD, folder=folder)
    stamp.write_text(wanted)


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "microvm-exporter-screenshots"


def _digest(*names: str) -> str:
    return sha256(b"".join((HARNESS / name).read_bytes() for name in names)).hexdigest()[:16]


def _install(packages: Sequence[str]) -> None:
    install = ("apt-get", "install", "--no-install-recommends", "-qq", "-y")
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise WorkshopError(
            f"These are missing, by their Debian names: {' '.join(packages)}. As root on Debian: "
            f"apt-get update && apt-get install --no-install-recommends {' '.join(packages)}"
        )
    _say(f"installing {' '.join(packages)}")
    _run("apt-get", "update", "-qq")
    _run(*install, *packages, environment={"DEBIAN_FRONTEND": "noninteractive"})


def _run(
    *command: str, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    chromium = {"CHROMIUM": shutil.which("chromium") or "chromium"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **chromium, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise WorkshopError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _say(text: str) -> None:
    print(f"screenshots: {text}", file=sys.stderr)
