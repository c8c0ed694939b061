"""Text from outside, made safe to show and to paste."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microvm_exporter.text import printable, quote


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe", "größe"),
        ("a\nb", r"a\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\udcff", r"\udcff"),
        ("\u202eevil", r"\u202eevil"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_printable_is_printable(text: str) -> None:
    assert printable(text).isprintable()


@given(st.binary(max_size=40).filter(lambda raw: b"\0" not in raw))
def test_quote_gives_the_shell_the_same_word(raw: bytes) -> None:
    quoted = quote(os.fsdecode(raw))
    assert quoted.isprintable()
    shell = ["bash", "-c", f"printf %s {quoted}"]
    assert subprocess.run(shell, capture_output=True, check=True).stdout == raw
