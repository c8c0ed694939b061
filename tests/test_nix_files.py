"""Every Nix file, and what the documentation has of it, knows its names and binds none in vain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

import nix_eval

pytestmark = pytest.mark.skipif(bool(nix_eval.missing()), reason=str(nix_eval.missing()))

FILES = [*nix_eval.FILES, *(nix_eval.ROOT / "tests/nix").glob("*.nix")]
SNIPPETS = re.findall(r"```nix\n(.+?)```", (nix_eval.ROOT / "docs/nixos.md").read_text(), re.DOTALL)
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[./\w-]*/[./\w-]*|[a-zA-Z_][\w\'-]*|\d+|\S', re.DOTALL)
OPENING, CLOSING = ("(", "[", "{", "let"), (")", "]", "}", "in")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(nix_eval.ROOT)))
def test_file_binds_no_name_in_vain(file: Path) -> None:
    assert unused_names(file) == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(nix_eval.ROOT)))
def test_file_names_files_that_are_there(file: Path) -> None:
    named = {Path(token) for token in TOKEN.findall(nix_eval.parse(file)) if token[0] == "/"}
    missing = {path for path in named if path.is_relative_to(nix_eval.ROOT) and not path.exists()}
    assert missing - {file.parent / "hardware-configuration.nix"} == set()  # each host has its own


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_documentation_binds_no_name_in_vain(snippet: str) -> None:
    assert unused_names(snippet) == set()


def test_documentation_changes_what_the_alertmanager_example_has() -> None:
    example = (nix_eval.ROOT / "alerts/alertmanager.example.yml").read_text()
    [replaced] = {word for one in SNIPPETS for word in re.findall(r'Strings \[ "(.+?)" \]', one)}
    assert example.count(replaced) == 1
    assert "$" not in example  # which NixOS would take for a variable


@pytest.mark.parametrize(
    ("text", "unused"),
    [
        ("{ a, b ? a, ... }: { inherit b; c = 1; }", set()),
        ("{ a, b, ... }: { a = 1; c.a = b; }", {"a"}),
        ("x: let y = x; z = { y = 2; }.y; in z", {"y"}),
        ('let a = "b"; b = ./a; in b', {"a"}),
        ("let inherit (builtins) map filter; in [ (map (x: x)) ]", {"filter"}),
        ("{ a, b, c }: b.${a.c}.d", {"c"}),
    ],
)
def test_names_bound_in_vain_are_found(text: str, unused: set[str]) -> None:
    assert unused_names(text) == unused


def test_names_bound_in_vain_are_found_in_what_newer_nix_prints() -> None:
    parsed = "(a: (let inherit (a.b or (c d)) used vain ; e = 1; in { inherit used e ; }))"
    assert unused_in(parsed) == {"vain"}


def test_names_that_nothing_binds_are_found() -> None:
    with pytest.raises(nix_eval.NixError, match="undefined variable 'b'"):
        unused_names("{ a }: a b")


def unused_names(source: Path | str) -> set[str]:
    """`parse` finds a name that nothing binds, which a `with` would hide."""
    return unused_in(nix_eval.parse(source))


def unused_in(parsed: str) -> set[str]:
    computed = re.sub(r'"\$\{([^"{}]*)\}"', r"(\1)", parsed)  # names in what looks like a string
    tokens = list(without_inherit(TOKEN.findall(computed)))
    assert "with" not in tokens
    bound = set(bindings(tokens))
    return bound - set(uses(tokens, bound))


def without_inherit(tokens: list[str]) -> Iterator[str]:
    """`inherit (a) b;` as `b = (a).b;`, which is how Nix itself prints it before 2.20."""
    rest = iter(tokens)
    for token in rest:
        if token != "inherit":
            yield token
            continue
        inherited = list(takewhile(lambda one: one != ";", rest))
        names = list(takewhile(lambda one: one != ")", reversed(inherited)))
        source = inherited[: len(inherited) - len(names)]
        for name in names:
            yield from (name, "=", *source, *(["."] if source else []), name, ";")


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
