"""The gcroots of the MicroVMs that ``microvm -c`` or ``installOnHost`` made.

Their directory is root's.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from microvm_exporter.collectors.missed import Missed
from microvm_exporter.collectors.tables import keep, take_first
from microvm_exporter.collectors.untrusted import (
    fingerprint,
    identify,
    leads_nowhere,
    open_directory,
    read_symlink,
)
from microvm_exporter.collectors.watches import Place, Watches
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Leftouts, Symlink, is_instance_name

__all__ = ["Gcroots"]

# What the gcroot of a member of STATE/N is called, before N: `microvm -c` makes the first two
# (pkgs/microvm-command.nix), installOnHost all (nixos-modules/microvm/ssh-deploy.nix).
_PREFIXES: Final = {"current": "", "booted": "booted-", "old": "old-"}

_SECONDS: Final = 1.0
"""Seconds for looking where they lead until the next interval: what is in the way is not root's."""

_Links = dict[str, Mapping[str, Symlink]]


class Gcroots:
    """``GCROOTS/N``, ``booted-N`` and ``old-N``.

    ``links`` holds them by the member of STATE/N that they keep, and by VM. There are none without
    the directory.
    """

    def __init__(self, directory: str, *, limit: int, watches: Watches) -> None:
        self.links: _Links = {member: {} for member in _PREFIXES}
        self.left_out = Leftouts()
        self.missed: Missed[str] = Missed()
        self._directory = directory.rstrip("/") or "/"
        self._limit = limit
        self._watches = watches
        self._watched = False
        self._identity: tuple[int, ...] = ()
        self._touched: set[str | None] = {None}
        self._seconds = _SECONDS  # what is left of them

    @property
    def followed(self) -> bool:
        """Whether all is known by what was heard up to now."""
        in_time = self._seconds > 0
        return in_time and self._watches.active and self._watched and not self._touched

    def distrust(self) -> None:
        """Read all of it the next time: nothing is watched any more."""
        self._touched.add(None)

    def hear(self, name: str | None) -> bool:
        """Take note that an entry was touched; with None, that the directory may be another.

        Tells whether there is anything to be read.
        """
        self._touched.add(name)
        if name is None:
            self.missed.clear()
        else:
            self.missed.acquit([f"{self._directory}/{name}"])
        return True

    def read(self, cause: Cause, prefer: Collection[str]) -> None:
        """Bring ``links`` up to date; raise `CollectorError` when the directory cannot be read."""
        if cause is not Cause.EVENT:
            self._seconds = _SECONDS
            if self._is_uncertain():
                self._touched.add(None)
        if self._touched or cause is Cause.RESYNC:
            self._read_all(cause, prefer)
        elif cause is Cause.INTERVAL:
            self.check({vm for links in self.links.values() for vm in links})

    def check(self, vms: Collection[str]) -> None:
        """Look again whether the gcroots of these VMs lead anywhere."""
        for member, links in self.links.items():
            turned = {
                vm: replace(link, dangling=not link.dangling)
                for vm in vms
                if (link := links.get(vm)) and self._has_turned(link)
            }
            if turned:
                self.links[member] = {**links, **turned}

    def _has_turned(self, link: Symlink) -> bool:
        with self._timed() as in_time:
            return in_time and _is_dangling(link) != link.dangling

    @contextmanager
    def _timed(self) -> Iterator[bool]:
        """Count the time that is taken, and tell whether there is any left."""
        begun = time.monotonic()
        try:
            yield self._seconds > 0
        finally:
            self._seconds -= time.monotonic() - begun

    def _is_uncertain(self) -> bool:
        """Tell whether there may be changes in the directory that no event tells of."""
        return (
            not (self._watches.active and self._watched)
            or self.left_out.limit > 0  # whom to prefer may have changed
            or identify(self._directory) != self._identity
        )

    def _read_all(self, cause: Cause, prefer: Collection[str]) -> None:
        touched, self._touched = self._touched, {None}  # until it is done
        self._identity = identify(self._directory)
        self._watched = self._watches.watch((Place.GCROOTS, ""), self._directory)
        before = {link.path: link for links in self.links.values() for link in links.values()}
        found = [_keep(before.get(link.path), link) for link in self._list()]
        if cause is Cause.RESYNC and None not in touched:
            heard = {f"{self._directory}/{name}" for name in touched}
            self.missed.suspect(_differ(before, found) - heard)
        self._take(found, prefer)
        self._touched = set()

    def _take(self, found: list[Symlink], prefer: Collection[str]) -> None:
        kinds: dict[str, dict[str, Symlink]] = {member: {} for member in _PREFIXES}
        for link in found:
            member, vm = _classify(link)
            kinds[member][vm] = link
        every = {vm for links in kinds.values() for vm in links}
        valid = {vm for vm in every if is_instance_name(vm)}
        names, beyond = take_first(valid, self._limit, [prefer])
        taken = [sys.intern(vm) for vm in sorted(names)]  # a VM has several; root made them
        self.left_out = Leftouts(limit=beyond, name=len(every) - len(valid))
        for member, links in kinds.items():
            kept = {vm: links[vm] for vm in taken if vm in links}
            self.links[member] = keep(self.links[member], kept)

    def _look(self, path: str, fd: int) -> Symlink | None:
        with self._timed() as in_time:
            found = read_symlink(path, dir_fd=fd, follow=in_time)
        return found and found[0]

    def _list(self) -> Iterator[Symlink]:
        try:
            with open_directory(self._directory, listing=True) as fd, os.scandir(fd) as entries:
                for entry in entries:
                    path = f"{self._directory}/{entry.name}"
                    if entry.is_symlink() and (found := self._look(path, fd)):
                        yield found
        except FileNotFoundError:
            return
        except OSError as error:
            raise CollectorError(
                f"cannot read the gcroots directory {self._directory}: {error.strerror}; "
                "name it with --gcroots-dir, and let the exporter read it"
            ) from error


def _keep(old: Symlink | None, new: Symlink) -> Symlink:
    return old if old is not None and old == new and old.changed == new.changed else new


def _differ(before: Mapping[str, Symlink], found: Sequence[Symlink]) -> set[str]:
    """Tell which paths differ in what is known of a link by events alone."""
    gone = before.keys() - {link.path for link in found}
    return gone.union(link.path for link in found if _tell(before.get(link.path)) != _tell(link))


def _is_dangling(link: Symlink) -> bool:
    if os.access(link.path, os.F_OK):  # twice as fast, but it does not say why not
        return False
    return leads_nowhere(fingerprint(link.path))


def _tell(link: Symlink | None) -> object:
    return link and (link.target, link.changed)


def _classify(link: Symlink) -> tuple[str, str]:
    """Tell which member of which VM a gcroot keeps.

    By where it leads, since a VM may be called ``booted-x``; by its own name if that tells nothing.
    """
    name = link.path.rpartition("/")[2]
    directory, _, member = link.target.rpartition("/")
    vm = directory.rpartition("/")[2]
    if name == _PREFIXES.get(member, "/") + vm:
        return member, vm
    for kind in ("booted", "old"):
        if name.startswith(_PREFIXES[kind]):
            return kind, name.removeprefix(_PREFIXES[kind])
    return "current", name
