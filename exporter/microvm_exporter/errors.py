"""The two ways in which this program fails on purpose."""

from __future__ import annotations

__all__ = ["CollectorError", "UsageError"]


class CollectorError(Exception):
    """A source could not be read.

    The text is for the operator: what was looked at, what was expected, what to do.
    """


class UsageError(Exception):
    """The command line or the environment makes no sense; the text names the flag."""
