"""nix/declaration.nix on a host's `microvm.vms`, read as the exporter reads it."""

from __future__ import annotations

import json
import re

import pytest

import nix_eval
from microvm_exporter.collectors.declaration import parse_declaration
from microvm_exporter.model import Declaration, DeclaredVm, Interface, InterfaceType, Origin

pytestmark = pytest.mark.skipif(bool(nix_eval.missing()), reason=str(nix_eval.missing()))

RUNNER = re.compile(r"/nix/store/[0-9a-z]{32}-(microvm-qemu-[a-z]+)")


def declare(arguments: str = "") -> Declaration:
    document = nix_eval.evaluate(
        f"import ./nix/declaration.nix {{ vms = import ./tests/nix/vms.nix; {arguments} }}"
    )
    return parse_declaration(json.dumps(document).encode(), limit=100)


def test_declaration_of_every_origin() -> None:
    found = declare()
    assert found.state_dir == "/var/lib/microvms"
    assert found.imperative == frozenset()
    expected = {
        "deployed": vm("deployed", Origin.DEPLOYED, hypervisor="cloud-hypervisor"),
        "evaluated": vm("evaluated", Origin.DECLARATIVE, hypervisor="firecracker"),
        "firewall": vm(
            "firewall",
            Origin.DECLARATIVE,
            interfaces=(
                Interface(InterfaceType.TAP, "vm-fw"),
                Interface(InterfaceType.MACVTAP, "vm-fw-uplink"),
            ),
        ),
        "flake": vm("flake", Origin.FLAKE, hypervisor="cloud-hypervisor"),
        "legacy": vm("legacy", Origin.DECLARATIVE),
        "mail.internal": vm("mail.internal", Origin.DECLARATIVE, autostart=False),
    }
    assert {name: without_hash(one) for name, one in found.vms.items()} == expected


def test_declaration_takes_what_the_host_says_of_them_all() -> None:
    found = declare(
        'autostart = [ "mail.internal" ]; stateDir = /srv/vms; imperative = [ "by-hand" ];'
    )
    assert [name for name, one in found.vms.items() if one.autostart] == ["mail.internal"]
    assert found.state_dir == "/srv/vms"
    assert found.imperative == {"by-hand"}


def test_declaration_keeps_no_runner_in_the_closure() -> None:
    declaration = (
        "builtins.toJSON (import ./nix/declaration.nix { vms = import ./tests/nix/vms.nix; })"
    )
    assert nix_eval.evaluate(f"builtins.hasContext ({declaration})") is False


def test_declaration_of_a_host_without_vms() -> None:
    document = nix_eval.evaluate("import ./nix/declaration.nix { vms = { }; }")
    assert document == {
        "version": 1,
        "state_dir": "/var/lib/microvms",
        "vms": {},
        "imperative": [],
    }


def vm(
    name: str,
    origin: Origin,
    *,
    hypervisor: str = "qemu",
    autostart: bool = True,
    interfaces: tuple[Interface, ...] = (),
) -> DeclaredVm:
    runner = f"microvm-qemu-{name.partition('.')[0]}"
    return DeclaredVm(name, origin, autostart, hypervisor, runner, interfaces)


def without_hash(one: DeclaredVm) -> DeclaredVm:
    found = RUNNER.fullmatch(one.runner or "")
    assert found, one.runner
    return DeclaredVm(one.name, one.origin, one.autostart, one.hypervisor, found[1], one.interfaces)
