"""One colour a meaning, from the palette of Okabe and Ito.

They differ for people who confuse red and green too, and stand out on white and on black. A colour
never speaks alone: a word or a number is beside it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CRITICAL", "GOOD", "INFO", "NEUTRAL", "OFF", "UNKNOWN", "WARNING"]

GOOD: Final = "#009E73"  # looked, and all is well
INFO: Final = "#56B4E9"  # a leftover: can wait
WARNING: Final = "#E69F00"  # somebody should look today
CRITICAL: Final = "#D55E00"  # something that is wanted does not work
UNKNOWN: Final = "#CC79A7"  # could not look
OFF: Final = "#8C8C8C"  # not running, and need not
NEUTRAL: Final = "text"  # a number without a judgement
