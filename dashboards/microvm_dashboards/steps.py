"""Thresholds: from which value on a number means what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from microvm_dashboards import colours

__all__ = ["FRESH", "LOOPS", "NONE_BROKEN", "NONE_LEFT", "NONE_WRONG", "PLAIN", "Steps", "marked"]

Steps = Mapping[float, str]
"""Colours from these values on; what is below the first has the first's colour."""


def _good_at_zero(otherwise: str) -> Steps:
    """Of what is counted, where -1 stands for what could not be."""
    return {-1: colours.UNKNOWN, 0: colours.GOOD, 1: otherwise}


PLAIN: Final[Steps] = {0: colours.NEUTRAL}
"""No judgement."""

NONE_BROKEN: Final = _good_at_zero(colours.CRITICAL)
NONE_WRONG: Final = _good_at_zero(colours.WARNING)
NONE_LEFT: Final = _good_at_zero(colours.INFO)

FRESH: Final[Steps] = {0: colours.GOOD, 120: colours.WARNING, 600: colours.CRITICAL}
"""Of seconds since the host was looked at. That is done every 15 by default, and shown a scrape
later; MicrovmSnapshotOld waits from 600 on."""

LOOPS: Final[Steps] = {0: colours.GOOD, 5: colours.WARNING}
"""Of restarts in 30 minutes, as MicrovmRestartLoop has it."""


def marked(colour: str) -> Steps:
    """In a table: a cell that is not zero has this colour."""
    return {0: "transparent", 1: colour}
