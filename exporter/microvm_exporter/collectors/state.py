"""What the file system tells: the state directory, the gcroots, the unit directories.

``STATE`` belongs to the microvm user (see `untrusted`), the other two to root.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from microvm_exporter.collectors.runner import read_runner
from microvm_exporter.collectors.unit_files import read_unit_files
from microvm_exporter.collectors.untrusted import (
    Tally,
    is_missing,
    open_directory,
    read_symlink,
)
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Runner, StateTree, Symlink, VmState, is_instance_name

__all__ = ["collect_state"]

# What the gcroot of a member of STATE/N is called, before N: `microvm -c` makes the first two
# (pkgs/microvm-command.nix), installOnHost all (nixos-modules/microvm/ssh-deploy.nix).
_GCROOT_PREFIXES: Final = {"current": "", "booted": "booted-", "old": "old-"}


def collect_state(
    *,
    state_dir: str,
    gcroots_dir: str,
    unit_dirs: Sequence[str],
    limit: int,
    prefer: Collection[str],
) -> StateTree:
    """Look at all three places; raise `CollectorError` when one of them cannot be read.

    At most ``limit`` VMs are read, those in ``prefer`` first, then those with a gcroot, which only
    root can make: directories that someone plants in ``state_dir`` displace none of them.
    """
    tally = Tally()
    gcroots = _read_gcroots(gcroots_dir, limit, prefer, tally)
    units = read_unit_files(unit_dirs, tally)
    vms = _read_vms(state_dir, limit, [prefer, gcroots["current"]], tally)
    return StateTree(
        state_dir=state_dir,
        vms=vms,
        gcroots=gcroots["current"],
        booted_gcroots=gcroots["booted"],
        old_gcroots=gcroots["old"],
        templates=units.templates,
        conditional_installs=units.conditional_installs,
        unit_files=units.entries,
        left_out=tally.leftouts(),
    )


def _first(
    names: Iterable[str], limit: int, prefer: Sequence[Collection[str]], tally: Tally
) -> list[str]:
    """Take as many names as the limit allows: of each collection in ``prefer``, then the rest.

    Sorted within each. Holds no more than ``limit`` names at a time.
    """
    seen = 0

    def counted() -> Iterator[str]:
        nonlocal seen
        for name in names:
            seen += 1
            yield name

    taken = heapq.nsmallest(
        limit, counted(), key=lambda name: ([name not in some for some in prefer], name)
    )
    tally.limit += seen - len(taken)
    return taken


# --------------------------------------------------------------------------------------- STATE


def _read_vms(
    state_dir: str, limit: int, prefer: Sequence[Collection[str]], tally: Tally
) -> dict[str, VmState]:
    root = state_dir.rstrip("/")
    try:
        with open_directory(state_dir, listing=True) as fd:
            names = _first(_candidates(fd, tally), limit, prefer, tally)
            states = [_read_vm(f"{root}/{name}", fd, tally) for name in sorted(names)]
    except OSError as error:
        raise CollectorError(
            f"cannot read the state directory {state_dir}: {error.strerror}; "
            "name the host's microvm.stateDir with --state-dir, and let the exporter read it"
        ) from error
    return {state.name: state for state in states if state is not None}


def _candidates(fd: int, tally: Tally) -> Iterator[str]:
    """Give the names that may be VMs, without a look at any of them: there may be a million."""
    with os.scandir(fd) as entries:
        for entry in entries:
            if not (entry.is_symlink() or entry.is_dir(follow_symlinks=False)):
                continue
            if is_instance_name(entry.name):
                yield entry.name
            else:
                tally.name += 1


def _read_vm(path: str, state_fd: int, tally: Tally) -> VmState | None:
    """Read ``STATE/N``; None when it is no directory (any more)."""
    name = path.rpartition("/")[2]
    try:
        with open_directory(name, dir_fd=state_fd) as fd:
            return _look_into(name, path, fd, tally)
    except OSError as error:
        if not is_missing(error):
            tally.unreadable += 1
            return VmState(name, path, readable=False)
    link = read_symlink(path, dir_fd=state_fd)
    if link is not None and link.dangling:
        tally.unreadable += 1
    return None


def _look_into(name: str, path: str, fd: int, tally: Tally) -> VmState:
    current = read_symlink(f"{path}/current", dir_fd=fd)
    booted = read_symlink(f"{path}/booted", dir_fd=fd)
    current_runner = _runner_behind(current, "current", fd, tally)
    if current and booted and booted.target == current.target:
        booted_runner = current_runner
    else:
        booted_runner = _runner_behind(booted, "booted", fd, tally)
    return VmState(
        name=name,
        path=path,
        current=current,
        booted=booted,
        toplevel=read_symlink(f"{path}/toplevel", dir_fd=fd),
        flake=_has_flake(fd),
        current_runner=current_runner,
        booted_runner=booted_runner,
    )


def _runner_behind(link: Symlink | None, name: str, fd: int, tally: Tally) -> Runner | None:
    if link is None or link.dangling:
        return None
    return read_runner(name, dir_fd=fd, tally=tally)


def _has_flake(fd: int) -> bool:
    try:
        mode = os.stat("flake", dir_fd=fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


# ------------------------------------------------------------------------------------- gcroots


def _read_gcroots(
    gcroots_dir: str, limit: int, prefer: Collection[str], tally: Tally
) -> dict[str, dict[str, Symlink]]:
    """Read ``GCROOTS/N``, ``booted-N`` and ``old-N``, by the member of STATE/N and by VM.

    There is none without the directory.
    """
    kinds: dict[str, dict[str, Symlink]] = {kind: {} for kind in _GCROOT_PREFIXES}
    try:
        with open_directory(gcroots_dir, listing=True) as fd:
            for link in _read_links(gcroots_dir.rstrip("/"), fd):
                kind, vm = _classify(link)
                kinds[kind][vm] = link
    except FileNotFoundError:
        return kinds
    except OSError as error:
        raise CollectorError(
            f"cannot read the gcroots directory {gcroots_dir}: {error.strerror}; "
            "name it with --gcroots-dir, and let the exporter read it"
        ) from error
    names = {name for links in kinds.values() for name in links}
    valid = {name for name in names if is_instance_name(name)}
    tally.name += len(names) - len(valid)
    taken = sorted(_first(valid, limit, [prefer], tally))
    return {kind: {vm: links[vm] for vm in taken if vm in links} for kind, links in kinds.items()}


def _read_links(root: str, fd: int) -> Iterator[Symlink]:
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_symlink() and (link := read_symlink(f"{root}/{entry.name}", dir_fd=fd)):
                yield link


def _classify(link: Symlink) -> tuple[str, str]:
    """Tell which member of which VM a gcroot keeps.

    By where it leads, since a VM may be called ``booted-x``; by its own name if that tells nothing.
    """
    name = link.path.rpartition("/")[2]
    directory, _, member = link.target.rpartition("/")
    vm = directory.rpartition("/")[2]
    if name == _GCROOT_PREFIXES.get(member, "/") + vm:
        return member, vm
    for kind in ("booted", "old"):
        if name.startswith(_GCROOT_PREFIXES[kind]):
            return kind, name.removeprefix(_GCROOT_PREFIXES[kind])
    return "current", name
