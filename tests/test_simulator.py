"""Simulated hosts show what the exporter would, and Prometheus takes what is made of them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from host.nspawn import CHECKOUT
from host.prometheus import Prometheus
from host.service import TOOLS, missing
from microvm_exporter.activity import Activity
from microvm_exporter.exposition import Renderer
from microvm_exporter.listen import ListenAddress
from microvm_exporter.model import Cause
from microvm_exporter.samples import View
from microvm_exporter.server import WebServer
from microvm_simulator.beginnings import BUILDERS
from microvm_simulator.blocks import make_blocks
from microvm_simulator.fleet import TEMPLATES, Fleet, host_name, make_world
from microvm_simulator.history import HISTORY, scrape
from microvm_simulator.host import SimulatedHost
from microvm_simulator.load import JOB, Load, instance, watch
from microvm_simulator.rules import RULES, Span, evaluate
from microvm_simulator.samples import Samples, Target, series
from microvm_simulator.story import STORY
from world import World, healthy_world

BEGIN = 1_800_000_000
SCALING = CHECKOUT / "docs" / "scaling"

needs_tools = pytest.mark.skipif(
    (why := missing("prometheus", "promtool")) is not None, reason=why or ""
)


def of_host(page: bytes) -> set[bytes]:
    """The samples that tell of the host: of the exporter's own, and since when VMs run, none."""
    left_out = (b"#", b"process_", b"microvm_exporter_", b"microvm_vm_start_time_seconds")
    return {line for line in page.splitlines() if not line.startswith(left_out)}


def rendered(world: World) -> bytes:
    return Renderer().render(View(world.judge(), Activity()))[1]


def value(page: bytes, name: str) -> float:
    (line,) = (line for line in page.splitlines() if line.startswith(name.encode() + b" "))
    return float(line.split()[1])


# ------------------------------------------------------------------------------ a simulated host


def test_page_is_the_exporters_own() -> None:
    host = SimulatedHost("a", healthy_world(), BEGIN)
    host.live(BEGIN - 60, BEGIN)
    page = host.expose()
    assert of_host(page) == of_host(rendered(healthy_world()))
    names = {line.split()[2] for line in page.splitlines() if line.startswith(b"# TYPE")}
    assert names == {
        line.split()[2]
        for line in rendered(healthy_world()).splitlines()
        if line.startswith(b"# TYPE")
    }
    assert value(page, "process_start_time_seconds") == BEGIN - 2 * 86_400
    assert value(page, 'microvm_vm_start_time_seconds{vm="web"}') < BEGIN


def test_looks_are_counted_by_cause_and_a_restart_counts_anew() -> None:
    host = SimulatedHost("a", healthy_world(), BEGIN)
    host.live(BEGIN, BEGIN + 600)
    looks = {
        cause: value(host.expose(), f'microvm_exporter_refreshes_total{{cause="{cause}"}}')
        for cause in Cause
    }
    assert looks == {Cause.EVENT: 0, Cause.INTERVAL: 38, Cause.RESYNC: 3}
    host.stop("web")
    host.live(BEGIN + 600, BEGIN + 630)
    assert value(host.expose(), 'microvm_exporter_refreshes_total{cause="event"}') == 1
    host.restart_exporter(BEGIN + 640)
    host.live(BEGIN + 640, BEGIN + 655)
    assert value(host.expose(), 'microvm_exporter_refreshes_total{cause="event"}') == 0


def test_crash_loop_restarts_again_and_again_until_the_vm_is_restarted() -> None:
    host = SimulatedHost("a", healthy_world(), BEGIN)
    host.crash_loop("web")
    restarts, running = [], set()
    for now in range(BEGIN + 30, BEGIN + 630, 30):
        host.live(now - 30, now)
        page = host.expose()
        restarts.append(value(page, 'microvm_vm_restarts_total{vm="web"}'))
        running.add(value(page, 'microvm_vm_running{vm="web"}'))
    assert restarts == [4 * n for n in range(1, 21)]
    assert running == {0, 1}
    host.restart("web", BEGIN + 640)
    host.live(BEGIN + 630, BEGIN + 660)
    assert value(host.expose(), 'microvm_vm_restarts_total{vm="web"}') == 0
    assert host.judgement.findings == ()


