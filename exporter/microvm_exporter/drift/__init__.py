"""The drift model: what is declared compared with what is there. Pure; it looks at nothing."""

from microvm_exporter.drift.judge import RULES, Judgement, Memory, judge
from microvm_exporter.drift.kinds import SEVERITIES, Finding, Kind, Severity

__all__ = ["RULES", "SEVERITIES", "Finding", "Judgement", "Kind", "Memory", "Severity", "judge"]
