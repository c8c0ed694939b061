"""An entry of a unit directory: what is installed for the unit family, and what names a single VM.

They are root's. On NixOS they are links into the store.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from microvm_exporter.collectors.untrusted import Tally, is_missing, read_file
from microvm_exporter.model import Condition, Template, UnitFile, UnitFileKind, parse_unit_name

__all__ = [
    "Entry",
    "FamilyEntry",
    "Fragment",
    "find_entries",
    "is_about_family",
    "is_about_instance",
    "is_part",
    "list_family",
    "parse_conditions",
    "read_entry",
]

_FAMILY: Final = ("microvm", Template.INSTALL)
_DEPENDENCIES: Final = (".wants", ".requires", ".upholds")
_PARTS: Final = (*_DEPENDENCIES, ".service.d")
_TEMPLATES: Final = frozenset(
    f"{template}.service" for template in Template if template is not Template.INSTALL
)


class Entry(Protocol):
    """An entry of a directory: an `os.DirEntry`, or like one."""

    @property
    def name(self) -> str:
        """Its name in the directory."""

    @property
    def path(self) -> str:
        """The directory's path and the name."""

    def is_symlink(self) -> bool:
        """Tell whether the entry itself is a link."""

    def stat(self) -> os.stat_result:
        """Look at what it leads to."""


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    path: str
    symlink: bool

    def is_symlink(self) -> bool:
        return self.symlink

    def stat(self) -> os.stat_result:
        return Path(self.path).stat()


@dataclass(frozen=True, slots=True)
class Fragment:
    """A unit file of a template or an install unit.

    ``own`` is true when it is a file in the directory, false when it is a link to one elsewhere.
    ``conditions`` are empty, and it is not ``readable``, when it cannot be read.
    """

    own: bool
    masked: bool
    readable: bool = True
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class FamilyEntry:
    """What one entry of a unit directory tells.

    ``files`` are all that names an instance: the entry itself, or what is in it. ``unreadable`` is
    1 when that could not be listed.
    """

    fragment: Fragment | None = None
    files: tuple[UnitFile, ...] = ()
    unreadable: int = 0


def is_about_family(name: str) -> bool:
    """Tell whether an entry of a unit directory can be about the family."""
    return name.startswith(_FAMILY) or name.endswith(_DEPENDENCIES)


def is_about_instance(part: str, name: str) -> bool:
    """Tell whether an entry of a directory in a unit directory can name an instance."""
    owner, _, suffix = part.rpartition("/")[2].rpartition(".")
    of_instance = parse_unit_name(owner) is not None
    if suffix == "d":
        return of_instance and name.endswith(".conf")
    return of_instance or parse_unit_name(name) is not None


def is_part(name: str) -> bool:
    """Tell whether an entry about the family is a directory whose entries matter too."""
    return name.endswith(_PARTS)


def list_family(directory: str) -> Iterator[Entry]:
    """List what can be about the family, without a look at the other thousand units of a host.

    One at a time: thousands of them, with what they remember of their files, take megabytes.
    """
    with os.scandir(directory) as entries:
        yield from (entry for entry in entries if is_about_family(entry.name))


def find_entries(directory: str, names: Iterable[str]) -> Iterator[Entry]:
    """Give the entries with these names that there are, without a look at the others."""
    for name in names:
        path = os.path.join(directory, name)  # noqa: PTH118, as os.scandir does it
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            continue
        yield _Found(name, path, stat.S_ISLNK(mode))


def read_entry(entry: Entry, old: FamilyEntry | None = None) -> FamilyEntry:
    """Read an entry about the family; one that is gone since it was listed tells nothing.

    Gives the old one, and the old records of files, as far as they still say the same.
    """
    tally = Tally()
    fragment = None
    # A file that leads nowhere is none: systemd takes the next one by its name.
    if _is_fragment(entry.name) and not _is_dangling(entry):
        fragment = _read_fragment(entry)
    before = {file.path: file for file in old.files} if old else {}
    files = tuple(
        before[file.path] if before.get(file.path) == file else file
        for file in _find_instances(entry, tally)
    )
    new = FamilyEntry(fragment, files, tally.unreadable)
    return old if old == new else new


