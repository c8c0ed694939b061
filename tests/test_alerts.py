"""The rule file: it is what the settings make, it loads, and it says what it should."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from host.prometheus import Prometheus
from host.service import missing
from microvm_alerts.__main__ import RULES_FILE, make_rules
from microvm_alerts.drift import alert_name
from microvm_alerts.settings import Settings, SettingsError, read_settings
from microvm_exporter.drift import SEVERITIES, Kind
from microvm_exporter.metrics import METRICS
from promtool import TESTS, run_promtool, run_tests

needs_tools = pytest.mark.skipif(
    bool(missing("promtool", "prometheus")), reason=str(missing("promtool", "prometheus"))
)

GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES_FILE.read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDS = [rule["record"] for rule in RULES if "record" in rule]
OF_PROMETHEUS = {"up", "ALERTS", "scrape_samples_post_metric_relabeling"}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group["name"])
def test_what_looks_far_back_is_evaluated_once_a_minute(group: dict[str, Any]) -> None:
    looks_back = {
        match[0]
        for rule in group["rules"]
        for match in re.finditer(r"[\w:]+\{[^}]*\}\[(?:1d|30m)\]", rule["expr"])
    }
    assert ("interval" in group) == bool(looks_back), looks_back


def test_file_is_what_the_settings_make() -> None:
    assert RULES_FILE.read_text() == make_rules(Settings()), "make alerts"


@needs_tools
def test_promtool_has_nothing_to_say() -> None:
    check = run_promtool("check", "rules", "--lint=all", "--lint-fatal", RULES_FILE)
    assert check.returncode == 0, check.stdout


@needs_tools
def test_tests_of_the_alerts_hold() -> None:
    said = run_tests(sorted(TESTS.glob("*.yml")))
    assert not [text for text in said.values() if text]


def test_each_alert_has_tests() -> None:
    assert {rule["alert"] for rule in ALERTS} <= {path.stem for path in TESTS.glob("*.yml")}


@pytest.mark.parametrize("kind", Kind)
def test_kind_has_its_alert_in_the_exporters_severity(kind: Kind) -> None:
    severities = {r["labels"]["severity"] for r in ALERTS if r["alert"] == alert_name(kind)}
    both = {"critical", "warning"}
    assert severities == (both if kind is Kind.CONDITION_UNMET else {str(SEVERITIES[kind])})


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert_is_complete(rule: dict[str, Any]) -> None:
    annotations = {"summary", "description", "runbook_url", "dashboard_url"}
    is_drift = rule["alert"] in map(alert_name, Kind)
    assert set(rule["annotations"]) == annotations | ({"remedy"} if is_drift else set())
    assert ("for" in rule) == (rule["alert"] != "MicrovmWatchdog")
    assert not re.search(r"\brm\b|delete dev", rule["annotations"].get("remedy", ""))


def test_expressions_name_what_exists() -> None:
    known = {metric.name for metric in METRICS} | set(RECORDS) | OF_PROMETHEUS
    named = {name for rule in RULES for name in re.findall(r"([a-zA-Z_:][\w:]*)\{", rule["expr"])}
    assert named <= known
    assert all("{" in rule["expr"] for rule in RULES if rule.get("alert") != "MicrovmWatchdog")


@needs_tools
def test_prometheus_loads_it() -> None:
    config = json.dumps({"rule_files": [str(RULES_FILE)]})
    with Prometheus(config) as prometheus:
        groups = prometheus.api("rules")["groups"]
    assert sum(len(group["rules"]) for group in groups) == len(RULES)


@needs_tools
def test_command_uses_the_settings_of_a_file(tmp_path: Path) -> None:
    settings, output = tmp_path / "settings.json", tmp_path / "rules.yml"
    values = {
        "selector": 'job="vms", env=~"prod|stage"',
        "cluster_label": "site",
        "grafana_url": "https://grafana.example/",
        "time_scale": 0.01,
        "for_warning": "30m",
    }
    settings.write_text(json.dumps(values))
    run = [sys.executable, "-m", "microvm_alerts", f"--settings={settings}", f"--output={output}"]
    subprocess.run(run, check=True, env={"PYTHONPATH": str(RULES_FILE.parent)})
    text = output.read_text()
    assert "site, job" in text
    assert 'job="microvm"' not in text
    assert "var-cluster" not in text, "a dashboard would look for a label that no series has"
    assert "https://grafana.example/d/microvm-vm?" in text
    assert {r["for"] for r in yaml.safe_load(text)["groups"][1]["rules"][1:]} == {
        "3s",
        "18s",
        "36s",
    }
    assert run_promtool("check", "rules", "--lint=all", "--lint-fatal", output).returncode == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"job": "x"}', "job: expected one of selector, cluster_label, "),
        (
            '{"for_info": "5 min"}',
            'for_info: expected a duration such as 5m or 1h30m, found "5 min"',
        ),
        ('{"selector": "microvm"}', "selector: expected matchers with the job among them"),
        ('{"selector": "job=~\\"a|b\\""}', "selector: expected matchers with the job among them"),
        ('{"time_scale": 0}', "time_scale: expected a number above 0, and at most 1000, found 0"),
        ('{"host_down_vms": 1.5}', "host_down_vms: expected a whole number above 0, found 1.5"),
        ('{"host_down_ratio": true}', "host_down_ratio: expected a number above 0, and at most 1"),
        ('{"grafana_url": "grafana"}', "grafana_url: expected a URL that starts with http://"),
        (
            '{"cluster_label": "vm"}',
            'cluster_label: expected the name of a label that no alert has otherwise, found "vm"',
        ),
        (
            '{"declared_dropped_ratio": 1}',
            "declared_dropped_ratio: expected a number above 0, and below 1, found 1",
        ),
        (
            '{"linger": "10m", "for_critical": "30m"}',
            'linger: expected less than half of for_warning (15m), found "10m": else what was seen',
        ),
        (
            '{"for_critical": "4m"}',
            'linger: expected less than half of for_critical (4m), found "2m": else what was seen',
        ),
        ('{"scrape_gap": "15m"}', "scrape_gap: expected less than for_warning (15m)"),
        (
            '{"history": "1h"}',
            'for_info: expected less than history (1h), found "1h": else missed changes would',
        ),
        ('{"history": "10m"}', "for_warning: expected less than history (10m)"),
        ('{"remember": "10m"}', "forget_gone: expected at most remember (10m)"),
        (
            '{"restart_loop_pause": "31m"}',
            'restart_loop_pause: expected at most restart_loop_window (30m), found "31m": a loop',
        ),
        ("[]", "expected an object, found an array"),
        ("{", "expected JSON, found an error"),
    ],
)
def test_settings_that_cannot_be_used_are_told(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(f"{path}: {said}")):
        read_settings(path)


def test_settings_that_just_make_sense_are_used(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"forget_gone": "1d", "restart_loop_pause": "30m", "linger": "149s"}')
    assert read_settings(path).linger == "149s"


SELECTED = """
rule_files: [my.rules.yml]
evaluation_interval: 1m
group_eval_order: [microvm-recording, microvm-drift, microvm-vms, microvm-exporter]
tests:
  - interval: 1m
    input_series:
      - {series: 'up{env="prod", job="vms"}', values: 1x9}
      - {series: 'microvm_declared_vms{env="prod", job="vms"}', values: 4x5 2x4}
      - {series: 'microvm_drift_findings{env="prod", job="vms", kind="outdated"}', values: 1x9}
      - series: microvm_drift_finding{env="prod", job="vms", kind="outdated", severity="warning"}
        values: 1x9
      - {series: 'up{env="test", job="vms", instance="other"}', values: 0x9}
    promql_expr_test:
      - expr: count by (alertname) (ALERTS{job="vms"})
        eval_time: 9m
        exp_samples:
          - {labels: '{alertname="MicrovmOutdated"}', value: 1}
          - {labels: '{alertname="MicrovmDeclaredVmsDropped"}', value: 1}
"""


@needs_tools
def test_selector_can_name_labels_that_recorded_series_have_lost(tmp_path: Path) -> None:
    settings = Settings(selector='env=~"prod|stage", job="vms"')
    (tmp_path / "my.rules.yml").write_text(make_rules(settings))
    test = tmp_path / "selected.yml"
    test.write_text(SELECTED)
    assert run_tests([test]) == {test: ""}


def test_settings_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.json: expected a JSON file, found: No such"):
        read_settings(tmp_path / "none.json")
