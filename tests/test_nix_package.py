"""nix/package.nix, beside what it repeats of the project: version, dependencies, tests."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import nix_eval
from microvm_exporter import __version__
from nix_eval import ROOT

pytestmark = pytest.mark.skipif(bool(nix_eval.missing()), reason=str(nix_eval.missing()))

NIXPKGS_NAMES = {"pygobject": "pygobject3"}

# As much of nixpkgs as it asks for. A package is its name here, a derivation what it is made with.
PACKAGE = """
let
  same = { buildPythonApplication = made: made; python.version = "3.13.5"; };
  names = builtins.listToAttrs (map (name: { inherit name; value = name; }) [ %s ]) // {
    pyroute2 = { outPath = "pyroute2"; version = "%s"; };
  };
in
import ./nix/package.nix {
  lib = {
    throwIf = broken: message: value: if broken then throw message else value;
    versionAtLeast = version: least: builtins.compareVersions version least >= 0;
    versionOlder = version: other: builtins.compareVersions version other < 0;
    fileset = { toSource = { fileset, ... }: fileset; unions = map toString; };
    licenses.mit = "MIT";
    platforms.linux = "linux";
  };
  glib = "glib";
  gobject-introspection = "gobject-introspection";
  python3Packages = names // same // { python.version = "%s"; };
  python313Packages = names // same;
  testers.runNixOSTest = toString;
  wrapGAppsNoGuiHook = "wrapGAppsNoGuiHook";
}
"""


def package(version: str = "3.12.11", pyroute2: str = "0.9.6") -> dict[str, Any]:
    known = ("hatchling", "hypothesis", "pytest", "pytest-timeout", *dependencies())
    names = " ".join(f'"{name}"' for name in known)
    made: dict[str, Any] = nix_eval.evaluate(PACKAGE % (names, pyroute2, version))
    return made


def dependencies() -> dict[str, str]:
    """What the project needs, by its name in nixpkgs, and the oldest version that will do."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = [re.split(r"[<>=~,]+", one) for one in project["dependencies"]]
    return {NIXPKGS_NAMES.get(name.lower(), name.lower()): least for name, least, *_ in parts}


def test_package_is_that_of_the_project() -> None:
    made = package()
    assert made["version"] == __version__
    assert sorted(made["dependencies"]) == sorted(dependencies())
    assert made["passthru"]["tests"] == {"vm-test": str(ROOT / "nix/vm-test.nix")}


@pytest.mark.parametrize(
    ("version", "taken"), [("3.12.11", "3.12.11"), ("3.13.1", "3.13.1"), ("3.14.0", "3.13.5")]
)
def test_package_is_for_a_python_that_pydbus_runs_on(version: str, taken: str) -> None:
    assert package(version)["passthru"]["python"]["version"] == taken


def test_package_says_when_nixpkgs_is_too_old_for_it() -> None:
    assert package(pyroute2=dependencies()["pyroute2"])
    message = "needs pyroute2 0.9.1 or later, and this nixpkgs has 0.8.1: take the package"
    with pytest.raises(nix_eval.NixError, match=message):
        package(pyroute2="0.8.1")


def test_package_is_tried_as_it_is_installed() -> None:
    [trial] = [line for line in package()["checkPhase"].splitlines() if "$out" in line]
    bash = ("bash", "-euo", "pipefail", "-c", trial)
    subprocess.run(bash, env={"out": sys.prefix, "PATH": "/usr/bin:/bin"}, check=True)


def test_package_runs_all_tests_that_need_nothing_else() -> None:
    command = next(line for line in package()["checkPhase"].splitlines() if "pytest" in line)
    files = {ROOT / word for word in command.split() if word.endswith(".py")}
    assert files - set((ROOT / "tests").glob("test_*.py")) == set()
    assert {file for file in (ROOT / "tests").glob("test_*.py") if is_pure(file)} - files == set()


def is_pure(file: Path) -> bool:
    """Whether a test is of the package, and uses neither a host nor another part of the project."""
    used = set(re.findall(r"^(?:from|import) (\w+)", file.read_text(), re.MULTILINE))
    others = {path.parent.name for path in ROOT.glob("*/*/__init__.py")} - {"microvm_exporter"}
    return "microvm_exporter" in used and not used & {"nix_eval", *others}
