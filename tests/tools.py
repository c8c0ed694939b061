"""The programs beside the exporter that tests run, from `.tools`."""

from __future__ import annotations

import pytest

from host.service import TOOLS, missing


def tool(name: str) -> str:
    """Where a program is; skips the test when it is not there."""
    if why := missing(name):
        pytest.skip(why)
    return str(TOOLS / name)
