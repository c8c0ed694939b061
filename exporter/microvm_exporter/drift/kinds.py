"""The kinds of drift and what a finding is: the words that metrics and report share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from microvm_exporter.text import printable

__all__ = ["SEVERITIES", "Finding", "Key", "Kind", "Severity", "finding_order", "found"]


class Severity(StrEnum):
    """How much a finding matters, worst first."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Kind(StrEnum):
    """Each way in which what is declared and what is there can differ."""

    UNDECLARED_RUNNING = "undeclared_running"
    UNDECLARED_UNIT = "undeclared_unit"
    UNDECLARED_STATE = "undeclared_state"
    ORIGIN_UNKNOWN = "origin_unknown"
    MISSING_UNIT = "missing_unit"
    MISSING_STATE = "missing_state"
    NOT_RUNNING = "not_running"
    UNIT_FAILED = "unit_failed"
    CONDITION_UNMET = "condition_unmet"
    WOULD_NOT_START = "would_not_start"
    RESTART_PENDING = "restart_pending"
    OUTDATED = "outdated"
    DANGLING_LINK = "dangling_link"
    HELPER_WITHOUT_VM = "helper_without_vm"
    MISSING_INTERFACE = "missing_interface"
    STRAY_TAP = "stray_tap"
    STRAY_MACVTAP = "stray_macvtap"
    RESIDUAL_UNIT_FILE = "residual_unit_file"
    UNUSED_TEMPLATE = "unused_template"
    DAEMON_RELOAD_NEEDED = "daemon_reload_needed"


SEVERITIES: Final = {
    Kind.UNDECLARED_RUNNING: Severity.WARNING,
    Kind.UNDECLARED_UNIT: Severity.INFO,
    Kind.UNDECLARED_STATE: Severity.INFO,
    Kind.ORIGIN_UNKNOWN: Severity.INFO,
    Kind.MISSING_UNIT: Severity.CRITICAL,
    Kind.MISSING_STATE: Severity.CRITICAL,
    Kind.NOT_RUNNING: Severity.CRITICAL,
    Kind.UNIT_FAILED: Severity.WARNING,
    Kind.CONDITION_UNMET: Severity.WARNING,
    Kind.WOULD_NOT_START: Severity.WARNING,
    Kind.RESTART_PENDING: Severity.INFO,
    Kind.OUTDATED: Severity.WARNING,
    Kind.DANGLING_LINK: Severity.WARNING,
    Kind.HELPER_WITHOUT_VM: Severity.WARNING,
    Kind.MISSING_INTERFACE: Severity.CRITICAL,
    Kind.STRAY_TAP: Severity.WARNING,
    Kind.STRAY_MACVTAP: Severity.WARNING,
    Kind.RESIDUAL_UNIT_FILE: Severity.INFO,
    Kind.UNUSED_TEMPLATE: Severity.INFO,
    Kind.DAEMON_RELOAD_NEEDED: Severity.INFO,
}
"""The severity of each kind; `CONDITION_UNMET` is critical where it kept ``microvm@`` down."""


Key = tuple[Kind, str, str]
"""Kind, VM and object: what makes two findings the same."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between what is declared and what is there.

    ``vm`` is empty when it belongs to no VM. ``object`` is the unit, path, device or template it
    was found on. ``summary`` is one sentence; ``remedy`` are lines for a shell, with what needs a
    human's decision as comments.
    """

    kind: Kind
    severity: Severity
    vm: str
    object: str
    summary: str
    remedy: tuple[str, ...]

    @property
    def key(self) -> Key:
        """What makes it the same finding as another, whatever is said of it."""
        return (self.kind, self.vm, self.object)


def found(kind: Kind, vm: str, thing: str, summary: str, remedy: Iterable[str]) -> Finding:
    """Make a finding of the kind's own severity, its texts made printable."""
    return Finding(kind, SEVERITIES[kind], vm, thing, printable(summary), tuple(remedy))


_RANK: Final = {severity: rank for rank, severity in enumerate(Severity)}


def finding_order(finding: Finding) -> tuple[int, str, str, str]:
    """Sort key: severity (worst first), kind, VM, object."""
    return (_RANK[finding.severity], finding.kind, finding.vm, finding.object)
