"""Durations as Prometheus writes them: ``15s``, ``1m30s``, ``500ms``.

The units and their order are those of Prometheus's own flags: each at most once, the largest
first, whole numbers only. A bare number has no unit and is refused.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_duration"]

_MILLISECONDS: Final = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
_PATTERN: Final = re.compile(
    "".join(rf"(?:(?P<{unit}>[0-9]{{1,9}}){unit})?" for unit in _MILLISECONDS)
)


def parse_duration(text: str) -> float:
    """Give the duration in seconds; ValueError when it is none, or not above zero."""
    match = _PATTERN.fullmatch(text)
    if match is None or not text:
        raise ValueError
    parts = match.groupdict(default="0")
    milliseconds = sum(int(parts[unit]) * worth for unit, worth in _MILLISECONDS.items())
    if milliseconds == 0:
        raise ValueError("it must be above zero")
    return milliseconds / 1000
