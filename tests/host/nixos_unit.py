"""The unit of nix/unit.nix on a machine, as NixOS would have it there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import nix_eval
from host import nspawn
from host.exporter import COMMAND, USER
from host.layout import UNITS
from host.machine import Machine

UNIT = "prometheus-microvm-exporter.service"

_HOMES = ("/home", "/root", "/run/user")


def install(machine: Machine, exe: str, flags: Iterable[str]) -> None:
    """Writes the unit as NixOS would. Of anything but the exporter it is one of type `oneshot`."""
    unit = nix_eval.evaluate(
        "import ./nix/unit.nix"
        f" {{ exe = {_nix_string(exe)}; flags = [ {' '.join(map(_nix_string, flags))} ];"
        f' user = "{USER}"; group = "{USER}"; }}'
    )
    machine.write(UNITS / UNIT, _render(unit))
    machine.write(UNITS / f"{UNIT}.d" / "test.conf", _drop_in(exe))
    machine.systemctl("daemon-reload")


def uninstall(machine: Machine) -> None:
    """Ends it and takes it off the machine."""
    machine.systemctl("stop", UNIT)
    for path in (UNITS / UNIT, UNITS / f"{UNIT}.d"):
        machine.remove(path)
    machine.systemctl("daemon-reload")
    machine.systemctl("reset-failed", UNIT, check=False)


def _render(unit: dict[str, Any]) -> str:
    assert set(unit) == {"description", "wantedBy", "after", "serviceConfig"}
    lines = ["[Unit]", f"Description={unit['description']}", f"After={' '.join(unit['after'])}"]
    lines.append("[Service]")
    for name, value in unit["serviceConfig"].items():
        for one in value if isinstance(value, list) else [value]:
            lines.append(f"{name}={str(one).lower() if isinstance(one, bool) else one}")
    return "\n".join(lines) + "\n"


def _drop_in(exe: str) -> str:
    """What only a test needs: the checkout and its Python, wherever they are, and an end."""
    bound = nspawn.bound_paths()
    lines = ["[Service]", f"BindReadOnlyPaths={' '.join(map(str, bound))}"]
    if any(path.is_relative_to(home) for path in bound for home in _HOMES):
        lines.append("ProtectHome=tmpfs")
    if exe != COMMAND:
        lines += ["Type=oneshot", "Restart=no", "WatchdogSec=0"]
    return "\n".join(lines) + "\n"


def _nix_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("${", r"\${")
