"""The script of nix/report.nix, which a switch runs, as root on a real host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

import nix_eval
from host import Fleet, Vm
from host.exporter import COMMAND, DECLARATION, USER

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(bool(nix_eval.missing()), reason=str(nix_eval.missing())),
    pytest.mark.skipif(not shutil.which("jq"), reason="needs the Debian package jq"),
]

SCRIPT = "/opt/report.sh"


@pytest.fixture
def switched(fleet: Fleet) -> Iterator[Fleet]:
    """A host of which one MicroVM is about to be undeclared; the file stays as it is."""
    fleet.declare(Vm("web"), Vm("mail.internal"))
    fleet.switch()
    fleet.write_declaration(DECLARATION)
    fleet.machine.write(SCRIPT, report())
    yield fleet
    for path in (DECLARATION.parent, SCRIPT):
        fleet.machine.remove(path)


def test_report_of_a_healthy_host_is_silent(switched: Fleet) -> None:
    assert run(switched) == ""


def test_report_names_what_runs_undeclared(switched: Fleet) -> None:
    switched.undeclare("mail.internal")
    switched.write_declaration(DECLARATION)
    assert run(switched) == (
        "microvm-exporter: running, and not declared:\n"
        "  mail.internal\n"
        "microvm-exporter: `microvm-exporter check` tells what to do about each\n"
    )


def test_report_says_when_it_cannot_tell(switched: Fleet) -> None:
    switched.machine.write(DECLARATION, "{")
    first, *rest = run(switched).splitlines()
    assert first == "microvm-exporter: could not tell whether undeclared MicroVMs run:"
    assert [line.split(":")[0] for line in rest] == ["  declaration"]


def test_report_says_when_check_did_not_end(switched: Fleet) -> None:
    switched.machine.write(SCRIPT, report(exe="/bin/false"))
    assert run(switched) == (
        "microvm-exporter: could not tell whether undeclared MicroVMs run: check did not end\n"
    )


def report(exe: str = COMMAND) -> str:
    text: str = nix_eval.evaluate(
        f'import ./nix/report.nix {{ exe = "{exe}"; jq = "jq"; setpriv = "setpriv";'
        f' timeout = "timeout"; flags = [ "--declaration.file={DECLARATION}" ];'
        f' user = "{USER}"; group = "{USER}"; }}'
    )
    return text


def run(fleet: Fleet) -> str:
    """What it prints; it always succeeds, and says nothing on standard error."""
    done = fleet.machine.run("bash", SCRIPT)
    assert done.stderr == ""
    return done.stdout
