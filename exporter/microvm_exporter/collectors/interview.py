"""Ask systemd about units: everything that matters and that no signal has told, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from microvm_exporter.collectors import units
from microvm_exporter.collectors.bus import Bus
from microvm_exporter.collectors.bus_terms import Property, object_path
from microvm_exporter.model import Template, Unit

__all__ = ["Told", "interview"]

Told: TypeAlias = Mapping[str, Mapping[str, Any]]
"""By unit, the properties that a signal brought."""

Answers: TypeAlias = dict[str, dict[str, Any]]


def interview(
    bus: Bus,
    listed: Iterable[Unit],
    *,
    known: Mapping[str, Unit],
    told: Told,
    files: Collection[str],
    checks: Collection[str],
    forgets: bool,
) -> tuple[dict[str, Unit], frozenset[str]]:
    """Complete units of the list; give them by name, and the names of those that make no sense.

    ``known`` is what was made of them before. Those named in ``files`` are asked of their files,
    those in ``checks`` of their checks, which ``microvm@`` always is. ``forgets`` tells whether
    systemd may forget restarts. A unit that is gone meanwhile is left out.
    """
    asked = list(listed)
    answers: Answers = {unit.name: {} for unit in asked}

    def on_state(unit: Unit) -> Iterator[str]:
        check = unit.template is Template.MICROVM or unit.name in checks
        before = known.get(unit.name)
        return units.questions_on_state(unit, before, files=unit.name in files, check=check)

    def on_change(unit: Unit) -> Iterator[str]:
        return units.questions_on_change(unit, known.get(unit.name), answers[unit.name])

    for questions in (on_state, on_change):
        _ask(bus, answers, told, _questions(asked, questions))
    there = [unit for unit in asked if None not in answers[unit.name].values()]
    found = {}
    for unit in there:
        with suppress(TypeError, ValueError):
            before = known.get(unit.name)
            found[unit.name] = units.complete(unit, before, answers[unit.name], forgets=forgets)
    return found, frozenset(unit.name for unit in there) - found.keys()


def _questions(
    asked: Iterable[Unit], questions: Callable[[Unit], Iterable[str]]
) -> Iterator[tuple[str, str]]:
    return ((unit.name, name) for unit in asked for name in questions(unit))


def _ask(bus: Bus, answers: Answers, told: Told, questions: Iterable[tuple[str, str]]) -> None:
    """Take from what was told what was told, and ask for the rest."""
    left = []
    for unit, name in list(questions):
        if name in told.get(unit, ()):
            answers[unit][name] = told[unit][name]
        elif name not in answers[unit]:
            left.append((unit, name))
    wanted = [Property(object_path(unit), units.INTERFACES[name], name) for unit, name in left]
    for (unit, name), value in zip(left, bus.read(wanted), strict=True):
        answers[unit][name] = value
