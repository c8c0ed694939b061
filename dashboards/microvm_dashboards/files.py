"""The files of the dashboards: their names and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from microvm_dashboards import exporter, fleet, host, vm
from microvm_dashboards.document import render

__all__ = ["FOLDER", "files"]

FOLDER: Final = Path(__file__).resolve().parents[1]


def files() -> dict[str, str]:
    """Each file's name with its text."""
    pages = (fleet.page(), host.page(), vm.page(), exporter.page())
    return {f"{page.uid}.json": render(page) for page in pages}
