"""What Prometheus makes of a history with the rules: recorded series and alerts.

``promtool test rules`` evaluates rules on samples of any time, group by group and step by step, as
Prometheus does while it runs: rules that go by what they recorded before, ``for``,
``keep_firing_for`` and staleness are all its own. Asked at each step for everything that the rules
have made, and told to expect nothing, it reports what there is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from host.nspawn import CHECKOUT
from host.service import TOOLS
from microvm_simulator.samples import Samples

__all__ = ["RULES", "Span", "evaluate"]

RULES: Final = CHECKOUT / "alerts" / "microvm.rules.yml"

_MADE_BY_RULES: Final = '{__name__=~"ALERTS|ALERTS_FOR_STATE|.+:.+"}'

_INTERVAL: Final = 60  # the default of evaluation_interval

# To promtool the first step is second 0 of all time. What tells a time is told by that as well.
_TIMES: Final = (b"_timestamp_seconds", b"_start_time_seconds", b":last_seen", b"ALERTS_FOR_STATE")

_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_SAMPLE: Final = re.compile(
    rf'\{{__name__="(?P<name>[^"]+)"(?P<labels>(?:, \w+={_QUOTED})*)\}} (?P<value>[^ ,\n]+)'
)
_LABEL: Final = re.compile(rf"\w+={_QUOTED}")
_STEP: Final = re.compile(r"^ +expr: .*, time: (\S+),$", re.MULTILINE)
_GOT: Final = re.compile(r"^ +got: ?(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Span:
    """The steps of a history: Unix times in seconds, both ends belong to it."""

    begin: int
    end: int
    step: int

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.begin, self.end + 1, self.step))


def evaluate(rules: Path, samples: Samples, span: Span) -> list[tuple[bytes, int, float]]:
    """Give series, time and value of all that the rules make of the samples, once a minute."""
    with tempfile.TemporaryDirectory() as scratch:
        test = Path(scratch) / "history.test.yml"
        test.write_text(json.dumps(_test(rules, samples, span)))
        command = [str(TOOLS / "promtool"), "test", "rules", str(test)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "GOGC": "400"}
        )
    report = done.stderr + done.stdout
    found = list(_read(report, span))
    if not found:
        raise ValueError(f"promtool evaluated nothing:\n{report[:2000]}")
    return found


def _test(rules: Path, samples: Samples, span: Span) -> dict[str, object]:
    mentioned = rules.read_text()
    steps = [
        {"expr": _MADE_BY_RULES, "eval_time": f"{at - span.begin}s", "exp_samples": []}
        for at in range(span.begin, span.end + 1, _INTERVAL)
    ]
    series = [
        {"series": name.decode(), "values": _values(name, values, span)}
        for name, values in samples.items()
        if name.partition(b"{")[0].decode() in mentioned
    ]
    test = {"interval": f"{span.step}s", "input_series": series, "promql_expr_test": steps}
    return {
        "rule_files": [str(rules)],
        "evaluation_interval": f"{_INTERVAL}s",
        "tests": [test],
    }


def _values(name: bytes, values: dict[int, bytes], span: Span) -> str:
    """Write values as promtool takes them: a marker where a series ends, a gap after that."""
    shift = span.begin if name.partition(b"{")[0].endswith(_TIMES) else 0
    told, there = [], False
    for at in span:
        value = values.get(at)
        if value is not None:
            told.append(f"{float(value) - shift:f}" if shift else value.decode())
        else:
            told.append("stale" if there else "_")
        there = value is not None
    return " ".join(told)


def _read(report: str, span: Span) -> Iterator[tuple[bytes, int, float]]:
    steps, found = _STEP.findall(report), _GOT.findall(report)
    for step, got in zip(steps, found, strict=True):
        at = span.begin + _seconds(step)
        for sample in _SAMPLE.finditer(got):
            name = sample["name"].encode()
            labels = ",".join(_LABEL.findall(sample["labels"]))
            value = float(sample["value"]) + (span.begin if name.endswith(_TIMES) else 0)
            yield name + b"{" + labels.encode() + b"}", at, value


def _seconds(duration: str) -> int:
    """Read Go's ``1h2m30s``."""
    parts = re.findall(r"(\d+)([hms])", duration)
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)
