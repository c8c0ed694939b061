"""The rules of the code base, as tests: linters, types, layers, sizes, and what git may hold."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
ROOT = REPO / "exporter"
PACKAGE = "microvm_exporter"

MAX_CODE_LINES = 250

# Of no use to the drift model, which is a function from values to values.
OUTSIDE_WORLD = {"datetime", "io", "logging", "os", "pathlib", "socket", "subprocess", "time"}

# What holds on one machine only, or tells where somebody's packages came from.
PRIVATE = {
    "the folder of this checkout": rf"(?<![\w.-]){re.escape(str(REPO))}(?![\w-])",
    "somebody's home": r"(?<![\w.-])/(?:root|(?:home|Users)/[a-z]\w*)/\w",
    "a package registry": r"https?://(?:registry|files|pypi|deb)\.",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["ruff check", "ruff format --diff", "mypy --strict"])
def test_linter_has_nothing_to_say(command: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode:
        pytest.fail(f"{command}:\n{run.stdout}", pytrace=False)


@pytest.mark.parametrize("libraries", [{"gi", "pydbus"}, {"pyroute2"}], ids=["D-Bus", "netlink"])
def test_library_is_imported_by_one_module(libraries: set[str]) -> None:
    importers = [name for name, used in imports().items() if libraries & set(map(top, used))]
    assert len(importers) == 1, importers


def test_model_imports_nothing_of_the_package() -> None:
    assert [used for used in imports()[f"{PACKAGE}.model"] if top(used) == PACKAGE] == []


def test_drift_imports_nothing_that_looks_outside() -> None:
    outside = [
        f"{name} imports {used}"
        for name, all_used in imports().items()
        for used in sorted(all_used)
        if name.startswith(f"{PACKAGE}.drift")
        and (top(used) in OUTSIDE_WORLD or used.startswith(f"{PACKAGE}.collectors"))
    ]
    assert not outside, "\n".join(outside)


def test_imports_go_one_way() -> None:
    """A cycle raises `graphlib.CycleError`, which names its modules."""
    modules = imports()
    graph = {name: {module_of(one, modules) for one in used} for name, used in modules.items()}
    assert set(TopologicalSorter(graph).static_order()) >= set(modules)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_module_is_short(path: Path) -> None:
    assert count_code_lines(path) <= MAX_CODE_LINES


def test_files_name_nothing_private() -> None:
    if not (REPO / ".git").exists():
        pytest.skip("not a git checkout")
    found = [
        f"{path.relative_to(REPO)}:{number}: {what}: {line.strip()}"
        for path in files_for_git()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        for what, pattern in PRIVATE.items()
        if re.search(pattern, line)
    ]
    assert not found, "\n".join(found)


def imports() -> dict[str, set[str]]:
    """Each module of the package, with the dotted names of all that it imports."""
    return {
        dotted_name(path): set(imported(ast.parse(path.read_text())))
        for path in sorted(ROOT.rglob("*.py"))
    }


def dotted_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{alias.name}" for alias in names)


def top(dotted: str) -> str:
    return dotted.partition(".")[0]


def module_of(dotted: str, modules: dict[str, set[str]]) -> str:
    """The module that an imported name is in: `model` for `model.Unit`; the name, if not ours."""
    return dotted if dotted in modules or "." not in dotted else dotted.rpartition(".")[0]


def count_code_lines(path: Path) -> int:
    """Lines that hold code: comments, docstrings and blank lines are free."""
    text = path.read_text()
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in blank and token.string:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
                code.difference_update(range(first, last + 1))
    return len(code)


def files_for_git() -> list[Path]:
    """What is in git, and what the next `git add` would put there."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=REPO, capture_output=True, text=True, check=True).stdout
    return [path for name in names.split("\0") if (path := REPO / name).is_file()]
