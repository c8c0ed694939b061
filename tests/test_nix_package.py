"""nix/package.nix, beside what it repeats of the project: version, dependencies, tests."""

from __future__ import annotations

import re
import tomllib
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
  names = builtins.listToAttrs (map (name: { inherit name; value = name; }) [ %s ]);
in
import ./nix/package.nix {
  lib = {
    versionAtLeast = version: least: builtins.compareVersions version least >= 0;
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


def package(version: str = "3.12.11") -> dict[str, Any]:
    known = ("hatchling", "hypothesis", "pytest", "pytest-timeout", *dependencies())
    names = " ".join(f'"{name}"' for name in known)
    made: dict[str, Any] = nix_eval.evaluate(PACKAGE % (names, version))
    return made


def dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=~]", one)[0].lower() for one in project["dependencies"]]
    return sorted(NIXPKGS_NAMES.get(name, name) for name in names)


def test_package_is_that_of_the_project() -> None:
    made = package()
    assert made["version"] == __version__
    assert sorted(made["dependencies"]) == dependencies()
    assert made["passthru"]["tests"] == {"vm-test": str(ROOT / "nix/vm-test.nix")}


@pytest.mark.parametrize(
    ("version", "taken"), [("3.12.11", "3.12.11"), ("3.13.1", "3.13.1"), ("3.14.0", "3.13.5")]
)
def test_package_is_for_a_python_that_pydbus_runs_on(version: str, taken: str) -> None:
    assert package(version)["passthru"]["python"]["version"] == taken


def test_package_runs_tests_that_are_there() -> None:
    command = next(line for line in package()["checkPhase"].splitlines() if "pytest" in line)
    files = [ROOT / word for word in command.split() if word.endswith(".py")]
    assert len(files) > 20
    assert [file for file in files if not file.is_file()] == []
    left_out = re.findall(r"--deselect (\S+)::(\S+)", command)
    assert left_out
    assert all(f"def {name}(" in (ROOT / file).read_text() for file, name in left_out)
