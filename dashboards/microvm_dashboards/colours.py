"""One colour a meaning, from the palette of Okabe and Ito.

They differ for people who confuse red and green too, and stand out on white and on black. A colour
never speaks alone: a word or a number is beside it.
"""

from __future__ import annotations

from typing import Final

from microvm_exporter.drift.kinds import SEVERITIES as SEVERITY_OF

__all__ = [
    "CRITICAL",
    "GOOD",
    "INFO",
    "KINDS",
    "NEUTRAL",
    "OFF",
    "SEVERITIES",
    "UNKNOWN",
    "WARNING",
]

GOOD: Final = "#009E73"  # looked, and all is well
INFO: Final = "#56B4E9"  # a leftover: can wait
WARNING: Final = "#E69F00"  # somebody should look today
CRITICAL: Final = "#D55E00"  # something that is wanted does not work
UNKNOWN: Final = "#CC79A7"  # could not look
OFF: Final = "#8C8C8C"  # not running, and need not
NEUTRAL: Final = "text"  # a number without a judgement

SEVERITIES: Final = {"critical": CRITICAL, "warning": WARNING, "info": INFO}


def _shade(colour: str, position: float) -> str:
    """Mix in black (down to -1) or white (up to 1)."""
    towards = 255 if position > 0 else 0
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(one + (towards - one) * abs(position)):02X}" for one in parts)


def _of_kinds() -> dict[str, str]:
    shaded = {}
    for severity, colour in SEVERITIES.items():
        kinds = [kind.value for kind, one in SEVERITY_OF.items() if one == severity]
        for index, kind in enumerate(kinds):
            shaded[kind] = _shade(colour, (index + 0.5) / len(kinds) - 0.5)
    return shaded


KINDS: Final = _of_kinds()
"""Each kind in a shade of its severity."""
