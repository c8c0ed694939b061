"""The committed dashboards: made by the code, complete, and asking only for what is there.

That their queries work and what they look like is proved in test_dashboards_live.py.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from microvm_dashboards import colours
from microvm_dashboards.files import FOLDER, files
from microvm_dashboards.remedies import FAULTS, LEFTOVERS, REMEDIES, STRAYS
from microvm_exporter.drift.kinds import Kind
from microvm_exporter.metrics import METRICS, MetricType

Json = dict[str, Any]

NAMES: Final = ("microvm-exporter", "microvm-fleet", "microvm-host", "microvm-vm")
COMMITTED: Final[dict[str, Json]] = {
    name: json.loads((FOLDER / f"{name}.json").read_text()) for name in NAMES
}
CHOSEN: Final = {
    name: [variable["name"] for variable in dashboard["templating"]["list"]]
    for name, dashboard in COMMITTED.items()
}
DOCS: Final = Path(__file__).parents[1] / "docs"
MATCHERS: Final = ('cluster=~"$cluster"', 'job="$job"')
INSTANCE: Final = 'instance="$instance"'

_SELECTOR: Final = re.compile(r'([a-zA-Z_:][\w:]*)?\{((?:[^{}"]|"(?:[^"\\]|\\.)*")*)\}')
_OF_PROMETHEUS: Final = frozenset(
    {"ALERTS", "scrape_duration_seconds", "scrape_samples_post_metric_relabeling", "up"}
)
_OF_PROCESS: Final = frozenset(
    {
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    }
)

each = pytest.mark.parametrize("name", NAMES)


def test_files_are_what_the_code_makes() -> None:
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert committed == files(), "out of date: run `make dashboards`"


@each
def test_dashboard_is_provisioned_and_read_only(name: str) -> None:
    dashboard = COMMITTED[name]
    assert dashboard["uid"] == name
    assert dashboard["editable"] is False
    assert dashboard["schemaVersion"] >= 39
    assert not {"id", "version", "gnetId", "iteration"} & set(dashboard)


@each
def test_panels_have_numbers_of_their_own(name: str) -> None:
    numbers = [panel["id"] for panel in COMMITTED[name]["panels"]]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


@each
def test_panels_stand_beside_each_other(name: str) -> None:
    cells: Counter[tuple[int, int]] = Counter()
    for panel in COMMITTED[name]["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24, panel["title"]
        across, down = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells.update(itertools.product(across, down))
    assert set(cells.values()) == {1}


@each
def test_panel_says_what_it_shows(name: str) -> None:
    for panel in _panels(name):
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["description"]) > 30, panel["title"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"] not in {"", "No data"}, panel["title"]
        assert defaults["thresholds"]["steps"], panel["title"]
    titles = Counter(panel["title"] for panel in _panels(name))
    assert set(titles.values()) == {1}, titles.most_common(1)


@each
def test_tile_is_never_green_when_nothing_is_known(name: str) -> None:
    for panel in _panels(name):
        if panel["type"] != "stat":
            continue
        defaults = panel["fieldConfig"]["defaults"]
        special = [one["options"] for one in defaults["mappings"] if one["type"] == "special"]
        unknown = {one["match"]: one["result"]["color"] for one in special}
        assert unknown["null+nan"] != colours.GOOD, panel["title"]


@each
def test_no_data_source_is_fixed(name: str) -> None:
    sources = list(_values_of("datasource", COMMITTED[name]))
    assert len(sources) > len(_panels(name))
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


@each
def test_variables_cannot_break_a_query(name: str) -> None:
    variables = {one["name"]: one for one in COMMITTED[name]["templating"]["list"]}
    assert variables["cluster"]["includeAll"]
    assert variables["cluster"]["allValue"] == ".*"
    assert not any(variables[one].get("includeAll") for one in CHOSEN[name] if one != "cluster")
    assert CHOSEN[name][:3] == ["datasource", "cluster", "job"]
    assert all(f"${earlier}" not in str(variables["cluster"]["query"]) for earlier in ("job", "vm"))


@each
def test_links_lead_to_the_others_with_all_that_is_chosen(name: str) -> None:
    links = COMMITTED[name]["links"]
    assert sorted(link["url"] for link in links) == sorted(f"/d/{n}" for n in NAMES if n != name)
    assert all(link["includeVars"] and link["keepTime"] for link in links)


@each
def test_data_links_carry_all_variables(name: str) -> None:
    """What is chosen here or told by the data, for each variable of where they lead."""
    for panel in _panels(name):
        for link in itertools.chain(*_values_of("links", panel), _overriding_links(panel)):
            assert set(link) == {"title", "url"}
            path, query = link["url"].split("?")
            target = path.removeprefix("/d/")
            carried = re.findall(r"\$\{(\w+):queryparam\}|var-(\w+)=", query)
            assert {one or other for one, other in carried} == set(CHOSEN[target]), link["url"]
            assert "${__url_time_range}" in query
            assert all(
                one.endswith(":percentencode}") for one in re.findall(r"=(\$\{.*?\})", query)
            )


def test_dashboards_lead_into_each_other_by_data() -> None:
    urls = {name: json.dumps(COMMITTED[name]["panels"]) for name in NAMES}
    assert "/d/microvm-host?" in urls["microvm-fleet"]
    assert "/d/microvm-exporter?" in urls["microvm-fleet"]
    assert "/d/microvm-vm?" in urls["microvm-host"]


def test_series_that_is_no_microvm_leads_to_none() -> None:
    by_title = {panel["title"]: panel for panel in _panels("microvm-host")}
    (exporter,) = _overriding_links(by_title["MicroVMs over time"])
    assert exporter["url"].startswith("/d/microvm-exporter?")
    restarts = by_title["Automatic restarts within 30 minutes"]["fieldConfig"]["overrides"]
    assert [{"id": "links", "value": []}] in [override["properties"] for override in restarts]
    assert {override["matcher"]["options"] for override in restarts} == {"(most of any)"}


@each
def test_queries_select_the_job(name: str) -> None:
    wanted = MATCHERS if name == "microvm-fleet" else (*MATCHERS, INSTANCE)
    for expression in _expressions(name):
        selectors = list(_SELECTOR.finditer(expression))
        assert selectors, expression
        assert not _bare(expression), expression
        for selector in selectors:
            assert set(wanted) <= set(selector[2].split(", ")), selector[0]


@each
def test_variables_offer_what_those_before_them_select(name: str) -> None:
    for number, query in enumerate(_variable_queries(name)):
        assert all(one in query for one in (*MATCHERS, INSTANCE)[:number]), query


@each
def test_queries_ask_for_what_is_there(name: str) -> None:
    known = _metrics() | _records() | _OF_PROMETHEUS | _OF_PROCESS
    for expression in [*_expressions(name), *_variable_queries(name)]:
        named = {selector[1] for selector in _SELECTOR.finditer(expression) if selector[1]}
        assert named | _bare(expression) <= known, expression


@each
def test_sdk_left_nothing_that_grafana_does_not_know(name: str) -> None:
    dashboard = COMMITTED[name]
    for holder in (*dashboard["links"], *dashboard["annotations"]["list"]):
        assert "placement" not in holder
    assert not list(_values_of("footer", dashboard))
    assert not list(_values_of("auto", dashboard))


def test_fleet_asks_for_single_hosts_only_by_rank() -> None:
    """A thousand hosts give no thousand series: what is told of each is cut by topk."""
    for expression in _expressions("microvm-fleet"):
        if re.search(r"by \([^)]*instance", expression) and not expression.startswith("count("):
            assert "topk(" in expression or "count(" in expression, expression


def test_fleet_asks_only_for_what_each_site_sends_on() -> None:
    config = yaml.safe_load((DOCS / "scaling" / "remote-write.yml").read_text())
    ((relabel,),) = (one["write_relabel_configs"] for one in config["remote_write"])
    assert (relabel["action"], relabel["source_labels"]) == ("keep", ["__name__"])
    asked = [*_expressions("microvm-fleet"), *_variable_queries("microvm-fleet")]
    for expression in asked:
        named = {selector[1] for selector in _SELECTOR.finditer(expression) if selector[1]}
        for name in named | _bare(expression):
            assert re.fullmatch(relabel["regex"], name), name


def test_every_kind_has_a_remedy_and_a_place() -> None:
    assert set(REMEDIES) == set(Kind)
    assert set(colours.KINDS) == set(Kind)
    assert len(set(colours.KINDS.values())) == len(Kind)
    assert sorted([*FAULTS, *STRAYS, *LEFTOVERS]) == sorted(Kind)


def test_remedy_that_could_cost_disks_says_so() -> None:
    """Beside a file system that is not mounted, a VM would start on empty ones."""
    mounted = {kind for kind, text in REMEDIES.items() if "is mounted" in text}
    assert mounted >= {Kind.MISSING_STATE, Kind.CONDITION_UNMET, Kind.WOULD_NOT_START}
    removed = {kind: text for kind, text in REMEDIES.items() if "directory." in text}
    assert removed.keys() > {Kind.UNDECLARED_STATE}
    assert all("disk images" in text for text in removed.values())


def test_provisioning_is_read_only_and_says_each_thing_once() -> None:
    """Grafana reads all files of a folder: a second one of the same would bar its database."""
    (provider,) = _provisioned("dashboards", "providers")
    assert provider["type"] == "file"
    assert provider["disableDeletion"] is True
    assert provider["allowUiUpdates"] is False
    (source,) = _provisioned("datasources", "datasources")
    assert source["type"] == "prometheus"
    assert source["editable"] is False
    assert "isDefault" not in source, "it may be that of somebody else"


def _provisioned(folder: str, key: str) -> list[Json]:
    contents = [
        yaml.safe_load(path.read_text()) for path in (FOLDER / "provisioning" / folder).iterdir()
    ]
    assert all(content["apiVersion"] == 1 for content in contents)
    return [one for content in contents for one in content[key]]


def _panels(name: str) -> list[Json]:
    return [panel for panel in COMMITTED[name]["panels"] if panel["type"] != "row"]


def _expressions(name: str) -> list[str]:
    targets = [target["expr"] for panel in _panels(name) for target in panel["targets"]]
    return [*targets, *(one["expr"] for one in COMMITTED[name]["annotations"]["list"])]


def _variable_queries(name: str) -> list[str]:
    listed = COMMITTED[name]["templating"]["list"]
    return [one["query"]["query"] for one in listed if one["type"] == "query"]


def _values_of(key: str, value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from (one for name, one in value.items() if name == key)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from _values_of(key, one)


def _overriding_links(panel: Json) -> Iterator[Json]:
    for override in panel["fieldConfig"].get("overrides", []):
        for one in override["properties"]:
            if one["id"] == "links":
                yield from one["value"]


def _bare(expression: str) -> set[str]:
    """Give the metrics that are not followed by matchers."""
    rest = re.sub(r'"(?:[^"\\]|\\.)*"|\[.*?\]', "", _SELECTOR.sub("", expression))
    return set(re.findall(r"\b(?:microvm_|process_|scrape_|\w+:)[\w:]+", rest))


def _metrics() -> set[str]:
    parts = ("_bucket", "_count", "_sum")
    histograms = [one.name for one in METRICS if one.type is MetricType.HISTOGRAM]
    return {one.name for one in METRICS} | {n + part for n in histograms for part in parts}


def _records() -> set[str]:
    rules = yaml.safe_load((Path(__file__).parents[1] / "alerts/microvm.rules.yml").read_text())
    found = (rule.get("record") for group in rules["groups"] for rule in group["rules"])
    return {record for record in found if record}
