"""Draw the dashboards on the simulated history.

    PYTHONPATH=bench:dashboards:tests python -m screenshots [DIR] [--only NAME ...]

makes docs/dashboards/NAME.png, the pictures of the README. With DIR (`make screenshots DIR=…`) it
makes there every scene in both themes and at both widths instead, with a picture of each panel, to
be looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from host.prometheus import Prometheus
from microvm_simulator.history import HISTORY, write_blocks
from screenshots.dashboard import FOLDER
from screenshots.scenes import END, OTHERS, README, Scene, page
from screenshots.workshop import WorkshopError, draw, open_workshop, shrink

_PICTURES: Final = FOLDER.parent / "docs" / "dashboards"
_WIDE, _NARROW = 1600, 800


def main() -> int:
    """Draw; 1 when something is missing, or when a page has something to complain of."""
    arguments = _arguments()
    scenes = [
        scene
        for scene in (README + OTHERS if arguments.folder else README)
        if scene.name in (arguments.only or [scene.name])
    ]
    try:
        workshop = open_workshop()
        with TemporaryDirectory() as data:
            write_blocks(Path(data), END)
            with Prometheus("{}", Path(data), HISTORY.flag) as prometheus:
                jobs = list(_jobs(scenes, prometheus, arguments.folder))
        reports = draw(workshop, jobs)
        if not arguments.folder:
            shrink([Path(job["file"]) for job in jobs])
    except WorkshopError as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    return max([_tell(report) for report in reports], default=0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="screenshots", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="draw everything there instead")
    names = [scene.name for scene in README + OTHERS]
    parser.add_argument("--only", nargs="+", choices=names, help="draw these scenes alone")
    return parser.parse_args()


def _jobs(
    scenes: Sequence[Scene], prometheus: Prometheus, folder: Path | None
) -> Iterator[dict[str, Any]]:
    for scene in scenes:
        content = page(scene, prometheus)
        if folder is None:
            picture = _job(content, "dark", _WIDE, _PICTURES / f"{scene.name}.png", None)
            yield {**picture, "until": scene.until}
            continue
        for theme in ("dark", "light"):
            for width in (_WIDE, _NARROW):
                name = f"{scene.name}-{theme}-{width}"
                yield _job(content, theme, width, folder / f"{name}.png", folder / name)


def _job(
    content: dict[str, Any], theme: str, width: int, file: Path, panels: Path | None
) -> dict[str, Any]:
    (panels or file.parent).mkdir(parents=True, exist_ok=True)
    return {
        "input": {**content, "theme": theme, "width": width},
        "file": str(file.resolve()),
        "until": None,
        "panels": panels and str(panels.resolve()),
    }


def _tell(report: dict[str, Any]) -> int:
    """Print what is wrong with a picture, and give 1 when something is."""
    wrong = [
        *(f"not found: {path}" for path in report["missing"]),
        *report["errors"],
        *(f"{panel['title']}: {what}" for panel in report["panels"] for what in panel["wrong"]),
    ]
    print(report["file"])
    for line in wrong:
        print(f"  {json.dumps(line)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