# ----------------------------------------------------------------------------------- unit files


def _is_fragment(name: str) -> bool:
    if name in _TEMPLATES:
        return True
    return name.startswith(Template.INSTALL) and parse_unit_name(name) is not None


def _is_dangling(entry: Entry) -> bool:
    if not entry.is_symlink():
        return False
    try:
        entry.stat()
    except OSError as error:
        return is_missing(error)
    return False


def _read_fragment(entry: Entry) -> Fragment:
    own = not entry.is_symlink()
    if _is_masked(entry):
        return Fragment(own, masked=True)
    try:
        data = read_file(entry.path, trusted=True)
    except OSError:
        return Fragment(own, masked=False, readable=False)
    text = (data or b"").decode(errors="surrogateescape")
    return Fragment(own, masked=False, conditions=parse_conditions(text))


def _is_masked(entry: Entry) -> bool:
    """Tell whether the file is empty or a link to /dev/null, which both mean that (systemd(1))."""
    try:
        return entry.stat().st_size == 0
    except OSError:
        return False


def parse_conditions(text: str) -> tuple[Condition, ...]:
    """Parse the ``ConditionPathExists=`` of a unit file, specifiers as they are.

    As systemd.unit(5) says: ``|`` makes it one of several of which one has to hold, ``!`` negates
    it, and an empty condition, of whatever type, takes back all before it.
    """
    conditions: list[Condition] = []
    section = ""
    for line in map(str.strip, text.replace("\\\n", " ").split("\n")):
        key, _, value = (part.strip() for part in line.partition("="))
        if line.startswith("["):
            section = line
        elif section != "[Unit]" or not key.startswith("Condition"):
            continue
        elif not value:
            conditions.clear()
        elif key == "ConditionPathExists":
            conditions.append(_parse_condition(key, value))
    return tuple(conditions)


def _parse_condition(key: str, value: str) -> Condition:
    trigger = value.startswith("|")
    value = value.removeprefix("|").lstrip()
    negate = value.startswith("!")
    return Condition(key, value.removeprefix("!").lstrip(), negate=negate, trigger=trigger)


# ------------------------------------------------------------------------------------- instances


def _find_instances(entry: Entry, tally: Tally) -> Iterator[UnitFile]:
    """Find what names an instance: its unit file, its drop-ins, the links that pull it in."""
    owner, _, suffix = entry.name.rpartition(".")
    if suffix == "service" and (unit := parse_unit_name(entry.name)):
        yield _record(entry, UnitFileKind.UNIT, entry.name, unit[1])
    elif suffix == "d" and (unit := parse_unit_name(owner)):
        for file in _list_drop_ins(entry, tally):
            yield _record(file, UnitFileKind.DROP_IN, owner, unit[1])
    elif entry.name.endswith(_DEPENDENCIES):
        for link in _list_part(entry.path, tally):
            for name in (link.name, owner):
                if unit := parse_unit_name(name):
                    yield _record(link, UnitFileKind.WANTS, name, unit[1])
                    break


def _record(entry: Entry, kind: UnitFileKind, unit: str, vm: str) -> UnitFile:
    # Each VM has several. Only names that root made: Python 3.12 never gives back what is interned.
    vm = sys.intern(vm)
    return UnitFile(entry.path, kind, unit, vm, _is_dangling(entry))


def _list_drop_ins(directory: Entry, tally: Tally) -> Iterator[Entry]:
    """List what systemd reads from a ``.d`` directory; one that leads nowhere stands for itself."""
    if _is_dangling(directory):
        yield directory
        return
    yield from (file for file in _list_part(directory.path, tally) if file.name.endswith(".conf"))


def _list_part(path: str, tally: Tally) -> Iterator[Entry]:
    """List a directory inside a unit directory, but for names that cannot be shown."""
    try:
        with os.scandir(path) as entries:
            yield from (entry for entry in entries if entry.name.isprintable())
    except OSError as error:
        if not is_missing(error):
            tally.unreadable += 1
