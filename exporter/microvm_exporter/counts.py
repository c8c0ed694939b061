"""The four headline numbers, counted once for metrics, report and page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from microvm_exporter.drift import Judgement, Kind
from microvm_exporter.model import Collector, Template, parse_unit_name

__all__ = ["Counts", "count", "failed_checks_by_template"]


@dataclass(frozen=True, slots=True)
class Counts:
    """None stands for unknown: a source that the number needs could not be read."""

    declared_vms: int | None
    present_units: int | None
    failed_condition_checks: int | None
    stray_tap_devices: int | None


def count(judgement: Judgement) -> Counts:
    """Count what the judgement's host shows."""
    host = judgement.host
    checks = failed_checks_by_template(judgement)
    return Counts(
        declared_vms=(len(host.declaration.vms) if Collector.DECLARATION in host.sources else None),
        present_units=len(host.units.units) if Collector.SYSTEMD in host.sources else None,
        failed_condition_checks=None if checks is None else sum(checks.values()),
        stray_tap_devices=_of_kind(judgement, Kind.STRAY_TAP),
    )


def failed_checks_by_template(judgement: Judgement) -> Mapping[Template, int] | None:
    """Count the units whose last start was wrongly skipped; every template has a number."""
    if Kind.CONDITION_UNMET not in judgement.judged:
        return None
    units = (f.object for f in judgement.findings if f.kind is Kind.CONDITION_UNMET)
    found = Counter(parsed[0] for unit in units if (parsed := parse_unit_name(unit)))
    return {template: found[template] for template in Template}


def _of_kind(judgement: Judgement, kind: Kind) -> int | None:
    if kind not in judgement.judged:
        return None
    return sum(finding.kind is kind for finding in judgement.findings)
