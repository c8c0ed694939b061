"""The page for people at ``/``: what the last look came to, and where the metrics are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from typing import Final

from microvm_exporter import __version__
from microvm_exporter.counts import count
from microvm_exporter.drift import Judgement
from microvm_exporter.model import Collector
from microvm_exporter.report import COUNT_NAMES, headline
from microvm_exporter.text import printable

__all__ = ["render_page"]

_MOST_FINDINGS: Final = 200
"""Rows of the table; the metrics and `check` have them all."""

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
dl { display: flex; flex-wrap: wrap; gap: 1rem; }
dl div { border: 1px solid #8886; border-radius: .5rem; padding: .5rem 1rem; }
dd { margin: 0; font-size: 1.75rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
  border-top: 1px solid #8884; }
td { overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; font-size: .85rem; }
.critical, .failed { color: #c4162a; font-weight: 600; }
.warning { color: #a35200; font-weight: 600; }
.info { color: #1f60c4; }
@media (prefers-color-scheme: dark) {
  .critical, .failed { color: #ff7383; } .warning { color: #ff9830; } .info { color: #8ab8ff; }
}
"""


def render_page(judgement: Judgement, telemetry_path: str) -> str:
    """Give the page as HTML; everything that comes from the host is escaped."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><title>microvm-exporter</title>',
            '<meta name="viewport" content="width=device-width">',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{escape(headline(judgement))}</h1>",
            "<dl>",
            *_counts(judgement),
            "</dl>",
            *_failures(judgement),
            *_findings(judgement),
            f'<p><a href="{escape(telemetry_path)}">Metrics</a> · microvm-exporter {__version__} · '
            f"looked at {_utc(judgement.snapshot.taken_at)}</p>",
            "</body></html>",
            "",
        ]
    )


def _counts(judgement: Judgement) -> Iterator[str]:
    for name, value in asdict(count(judgement)).items():
        shown = "unknown" if value is None else value
        yield f"<div><dt>{COUNT_NAMES[name]}</dt><dd>{shown}</dd></div>"


def _failures(judgement: Judgement) -> Iterator[str]:
    for name in Collector:
        error = judgement.snapshot.readings()[name].error
        if error is not None:
            yield (
                f'<p><span class="failed">could not read {name}</span>: '
                f"{escape(printable(error))}</p>"
            )


def _findings(judgement: Judgement) -> Iterator[str]:
    findings = judgement.findings
    if not findings:
        return
    columns = ("severity", "MicroVM", "kind", "what, and what to do")
    yield f"<table><tr>{''.join(f'<th>{column}</th>' for column in columns)}</tr>"
    for finding in findings[:_MOST_FINDINGS]:
        remedy = escape("\n".join(finding.remedy))
        yield (
            f'<tr><td class="{finding.severity}">{finding.severity}</td>'
            f"<td>{escape(finding.vm)}</td><td>{finding.kind}</td>"
            f"<td>{escape(finding.summary)}<pre>{remedy}</pre></td></tr>"
        )
    yield "</table>"
    if len(findings) > _MOST_FINDINGS:
        yield f"<p>… and {len(findings) - _MOST_FINDINGS} more: microvm-exporter check</p>"


def _utc(timestamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(timestamp))
