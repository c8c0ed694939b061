"""What the operator wants: the declaration file, or what the host's own units say without one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated, Literal, NotRequired, TypedDict

from microvm_exporter.collectors.json_document import Rule, parse_json
from microvm_exporter.model import (
    Declaration,
    DeclaredVm,
    Interface,
    InterfaceType,
    Leftouts,
    Origin,
    StateTree,
    UnitTable,
    is_device_name,
    is_vm_name,
)

__all__ = ["DeclarationDocument", "declare_from_host", "parse_declaration"]


# --------------------------------------------------------------------------------------- the file


_VmName = Annotated[
    str,
    Rule("a VM's name (1 to 220 letters, digits and :_.@-, no dot first)", is_vm_name),
]
_DeviceName = Annotated[
    str, Rule("a network device's name (1 to 15 bytes, no /, : or space)", is_device_name)
]
_Path = Annotated[
    str, Rule("an absolute path", lambda text: text.startswith("/") and text.isprintable())
]
_Hypervisor = Annotated[
    str,
    Rule(
        "a hypervisor's name (a-z, 0-9 and -)",
        lambda text: re.fullmatch(r"[a-z0-9-]+", text) is not None,
    ),
]


class InterfaceDocument(TypedDict):
    """``$.vms[NAME].interfaces[]``."""

    type: Literal["tap", "macvtap", "bridge", "user"]
    id: _DeviceName


class VmDocument(TypedDict):
    """``$.vms[NAME]``. Null is as good as nothing: the host's own files are asked."""

    origin: Literal["declarative", "flake", "deployed"]
    autostart: NotRequired[bool | None]
    hypervisor: NotRequired[_Hypervisor | None]
    runner: NotRequired[_Path | None]
    interfaces: NotRequired[list[InterfaceDocument] | None]


class DeclarationDocument(TypedDict):
    """The declaration file. A newer module may add members."""

    version: Literal[1]
    state_dir: NotRequired[_Path | None]
    vms: dict[_VmName, VmDocument]
    imperative: NotRequired[list[_VmName] | None]


def parse_declaration(data: bytes, *, limit: int, before: Declaration | None = None) -> Declaration:
    """Understand a declaration file: the first ``limit`` VMs by name.

    What is equal to what was declared ``before`` is that same object. Raises `Unfit` with the place
    in the file, what was expected and what was found.
    """
    declaration = _declare(parse_json(data, DeclarationDocument), limit)
    return declaration if before is None else _keep(declaration, before)


def _keep(declaration: Declaration, before: Declaration) -> Declaration:
    if declaration == before:
        return before
    old = before.vms
    vms = {name: old[name] if old.get(name) == vm else vm for name, vm in declaration.vms.items()}
    return replace(declaration, vms=vms)


def _declare(document: DeclarationDocument, limit: int) -> Declaration:
    names = sorted(document["vms"])
    return Declaration(
        vms={name: _declare_vm(name, document["vms"][name]) for name in names[:limit]},
        imperative=frozenset(document.get("imperative") or ()),
        state_dir=_plain(document.get("state_dir")),
        left_out=Leftouts(limit=len(names[limit:])),
    )


def _plain(path: str | None) -> str | None:
    """Leave out the slashes that a path does not need: it is the beginning of others."""
    return None if path is None else str(PurePosixPath(path))


def _declare_vm(name: str, document: VmDocument) -> DeclaredVm:
    interfaces = document.get("interfaces")
    return DeclaredVm(
        name,
        Origin(document["origin"]),
        autostart=document.get("autostart"),
        hypervisor=document.get("hypervisor"),
        runner=document.get("runner"),
        interfaces=None
        if interfaces is None
        else tuple(Interface(InterfaceType(one["type"]), one["id"]) for one in interfaces),
    )


# --------------------------------------------------------------------------------------- the host


def declare_from_host(
    units: UnitTable, tree: StateTree | None, before: Declaration | None = None
) -> Declaration:
    """Take what the host's own units install for the declaration; without a tree, origins lack.

    What is equal to what this returned ``before`` is that same object.
    """
    old = before.vms if before else {}
    vms = {
        name: _declare_by_unit(
            name, _tell_origin(name, tree), name in units.autostarted, old.get(name)
        )
        for name in sorted(units.declared)
    }
    declaration = Declaration(vms, left_out=Leftouts(limit=units.left_out.limit))
    return before if before is not None and declaration == before else declaration


def _declare_by_unit(
    name: str, origin: Origin, autostart: bool, old: DeclaredVm | None
) -> DeclaredVm:
    if old is not None and old.origin is origin and old.autostart is autostart:
        return old
    return DeclaredVm(name, origin, autostart=autostart)


def _tell_origin(name: str, tree: StateTree | None) -> Origin:
    """Go by the marks that microvm.nix leaves; an unknown one has its state directory missing."""
    if tree is None:
        return Origin.UNKNOWN
    if name in tree.conditional_installs:
        return Origin.DEPLOYED
    vm = tree.vms.get(name)
    if vm is not None and vm.toplevel is not None:
        return Origin.DECLARATIVE
    if vm is not None and vm.flake:
        return Origin.FLAKE
    return Origin.UNKNOWN
