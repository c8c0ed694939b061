"""The report that ``check`` prints: the findings in words, or as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, TypedDict

from microvm_exporter.counts import count
from microvm_exporter.drift import Finding, Judgement, Severity
from microvm_exporter.model import Collector, Leftouts
from microvm_exporter.text import printable

__all__ = [
    "COUNT_NAMES",
    "Group",
    "Report",
    "Status",
    "groups",
    "headline",
    "render_json",
    "render_text",
    "status_of",
]


class Status(StrEnum):
    """What a look came to."""

    CLEAN = "clean"
    DRIFT = "drift"
    UNKNOWN = "unknown"


class CollectorReport(TypedDict):
    """How a collector fared."""

    success: bool
    error: str | None


class FindingReport(TypedDict):
    """A finding; ``remedy`` are lines for a shell, joined."""

    kind: str
    severity: str
    vm: str
    object: str
    summary: str
    remedy: str


class Report(TypedDict):
    """The JSON of ``check --format json``. A count is null when it could not be told."""

    version: int
    status: str
    counts: dict[str, int | None]
    collectors: dict[str, CollectorReport]
    findings: list[FindingReport]


COUNT_NAMES: Final = {
    "declared_vms": "declared MicroVMs",
    "present_units": "present units",
    "failed_condition_checks": "failed condition checks",
    "stray_tap_devices": "stray TAP devices",
}
_ON_HOST: Final = "on the host"
_COLOURS: Final = {Severity.CRITICAL: "1;31", Severity.WARNING: "33", Severity.INFO: "36"}
_BOLD: Final = "1"
_COLUMNS: Final = 80
"""Of the sentences. A remedy's line is as long as it is, so that it can be pasted."""


Paint = Callable[[str, str], str]
"""Gives a text in a colour (the parameters of ANSI's SGR), or as it is."""


@dataclass(frozen=True, slots=True)
class Group:
    """The findings of one VM, or of none: those that the same lines cure stand together."""

    title: str
    cures: tuple[tuple[tuple[str, ...], tuple[Finding, ...]], ...]


def groups(findings: Sequence[Finding]) -> Iterator[Group]:
    """Group by VM, the one with the worst finding first, what belongs to no VM last."""
    by_vm: dict[str, dict[tuple[str, ...], list[Finding]]] = {}
    for finding in findings:
        by_vm.setdefault(finding.vm, {}).setdefault(finding.remedy, []).append(finding)
    for vm in sorted(by_vm, key=lambda vm: not vm):
        cures = tuple((remedy, tuple(cured)) for remedy, cured in by_vm[vm].items())
        yield Group(vm or _ON_HOST, cures)


def status_of(judgement: Judgement) -> Status:
    """Unknown when a source could not be read, or nothing found but not all looked at."""
    if any(reading.value is None for reading in judgement.snapshot.readings().values()):
        return Status.UNKNOWN
    if judgement.findings:
        return Status.DRIFT
    return Status.UNKNOWN if any(_gaps(judgement)) else Status.CLEAN


def _gaps(judgement: Judgement) -> Iterator[str]:
    """Say what was not looked at although its source could be read."""
    for name, reading in judgement.snapshot.readings().items():
        left_out = reading.value.left_out if reading.value else Leftouts()
        if left_out.limit:
            yield f"{name}: {left_out.limit} left out, beyond --collect.max-vms"
        if left_out.unreadable:
            yield f"{name}: {left_out.unreadable} could not be read"
    if judgement.unconfirmed:
        yield "systemd: jobs are pending, what they change is not counted yet"


def render_json(judgement: Judgement) -> str:
    """Give the report as JSON."""
    report: Report = {
        "version": 1,
        "status": status_of(judgement),
        "counts": asdict(count(judgement)),
        "collectors": _collectors(judgement),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "vm": finding.vm,
                "object": printable(finding.object),
                "summary": finding.summary,
                "remedy": "\n".join(finding.remedy),
            }
            for finding in judgement.findings
        ],
    }
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def render_text(judgement: Judgement, *, colour: bool) -> str:
    """Give the report for a terminal: a headline, then the findings VM by VM."""
    paint = _paint if colour else _plain
    lines = [paint(_BOLD, headline(judgement)), ""]
    for name, value in asdict(count(judgement)).items():
        lines.append(f"  {COUNT_NAMES[name]:<24}{'unknown' if value is None else value:>7}")
    for name, collector in _collectors(judgement).items():
        if not collector["success"]:
            lines += ["", *_note(paint, "1;31", f"could not read {name}", collector["error"] or "")]
    for gap in _gaps(judgement):
        lines += ["", *_note(paint, "33", "not looked at", gap)]
    for group in groups(judgement.findings):
        lines += ["", paint(_BOLD, group.title), *_describe(group, paint)]
    return "\n".join(lines) + "\n"


def headline(judgement: Judgement) -> str:
    """Say in one sentence what the look came to."""
    findings = judgement.findings
    unread = sum(reading.value is None for reading in judgement.snapshot.readings().values())
    suffix = f" {unread} of {len(Collector)} sources could not be read." if unread else ""
    if not findings:
        if unread:
            return "Unknown:" + suffix
        if any(_gaps(judgement)):
            return "No drift in what could be looked at."
        return "No drift: what is there is what is declared."
    by_severity = [
        f"{n} {severity}"
        for severity in Severity
        if (n := sum(finding.severity is severity for finding in findings))
    ]
    vms = {finding.vm for finding in findings} - {""}
    where = f" on {len(vms)} {'MicroVM' if len(vms) == 1 else 'MicroVMs'}" if vms else ""
    return f"{len(findings)} {_plural(findings)}{where}: {', '.join(by_severity)}.{suffix}"


def _plural(findings: Sequence[Finding]) -> str:
    return "finding" if len(findings) == 1 else "findings"


def _note(paint: Paint, colour: str, label: str, text: str) -> Iterator[str]:
    first, *rest = _fold(f"{label}: {text}", indent=2)
    yield paint(colour, label) + first.removeprefix(label)
    yield from (f"  {line}" for line in rest)


def _describe(group: Group, paint: Paint) -> Iterator[str]:
    for remedy, findings in group.cures:
        for finding in findings:
            yield from _say(finding, paint)
        yield from (f"{'':14}{line}" for line in remedy)


def _say(finding: Finding, paint: Paint) -> Iterator[str]:
    first, *rest = _fold(f"{finding.kind}: {finding.summary}", indent=12)
    yield f"  {paint(_COLOURS[finding.severity], f'{finding.severity:<8}')}  {first}"
    yield from (f"{'':12}{line}" for line in rest)


def _fold(text: str, *, indent: int) -> list[str]:
    """Break between words alone: a path or a name stays whole."""
    return textwrap.wrap(text, _COLUMNS - indent, break_long_words=False, break_on_hyphens=False)


def _collectors(judgement: Judgement) -> dict[str, CollectorReport]:
    return {
        name: {
            "success": reading.value is not None,
            "error": None if reading.error is None else printable(reading.error),
        }
        for name, reading in judgement.snapshot.readings().items()
    }


def _paint(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _plain(_: str, text: str) -> str:
    return text
