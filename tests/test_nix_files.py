"""Every Nix file: it parses, knows its names, and binds none for nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import nix_eval

pytestmark = pytest.mark.skipif(bool(nix_eval.missing()), reason=str(nix_eval.missing()))

FILES = [*nix_eval.FILES, *(nix_eval.ROOT / "tests/nix").glob("*.nix")]
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[./\w-]*/[./\w-]*|[a-zA-Z_][\w\'-]*|\d+|\S', re.DOTALL)
OPENING, CLOSING = ("(", "[", "{", "let"), (")", "]", "}", "in")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(nix_eval.ROOT)))
def test_file_binds_no_name_for_nothing(file: Path) -> None:
    """`parse` finds a name that nothing binds, which a `with` would hide."""
    tokens = TOKEN.findall(nix_eval.parse(file))
    assert "with" not in tokens
    bound = set(bindings(tokens))
    assert bound - set(uses(tokens, bound)) == set()


@pytest.mark.parametrize(
    ("text", "unused"),
    [
        ("{ a, b ? a, ... }: { inherit b; c = 1; }", set()),
        ("{ a, b, ... }: { a = 1; c.a = b; }", {"a"}),
        ("x: let y = x; z = { y = 2; }.y; in z", {"y"}),
        ('let a = "b"; b = ./a; in b', {"a"}),
        ("let inherit (builtins) map filter; in [ (map (x: x)) ]", {"filter"}),
    ],
)
def test_names_bound_for_nothing_are_found(tmp_path: Path, text: str, unused: set[str]) -> None:
    file = tmp_path / "file.nix"
    file.write_text(text)
    tokens = TOKEN.findall(nix_eval.parse(file))
    bound = set(bindings(tokens))
    assert bound - set(uses(tokens, bound)) == unused


def bindings(tokens: list[str]) -> Iterator[str]:
    """Names bound by `let`, and by functions that take attributes; not those of `x:`."""
    around: list[str] = []
    for place, token in enumerate(tokens):
        if token in OPENING:
            formals = token == "{" and is_formals(tokens, place)
            around.append("formals" if formals else token)
        elif token in CLOSING:
            around.pop()
        elif is_name(token) and (
            (around[-1:] == ["let"] and tokens[place + 1] == "=" and tokens[place + 2] != "=")
            or (around[-1:] == ["formals"] and tokens[place - 1] in ("{", ","))
        ):
            yield token


def uses(tokens: list[str], names: set[str]) -> Iterator[str]:
    """Names where they stand for what they are bound to."""
    padded = ["", *tokens, "", ""]
    for before, token, after, later in zip(
        padded, padded[1:], padded[2:], padded[3:], strict=False
    ):
        binds = (after == "=" and later != "=") or (
            before in ("{", ",") and after in (",", "?", "}")
        )
        if token in names and before != "." and not binds:
            yield token


def is_formals(tokens: list[str], opening: int) -> bool:
    """Whether the attributes that open there are those that a function takes."""
    depth = 0
    for place, token in enumerate(tokens[opening:], opening):
        depth += (token == "{") - (token == "}")
        if depth == 0:
            return tokens[place + 1 : place + 2] == [":"]
    return False


def is_name(token: str) -> bool:
    return token.isidentifier() or bool(re.fullmatch(r"[a-zA-Z_][\w'-]*", token))
