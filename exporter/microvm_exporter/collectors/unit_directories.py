"""The unit directories, kept up to date by what is heard of them; those in the store never change.

What is heard of an entry has that one read again, without a look at the others.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from microvm_exporter.collectors.missed import Missed
from microvm_exporter.collectors.unit_files import (
    Entry,
    FamilyEntry,
    Fragment,
    find_entries,
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


@dataclass(slots=True)
class _Directory:
    """What is known of a directory.

    ``blind`` are the entries without the watch that they take, ``elsewhere`` those that are links,
    or hold links that lead nowhere: no event tells of what becomes of that.
    """

    entries: dict[str, FamilyEntry] = field(default_factory=dict)
    blind: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    identity: Fingerprint = ()
    watched: bool = False


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
        self._touched: dict[str, set[str | None]] = {}  # by directory, None for all of it
        self._changed = False  # since `files` was put together

    @property
    def followed(self) -> bool:
        """Whether all is known by what was heard up to now."""
        return (
            self._watches.active
            and not self._touched
            and all(known.watched and not known.blind for known in self._known.values())
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
        directory, _, entry = part.rpartition("/")
        if about and directory in self._known:
            self.heard += 1
            self._touch(directory, entry)
        return about

    def read(self, cause: Cause, paths: Sequence[str]) -> None:
        """Bring ``files`` up to date; raise `CollectorError` for one that cannot be listed."""
        if self._paths != tuple(paths):
            self._begin(tuple(paths))
        if cause is not Cause.EVENT:
            for path in self._paths:
                if self._is_uncertain(path):
                    self._touch(path, None)
        if cause is Cause.INTERVAL:
            for path, known in self._known.items():
                for name in known.elsewhere:
                    self._touch(path, name)
        todo = self._paths if cause is Cause.RESYNC else sorted(self._touched)
        for path in todo:
            try:
                self._read(path, whole=cause is Cause.RESYNC)
            except CollectorError:
                self._touch(path, None)
                raise
        if self._changed:
            self._publish()
            self._changed = False

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
            if known := self._known.pop(path, None):
                self._forget(path, known.entries)
        for path in set(paths).difference(self._known):
            self._touch(path, None)
        self._paths = paths
        self._changed = True

    def _is_uncertain(self, path: str) -> bool:
        """Tell whether there may be changes in a directory that no event tells of."""
        known = self._known.get(path)
        return (
            not self._watches.active
            or known is None
            or not known.watched
            or bool(known.blind)
            or identify(path) != known.identity
        )

    def _read(self, path: str, *, whole: bool) -> None:
        """Read what was touched in a directory, and then take it for read; or all of it."""
        touched = self._touched.get(path, set())
        known = self._known.setdefault(path, _Directory())
        identity = identify(path)
        whole = whole or None in touched or identity != known.identity
        lasting = self._is_in_store(path)
        known.watched = self._watches.watch((Place.UNITS, path), path, contents=not lasting)
        names = None if whole else {name for name in touched if name is not None}
        gone = set(known.entries) if names is None else names & known.entries.keys()
        unexplained: set[str] = set()
        for entry in () if leads_nowhere(identity) else _list(path, names):
            gone.discard(entry.name)
            if not self._look(path, known, entry, lasting=lasting):
                unexplained.add(entry.name)
        self._remove(path, known, gone)
        if None not in touched:
            self.missed.suspect((path, name) for name in (unexplained | gone) - touched)
        self._changed |= known.identity != identity
        known.identity = identity
        self._touched.pop(path, None)

    def _look(self, path: str, known: _Directory, entry: Entry, *, lasting: bool) -> bool:
        """Look at an entry, and tell whether it differs at most in what no event tells."""
        name = entry.name
        known.blind.discard(name)
        if is_part(name) and not lasting and not self._is_link_into_store(entry):
            part = f"{path}/{name}"
            if not self._watches.watch((Place.PART, part), part, way=False):
                known.blind.add(name)
        old = known.entries.get(name)
        new = read_entry(entry, old)
        known.elsewhere.discard(name)
        if not lasting and (entry.is_symlink() or any(file.dangling for file in new.files)):
            known.elsewhere.add(name)
        if new is old:
            return True
        known.entries[name] = new
        self._changed = True
        return _tell(old) == _tell(new)

    def _remove(self, path: str, known: _Directory, names: Collection[str]) -> None:
        for name in names:
            del known.entries[name]
            known.blind.discard(name)
            known.elsewhere.discard(name)
            self._changed = True
        self._forget(path, names)

    def _forget(self, path: str, names: Iterable[str]) -> None:
        for name in names:
            self._watches.forget((Place.PART, f"{path}/{name}"))

    def _is_in_store(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self._store)

    def _is_link_into_store(self, entry: Entry) -> bool:
        return entry.is_symlink() and self._is_in_store(entry.path)

    def _publish(self) -> None:
        # /lib is a link to /usr/lib: each directory counts once, by its first name.
        distinct: dict[Fingerprint, Mapping[str, FamilyEntry]] = {}
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


def _list(path: str, names: Collection[str] | None) -> Iterator[Entry]:
    """List what can be about the family, or of that only what is called so."""
    try:
        yield from list_family(path) if names is None else find_entries(path, names)
    except FileNotFoundError:
        return  # it went just now: each daemon-reload makes /run/systemd/generator anew
    except OSError as error:
        raise CollectorError(
            f"cannot list the unit directory {path}: {error.strerror}; "
            "let the exporter read it, or name the ones to look into with --unit-dir"
        ) from error


def _tell(entry: FamilyEntry | None) -> object:
    """Give what is known by events alone, for a comparison: not what links lead to."""
    if entry is None:
        return None
    own = entry.fragment if entry.fragment and entry.fragment.own else None
    return own, [file.path for file in entry.files]


def _combine(directories: Sequence[Mapping[str, FamilyEntry]]) -> UnitFiles:
    """Put the directories together: of each unit, systemd takes the first file by its name."""
    every = [entry for entries in directories for entry in entries.values()]
    fragments = {
        name: entry.fragment
        for entries in reversed(directories)
        for name, entry in entries.items()
        if entry.fragment
    }
    files = (file for entry in every for file in entry.files)
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
        unreadable=unread + sum(entry.unreadable for entry in every),
    )


def _insisted_on(fragment: Fragment) -> tuple[str, ...]:
    """Give the paths that have to be there, with ``%i`` as it is."""
    return tuple(
        condition.parameter
        for condition in fragment.conditions
        if not condition.negate and not condition.trigger
    )
