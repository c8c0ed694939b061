"""How fresh the exporter is, and what it costs: the graphs of its dashboard."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours
from microvm_dashboards.no_data import NO_TARGET, SILENT
from microvm_dashboards.panels import (
    Column,
    Panel,
    Text,
    colour_by_name,
    graph,
    panel_table,
)
from microvm_dashboards.queries import as_table, over_time
from microvm_dashboards.selectors import HOST, series
from microvm_dashboards.steps import FRESH

__all__ = [
    "AGE",
    "MISSED",
    "SUCCESS",
    "age_over_time",
    "budget",
    "events",
    "in_time",
    "latency",
    "memory",
    "missed_over_time",
    "processor",
    "refreshes",
    "scrapes",
    "version",
]

SUCCESS: Final = series("microvm_exporter_collector_success", HOST)
_EVENTS: Final = series("microvm_exporter_events_total", HOST)
_REFRESHES: Final = series("microvm_exporter_refreshes_total", HOST)
MISSED: Final = series("microvm_exporter_missed_changes_total", HOST)
_REFRESHED: Final = series("microvm_exporter_last_refresh_timestamp_seconds", HOST)
_BUILD: Final = series("microvm_exporter_build_info", HOST)
_LATENCY: Final = "microvm_exporter_event_to_publish_seconds"
_CPU: Final = series("process_cpu_seconds_total", HOST)
_MEMORY: Final = series("process_resident_memory_bytes", HOST)
_STARTED: Final = series("process_start_time_seconds", HOST)
_SAMPLES: Final = series("scrape_samples_post_metric_relabeling", HOST)
_SCRAPE: Final = series("scrape_duration_seconds", HOST)
AGE: Final = f"time() - max({_REFRESHED})"
_BUDGET: Final = (
    f"80 + 10 * (count({series('microvm_vm_info', HOST)})"
    f" or 0 * max({series('microvm_declared_vms', HOST)}))"
    f" + 2 * sum({series('microvm_drift_findings', HOST)})"
    f" and on () (min({SUCCESS}) == 1)"
)
"""As the alert MicrovmSeriesBudgetExceeded has it: 80, and 10 a VM, and 2 a finding. Unknown
while a collector fails: VMs and findings are absent then."""


def age_over_time() -> Panel:
    return graph(
        Text(
            "Age of the snapshot",
            "How old what was served at each scrape had become. From 10 minutes on the"
            " exporter stands still, and MicrovmSnapshotOld waits to fire.",
            SILENT,
        ),
        [over_time(AGE, "age")],
        "s",
        steps=FRESH,
    )


def latency() -> Panel:
    total = series(f"{_LATENCY}_sum", HOST)
    number = series(f"{_LATENCY}_count", HOST)
    buckets = series(f"{_LATENCY}_bucket", HOST)
    quantile = f"histogram_quantile(0.99, sum by (le) (rate({buckets}[1h])))"
    some = f"(sum(rate({number}[1h])) > 0)"
    return graph(
        Text(
            "Event to snapshot",
            "How long it took from hearing of a change to serving it, over the last hour: on"
            " average, and for 99 of 100 changes. The latter is an estimate, as what is counted is"
            " those within 0.25 s, within 1 s and later. There is no line where nothing changed.",
            "No change was heard of in this time, or the exporter does not answer",
        ),
        [
            over_time(f"sum(rate({total}[1h])) / {some}", "mean"),
            over_time(f"{quantile} and {some}", "99th percentile"),
        ],
        "s",
    )


def in_time() -> Panel:
    panel = graph(
        Text(
            "Shown in time",
            "Share of the changes in the last hour that were on /metrics within 0.25 and within"
            " 1 second of being heard of. There is no line where nothing changed.",
            "No change was heard of in this time, or the exporter does not answer",
        ),
        [over_time(_share("1([.]0)?"), "within 1 s"), over_time(_share("0[.]25"), "within 0.25 s")],
        "percentunit",
        maximum=1,
    )
    return colour_by_name(panel, {"within 1 s": colours.GOOD, "within 0.25 s": colours.INFO})


def _share(bucket: str) -> str:
    """Give the share of events in a bucket; that of one second is called 1 or 1.0."""
    within = series(f"{_LATENCY}_bucket", HOST, f'le=~"{bucket}"')
    number = series(f"{_LATENCY}_count", HOST)
    return f"sum(increase({within}[1h])) / (sum(increase({number}[1h])) > 0)"


def events() -> Panel:
    return graph(
        Text(
            "Changes heard of",
            "Changes a minute that each collector was told of: signals of systemd, messages of the"
            " kernel, watches on directories.",
            SILENT,
        ),
        [over_time(_a_minute("collector", _EVENTS), "{{collector}}")],
        stacked=True,
        decimals=1,
    )


def refreshes() -> Panel:
    panel = graph(
        Text(
            "Looks by cause",
            "Looks at the host a minute: because of an event, by the interval, or a resync, which"
            " looks at everything. A burst of events is folded into at most four looks a second.",
            SILENT,
        ),
        [over_time(_a_minute("cause", _REFRESHES), "{{cause}}")],
        stacked=True,
    )
    names = {"event": colours.GOOD, "interval": colours.INFO, "resync": colours.OFF}
    return colour_by_name(panel, names)


def _a_minute(label: str, counter: str) -> str:
    return f"60 * sum by ({label}) (rate({counter}[$__rate_interval]))"


def missed_over_time() -> Panel:
    return graph(
        Text(
            "Changes missed over time",
            "Changes that only a resync found. Anything above 0 is a defect: please report it.",
            SILENT,
        ),
        [over_time(f"sum(increase({MISSED}[$__rate_interval]))", "missed")],
        bars=True,
        decimals=0,
    )


def processor() -> Panel:
    return graph(
        Text(
            "Processor",
            "Share of one core that the exporter uses. At rest about 0.4 % with 1,000 MicroVMs;"
            " what it makes systemd and the bus do is not in it.",
            SILENT,
        ),
        [over_time(f"sum(rate({_CPU}[$__rate_interval]))", "of a core")],
        "percentunit",
    )


def memory() -> Panel:
    return graph(
        Text(
            "Memory",
            "Resident memory of the exporter. It stays flat; about 80 MB with 1,000 MicroVMs.",
            SILENT,
        ),
        [over_time(f"max({_MEMORY})", "resident")],
        "decbytes",
    )


def budget() -> Panel:
    panel = graph(
        Text(
            "Series",
            "Series of the last scrape, and what they may be: 80 a host, 10 a MicroVM, 2 a finding."
            " The budget is unknown while a collector fails.",
            SILENT,
        ),
        [
            over_time(f"max({_SAMPLES})", "series"),
            over_time(_BUDGET, "budget"),
        ],
        decimals=0,
    )
    return colour_by_name(panel, {"series": colours.NEUTRAL, "budget": colours.OFF})


def scrapes() -> Panel:
    return graph(
        Text(
            "Scrape",
            "How long Prometheus waited for the metrics. The page is ready before it is asked for:"
            " more than some milliseconds are the network's or a busy host's.",
            NO_TARGET,
        ),
        [over_time(f"max({_SCRAPE})", "scrape")],
        "s",
    )


def version() -> Panel:
    by = "by (instance, version, python_version)"
    of = f"on (instance) group_left (version, python_version) max {by} ({_BUILD})"
    return panel_table(
        Text(
            "Version",
            "What runs on this host, since when, and how many files it holds open. An exporter"
            " that starts again and again is told by its mark in the graphs.",
            SILENT,
        ),
        [
            as_table(f"1000 * max by (instance) ({_STARTED}) * {of}"),
            as_table(f"max by (instance) ({series('process_open_fds', HOST)}) * {of}"),
        ],
        [
            Column("instance", "Host"),
            Column("version", "Exporter", width=100),
            Column("python_version", "Python", width=100),
            Column("Value #A", "Started", unit="dateTimeAsIso"),
            Column("Value #B", "Open files", width=100),
        ],
    )
