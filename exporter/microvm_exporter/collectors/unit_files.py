"""The unit directories: what is installed for the unit family, and what names a single VM.

They are root's. On NixOS they are links into the store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from microvm_exporter.collectors.untrusted import Tally, is_missing, read_file
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Condition, Template, UnitFile, UnitFileKind, parse_unit_name

__all__ = ["UnitFiles", "parse_conditions", "read_unit_files"]

_FAMILY: Final = ("microvm", Template.INSTALL)
_DEPENDENCIES: Final = (".wants", ".requires", ".upholds")


@dataclass(frozen=True, slots=True)
class UnitFiles:
    """What `microvm_exporter.model.StateTree` says of the unit directories."""

    templates: Mapping[Template, tuple[str, ...]]
    conditional_installs: frozenset[str]
    entries: tuple[UnitFile, ...]


def read_unit_files(unit_dirs: Sequence[str], tally: Tally) -> UnitFiles:
    """Read the directories, given in the order in which systemd prefers them.

    One that is not there has nothing: the manager's ``UnitPath`` names many such. Raises
    `CollectorError` for one that cannot be listed.
    """
    listing = [entry for directory in _distinct(unit_dirs) for entry in _list_family(directory)]
    fragments = _find_fragments(listing)
    return UnitFiles(
        templates=_read_templates(fragments, tally),
        conditional_installs=_find_conditional_installs(fragments, tally),
        entries=tuple(sorted(_find_instances(listing, tally), key=lambda file: file.path)),
    )


def _distinct(unit_dirs: Sequence[str]) -> Iterator[str]:
    """Give each directory once, by its first name: ``/lib`` is a link to ``/usr/lib``."""
    seen = set()
    for directory in unit_dirs:
        try:
            status = Path(directory).stat()
        except OSError as error:
            if is_missing(error):
                continue
            raise _cannot_list(directory, error) from error
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield directory


def _list_family(directory: str) -> list[os.DirEntry[str]]:
    """List what can be about the family, without a look at the other thousand units of a host."""
    try:
        with os.scandir(directory) as entries:
            return [
                entry
                for entry in entries
                if entry.name.startswith(_FAMILY) or entry.name.endswith(_DEPENDENCIES)
            ]
    except OSError as error:
        raise _cannot_list(directory, error) from error


def _cannot_list(directory: str, error: OSError) -> CollectorError:
    return CollectorError(
        f"cannot list the unit directory {directory}: {error.strerror}; "
        "let the exporter read it, or name the ones to look into with --unit-dir"
    )


# ----------------------------------------------------------------------------------- unit files


def _find_fragments(listing: list[os.DirEntry[str]]) -> dict[str, os.DirEntry[str]]:
    """Find the file that systemd takes for each unit: the first by its name that is there."""
    fragments: dict[str, os.DirEntry[str]] = {}
    for entry in listing:
        if entry.name.endswith(".service") and not _is_dangling(entry):
            fragments.setdefault(entry.name, entry)
    return fragments


def _is_dangling(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return False
    try:
        entry.stat()
    except OSError as error:
        return is_missing(error)
    return False


def _read_templates(
    fragments: Mapping[str, os.DirEntry[str]], tally: Tally
) -> dict[Template, tuple[str, ...]]:
    """Read which paths the templates that are installed, and not masked, insist on."""
    templates: dict[Template, tuple[str, ...]] = {}
    for template in Template:
        entry = fragments.get(f"{template}.service")
        if entry is None or template is Template.INSTALL or _is_masked(entry):
            continue
        templates[template] = tuple(
            condition.parameter
            for condition in _read_conditions(entry, tally)
            if not condition.negate and not condition.trigger
        )
    return templates


def _find_conditional_installs(
    fragments: Mapping[str, os.DirEntry[str]], tally: Tally
) -> frozenset[str]:
    installs = set()
    for unit, entry in fragments.items():
        parsed = parse_unit_name(unit)
        if parsed is None or parsed[0] is not Template.INSTALL or _is_masked(entry):
            continue
        if any(condition.negate for condition in _read_conditions(entry, tally)):
            installs.add(parsed[1])
    return frozenset(installs)


def _is_masked(entry: os.DirEntry[str]) -> bool:
    """Tell whether the file is empty or a link to /dev/null, which both mean that (systemd(1))."""
    try:
        return entry.stat().st_size == 0
    except OSError:
        return False


def _read_conditions(entry: os.DirEntry[str], tally: Tally) -> tuple[Condition, ...]:
    try:
        data = read_file(entry.path, trusted=True)
    except OSError:
        tally.unreadable += 1
        return ()
    return parse_conditions((data or b"").decode(errors="surrogateescape"))


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


def _find_instances(listing: list[os.DirEntry[str]], tally: Tally) -> Iterator[UnitFile]:
    """Find what names an instance: its unit file, its drop-ins, the links that pull it in."""
    for entry in listing:
        owner, _, suffix = entry.name.rpartition(".")
        if suffix == "service" and (unit := parse_unit_name(entry.name)):
            yield _record(entry, UnitFileKind.UNIT, *unit)
        elif suffix == "d" and (unit := parse_unit_name(owner)):
            for file in _list_drop_ins(entry, tally):
                yield _record(file, UnitFileKind.DROP_IN, *unit)
        elif entry.name.endswith(_DEPENDENCIES):
            for link in _list_part(entry.path, tally):
                if unit := parse_unit_name(link.name) or parse_unit_name(owner):
                    yield _record(link, UnitFileKind.WANTS, *unit)


def _record(entry: os.DirEntry[str], kind: UnitFileKind, template: Template, vm: str) -> UnitFile:
    return UnitFile(entry.path, kind, f"{template}{vm}.service", vm, _is_dangling(entry))


def _list_drop_ins(directory: os.DirEntry[str], tally: Tally) -> list[os.DirEntry[str]]:
    """List what systemd reads from a ``.d`` directory; one that leads nowhere stands for itself."""
    if _is_dangling(directory):
        return [directory]
    return [file for file in _list_part(directory.path, tally) if file.name.endswith(".conf")]


def _list_part(path: str, tally: Tally) -> list[os.DirEntry[str]]:
    """List a directory inside a unit directory, but for names that cannot be shown."""
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if entry.name.isprintable()]
    except OSError as error:
        if not is_missing(error):
            tally.unreadable += 1
        return []
