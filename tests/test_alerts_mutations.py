"""The tests of the rules bite: whatever is taken out of a rule, its own tests notice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from host.service import missing
from microvm_alerts.__main__ import RULES_FILE
from microvm_alerts.drift import LAST_SEEN
from promtool import TESTS, run_tests

pytestmark = pytest.mark.skipif(bool(missing("promtool")), reason=str(missing("promtool")))

Rule = dict[str, Any]

GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES_FILE.read_text())["groups"]
ALERTS = sorted({rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule})
RULES_OF_RECORDS = [rule for group in GROUPS for rule in group["rules"] if "record" in rule]
RECORDS = [rule["record"] for rule in RULES_OF_RECORDS if rule["record"] != LAST_SEEN]
UNTOUCHABLE = {"MicrovmWatchdog"}
"""A constant has nothing to take out."""

# A time is hit to the second by chance only; that it is a bound shows a_day.yml.
COMPARISON = re.compile(r"(==|>=|<=|<|>)(?= )(?! time\(\))")
BOUND = re.compile(r"\s*(?:==|>=|<=|<|>) [0-9.]+(?=\)?$)", re.MULTILINE)
NEXT = {"==": "!=", ">=": ">", "<=": "<", ">": ">=", "<": "<="}


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_is_noticed_to_have_changed(alert: str, tmp_path: Path) -> None:
    assert_noticed(alert, tmp_path, f"{alert}.yml", needed_rules(alert))


@pytest.mark.parametrize("record", RECORDS)
def test_recorded_series_is_noticed_to_have_changed(record: str, tmp_path: Path) -> None:
    assert_noticed(record, tmp_path, "recording.yml", RULES_OF_RECORDS)


def test_what_is_kept_of_findings_is_noticed_to_have_changed(tmp_path: Path) -> None:
    needed = [*needed_rules("MicrovmStrayTap"), *needed_rules("MicrovmNotRunning")]
    assert_noticed(LAST_SEEN, tmp_path, "last_seen.yml", needed)


def assert_noticed(name: str, folder: Path, tests: str, needed: list[Rule]) -> None:
    mutants = {
        f"{number} {what}": mutant
        for number, rule in enumerate(own_rules(name))
        for what, mutant in mutations(rule)
    }
    assert mutants or name in UNTOUCHABLE
    files = {
        write(folder, str(number), tests, needed, mutant): what
        for number, (what, mutant) in enumerate({"as it is": {}, **mutants}.items())
    }
    said = run_tests(list(files))
    survivors = [files[path] for path, text in said.items() if not text]
    assert survivors == ["as it is"]
    assert not [text for text in said.values() if "parse" in text]


def own_rules(name: str) -> list[Rule]:
    return [rule for group in GROUPS for rule in group["rules"] if name_of(rule) == name]


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
    for match in re.finditer(r'(?:, )?(?:kind|severity|alertstate)!?="\w+"', expr):
        yield f"without {match[0]}", replace(expr, match, "")
    if 'job="microvm"' in expr:
        yield "of any job", re.sub(r'job="microvm"(?:, )?', "", expr)
    for match in re.finditer(r"(?:last|min)_over_time\(([^[]*)\[\w+\]( offset \w+)?\)", expr):
        at_once = match[1] + (match[2] or "")
        yield f"without looking back at {match.start()}", replace(expr, match, at_once)


def replace(text: str, match: re.Match[str], by: str) -> str:
    return text[: match.start()] + by + text[match.end() :]


def needed_rules(alert: str) -> list[Rule]:
    """With the series that they look at, and the alerts by which these hold a kind."""
    rules = [rule for group in GROUPS for rule in group["rules"]]
    needed = own_rules(alert)
    for rule in needed:  # grows meanwhile
        kinds = re.findall(r' kind="\w+"', rule["expr"])
        needed += [
            one
            for one in rules
            if one not in needed
            and (
                one.get("record", "no record") in rule["expr"]
                or any(k in one["expr"] for k in kinds)
            )
        ]
    return needed


def name_of(rule: Rule) -> str:
    return str(rule.get("alert") or rule["record"])


def identity(rule: Rule) -> str:
    return f"{name_of(rule)} {rule.get('labels', {}).get('severity', '')}"


def write(
    folder: Path, name: str, source: str, needed: list[Rule], mutant: Mapping[str, Rule]
) -> Path:
    """The tests on a rule file of the needed rules alone, one of them mutated."""
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
    text = (TESTS / source).read_text()
    tests.write_text(text.replace("../microvm.rules.yml", str(rules)))
    return tests
