"""The runbooks: a page an alert, its links, queries and words. `test_runbooks_host` runs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from host.examples import RULES
from host.nspawn import CHECKOUT
from microvm_exporter.metrics import METRICS
from promtool import run_promtool
from runbook_pages import RUNBOOKS, Page
from tools import tool

HEADINGS: Final = ("Meaning", "Impact", "Diagnosis", "Mitigation")
SHARED: Final = ("README", "background")

_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_ROW: Final = re.compile(r"^\| \[(\w+)\]\((\w+)\.md\) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def rules(kind: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def severities() -> dict[str, set[str]]:
    """The severities of each alert: most have one."""
    found: dict[str, set[str]] = {}
    for rule in rules("alert"):
        found.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    return found


ALERTS: Final = sorted(severities())
PAGES: Final = sorted(path.stem for path in RUNBOOKS.glob("*.md"))


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    assert sorted({*ALERTS, *SHARED}) == PAGES
    for rule in rules("alert"):
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md")


@pytest.mark.parametrize("name", ALERTS)
def test_page_says_what_to_do_first_and_has_the_headings(name: str) -> None:
    page = Page.read(name)
    assert page.text.startswith(f"# {name}\n\n**First:** ")
    assert re.findall(r"^## (.*)$", page.text, re.MULTILINE) == list(HEADINGS)
    assert all(page.section(heading).strip() for heading in HEADINGS)


def test_index_has_each_alert_once_with_its_severities_and_a_line() -> None:
    rows = _ROW.findall(Page.read("README").text)
    assert sorted(name for name, _, _, _ in rows) == ALERTS
    assert all(name == target and line.strip() for name, target, _, line in rows)
    words = r"critical|warning|info|none"
    assert {name: set(re.findall(words, cell)) for name, _, cell, _ in rows} == severities()


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for link in _LINK.findall(Page.read(name).text):
        path, _, anchor = link.partition("#")
        target = (RUNBOOKS / path).resolve() if path else RUNBOOKS / f"{name}.md"
        assert target.exists(), link
        if anchor:
            assert anchor in Page(name, target.read_text()).anchors(), link


@pytest.mark.parametrize("name", PAGES)
def test_no_page_deletes_a_directory(name: str) -> None:
    """An alert may be old: ``check`` judges anew, and prints what deletes what is still drift."""
    assert not re.search(r"\brm -\w*r", Page.read(name).text)


def test_queries_parse_and_know_their_metrics(tmp_path: Path) -> None:
    queries = [query for name in PAGES for query in Page.read(name).blocks("promql")]
    assert len(queries) > 10
    document = {"name": "runbooks", "rules": [{"record": "a", "expr": query} for query in queries]}
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [document]}))
    tool("promtool")
    done = run_promtool("check", "rules", "--lint=none", file)
    assert done.returncode == 0, done.stdout
    known = {metric.name for metric in METRICS} | {rule["record"] for rule in rules("record")}
    named = set(re.findall(r"[\w:]*microvm_\w+[\w:]*|\bjob:\w+:\w+", "\n".join(queries)))
    assert named <= known


def test_errors_in_the_page_of_a_failed_collector_are_those_of_the_code() -> None:
    """``…`` stands for a value. What begins with FILE is put together of many parts."""
    sources = [path.read_text() for path in (CHECKOUT / "exporter").rglob("*.py")]
    table = re.findall(r"^\| (`[^|]*`) \|", Page.read("MicrovmCollectorFailed").text, re.MULTILINE)
    errors = [error for cell in table for error in re.findall(r"`([^`]+)`", cell)]
    assert len(errors) > 10
    for error in errors:
        if not error.startswith("FILE"):
            assert any(
                all(part.strip() in source for part in error.split("…")) for source in sources
            ), error
