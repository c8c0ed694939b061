"""What the operator wants: the declaration file, or what the host's own units say without one."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal, NotRequired, TypedDict

from microvm_exporter.collectors.json_document import Rule, Unfit, parse_json
from microvm_exporter.errors import CollectorError
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

__all__ = ["DeclarationDocument", "DeclarationFile", "declare_from_host"]

_BYTES_MAX: Final = 16 * 1024 * 1024


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


class DeclarationFile:
    """A declaration file, read again only when it has changed."""

    def __init__(self, path: str, *, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._read: tuple[tuple[int, ...], Declaration | Unfit] | None = None

    def collect(self) -> Declaration:
        """Return what the file declares, the first ``limit`` VMs by name.

        The same object as before while the file is the same, links resolved. Raises
        `CollectorError` with the file, the place in it, what was expected and what was found.
        """
        try:
            version = _file_version(Path(self._path).stat())
            if self._read is None or self._read[0] != version:
                version, data = _read_file(self._path)
                self._read = version, _understand(data, self._limit)
            if isinstance(self._read[1], Unfit):
                raise self._read[1]
            return self._read[1]
        except OSError as error:
            raise CollectorError(
                f"{self._path}: expected a readable file, found: {error.strerror}"
            ) from error
        except Unfit as error:
            raise CollectorError(f"{self._path}: {error}") from error


def _file_version(status: os.stat_result) -> tuple[int, ...]:
    """Tell one version of a regular file from the next; raise `Unfit` when it is something else.

    The time of modification does not suffice: all files in the Nix store have the same.
    """
    if not stat.S_ISREG(status.st_mode):
        types = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a fifo", stat.S_IFSOCK: "a socket"}
        found = types.get(stat.S_IFMT(status.st_mode), "a device")
        raise Unfit(f"expected a regular file, found {found}")
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _read_file(path: str) -> tuple[tuple[int, ...], bytes]:
    # O_NONBLOCK: a fifo may have taken the file's place since it was looked at.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(handle, "rb") as file:
        version = _file_version(os.fstat(handle))
        data = file.read(_BYTES_MAX + 1)
    if len(data) > _BYTES_MAX:
        raise Unfit("expected at most 16 MiB, found more")
    return version, data


def _understand(data: bytes, limit: int) -> Declaration | Unfit:
    """Give what is wrong with it as a value: that too is only worked out when the file changes."""
    try:
        return _declare(parse_json(data, DeclarationDocument), limit)
    except Unfit as error:
        return error


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


def declare_from_host(units: UnitTable, tree: StateTree | None) -> Declaration:
    """Take what the host's own units install for the declaration; without a tree, origins lack."""
    vms = {
        name: DeclaredVm(name, _tell_origin(name, tree), autostart=name in units.autostarted)
        for name in sorted(units.declared)
    }
    return Declaration(vms, left_out=Leftouts(limit=units.left_out.limit))


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
