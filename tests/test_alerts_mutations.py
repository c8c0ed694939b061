"""The tests of the alerts bite: whatever is taken out of an alert, its own tests notice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from host.service import missing
from microvm_alerts.__main__ import RULES_FILE
from promtool import TESTS, run_tests

pytestmark = pytest.mark.skipif(bool(missing("promtool")), reason=str(missing("promtool")))

Rule = dict[str, Any]

GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES_FILE.read_text())["groups"]
ALERTS = sorted({rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule})
UNTOUCHABLE = {"MicrovmWatchdog"}
"""A constant has nothing to take out."""

COMPARISON = re.compile(r"(==|>=|<=|<|>)(?= )")
BOUND = re.compile(r"\s*(?:==|>=|<=|<|>) [0-9.]+$", re.MULTILINE)
NEXT = {"==": "!=", ">=": ">", "<=": "<", ">": ">=", "<": "<="}


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_is_noticed_to_have_changed(alert: str, tmp_path: Path) -> None:
    mutants = {
        f"{number} {what}": mutant
        for number, rule in enumerate(own_rules(alert))
        for what, mutant in mutations(rule)
    }
    assert mutants or alert in UNTOUCHABLE
    files = {
        write(tmp_path, str(number), alert, mutant): what
        for number, (what, mutant) in enumerate({"as it is": {}, **mutants}.items())
    }
    said = run_tests(list(files))
    survivors = [files[path] for path, text in said.items() if not text]
    assert survivors == ["as it is"]
    assert not [text for text in said.values() if "parse" in text]


def own_rules(alert: str) -> list[Rule]:
    return [rule for group in GROUPS for rule in group["rules"] if rule.get("alert") == alert]


def mutations(rule: Rule) -> Iterator[tuple[str, Mapping[str, Rule]]]:
    """Each with what was done; the rule that it replaces is known by its own identity."""
    key = identity(rule)
    for field in ("for", "keep_firing_for"):
        if field in rule:
            yield f"without {field}", {key: {k: v for k, v in rule.items() if k != field}}
    for what, expr in changed_exprs(rule["expr"]):
        yield what, {key: {**rule, "expr": expr}}


def changed_exprs(expr: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"\b(by|on) \(([^)]*)\)", expr):
        clause, labels = match[1], match[2].split(", ")
        for label in labels:
            if (clause, label) == ("on", "job"):
                continue  # the selector leaves one job on both sides
            rest = ", ".join(one for one in labels if one != label)
            where = f"{clause} at {match.start()}"
            yield f"{where} without {label}", replace(expr, match, f"{clause} ({rest})")
    for match in COMPARISON.finditer(expr):
        other = NEXT[match[1]]
        yield f"{match[1]} at {match.start()} as {other}", replace(expr, match, other)
    for match in BOUND.finditer(expr):
        yield f"without {match[0].strip()}", replace(expr, match, "")
    for match in re.finditer(r"\b(and|unless) on\b", expr):
        other = "unless" if match[1] == "and" else "and"
        yield f"{other} at {match.start()}", replace(expr, match, f"{other} on")
    for match in re.finditer(r'(?:, )?(?:kind|severity)!?="\w+"', expr):
        yield f"without {match[0]}", replace(expr, match, "")
    if 'job="microvm"' in expr:
        yield "of any job", re.sub(r'job="microvm"(?:, )?', "", expr)
    for match in re.finditer(r"last_over_time\(([^[]*)\[\w+\]\)", expr):
        yield f"without looking back at {match.start()}", replace(expr, match, match[1])


def replace(text: str, match: re.Match[str], by: str) -> str:
    return text[: match.start()] + by + text[match.end() :]


def needed_rules(alert: str) -> list[Rule]:
    records = [rule for group in GROUPS for rule in group["rules"] if "record" in rule]
    needed = own_rules(alert)
    for rule in needed:  # grows meanwhile
        needed += [one for one in records if one["record"] in rule["expr"] and one not in needed]
    return needed


def identity(rule: Rule) -> str:
    return f"{rule.get('alert', rule.get('record'))} {rule.get('labels', {}).get('severity', '')}"


def write(folder: Path, name: str, alert: str, mutant: Mapping[str, Rule]) -> Path:
    """The alert's tests on a rule file of the alert alone, mutated, and what it is recorded of."""
    needed = needed_rules(alert)
    groups = [
        {
            **group,
            "rules": [
                mutant.get(identity(rule), rule) for rule in group["rules"] if rule in needed
            ],
        }
        for group in GROUPS
    ]
    rules = folder / f"{name}.rules.yml"
    rules.write_text(yaml.safe_dump({"groups": groups}))
    tests = folder / f"{name}.yml"
    text = (TESTS / f"{alert}.yml").read_text()
    tests.write_text(text.replace("../microvm.rules.yml", str(rules)))
    return tests
