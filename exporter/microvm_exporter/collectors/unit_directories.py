"""The unit directories, kept up to date by what is heard of them; those in the store never change.

A directory of which something is heard is listed again, and of its entries those are read of which
something was heard.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from microvm_exporter.collectors.missed import Missed
from microvm_exporter.collectors.unit_files import (
    FamilyEntry,
    Fragment,
    is_about_family,
    is_about_instance,
    is_part,
    list_family,
    read_entry,
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
class _Entry:
    content: FamilyEntry
    watched: bool  # as far as that takes a watch of its own


@dataclass(frozen=True, slots=True)
class _Directory:
    entries: Mapping[str, _Entry]
    identity: Fingerprint
    watched: bool


class UnitDirectories:
    """What the directories tell together, in the order in which systemd prefers them.

    One that is not there has nothing: the manager's ``UnitPath`` names many such. ``store`` is
    the path of the store, with a slash at its end. ``heard`` counts what was heard of the family.
    """

    def __init__(self, *, watches: Watches, store: str = STORE) -> None:
        self.files = UnitFiles()
        self.heard = 0
        self.missed: Missed[tuple[str, str]] = Missed()
        self._watches = watches
        self._store = store
        self._paths: tuple[str, ...] = ()
        self._known: dict[str, _Directory] = {}
        self._parts: dict[str, tuple[str, str]] = {}  # what is watched of a directory's entries
        self._touched: dict[str, set[str | None]] = {}  # by directory, None for all of it

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
        for path in self._paths:
            self._touch(path, None)

    def hear(self, path: str, name: str | None) -> bool:
        """Take note that an entry was touched; with None, that the directory may be another.

        Tells, as `hear_part` does, whether there is anything to be read.
        """
        about = name is None or is_about_family(name)
        if about:
            self.heard += 1
            self._touch(path, name)
        return about

    def hear_part(self, part: str, name: str | None) -> bool:
        """Take note that an entry of a directory in a unit directory was touched, or itself."""
        about = name is None or is_about_instance(part, name)
        if about and part in self._parts:
            self.heard += 1
            self._touch(*self._parts[part])
        return about

    def read(self, cause: Cause, paths: Sequence[str]) -> None:
        """Bring ``files`` up to date; raise `CollectorError` for one that cannot be listed."""
        moved = self._paths != tuple(paths)
        if moved:
            self._begin(tuple(paths))
        if cause is not Cause.EVENT:
            for path in self._paths:
                if self._is_uncertain(path):
                    self._touch(path, None)
        todo = self._paths if cause is Cause.RESYNC else sorted(self._touched)
        for path in todo:
            try:
                self._read(path, whole=cause is Cause.RESYNC)
            except CollectorError:
                self._touch(path, None)
                raise
        if todo or moved:
            self._publish()

    def _touch(self, path: str, name: str | None) -> None:
        self._touched.setdefault(path, set()).add(name)
        if name is None:
            self.missed.clear()
        else:
            self.missed.acquit([(path, name)])

    def _begin(self, paths: tuple[str, ...]) -> None:
        for path in set(self._paths).difference(paths):
            self._watches.forget((Place.UNITS, path))
            self._touched.pop(path, None)
            self._known.pop(path, None)
            self._forget_parts(path, {})
        for path in set(paths).difference(self._known):
            self._touch(path, None)
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

    def _read(self, path: str, *, whole: bool) -> None:
        """Read what was touched in a directory, and then take it for read; or all of it."""
        touched = self._touched.get(path, set())
        known = self._known.get(path)
        before = known.entries if known else {}
        identity = identify(path)
        lasting = self._is_in_store(path)
        watched = self._watches.watch((Place.UNITS, path), path, contents=not lasting)
        entries: dict[str, _Entry] = {}
        for entry in [] if leads_nowhere(identity) else _list(path):
            old = before.get(entry.name)
            if old is None or whole or not touched.isdisjoint((None, entry.name)):
                entries[entry.name] = self._look(path, entry, old, lasting=lasting)
            else:
                entries[entry.name] = old
        self._forget_parts(path, entries)
        if None not in touched:
            self.missed.suspect(
                (path, name)
                for name in (before.keys() | entries.keys()) - touched
                if _tell(before.get(name)) != _tell(entries.get(name))
            )
        watched = watched and all(entry.watched for entry in entries.values())
        self._known[path] = _Directory(entries, identity, watched)
        self._touched.pop(path, None)

    def _look(
        self, path: str, entry: os.DirEntry[str], old: _Entry | None, *, lasting: bool
    ) -> _Entry:
        watched = True
        if is_part(entry.name) and not lasting and not self._is_link_into_store(entry):
            watched = self._watches.watch((Place.PART, entry.path), entry.path, way=False)
            self._parts[entry.path] = (path, entry.name)
        content = read_entry(entry)
        same = {file: file for file in old.content.files} if old else {}
        files = tuple(same.get(file, file) for file in content.files)
        return _Entry(replace(content, files=files), watched)

    def _is_in_store(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self._store)

    def _is_link_into_store(self, entry: os.DirEntry[str]) -> bool:
        return entry.is_symlink() and self._is_in_store(entry.path)

    def _forget_parts(self, path: str, entries: Mapping[str, _Entry]) -> None:
        gone = [
            part
            for part, (directory, name) in self._parts.items()
            if directory == path and name not in entries
        ]
        for part in gone:
            del self._parts[part]
            self._watches.forget((Place.PART, part))

    def _publish(self) -> None:
        # /lib is a link to /usr/lib: each directory counts once, by its first name.
        distinct: dict[Fingerprint, Mapping[str, _Entry]] = {}
        for path in self._paths:
            known = self._known[path]
            distinct.setdefault(known.identity, known.entries)
        old, new = self.files, _combine(list(distinct.values()))
        kept = {
            name: getattr(old, name)
            for name in ("templates", "conditional_installs", "entries")
            if getattr(old, name) == getattr(new, name)
        }
        self.files = replace(new, **kept)


def _list(path: str) -> list[os.DirEntry[str]]:
    try:
        return list_family(path)
    except OSError as error:
        raise CollectorError(
            f"cannot list the unit directory {path}: {error.strerror}; "
            "let the exporter read it, or name the ones to look into with --unit-dir"
        ) from error


def _tell(entry: _Entry | None) -> object:
    """Give what is known by events alone, for a comparison: not what links lead to."""
    if entry is None:
        return None
    fragment = entry.content.fragment
    own = fragment if fragment and fragment.own else None
    return own, [file.path for file in entry.content.files]


def _combine(directories: Sequence[Mapping[str, _Entry]]) -> UnitFiles:
    """Put the directories together: of each unit, systemd takes the first file by its name."""
    contents = [entry.content for entries in directories for entry in entries.values()]
    fragments = {
        name: entry.content.fragment
        for entries in reversed(directories)
        for name, entry in entries.items()
        if entry.content.fragment
    }
    files = (file for content in contents for file in content.files)
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
        entries=tuple(sorted(files, key=lambda file: file.path)),
        unreadable=unread + sum(content.unreadable for content in contents),
    )


def _insisted_on(fragment: Fragment) -> tuple[str, ...]:
    """Give the paths that have to be there, with ``%i`` as it is."""
    return tuple(
        condition.parameter
        for condition in fragment.conditions
        if not condition.negate and not condition.trigger
    )
