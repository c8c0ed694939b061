"""What to ask systemd of a unit beyond what its list of units tells, and what the answers mean.

Thousands of units are asked every few seconds, and a question costs some 20 µs of PID 1 and 100 of
others: so only that is asked which matters to a unit in its state and which can have changed since
the last look. Names and types are those of ``org.freedesktop.systemd1(5)``. No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from microvm_exporter.model import Condition, FailedCheck, Template, Unit, parse_unit_name

__all__ = [
    "CHECK",
    "INTERFACES",
    "PATH_PREFIXES",
    "UNIT",
    "complete",
    "object_path",
    "questions_on_check",
    "questions_on_state",
    "read_check",
    "settle_check",
]

UNIT: Final = "org.freedesktop.systemd1.Unit"
"""The interface of every unit."""

_SERVICE: Final = "org.freedesktop.systemd1.Service"
_PATH: Final = "/org/freedesktop/systemd1/unit/"
_TYPES: Final[Mapping[str, type]] = {
    "ActiveEnterTimestamp": int,
    "ConditionResult": bool,
    "ConditionTimestamp": int,
    "Conditions": list,
    "ExecMainStatus": int,
    "NRestarts": int,
    "NeedDaemonReload": bool,
    "Result": str,
}

INTERFACES: Final[Mapping[str, str]] = {
    name: _SERVICE if name in {"ExecMainStatus", "NRestarts", "Result"} else UNIT for name in _TYPES
}
"""All properties that are asked for, and the interface of each."""

CHECK: Final = ("ConditionResult", "ConditionTimestamp", "Conditions")
"""The properties by which a change of a unit tells of a check of its conditions."""

_AT_REST: Final = frozenset({"inactive", "failed"})


def object_path(unit: str) -> str:
    """Give the D-Bus object of a unit."""
    return _PATH + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):02x}", unit)


PATH_PREFIXES: Final = tuple(object_path(template) for template in Template)
"""How the objects of all units of the family begin, and of few others."""


def questions_on_state(unit: Unit, known: Unit | None, *, files: bool) -> Iterator[str]:
    """Name what to ask of a unit as it is in the list.

    ``known`` is what the last look made of it. ``files`` tells whether it is the unit's turn to be
    asked of its files: that has PID 1 look at the disk, so a big host asks some units each look.
    """
    if files or (known and known.need_daemon_reload):
        yield "NeedDaemonReload"
    if unit.active_state in _AT_REST:
        yield "ConditionTimestamp"
    if unit.template is Template.MICROVM:
        yield "NRestarts"
        if unit.active_state not in _AT_REST:
            yield "ActiveEnterTimestamp"
    if unit.active_state == "failed" or (
        unit.template is Template.MICROVM and unit.active_state == "activating"
    ):
        yield from ("Result", "ExecMainStatus")


def questions_on_check(unit: Unit, known: Unit | None, answers: Mapping[str, Any]) -> Iterator[str]:
    """Name what to ask after the answers on the state: the check, if there was one since.

    Its time is asked again at the end, see `settle_check`. The conditions of a helper are not
    asked: it has the one of its template, and on a healthy host most of them are unmet.
    """
    at = answers.get("ConditionTimestamp")
    if at and (known is None or known.condition_timestamp != _seconds(at)):
        yield "ConditionResult"
        if unit.template is Template.MICROVM:
            yield "Conditions"
        yield "ConditionTimestamp"


def settle_check(answers: dict[str, Any], at: object) -> None:
    """Drop the answers on a check that are not those on the check of the time ``at``.

    A unit that nothing references is unloaded any moment, and a question loads it anew: its
    ConditionResult is false then, as before any check. The next look asks again.
    """
    if "ConditionResult" in answers and answers["ConditionTimestamp"] != at:
        del answers["ConditionResult"]
        answers.pop("Conditions", None)
        answers["ConditionTimestamp"] = 0


def complete(unit: Unit, known: Unit | None, answers: Mapping[str, Any]) -> Unit:
    """Put the answers into a unit of the list, and what was not asked because it is known.

    A unit that runs has passed its check, at a time that is not asked. Of a check that is known,
    the conditions are those of then: a daemon-reload makes systemd forget which was unmet.
    Raises TypeError or ValueError when an answer makes no sense.
    """
    for name, value in answers.items():
        if not isinstance(value, _TYPES[name]):
            raise TypeError(f"{name} of {unit.name} is {value!r}")
    before = known or unit
    unit = replace(
        unit,
        need_daemon_reload=answers.get("NeedDaemonReload", before.need_daemon_reload),
        active_enter_timestamp=_seconds(answers.get("ActiveEnterTimestamp", 0)),
        result=answers.get("Result", unit.result),
        exec_main_status=answers.get("ExecMainStatus", unit.exec_main_status),
        restarts=answers.get("NRestarts", unit.restarts),
        condition_timestamp=_seconds(answers.get("ConditionTimestamp", 0)),
    )
    if unit.active_state not in _AT_REST:
        return replace(unit, condition_result=True)
    if "ConditionResult" in answers:
        conditions = _conditions(answers.get("Conditions", ()))
        return replace(unit, condition_result=answers["ConditionResult"], conditions=conditions)
    if unit.condition_timestamp:
        result, conditions = before.condition_result, before.conditions
        return replace(unit, condition_result=result, conditions=conditions)
    return unit


def read_check(path: str, values: Mapping[str, Any]) -> tuple[str, FailedCheck | None] | None:
    """Tell what a change of an object says of a check: the unit, and the check if it failed.

    None when it says nothing: no unit of the family, or one that was not checked yet. ``values``
    are the properties of `CHECK` that came along; systemd leaves ``Conditions`` out.
    """
    unit = re.sub(r"_([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), path.removeprefix(_PATH))
    at, held = values.get("ConditionTimestamp"), values.get("ConditionResult")
    if not at or held is None or parse_unit_name(unit) is None:
        return None
    conditions = _conditions(values.get("Conditions", ()))
    return unit, None if held else FailedCheck(unit, _seconds(at), conditions)


def _conditions(rows: Any) -> tuple[Condition, ...]:
    return tuple(
        Condition(type_, parameter, negate=negate, trigger=trigger, state=state)
        for type_, trigger, negate, parameter, state in rows
    )


def _seconds(microseconds: int) -> float:
    return microseconds / 1_000_000