# --------------------------------------------------------------------------------------- the story

FOUND = {
    "alder": "condition_unmet daemon_reload_needed missing_interface not_running outdated"
    " residual_unit_file restart_pending stray_tap undeclared_running undeclared_state"
    " undeclared_unit unit_failed",
    "birch": "not_running",
    "cedar": "",
    "elm": "not_running restart_pending",
    "fir": "undeclared_running",
    "oak": "",
}
"""The kinds of drift that are found on each host some time."""

LEFT = {"alder": {"critical", "warning", "info"}}
"""The severities that are found at the end, where there are any."""


@pytest.mark.parametrize("name", BUILDERS)
def test_story_of_a_host(name: str) -> None:
    host = SimulatedHost(name, BUILDERS[name](), BEGIN)
    kinds, now = set(), float(BEGIN)
    for minute, happen in (*STORY[name], (HISTORY.length / 60, lambda *_: None)):
        for then in (BEGIN + minute * 60, BEGIN + minute * 60 + 30):
            host.live(now, then)
            kinds |= {str(finding.kind) for finding in host.judgement.findings}
            now = then
        happen(host, now)
    assert kinds == set(FOUND[name].split())
    assert {str(f.severity) for f in host.judgement.findings} == LEFT.get(name, set())


# ----------------------------------------------------------------------------------- the history


def test_series_is_escaped_and_labelled_by_its_target() -> None:
    target = Target("j", "h:1")
    assert target.series("up") == b'up{instance="h:1",job="j"}'
    assert target.label(b"a") == b'a{instance="h:1",job="j"}'
    assert target.label(b'a{vm="x"}') == b'a{vm="x",instance="h:1",job="j"}'
    assert series("a", {"b": 'x"\\\n'}) == b'a{b="x\\"\\\\\\n"}'


