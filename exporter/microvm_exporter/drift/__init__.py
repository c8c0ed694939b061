"""The drift model: what is declared compared with what is there. Pure; it looks at nothing."""

from microvm_exporter.drift.judge import Judgement, judge
from microvm_exporter.drift.kinds import SEVERITIES, Finding, Kind, Severity
from microvm_exporter.drift.rules import RULES

__all__ = ["RULES", "SEVERITIES", "Finding", "Judgement", "Kind", "Severity", "judge"]
