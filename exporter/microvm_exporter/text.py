"""Text from outside made safe to show and to paste.

Device names and link targets can hold anything, also a terminal's escape sequences, a line break
or bytes that are not UTF-8. Nothing of that may reach a terminal, a log line or a shell.
"""

from __future__ import annotations

import shlex

__all__ = ["printable", "quote"]


def printable(text: str) -> str:
    """Give the text with every character that is not printable as an escape (``\\x1b``)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def quote(text: str) -> str:
    """Quote a word for a POSIX shell; one that is not printable in bash's ``$'…'`` form."""
    if text.isprintable():
        return shlex.quote(text)
    raw = text.encode("utf-8", "surrogateescape")
    plain = bytes(range(0x20, 0x7F)).translate(None, b"'\\")
    return "$'" + "".join(chr(b) if b in plain else f"\\x{b:02x}" for b in raw) + "'"
