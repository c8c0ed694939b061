"""One look at ``STATE/N``, which is the microvm user's (see `untrusted`)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from microvm_exporter.collectors.runner import read_runner
from microvm_exporter.collectors.untrusted import (
    Fingerprint,
    Tally,
    fingerprint,
    identify,
    is_missing,
    is_symlink,
    leads_nowhere,
    open_directory,
    read_symlink,
)
from microvm_exporter.model import Runner, Symlink, VmState

__all__ = ["VmLook", "is_same", "read_vm", "tell", "unread"]


@dataclass(frozen=True, slots=True)
class VmLook:
    """What came of a look.

    ``state`` is None when there is no directory. ``directory`` and ``targets`` are what the path,
    and the targets of the links in it, led to then: hashes, as there are thousands to be kept.
    ``linked`` tells whether the path is a link, and ``stored`` whether these targets are entries of
    the store. ``unreadable`` counts as in `microvm_exporter.model.Leftouts`.
    """

    state: VmState | None
    directory: int
    linked: bool
    targets: int = hash(())
    stored: bool = True
    unreadable: int = 0

    def is_where_it_led(self, path: str, *, same_mounts: bool, same_store: bool) -> bool:
        """Tell whether the path and the links lead to the same as then: no event would tell.

        ``same_mounts`` and ``same_store`` tell that there are the mounts, and in the store the
        entries, that there were when that was last asked.
        """
        if (self.linked or not same_mounts) and hash(identify(path)) != self.directory:
            return False
        if same_store and self.stored:
            return True
        return hash(tuple(map(fingerprint, _targets(self.state)))) == self.targets


def read_vm(name: str, path: str, *, dir_fd: int, store: str) -> VmLook:
    """Read the directory at the path, which is called ``name`` under ``dir_fd``.

    ``store`` is the path of the store, with a slash at its end.
    """
    tally = Tally()
    directory = hash(identify(name, dir_fd=dir_fd))
    linked = is_symlink(name, dir_fd=dir_fd)
    try:
        with open_directory(name, dir_fd=dir_fd) as fd:
            behind: dict[str, Fingerprint] = {}
            state = _look_into(name, path, fd, behind, tally)
            targets = hash(tuple(behind.values()))
            stored = all(_is_entry(target, store) for target in behind)
            return VmLook(state, directory, linked, targets, stored, tally.unreadable)
    except OSError as error:
        if not is_missing(error):
            look = unread(name, path, directory, linked=linked)
            return replace(look, unreadable=tally.unreadable + 1)
    dangles = linked and leads_nowhere(fingerprint(name, dir_fd=dir_fd))
    return VmLook(None, directory, linked, unreadable=int(dangles))


def unread(name: str, path: str, directory: int = 0, *, linked: bool = False) -> VmLook:
    """Say of a directory that is there that it could not be read."""
    return VmLook(VmState(name, path, readable=False), directory, linked, unreadable=1)


def is_same(old: VmState | None, new: VmState | None) -> bool:
    """Tell whether the old record says all that the new one does, times too."""
    return old == new and [link.changed for link in _links(old)] == [
        link.changed for link in _links(new)
    ]


def tell(state: VmState | None) -> object:
    """Give what is known of a directory by events alone, for a comparison."""
    if state is None:
        return None
    # A directory in the place of a link changes with what is made in it.
    links = [(link.path, link.target, link.changed) for link in _links(state) if _is_link(link)]
    return state.readable, state.flake, links


def _is_link(link: Symlink) -> bool:
    return link.target != link.path


def _links(state: VmState | None) -> Iterator[Symlink]:
    if state is not None:
        for link in (state.current, state.booted, state.toplevel):
            if link is not None:
                yield link


def _look_into(
    name: str, path: str, fd: int, behind: dict[str, Fingerprint], tally: Tally
) -> VmState:
    current, booted, toplevel = (
        _read_link(f"{path}/{member}", fd, behind) for member in ("current", "booted", "toplevel")
    )
    current_runner = _runner_behind(current, "current", fd, tally)
    if current and booted and booted.target == current.target:
        booted = replace(booted, target=current.target)  # one string is enough
        booted_runner = current_runner
    else:
        booted_runner = _runner_behind(booted, "booted", fd, tally)
    return VmState(
        name=name,
        path=path,
        current=current,
        booted=booted,
        toplevel=toplevel,
        flake=_has_flake(fd),
        current_runner=current_runner,
        booted_runner=booted_runner,
    )


def _read_link(path: str, fd: int, behind: dict[str, Fingerprint]) -> Symlink | None:
    """Read a link, and note what is behind its target."""
    found = read_symlink(path, dir_fd=fd)
    if found is None:
        return None
    link, seen = found
    behind.setdefault(_target(link), seen)
    return link


def _targets(state: VmState | None) -> Iterable[str]:
    return dict.fromkeys(map(_target, _links(state)))


def _is_entry(target: str, store: str) -> bool:
    name = target.removeprefix(store)
    return name != target and "/" not in name and name not in ("", ".", "..")


def _target(link: Symlink) -> str:
    if link.target.startswith("/"):
        return link.target
    return f"{link.path.rpartition('/')[0]}/{link.target}"


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
