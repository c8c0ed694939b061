"""What nix/module.nix makes of its options, with as much of nixpkgs as it asks for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import nix_eval
from host.exporter import DECLARATION, PORT, USER

pytestmark = pytest.mark.skipif(bool(nix_eval.missing()), reason=str(nix_eval.missing()))

# Of the options it takes the values, which the modules of nixpkgs would have merged.
MODULE = """
(import ./nix/module.nix {
  lib = {
    inherit (builtins) any elem;
    mkIf = condition: value: if condition then value else { };
    escapeShellArg = text: "'${builtins.replaceStrings [ "'" ] [ "'\\\\''" ] text}'";
    getExe = toString;
    getExe' = package: name: "${package}/bin/${name}";
    hasInfix = part: text: builtins.length (builtins.split part text) > 1;
    hasPrefix = part: text: builtins.substring 0 (builtins.stringLength part) text == part;
    removePrefix = part: builtins.replaceStrings [ part ] [ "" ];
    splitString = by: text: builtins.filter builtins.isString (builtins.split by text);
    stringAfter = deps: text: { inherit deps text; };
  };
  options = { };
  config = {
    networking = { firewall.backend = "%s"; nftables.enable = %s; enableIPv6 = true; };
    services.prometheus.exporters.microvm = {
      enable = true;
      package = "/package";
      port = %d;
      listenAddress = "0.0.0.0";
      extraFlags = [ ];
      openFirewall = false;
      firewallFilter = null;
      firewallRules = null;
      user = "%s";
      group = "%s";
      interval = "15s";
      imperative = [ ];
      declaration = { version = 1; state_dir = "/var/lib/microvms"; vms = { }; imperative = [ ]; };
      declarationFile = "%s";
      reportOnActivation = false;
    } // { %s };
  };
  pkgs = {
    coreutils = "/coreutils";
    formats.json = _: { };
    jq = "/jq";
    util-linux = "/util-linux";
    writeShellScript = name: text: text;
    writeShellScriptBin = name: text: text;
  };
}).config
"""
FIREWALL = 'openFirewall = true; firewallFilter = "-i lan0"; firewallRules = "tcp dport 1 accept";'


def module(settings: str = "", *, firewall: str = "iptables") -> dict[str, Any]:
    """What it gives to NixOS where the options have their defaults but for these settings."""
    nftables = json.dumps(firewall == "nftables")
    made: dict[str, Any] = nix_eval.evaluate(
        MODULE % (firewall, nftables, PORT, USER, USER, DECLARATION, settings)
    )
    return made


def service(settings: str = "") -> dict[str, Any]:
    unit: dict[str, Any] = module(settings)["systemd"]["services"]["prometheus-microvm-exporter"]
    config: dict[str, Any] = unit["serviceConfig"]
    return config


def flags(settings: str = "") -> list[str]:
    exe, command, *words = service(settings)["ExecStart"].split(" ")
    assert (exe, command) == ("/package", '"serve"')
    return [word.strip('"') for word in words]


def messages(settings: str, *, firewall: str = "iptables") -> list[str]:
    made = module(settings, firewall=firewall)
    return [one["message"] for one in made["assertions"] if not one["assertion"]]


def test_module_brings_all_that_the_service_needs() -> None:
    made = module()
    assert flags() == [
        f"--web.listen-address=0.0.0.0:{PORT}",
        "--collect.interval=15s",
        f"--declaration.file={DECLARATION}",
    ]
    assert list(made["environment"]["etc"]) == [str(DECLARATION).removeprefix("/etc/")]
    assert made["users"]["users"][USER]["group"] == USER
    assert made["users"]["groups"] == {USER: {}}
    assert (made["networking"]["firewall"], made["system"]["activationScripts"]) == ({}, {})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("port = 1;", "--web.listen-address=0.0.0.0:1"),
        ('listenAddress = "::1";', f"--web.listen-address=[::1]:{PORT}"),
        ('listenAddress = "[::1]";', f"--web.listen-address=[::1]:{PORT}"),
        ('interval = "1m";', "--collect.interval=1m"),
        ('declarationFile = "/srv/vms.json";', "--declaration.file=/srv/vms.json"),
        ('extraFlags = [ "--log.level=debug" ];', "--log.level=debug"),
    ],
)
def test_module_hands_an_option_on(settings: str, expected: str) -> None:
    assert expected in flags(settings)


@pytest.mark.parametrize("file", [str(DECLARATION), "/srv/a 'file'", "/srv/${HOME}`ls`"])
@pytest.mark.parametrize("env", [{}, {"MICROVM_EXPORTER_DECLARATION_FILE": "/tmp/another"}])
def test_command_judges_by_the_declaration_of_the_service(file: str, env: dict[str, str]) -> None:
    nix_string = json.dumps(file).replace("${", r"\${")
    settings = f'package = "/usr/bin/env"; declarationFile = {nix_string};'
    told = told_by_command(settings, env)
    assert told == {"MICROVM_EXPORTER_DECLARATION_FILE": "/tmp/another" if env else file}


def told_by_command(settings: str, env: dict[str, str]) -> dict[str, str]:
    """What the exporter that is on the PATH has in its environment."""
    [command] = module(settings)["environment"]["systemPackages"]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command, "microvm-exporter", "--null"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    variables = (one.split("=", 1) for one in done.stdout.rstrip("\0").split("\0"))
    return {name: value for name, value in variables if name.startswith("MICROVM_")}


def test_without_a_declaration_the_state_directory_is_told(tmp_path: Path) -> None:
    path = tmp_path / "vm's"
    settings = (
        f'package = "/usr/bin/env"; declarationFile = null; declaration.state_dir = "{path}";'
    )
    assert f"--state-dir={path}" in service(settings)["ExecStart"]
    assert told_by_command(settings, {}) == {"MICROVM_EXPORTER_STATE_DIR": str(path)}


@pytest.mark.parametrize(
    ("state_dir", "expected"),
    [("/var/lib/microvms", True), ("/home/vms", "read-only"), ("/homes/vms", True)],
)
def test_module_hides_homes_but_for_a_state_directory_in_one(
    state_dir: str, expected: bool | str
) -> None:
    assert service(f'declaration.state_dir = "{state_dir}";')["ProtectHome"] == expected


@pytest.mark.parametrize("file", ["null", '"/srv/vms.json"'])
def test_module_writes_no_other_file(file: str) -> None:
    assert module(f"declarationFile = {file};")["environment"]["etc"] == {}


def test_module_makes_no_other_user() -> None:
    made = module('user = "somebody"; group = "users";')
    assert (made["users"]["users"], made["users"]["groups"]) == ({}, {})


@pytest.mark.parametrize(
    ("firewall", "expected"),
    [
        (
            "iptables",
            {
                "extraCommands": "ip46tables -A nixos-fw -i lan0"
                " -m comment --comment microvm-exporter -j nixos-fw-accept\n",
                "extraInputRules": {},
            },
        ),
        ("nftables", {"extraCommands": {}, "extraInputRules": "tcp dport 1 accept"}),
    ],
)
def test_module_opens_the_firewall_that_there_is(firewall: str, expected: dict[str, Any]) -> None:
    assert module(FIREWALL, firewall=firewall)["networking"]["firewall"] == expected


def test_module_says_that_it_does_not_open_firewalld() -> None:
    [message] = messages(FIREWALL + "port = 1;", firewall="firewalld")
    assert "open port 1 in one of its zones" in message
    assert messages("", firewall="firewalld") == []


@pytest.mark.parametrize("address", ["-s ::1", "-i lan0 --source 10.0.0.5", "-d 10.0.0.1 -p tcp"])
def test_module_refuses_an_address_that_would_leave_the_host_without_a_firewall(
    address: str,
) -> None:
    settings = f'openFirewall = true; firewallFilter = "{address}";'
    [message] = messages(settings)
    assert "with\nan address in it the firewall would not start" in message
    assert messages(settings, firewall="nftables") == []


@pytest.mark.parametrize(
    ("settings", "without"),
    [
        ('firewallFilter = "-i lan0";', "firewallFilter and firewallRules have no effect"),
        ('firewallRules = "accept";', "firewallFilter and firewallRules have no effect"),
        ('declarationFile = null; imperative = [ "x" ];', "imperative has no effect"),
    ],
)
def test_module_says_what_has_no_effect(settings: str, without: str) -> None:
    [message] = messages(settings)
    assert without in message


@pytest.mark.parametrize("settings", ["", FIREWALL, 'imperative = [ "x" ];'])
def test_module_has_nothing_against_what_has_one(settings: str) -> None:
    assert messages(settings) == []
