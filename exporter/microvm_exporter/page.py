"""The page for people at ``/``: what the last look came to, and where the metrics are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from typing import Final

from microvm_exporter import __version__
from microvm_exporter.counts import count
from microvm_exporter.drift import Finding, Judgement
from microvm_exporter.model import Collector
from microvm_exporter.report import COUNT_NAMES, groups, headline
from microvm_exporter.text import printable

__all__ = ["render_page"]

_MOST_FINDINGS: Final = 200
"""What a page can hold; the metrics and `check` have them all."""

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
dl { display: flex; flex-wrap: wrap; gap: 1rem; }
dl div, section { border: 1px solid #8886; border-radius: .5rem; padding: .5rem 1rem; }
dd { margin: 0; font-size: 1.75rem; }
section { margin: 1rem 0; padding: .75rem 1rem; }
section p { margin: .5rem 0 .25rem; }
code, pre { font-size: .85rem; }
pre { margin: .25rem 0 .75rem; padding: .5rem .75rem; white-space: pre-wrap; background: #8882; }
b { border-radius: .25rem; padding: .1rem .4rem; color: #fff; font-size: .8rem; }
.critical, .failed { background: #b3261e; } .warning { background: #8a4b00; }
.info { background: #1f60c4; }
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
            f"looked at {_utc(judgement.snapshot.taken_at)} · {_following(judgement)}</p>",
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
            yield (f'<p><b class="failed">could not read {name}</b> {escape(printable(error))}</p>')


def _following(judgement: Judgement) -> str:
    readings = judgement.snapshot.readings()
    followed = [name for name, reading in readings.items() if reading.following.active]
    polled = [name for name in readings if name not in followed]
    says = [f"follows {', '.join(followed)}"] if followed else []
    says += [f"looks at {', '.join(polled)} each interval"] if polled else []
    return "; ".join(says)


def _findings(judgement: Judgement) -> Iterator[str]:
    findings = judgement.findings
    for group in groups(findings[:_MOST_FINDINGS]):
        yield f"<section><h2>{escape(group.title)}</h2>"
        for remedy, cured in group.cures:
            yield from map(_finding, cured)
            yield f"<pre>{escape(chr(10).join(remedy))}</pre>"
        yield "</section>"
    if len(findings) > _MOST_FINDINGS:
        yield f"<p>… and {len(findings) - _MOST_FINDINGS} more: microvm-exporter check</p>"


def _finding(finding: Finding) -> str:
    return (
        f'<p><b class="{finding.severity}">{finding.severity}</b> <code>{finding.kind}</code> '
        f"{escape(finding.summary)}</p>"
    )


def _utc(timestamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(timestamp))
