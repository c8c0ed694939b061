"""The committed dashboards have the types of Grafana's own schema, by TypeScript's compiler.

Collected only where npm is there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

from microvm_dashboards.files import FOLDER

_SHAPES: Final = Path(__file__).parent / "grafana_types"
_INSTALL: Final = ("npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit")
_OPTIONS: Final = (
    *("--noEmit", "--strict", "--skipLibCheck"),
    *("--moduleResolution", "bundler", "--module", "esnext", "--target", "es2022"),
)


@pytest.fixture(scope="module")
def compiler() -> Path:
    """A folder with the schema and the compiler; kept between runs, 26 MB."""
    package = _SHAPES / "package.json"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = sha256(package.read_bytes()).hexdigest()[:16]
    folder = home / "microvm-exporter-types" / name
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(package, folder)
        done = subprocess.run(_INSTALL, cwd=folder, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"npm could not install Grafana's schema: {done.stderr}")
        (folder / "installed").touch()
    return folder


def test_dashboards_have_the_types_of_grafana(compiler: Path, tmp_path: Path) -> None:
    dashboards = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
    assert _complaints(compiler, tmp_path, dashboards) == ""


def test_types_tell_of_a_key_that_grafana_does_not_know(compiler: Path, tmp_path: Path) -> None:
    dashboard = json.loads((FOLDER / "microvm-fleet.json").read_text())
    stat = next(panel for panel in dashboard["panels"] if panel["type"] == "stat")
    stat["options"]["colourMode"] = stat["options"].pop("colorMode")
    assert "'\"colourMode\"' does not exist" in _complaints(compiler, tmp_path, {"x": dashboard})


def _complaints(compiler: Path, folder: Path, dashboards: dict[str, Any]) -> str:
    shutil.copy(_SHAPES / "shapes.ts", folder)
    (folder / "node_modules").symlink_to(compiler / "node_modules")
    for name, dashboard in dashboards.items():
        (folder / f"{name}.ts").write_text(_typed(dashboard))
    tsc = ("node_modules/.bin/tsc", *_OPTIONS, *(f"{name}.ts" for name in dashboards))
    return subprocess.run(tsc, cwd=folder, capture_output=True, text=True, timeout=120).stdout


def _typed(dashboard: dict[str, Any]) -> str:
    """TypeScript that compiles only when the dashboard is as the schema has it."""
    lines = ["import type * as shapes from './shapes';"]
    for panel in dashboard["panels"]:
        kind = panel["type"].replace("-", "")
        lines.append(f"export const panel{panel['id']}: shapes.{kind} = {json.dumps(panel)};")
    rest = json.dumps({**dashboard, "panels": []})
    return "\n".join([*lines, f"export const dashboard: shapes.dashboard = {rest};", ""])