@needs_tools
def test_rules_are_evaluated_as_prometheus_does(tmp_path: Path) -> None:
    """With the time that it is, staleness, what was recorded before, and `for` and its like."""
    rules = tmp_path / "rules.yml"
    rules.write_text(
        """
groups:
- name: a
  rules:
  - {record: "a:seen_timestamp_seconds", expr: "timestamp(a) or a:seen_timestamp_seconds"}
  - {alert: A, expr: "a == 1", for: 2m, keep_firing_for: 1m, labels: {x: "1, 2"}}
  - {alert: Old, expr: "time() - a_timestamp_seconds > 100"}
"""
    )
    samples = Samples()
    for minute in range(8):
        samples.add(b"a_timestamp_seconds{}", float(BEGIN), BEGIN + minute * 60)
        if minute < 5:
            samples.add(b'a{b="c, d=\\"e\\""}', 1, BEGIN + minute * 60)
    found = evaluate(rules, samples, Span(BEGIN, BEGIN + 420, 60))
    minutes: dict[bytes, list[int]] = {}
    for name, at, _ in found:
        minutes.setdefault(name, []).append((at - BEGIN) // 60)
    labels = b'b="c, d=\\"e\\""'
    alert = b'ALERTS{alertname="A",alertstate="%b",' + labels + b',x="1, 2"}'
    seen = b"a:seen_timestamp_seconds{" + labels + b"}"
    assert minutes[alert % b"pending"] == [0, 1]
    assert minutes[alert % b"firing"] == [2, 3, 4, 5]
    assert minutes[b'ALERTS{alertname="Old",alertstate="firing"}'] == [2, 3, 4, 5, 6, 7]
    assert minutes[seen] == list(range(8))
    assert {v - BEGIN for name, at, v in found if name == seen} == {0, 60, 120, 180, 240}


@needs_tools
def test_evaluation_of_what_is_no_rule_file_says_so(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text("groups: [{name: a, rules: [{alert: A}]}]")
    with pytest.raises(ValueError, match="field 'expr' must be set"):
        evaluate(rules, Samples(), Span(BEGIN, BEGIN + 60, 60))


@needs_tools
def test_blocks_of_the_first_hour_are_served(tmp_path: Path) -> None:
    span = Span(BEGIN, BEGIN + 3630, HISTORY.step)
    samples = scrape(span)
    for name, at, number in evaluate(RULES, samples, span):
        samples.add(name, number, at)
    make_blocks(samples, tmp_path)
    with Prometheus("{}", tmp_path, HISTORY.flag) as prometheus:

        def ask(expr: str) -> dict[str, float]:
            found = prometheus.query(expr, span.end)
            return {one["metric"].get("instance", ""): float(one["value"][1]) for one in found}

        assert ask("up") == dict.fromkeys(HISTORY.instances, 1)
        every = "count_over_time(up[1h]) >= bool 120"
        assert ask(every) == dict.fromkeys(HISTORY.instances, 1)
        assert ask("sum by (instance) (microvm_drift_finding)")[HISTORY.drifted_host] == 6
        recorded = ask("instance:microvm_drift_findings:sum")
        assert recorded[HISTORY.drifted_host] == 6
        assert recorded.keys() == set(HISTORY.instances)
        firing = 'count(ALERTS{alertstate="firing", alertname="MicrovmUndeclaredState"})'
        assert ask(firing) == {"": 1}


# ------------------------------------------------------------------------------------- the fleet


def test_page_of_a_copied_host_is_the_exporters_own() -> None:
    """Of one that has no drift; its names are its own."""
    fleet = Fleet(hosts=TEMPLATES * 2, vms=10, now=BEGIN)
    number = TEMPLATES + 7
    assert of_host(fleet.page(number)) == of_host(rendered(make_world(host_name(number), 10)))


@pytest.mark.parametrize("vms", [10, 20])
def test_series_of_a_host_are_those_that_the_docs_budget_for(vms: int) -> None:
    fleet = Fleet(hosts=TEMPLATES, vms=vms, now=BEGIN)
    healthy = fleet.page(TEMPLATES - 1).splitlines()
    assert len([line for line in healthy if not line.startswith(b"#")]) == 75 + 4 * vms
    text = (CHECKOUT / "docs" / "scaling.md").read_text()
    assert "| a MicroVM, when there is no drift | 4 |" in text
    assert "| a host besides, when there is no drift | 75 of the exporter" in text


def test_drift_of_a_fleet_stays_comes_and_goes_and_is_old() -> None:
    fleet = Fleet(hosts=TEMPLATES, vms=10, now=BEGIN)
    drifted = []
    for look in range(1, 9):
        fleet.live(BEGIN + look * 15)
        drifted.append([value(fleet.page(n), "microvm_drifted_vms") for n in range(TEMPLATES)])
    assert max(vms[0] for vms in drifted) == 2
    assert min(vms[0] for vms in drifted) == 1  # the crash loop, at a moment when it is up
    assert [vms[1] for vms in drifted] == [0, 0, 1, 1, 1, 1, 0, 0]
    assert {vms[2] for vms in drifted} == {1}
    assert {vm for vms in drifted for vm in vms[3:]} == {0}


@needs_tools
def test_prometheus_scrapes_a_fleet_and_evaluates_the_rules() -> None:
    with Load(hosts=5, vms=3, interval=1) as load:
        load.wait_until_up(20)
        usage = watch(load, 3, lambda _: None)
        assert load.count(f'microvm_vm_info{{instance="{instance(4)}"}}') == 3
        assert load.count(f'{{job="{JOB}", __name__=~"scrape_samples_scraped"}} > 80') == 5
        processes = load.processes
    assert [process.poll() for process in processes] == [0, 0]
    assert usage.series > 5 * 80
    assert usage.samples_per_second > 5 * 80 / 2
    assert usage.missed == 0
    seconds = {None: 1, "1m": 60}
    groups = yaml.safe_load(RULES.read_text())["groups"]
    assert usage.intervals == {group["name"]: seconds[group.get("interval")] for group in groups}
    assert usage.groups.keys() == usage.intervals.keys()
    assert 0 < usage.rules_share < 1


# -------------------------------------------------------------------------------------- the docs


@needs_tools
@pytest.mark.parametrize("path", sorted(SCALING.glob("*.yml")), ids=lambda path: path.stem)
def test_configuration_of_the_docs_is_accepted(path: Path) -> None:
    check = [str(TOOLS / "promtool"), "check", "config", "--lint-fatal", str(path)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"(scaling/{path.name})" in (CHECKOUT / "docs" / "scaling.md").read_text()


def configuration(name: str) -> dict[str, Any]:
    """A configuration of the docs, with its rules found from anywhere, and no Alertmanager."""
    config: dict[str, Any] = yaml.safe_load((SCALING / name).read_text())
    assert [(SCALING / file).resolve() for file in config["rule_files"]] == [RULES]
    return config | {"rule_files": [str(RULES)], "alerting": {}}


@needs_tools
def test_each_host_is_scraped_by_one_shard() -> None:
    """All four in one Prometheus, as jobs."""
    config = configuration("shard.yml")
    (job,) = config["scrape_configs"]
    shard = config["global"]["external_labels"]["shard"]
    modulus = job["relabel_configs"][0]["modulus"]
    assert job["relabel_configs"][1]["regex"] == shard == "0"
    hosts = [f"127.0.0.1:{port}" for port in range(1, 41)]
    config["scrape_configs"] = [
        {
            "job_name": str(number),
            "static_configs": [{"targets": hosts}],
            "relabel_configs": [job["relabel_configs"][0], {**keep, "regex": str(number)}],
        }
        for number in range(modulus)
        for keep in job["relabel_configs"][1:]
    ]
    with Prometheus(json.dumps(config)) as prometheus:
        targets = wait_for(lambda: prometheus.api("targets", state="active")["activeTargets"])
    assert sorted(target["labels"]["instance"] for target in targets) == sorted(hosts)
    assert len({target["labels"]["job"] for target in targets}) == modulus


@needs_tools
def test_what_is_recorded_reaches_another_prometheus() -> None:
    config = configuration("remote-write.yml")
    fleet = Fleet(hosts=2, vms=3, now=time.time())
    server = WebServer(fleet, [ListenAddress("127.0.0.1", 0)])
    address = str(server.start()[0])
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0] |= {
        "static_configs": [
            {"targets": [address], "labels": {"instance": f"{n}", "__metrics_path__": f"/{n}"}}
            for n in range(2)
        ]
    }
    with Prometheus("{}", None, "--web.enable-remote-write-receiver") as receiver:
        config["remote_write"][0] |= {
            "url": f"{receiver.url}/api/v1/write",
            "queue_config": {"batch_send_deadline": "500ms"},
        }
        with Prometheus(json.dumps(config)) as sender:
            found = wait_for(lambda: receiver.query("instance:microvm_drift_findings:sum"))
            # One series a finding is what stays where the findings are.
            kept = {"object:microvm_drift_finding:last_seen"}
            wait_for(lambda: "ALERTS" in names(receiver), limit=30)
            alike = wait_for(lambda: recorded(sender) - kept == names(receiver) != set())
            assert alike, recorded(sender) ^ names(receiver)
            assert "ALERTS" in names(receiver)
    server.close()
    assert {one["metric"]["cluster"] for one in found} == {"berlin"}


def recorded(prometheus: Prometheus) -> set[str]:
    """What its rules have made, and what the fleet dashboard asks for besides."""
    besides = {
        "ALERTS",
        "microvm_exporter_build_info",
        "microvm_exporter_collector_success",
        "up",
    }
    return {name for name in names(prometheus) if ":" in name or name in besides}


def names(prometheus: Prometheus) -> set[str]:
    return set(prometheus.api("label/__name__/values"))


T = TypeVar("T")


def wait_for(ask: Callable[[], T], limit: float = 15) -> T:
    """What is asked for, once that is something."""
    deadline = time.monotonic() + limit
    while not (found := ask()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
