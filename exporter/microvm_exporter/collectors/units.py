"""What to ask systemd of a unit beyond what its list of units tells, and what the answers mean.

There are thousands of units, and a question costs some 20 µs of PID 1 and 100 of others: so only
that is asked which matters to a unit in its state, and that no signal has told. Names and types are
those of ``org.freedesktop.systemd1(5)``. No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from microvm_exporter.model import Condition, FailedCheck, Template, Unit

__all__ = [
    "INTERFACES",
    "TOLD",
    "UNIT",
    "amend",
    "complete",
    "follow",
    "forgets_restarts",
    "questions_on_change",
    "questions_on_state",
    "read_check",
]

UNIT: Final = "org.freedesktop.systemd1.Unit"
"""The interface of every unit."""

_SERVICE: Final = "org.freedesktop.systemd1.Service"
_TYPES: Final[Mapping[str, type]] = {
    "ActiveEnterTimestamp": int,
    "ActiveState": str,
    "ConditionResult": bool,
    "ConditionTimestamp": int,
    "Conditions": list,
    "ExecMainStatus": int,
    "InactiveExitTimestamp": int,
    "Job": tuple,
    "NRestarts": int,
    "NeedDaemonReload": bool,
    "Result": str,
    "SubState": str,
}

INTERFACES: Final[Mapping[str, str]] = {
    name: _SERVICE if name in {"ExecMainStatus", "NRestarts", "Result"} else UNIT for name in _TYPES
}
"""All properties that are asked for, and the interface of each."""

_STATE: Final = ("ActiveState", "SubState", "Job")
TOLD: Final = (
    *_STATE,
    "ActiveEnterTimestamp",
    "ConditionResult",
    "ConditionTimestamp",
    "InactiveExitTimestamp",
)
"""What every change of a unit brings along (systemd 252): not why a check failed, though."""

_AT_REST: Final = frozenset({"inactive", "failed"})
_WAITS: Final = frozenset({"auto-restart", "auto-restart-queued"})
_ENDS: Final = frozenset({"dead-before-auto-restart", "failed-before-auto-restart"})
"""What `auto-restart` comes after, for a moment, since systemd 254."""


def forgets_restarts(version: str) -> bool:
    """Tell whether a systemd of that ``Version`` may forget how often it has restarted a unit.

    252 does not, 257 does; between, either will do.
    """
    major = re.match(r"\d+", version)
    return major is not None and int(major[0]) > 252


def follow(known: Unit, told: Mapping[str, Any]) -> Unit | None:
    """Give a unit as it would be in the list now, by a signal; None when that tells too little."""
    if known.load_state != "loaded" or not all(_fits(name, told.get(name)) for name in _STATE):
        return None
    return Unit(
        known.name,
        known.template,
        known.vm,
        known.load_state,
        told["ActiveState"],
        told["SubState"],
        told["Job"][0] != 0,
    )


def questions_on_state(
    unit: Unit, known: Unit | None, *, files: bool, check: bool
) -> Iterator[str]:
    """Name what to ask of a unit as it is in the list.

    ``known`` is what the last look made of it. ``files`` tells whether it is the unit's turn to be
    asked of its files, which has PID 1 look at the disk; ``check`` whether its check matters.
    """
    if files:
        yield "NeedDaemonReload"
    if check and unit.active_state in _AT_REST:
        # Whether there was another check since the one that failed, or how the last one ended.
        yield "ConditionTimestamp" if _was_skipped(known) else "ConditionResult"
    if unit.template is Template.MICROVM:
        if unit.active_state not in _AT_REST:
            yield "ActiveEnterTimestamp"
        # One that was active and is has restarted only if it has become active since; that its
        # restarts are forgotten (`systemctl reset-failed`) nothing tells.
        if not known or known.restarts or {unit.active_state, known.active_state} != {"active"}:
            yield "NRestarts"
    if unit.active_state == "failed" or (
        unit.template is Template.MICROVM and unit.active_state == "activating"
    ):
        yield from ("Result", "ExecMainStatus")
    if unit.sub_state in _WAITS:
        yield "InactiveExitTimestamp"


def questions_on_change(
    unit: Unit, known: Unit | None, answers: Mapping[str, Any]
) -> Iterator[str]:
    """Name what to ask after the answers on the state: of a restart, or a check that failed.

    ConditionResult is false before any check, too: only the time tells. The conditions of a helper
    are not asked: it has the one of its template, and on a healthy host most of them are unmet.
    A unit may be unloaded between the questions, but then a signal says so.
    """
    entered = answers.get("ActiveEnterTimestamp")
    if known and entered is not None and _seconds(entered) != known.active_enter_timestamp:
        yield "NRestarts"  # unless that was asked
    if answers.get("ConditionResult") is False:
        yield "ConditionTimestamp"
    elif answers.get("ConditionTimestamp") not in (None, _micro(known)):
        yield "ConditionResult"
    else:
        return
    if unit.template is Template.MICROVM:
        yield "Conditions"


def complete(
    unit: Unit, known: Unit | None, answers: Mapping[str, Any], *, forgets: bool = False
) -> Unit:
    """Put the answers into a unit of the list, and what was not asked because it is known.

    Of a check that held, the time does not matter. Of one that is known, the conditions are those
    of then: a daemon-reload makes systemd forget which was unmet. ``forgets`` tells that systemd
    may forget restarts, too. Raises TypeError or ValueError when an answer makes no sense.
    """
    _check_types(unit.name, answers)
    before = known or unit
    held, at, conditions = _check(unit, before, answers)
    waits_since = _waits_since(unit, before, answers)
    restarts = answers.get("NRestarts", before.restarts)
    if forgets and known and unit.template is Template.MICROVM:
        restarts = _recount(unit, known, answers, waits_since)
    return replace(
        unit,
        condition_result=held,
        condition_timestamp=at,
        conditions=conditions,
        need_daemon_reload=answers.get("NeedDaemonReload", before.need_daemon_reload),
        active_enter_timestamp=_seconds(answers.get("ActiveEnterTimestamp", 0)),
        result=answers.get("Result", unit.result),
        exec_main_status=answers.get("ExecMainStatus", unit.exec_main_status),
        restarts=restarts,
        waits_since=waits_since,
    )


def _waits_since(unit: Unit, before: Unit, answers: Mapping[str, Any]) -> float:
    if unit.sub_state in _WAITS:
        return _seconds(answers.get("InactiveExitTimestamp", 0))
    # It is stopped for a moment when it is restarted.
    return before.waits_since if unit.job and unit.active_state in _AT_REST else 0.0


def _recount(unit: Unit, known: Unit, answers: Mapping[str, Any], waits_since: float) -> int:
    """Count the restarts of a unit, as systemd may not.

    systemd 257 stops the helpers when it restarts ``microvm@`` and that with them, and so begins to
    count anew each time: NRestarts is 1 for 50 ms and then 0. 252 goes on counting.
    """
    told: int = answers.get("NRestarts", 0)
    waits = unit.sub_state in _WAITS
    rests = unit.active_state in _AT_REST
    if known.waits_since and (waits_since != known.waits_since if waits else not rests):
        return max(told, known.restarts + 1)
    if waits or unit.sub_state in _ENDS or (rests and unit.job):
        return known.restarts
    return told if rests else max(told, known.restarts)


def _check(
    unit: Unit, before: Unit, answers: Mapping[str, Any]
) -> tuple[bool, float, tuple[Condition, ...]]:
    """Tell whether the last check held, and if not, when it was made and what it tested."""
    # A unit that runs has passed its check.
    if unit.active_state not in _AT_REST or answers.get("ConditionResult") is True:
        return True, 0.0, ()
    if "ConditionTimestamp" in answers and "ConditionResult" not in answers:
        return False, before.condition_timestamp, before.conditions
    at = _seconds(answers.get("ConditionTimestamp", 0))
    return False, at, _conditions(answers.get("Conditions", ())) if at else ()


def amend(unit: Unit, name: str, value: object) -> Unit:
    """Put the answer on something of which no signal tells into a unit, if it makes sense."""
    match name, value:
        case "NeedDaemonReload", bool():
            return replace(unit, need_daemon_reload=value)
        case "NRestarts", int():
            return replace(unit, restarts=value)
        case _:
            return unit


def read_check(unit: str, told: Mapping[str, Any]) -> FailedCheck | None:
    """Tell what a signal says of a check of a unit: None when there was none, or it held.

    systemd leaves ``Conditions`` out of its signals.
    """
    at = told.get("ConditionTimestamp")
    if not at or not isinstance(at, int) or told.get("ConditionResult") is not False:
        return None
    return FailedCheck(unit, _seconds(at))


def _was_skipped(unit: Unit | None) -> bool:
    return unit is not None and unit.condition_timestamp > 0


def _fits(name: str, value: object) -> bool:
    return isinstance(value, _TYPES[name])


def _check_types(unit: str, answers: Mapping[str, Any]) -> None:
    for name, value in answers.items():
        if not _fits(name, value):
            raise TypeError(f"{name} of {unit} is {value!r}")


def _conditions(rows: Any) -> tuple[Condition, ...]:
    return tuple(
        Condition(type_, parameter, negate=negate, trigger=trigger, state=state)
        for type_, trigger, negate, parameter, state in rows
    )


def _seconds(microseconds: int) -> float:
    return microseconds / 1_000_000


def _micro(unit: Unit | None) -> int:
    return round(unit.condition_timestamp * 1_000_000) if unit else 0
