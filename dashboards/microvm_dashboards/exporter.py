"""Exporter: whether what is shown can be trusted: collectors, age, cost, events, versions."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours, links, marks, variables
from microvm_dashboards.document import Page
from microvm_dashboards.expressions import host_count, sight
from microvm_dashboards.layout import Line, Section
from microvm_dashboards.mappings import COLLECTOR_STATES, SIGHT
from microvm_dashboards.panels import (
    Column,
    Panel,
    Steps,
    Text,
    colour_by_name,
    graph,
    panel_table,
    tile,
    timeline,
)
from microvm_dashboards.queries import as_table, now, over_time
from microvm_dashboards.selectors import HOST, series

__all__ = ["page"]

_SUCCESS: Final = series("microvm_exporter_collector_success", HOST)
_UP: Final = series("up", HOST)
_REFRESH: Final = series("microvm_exporter_last_refresh_timestamp_seconds", HOST)
_NO_ANSWER: Final = "unknown: the exporter does not answer"
_AGE: Final[Steps] = {0: colours.GOOD, 60: colours.WARNING, 300: colours.CRITICAL}


def page() -> Page:
    """The dashboard."""
    return Page(
        uid="microvm-exporter",
        description="Whether what the other dashboards show of a host can be trusted: its"
        " exporter's collectors, the age of what it serves, its cost, events and versions.",
        time="6h",
        variables=variables.of_host(),
        annotations=[marks.alerts(HOST), marks.declaration_of_host(HOST)],
        sections=[
            Section(
                "Can this be trusted?",
                [Line(4, _tiles()), Line(8, [(16, _collectors()), (8, _left_out())])],
            ),
            Section(
                "How old is it?", [Line(8, [(8, _age()), (8, _since_success()), (8, _delay())])]
            ),
            Section(
                "What does it hear?", [Line(8, [(8, _events()), (8, _refreshes()), (8, _missed())])]
            ),
            Section(
                "What does it cost?",
                [
                    Line(8, [(8, _durations()), (8, _processor()), (8, _memory())]),
                    Line(8, [(8, _series()), (8, _scrape()), (8, _versions())]),
                ],
            ),
        ],
    )


def _tiles() -> list[tuple[int, Panel]]:
    tiles = (_sight(), _failing(), _age_now(), _missed_now(), _left_out_now(), _version())
    return [(4, one) for one in tiles]


def _sight() -> Panel:
    return tile(
        Text(
            "Exporter",
            "*Sees all*: it answers and all its collectors can look. *Partly blind*: some cannot,"
            " and what they would find is unknown. *No answer*: see to the host or to its unit.",
            "no target: Prometheus does not scrape this host",
        ),
        now(sight(HOST)),
        mappings=SIGHT,
        links=[links.to_host_chosen()],
    )


def _failing() -> Panel:
    return tile(
        Text(
            "Failing",
            "Collectors that could not read their source in the last look. The exporter's log says"
            " which, why, and what to do.",
            _NO_ANSWER,
        ),
        now(f"count({_SUCCESS} == 0) or 0 * count({_SUCCESS})"),
        steps={0: colours.GOOD, 1: colours.CRITICAL},
    )


def _age_now() -> Panel:
    return tile(
        Text(
            "Snapshot age",
            "Time since what it serves was looked at; up to its interval (15 s) and the time since"
            " the last scrape is normal. More: it hangs, or its clock differs from Prometheus'.",
            _NO_ANSWER,
        ),
        now(f"time() - max({_REFRESH})"),
        "s",
        steps=_AGE,
        decimals=0,
    )


def _missed_now() -> Panel:
    missed = series("microvm_exporter_missed_changes_total", HOST)
    return tile(
        Text(
            "Missed changes",
            "Changes in the time range that no event told of and that only a full look found: they"
            " were shown up to five minutes late. It should stay 0: report it as a bug.",
            _NO_ANSWER,
        ),
        now(f"sum(increase({missed}[$__range])) and on () max({_UP}) == 1"),
        steps={0: colours.GOOD, 1: colours.WARNING},
        decimals=0,
    )


def _left_out_now() -> Panel:
    left = series("microvm_exporter_left_out_objects", HOST)
    return tile(
        Text(
            "Left out",
            "Objects passed over now: beyond `--collect.max-vms`, unreadable, or of a name that no"
            " unit can have. Drift of theirs is not seen; `microvm-exporter check` names them.",
            "unknown: some collector could not look, or the exporter does not answer",
        ),
        now(host_count(f"sum({left})", HOST)),
        steps={0: colours.GOOD, 1: colours.WARNING},
    )


def _version() -> Panel:
    build = series("microvm_exporter_build_info", HOST)
    return tile(
        Text(
            "Version",
            "The exporter's version. What other hosts run is on the fleet's dashboard.",
            _NO_ANSWER,
        ),
        now(f"max by (version) ({build})", "{{version}}"),
        name="version",
    )


def _collectors() -> Panel:
    following = series("microvm_exporter_collector_following", HOST)
    return timeline(
        Text(
            "Collectors",
            "*Follows changes*: it works and hears of changes as they come. *Looks each interval*:"
            " it works, but shows changes up to an interval late, and costs more. *Failed*: what it"
            " looks at is unknown. The row *scrape* is whether the exporter answers.",
            "no target: Prometheus does not scrape this host",
        ),
        [
            over_time(f"3 + max({_UP})", "scrape"),
            over_time(
                f"max by (collector) ({_SUCCESS}) * (1 + max by (collector) ({following}))",
                "{{collector}}",
            ),
        ],
        mappings=COLLECTOR_STATES,
    )


def _left_out() -> Panel:
    left = series("microvm_exporter_left_out_objects", HOST)
    return panel_table(
        Text(
            "Left out",
            "What was passed over, by collector and reason.",
            "Nothing is left out, if the exporter answers",
        ),
        [as_table(f"sum by (collector, reason) ({left})")],
        [
            Column("collector", "Collector"),
            Column("reason", "Reason"),
            Column("Value", "Objects", width=90),
        ],
        sort=("Objects",),
    )


def _age() -> Panel:
    return graph(
        Text(
            "Snapshot age",
            "Time from the look at the host to now. It saws between zero and the interval; a ramp"
            " is an exporter that stands still.",
            _NO_ANSWER,
        ),
        [over_time(f"time() - max({_REFRESH})", "age")],
        "s",
        steps=_AGE,
    )


def _since_success() -> Panel:
    success = series("microvm_exporter_collector_last_success_timestamp_seconds", HOST)
    return graph(
        Text(
            "Since the last success",
            "Time since each collector last read its source. One that climbs alone cannot read:"
            " its log line says why.",
            _NO_ANSWER,
        ),
        [over_time(f"time() - max by (collector) ({success})", "{{collector}}")],
        "s",
        steps=_AGE,
    )


def _delay() -> Panel:
    metric = "microvm_exporter_event_to_publish_seconds"
    count = f"sum(increase({series(f'{metric}_count', HOST)}[$__rate_interval])) > 0"
    within = {
        text: f"sum(increase({series(f'{metric}_bucket', HOST, le=bound)}[$__rate_interval]))"
        for text, bound in (("within 0.25 s", "0.25"), ("within 1 s", "1.0"))
    }
    return graph(
        Text(
            "Shown in time",
            "Share of the changes heard of that were on /metrics within a quarter of a second, and"
            " within one. Bursts are folded into a few looks, which takes longer.",
            "Nothing was heard of in this time, or the exporter does not answer",
        ),
        [over_time(f"{expression} / ({count})", text) for text, expression in within.items()],
        "percentunit",
        maximum=1,
    )


def _events() -> Panel:
    events = series("microvm_exporter_events_total", HOST)
    return graph(
        Text(
            "Events heard",
            "Changes a second that each collector hears of: signals of systemd, announcements of"
            " the kernel, changed files. A storm of them is something on the host that flaps.",
            _NO_ANSWER,
        ),
        [over_time(f"sum by (collector) (rate({events}[$__rate_interval]))", "{{collector}}")],
        "cps",
    )


def _refreshes() -> Panel:
    refreshes = series("microvm_exporter_refreshes_total", HOST)
    return graph(
        Text(
            "Looks at the host",
            "Looks a second by cause: an event, the interval (every 15 s), or a resync (every 5"
            " min), which reads everything. At most four a second.",
            _NO_ANSWER,
        ),
        [over_time(f"sum by (cause) (rate({refreshes}[$__rate_interval]))", "{{cause}}")],
        "cps",
        stacked=True,
    )


def _missed() -> Panel:
    missed = series("microvm_exporter_missed_changes_total", HOST)
    return graph(
        Text(
            "Missed changes",
            "Changes that a resync found and no event had told of. It should stay at zero.",
            _NO_ANSWER,
        ),
        [over_time(f"sum(increase({missed}[$__rate_interval]))", "missed")],
        bars=True,
        decimals=0,
    )


def _durations() -> Panel:
    durations = series("microvm_exporter_collector_duration_seconds", HOST)
    return graph(
        Text(
            "Duration of a look",
            "How long each collector took the last time. Resyncs take longest.",
            _NO_ANSWER,
        ),
        [over_time(f"max by (collector) ({durations})", "{{collector}}")],
        "s",
    )


def _processor() -> Panel:
    seconds = series("process_cpu_seconds_total", HOST)
    return graph(
        Text(
            "Processor",
            "Share of a core. At rest it is below 1 % with a thousand MicroVMs; more is a host on"
            " which something flaps, or a collector that does not follow.",
            _NO_ANSWER,
        ),
        [over_time(f"sum(rate({seconds}[$__rate_interval]))", "processor")],
        "percentunit",
    )


def _memory() -> Panel:
    resident = series("process_resident_memory_bytes", HOST)
    return graph(
        Text(
            "Memory",
            "Resident memory. It should be flat; some 90 MB with a thousand MicroVMs.",
            _NO_ANSWER,
        ),
        [over_time(f"max({resident})", "resident")],
        "bytes",
    )


def _series() -> Panel:
    number = series("scrape_samples_post_metric_relabeling", HOST)
    panel = graph(
        Text(
            "Series",
            "Series that the host costs Prometheus, and the budget: 80 a host and 10 a MicroVM when"
            " there is no drift. Each finding adds one.",
            "no target: Prometheus does not scrape this host",
        ),
        [
            over_time(f"max({number})", "series"),
            over_time(f"80 + 10 * count({series('microvm_vm_info', HOST)})", "budget"),
        ],
        decimals=0,
    )
    return colour_by_name(panel, {"budget": colours.OFF, "series": colours.INFO})


def _scrape() -> Panel:
    duration = series("scrape_duration_seconds", HOST)
    return graph(
        Text(
            "Scrape",
            "How long Prometheus waits for the page. It is ready before it is asked for, so that"
            " this is the network and little else.",
            "no target: Prometheus does not scrape this host",
        ),
        [over_time(f"max({duration})", "scrape")],
        "s",
    )


def _versions() -> Panel:
    build = series("microvm_exporter_build_info", HOST)
    start = series("process_start_time_seconds", HOST)
    same = "max by (version, python_version)"
    return panel_table(
        Text(
            "Running since",
            "The version that runs, the Python it runs on, and since when.",
            _NO_ANSWER,
        ),
        [as_table(f"{same} (1000 * {start} * on (cluster, job, instance) group_right () {build})")],
        [
            Column("version", "Exporter"),
            Column("python_version", "Python"),
            Column("Value", "Since", width=140, unit="dateTimeFromNow"),
        ],
    )
