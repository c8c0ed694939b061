"""The unit directories, kept up to date by what is heard of them; those in the store never change.

A directory of which something is heard is read again as a whole, and no other: PID 1 rewrites some
of them with each daemon-reload, while the thousand files of the VMs are in one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from microvm_exporter.collectors.missed import Missed
from microvm_exporter.collectors.unit_files import (
    Fragment,
    UnitDirectory,
    is_about_family,
    is_about_instance,
    is_part,
    list_family,
    read_family,
)
from microvm_exporter.collectors.untrusted import Fingerprint, identify, leads_nowhere
from microvm_exporter.collectors.watches import Place, Watches
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Template, UnitFile

__all__ = ["STORE", "UnitDirectories", "UnitFiles"]

STORE: Final = "/nix/store/"
"""Nothing in a directory below it ever changes."""


@dataclass(frozen=True, slots=True)
class UnitFiles:
    """What `microvm_exporter.model.StateTree` says of the unit directories."""

    templates: Mapping[Template, tuple[str, ...]] = field(default_factory=dict)
    conditional_installs: frozenset[str] = frozenset()
    entries: tuple[UnitFile, ...] = ()
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class _Known:
    content: UnitDirectory
    identity: Fingerprint
    watched: bool
    parts: frozenset[str]


class UnitDirectories:
    """What the directories tell together, in the order in which systemd prefers them.

    One that is not there has nothing: the manager's ``UnitPath`` names many such. ``store`` is
    the path of the store, with a slash at its end. ``heard`` counts what was heard of the family.
    """

    def __init__(self, *, watches: Watches, store: str = STORE) -> None:
        self.files = UnitFiles()
        self.heard = 0
        self.missed: Missed[str] = Missed()
        self._watches = watches
        self._store = store
        self._paths: tuple[str, ...] = ()
        self._known: dict[str, _Known] = {}
        self._touched: set[str] = set()

    @property
    def followed(self) -> bool:
        """Whether all is known by what was heard up to now."""
        return (
            self._watches.active
            and not self._touched
            and all(known.watched for known in self._known.values())
        )

    def distrust(self) -> None:
        """Read all of it the next time: nothing is watched any more."""
        self._touched.update(self._paths)

    def hear(self, path: str, name: str | None) -> bool:
        """Take note that an entry was touched; with None, that the directory may be another.

        Tells, as `hear_part` does, whether there is anything to be read.
        """
        about = name is None or is_about_family(name)
        if about:
            self._touch(path)
        return about

    def hear_part(self, part: str, name: str | None) -> bool:
        """Take note that an entry of a directory in a unit directory was touched, or itself."""
        about = name is None or is_about_instance(part, name)
        owners = [path for path, known in self._known.items() if about and part in known.parts]
        for path in owners:
            self._touch(path)
        return bool(owners)

    def read(self, cause: Cause, paths: Sequence[str]) -> None:
        """Bring ``files`` up to date; raise `CollectorError` for one that cannot be listed."""
        moved = self._paths != tuple(paths)
        if moved:
            self._begin(tuple(paths))
        if cause is not Cause.EVENT:
            self._touched.update(path for path in self._paths if self._is_uncertain(path))
        heard = frozenset(self._touched)
        if cause is Cause.RESYNC:
            self._touched.update(self._paths)
        if self._touched or moved:
            for path in sorted(self._touched):
                self._read(path, compare=path not in heard)
                self._touched.remove(path)
            self._publish()

    def _touch(self, path: str) -> None:
        self.heard += 1
        self.missed.acquit([path])
        self._touched.add(path)

    def _begin(self, paths: tuple[str, ...]) -> None:
        for path in set(self._paths).difference(paths):
            self._touched.discard(path)
            self._watches.forget((Place.UNITS, path))
            if known := self._known.pop(path, None):
                self._forget(known.parts)
        self._touched.update(path for path in paths if path not in self._known)
        self._paths = paths

    def _is_uncertain(self, path: str) -> bool:
        """Tell whether there may be changes in a directory that no event tells of."""
        known = self._known.get(path)
        return (
            not self._watches.active
            or known is None
            or not known.watched
            or identify(path) != known.identity
        )

    def _read(self, path: str, *, compare: bool) -> None:
        before = self._known.get(path)
        identity = identify(path)
        lasting = self._is_in_store(path)
        watched = self._watches.watch((Place.UNITS, path), path, contents=not lasting)
        content, parts = UnitDirectory(), frozenset[str]()
        if not leads_nowhere(identity):
            listing = _list(path)
            parts = frozenset() if lasting else self._find_parts(listing)
            for part in parts:
                watched &= self._watches.watch((Place.PART, part), part, way=False)
            content = read_family(listing)
        if before:
            self._forget(before.parts - parts)
            content = _keep(before.content, content)
        if before and compare and _tell(before.content) != _tell(content):
            self.missed.suspect([path])
        self._known[path] = _Known(content, identity, watched, parts)

    def _find_parts(self, listing: list[os.DirEntry[str]]) -> frozenset[str]:
        return frozenset(
            entry.path
            for entry in listing
            if is_part(entry.name) and not (entry.is_symlink() and self._is_in_store(entry.path))
        )

    def _is_in_store(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self._store)

    def _forget(self, parts: Iterable[str]) -> None:
        for part in parts:
            self._watches.forget((Place.PART, part))

    def _publish(self) -> None:
        # /lib is a link to /usr/lib: each directory counts once, by its first name.
        distinct: dict[Fingerprint, UnitDirectory] = {}
        for path in self._paths:
            known = self._known[path]
            distinct.setdefault(known.identity, known.content)
        new = _combine(list(distinct.values()))
        old = self.files
        self.files = UnitFiles(
            old.templates if old.templates == new.templates else new.templates,
            new.conditional_installs
            if old.conditional_installs != new.conditional_installs
            else old.conditional_installs,
            old.entries if old.entries == new.entries else new.entries,
            new.unreadable,
        )


def _list(path: str) -> list[os.DirEntry[str]]:
    try:
        return list_family(path)
    except OSError as error:
        raise CollectorError(
            f"cannot list the unit directory {path}: {error.strerror}; "
            "let the exporter read it, or name the ones to look into with --unit-dir"
        ) from error


def _keep(old: UnitDirectory, new: UnitDirectory) -> UnitDirectory:
    """Take the old records where they say the same."""
    same = {entry: entry for entry in old.entries}
    return replace(new, entries=tuple(same.get(entry, entry) for entry in new.entries))


def _tell(content: UnitDirectory) -> object:
    """Give what is known by events alone, for a comparison: not what links lead to."""
    own = {name: fragment for name, fragment in content.fragments.items() if fragment.own}
    return [entry.path for entry in content.entries], own


def _combine(directories: Sequence[UnitDirectory]) -> UnitFiles:
    """Put the directories together: of each unit, systemd takes the first file by its name."""
    fragments: dict[str, Fragment] = {}
    for directory in reversed(directories):
        fragments.update(directory.fragments)
    entries = (entry for directory in directories for entry in directory.entries)
    unread = sum(not fragment.readable for fragment in fragments.values())
    return UnitFiles(
        templates={
            template: _insisted_on(fragment)
            for template in Template
            if (fragment := fragments.get(f"{template}.service")) and not fragment.masked
        },
        conditional_installs=frozenset(
            name.removeprefix(Template.INSTALL).removesuffix(".service")
            for name, fragment in fragments.items()
            if name.startswith(Template.INSTALL)
            and any(condition.negate for condition in fragment.conditions)
        ),
        entries=tuple(sorted(entries, key=lambda entry: entry.path)),
        unreadable=unread + sum(directory.unreadable for directory in directories),
    )


def _insisted_on(fragment: Fragment) -> tuple[str, ...]:
    """Give the paths that have to be there, with ``%i`` as it is."""
    return tuple(
        condition.parameter
        for condition in fragment.conditions
        if not condition.negate and not condition.trigger
    )
