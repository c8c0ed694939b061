"""Exporter: whether what is shown of a host can be trusted, and what it costs to know it."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours, marks, variables
from microvm_dashboards.document import Page
from microvm_dashboards.expressions import host_count
from microvm_dashboards.layout import Line, Section
from microvm_dashboards.mappings import ANSWERS, COLLECTOR_STATES
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

_UP: Final = series("up", HOST)
_SUCCESS: Final = series("microvm_exporter_collector_success", HOST)
_FOLLOWING: Final = series("microvm_exporter_collector_following", HOST)
_LAST_SUCCESS: Final = series("microvm_exporter_collector_last_success_timestamp_seconds", HOST)
_DURATION: Final = series("microvm_exporter_collector_duration_seconds", HOST)
_LEFT_OUT: Final = series("microvm_exporter_left_out_objects", HOST)
_EVENTS: Final = series("microvm_exporter_events_total", HOST)
_REFRESHES: Final = series("microvm_exporter_refreshes_total", HOST)
_MISSED: Final = series("microvm_exporter_missed_changes_total", HOST)
_REFRESHED: Final = series("microvm_exporter_last_refresh_timestamp_seconds", HOST)
_BUILD: Final = series("microvm_exporter_build_info", HOST)
_LATENCY: Final = "microvm_exporter_event_to_publish_seconds"
_CPU: Final = series("process_cpu_seconds_total", HOST)
_MEMORY: Final = series("process_resident_memory_bytes", HOST)
_STARTED: Final = series("process_start_time_seconds", HOST)
_SAMPLES: Final = series("scrape_samples_post_metric_relabeling", HOST)
_SCRAPE: Final = series("scrape_duration_seconds", HOST)

_AGE: Final = f"time() - max({_REFRESHED})"
_STATE: Final = (
    f"max by (collector) ({_SUCCESS})"
    f" * on (collector) (1 + max by (collector) ({_FOLLOWING}))"
    f" or max by (collector) ({_SUCCESS})"
)
_BUDGET: Final = (
    f"80 + 10 * (count({series('microvm_vm_info', HOST)})"
    f" or 0 * max({series('microvm_declared_vms', HOST)}))"
    f" + 2 * sum({series('microvm_drift_findings', HOST)})"
    f" and on () (min({_SUCCESS}) == 1)"
)
"""As the alert MicrovmSeriesBudgetExceeded has it: 80, and 10 a VM, and 2 a finding. Unknown
while a collector fails: VMs and findings are absent then."""

_SILENT: Final = "unknown: the exporter does not answer"
_ONE_IS_WRONG: Final[Steps] = {0: colours.GOOD, 1: colours.WARNING}
_MARKED: Final[Steps] = {0: "transparent", 1: colours.WARNING}
_FRESH: Final[Steps] = {0: colours.GOOD, 60: colours.WARNING, 600: colours.CRITICAL}


def page() -> Page:
    """The dashboard."""
    return Page(
        uid="microvm-exporter",
        description="Whether what is shown of a host can be trusted: what the exporter looks at,"
        " how fresh that is, and what it costs.",
        time="6h",
        variables=variables.of_host(),
        annotations=[
            marks.alerts(HOST, 'vm=""'),
            marks.declaration_of_host(HOST),
            marks.exporter_starts(HOST),
        ],
        sections=[
            Section("Can I trust what I see?", _tiles()),
            Section(
                "What does it look at?",
                [
                    Line(8, [(10, _states()), (14, _collectors())]),
                    Line(7, [(12, _durations()), (12, _last_successes())]),
                ],
            ),
            Section(
                "How fresh is it?",
                [
                    Line(7, [(8, _age_over_time()), (8, _latency()), (8, _in_time())]),
                    Line(7, [(8, _events()), (8, _refreshes()), (8, _missed_over_time())]),
                ],
            ),
            Section(
                "What does it cost?",
                [Line(7, [(6, _processor()), (6, _memory()), (6, _series()), (6, _scrapes())])],
            ),
            Section("What runs?", [Line(5, [(24, _version())])]),
        ],
    )


def _tiles() -> list[Line]:
    """Two lines: as one, their titles were cut on a narrow screen."""
    return [
        Line(3, [(8, _answers()), (8, _failed()), (8, _age())]),
        Line(3, [(8, _not_following()), (8, _missed()), (8, _left_out())]),
    ]


def _answers() -> Panel:
    return tile(
        Text(
            "Exporter",
            "Whether the last scrape worked. *unknown*: Prometheus has no such target any more."
            " Without an answer nothing is known of this host.",
            "unknown: not a target",
        ),
        now(f"min({_UP})"),
        mappings=ANSWERS,
    )


def _failed() -> Panel:
    return tile(
        Text(
            "Collectors failed",
            "Collectors that could not look. What depends on them is absent everywhere, and"
            " neither fine nor drifted; the exporter's log says why.",
            _SILENT,
        ),
        now(f"count({_SUCCESS} == 0) or 0 * count({_SUCCESS})"),
        steps={0: colours.GOOD, 1: colours.CRITICAL},
    )


def _age() -> Panel:
    return tile(
        Text(
            "Snapshot age",
            "How long ago the host was looked at. At rest it grows up to `--collect.interval`"
            " (15 s by default) and the scrape interval; above 10 minutes the exporter stands"
            " still.",
            _SILENT,
        ),
        now(_AGE),
        "s",
        steps=_FRESH,
        decimals=0,
    )


def _not_following() -> Panel:
    return tile(
        Text(
            "Not following",
            "Collectors that are not told of changes and look at everything each interval instead:"
            " drift shows later, and it costs more.",
            _SILENT,
        ),
        now(f"count({_FOLLOWING} == 0) or 0 * count({_FOLLOWING})"),
        steps=_ONE_IS_WRONG,
    )


def _missed() -> Panel:
    return tile(
        Text(
            "Changes missed",
            "Changes in the time range that no event told of and a resync found. Should be 0: else"
            " drift was shown minutes late, and that is a defect to report.",
            _SILENT,
        ),
        now(f"sum(increase({_MISSED}[$__range])) and on () ({_UP} == 1)"),
        steps={0: colours.GOOD, 0.5: colours.WARNING},
        decimals=0,
    )


def _left_out() -> Panel:
    return tile(
        Text(
            "Objects left out",
            "Objects that are passed over: beyond a limit, unreadable, or of a name that no unit"
            " can have. Their drift is not seen. *unknown* while a collector fails.",
            _SILENT,
        ),
        now(host_count(f"sum({_LEFT_OUT})", HOST)),
        steps=_ONE_IS_WRONG,
    )


def _states() -> Panel:
    return timeline(
        Text(
            "Collectors over time",
            "Whether each collector could look, and whether it follows changes as they happen or"
            " looks at everything each interval. Where nothing is drawn the exporter gave no"
            " answer, as its own row says.",
            _SILENT,
        ),
        [over_time(f"3 + max({_UP})", "exporter"), over_time(_STATE, "{{collector}}")],
        mappings=COLLECTOR_STATES,
    )


def _collectors() -> Panel:
    by = "by (collector)"
    return panel_table(
        Text(
            "Collectors now",
            "What each collector does, how long ago it last succeeded, how long its last look"
            " took, and how many objects it leaves out.",
            _SILENT,
        ),
        [
            as_table(_STATE),
            as_table(f"time() - max {by} ({_LAST_SUCCESS})"),
            as_table(f"max {by} ({_DURATION})"),
            as_table(f"sum {by} ({_LEFT_OUT}) or 0 * max {by} ({_SUCCESS} == 1)"),
        ],
        [
            Column("collector", "Collector", width=95),
            Column("Value #A", "State", mappings=COLLECTOR_STATES, filled=True, width=125),
            Column("Value #B", "Success", width=70, unit="s", decimals=0),
            Column("Value #C", "Took", width=70, unit="s"),
            Column("Value #D", "Left out", width=70, steps=_MARKED, filled=True),
        ],
        sort=("State",),
    )


def _durations() -> Panel:
    return graph(
        Text(
            "Duration of a look",
            "How long each collector's last run took. Looks at everything, at the start and every"
            " resync, stand out; those between read only what changed.",
            _SILENT,
        ),
        [over_time(f"max by (collector) ({_DURATION})", "{{collector}}")],
        "s",
    )


def _last_successes() -> Panel:
    return graph(
        Text(
            "Since the last success",
            "How long ago each collector last read its source. A line that rises is a collector"
            " that fails.",
            _SILENT,
        ),
        [over_time(f"time() - max by (collector) ({_LAST_SUCCESS})", "{{collector}}")],
        "s",
        steps=_FRESH,
    )


def _age_over_time() -> Panel:
    return graph(
        Text(
            "Age of the snapshot",
            "How old what was served at each scrape had become. Above 10 minutes the exporter"
            " stands still, and MicrovmSnapshotOld fires.",
            _SILENT,
        ),
        [over_time(_AGE, "age")],
        "s",
        steps=_FRESH,
    )


def _latency() -> Panel:
    total = series(f"{_LATENCY}_sum", HOST)
    number = series(f"{_LATENCY}_count", HOST)
    buckets = series(f"{_LATENCY}_bucket", HOST)
    quantile = f"histogram_quantile(0.99, sum by (le) (rate({buckets}[1h])))"
    some = f"(sum(rate({number}[1h])) > 0)"
    return graph(
        Text(
            "Event to snapshot",
            "How long it took from hearing of a change to serving it, over the last hour: on"
            " average, and for 99 of 100 changes (read between 0.25 s, 1 s and more). There is no"
            " line where nothing changed.",
            "No change was heard of in this time, or the exporter does not answer",
        ),
        [
            over_time(f"sum(rate({total}[1h])) / {some}", "mean"),
            over_time(f"{quantile} and {some}", "99th percentile"),
        ],
        "s",
    )


def _in_time() -> Panel:
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


def _events() -> Panel:
    return graph(
        Text(
            "Changes heard of",
            "Changes a minute that each collector was told of: signals of systemd, messages of the"
            " kernel, watches on directories.",
            _SILENT,
        ),
        [over_time(_a_minute("collector", _EVENTS), "{{collector}}")],
        stacked=True,
        decimals=1,
    )


def _refreshes() -> Panel:
    panel = graph(
        Text(
            "Looks by cause",
            "Looks at the host a minute: because of an event, by the interval, or a resync, which"
            " looks at everything. A burst of events is folded into at most four looks a second.",
            _SILENT,
        ),
        [over_time(_a_minute("cause", _REFRESHES), "{{cause}}")],
        stacked=True,
    )
    names = {"event": colours.WARNING, "interval": colours.INFO, "resync": colours.UNKNOWN}
    return colour_by_name(panel, names)


def _a_minute(label: str, counter: str) -> str:
    return f"60 * sum by ({label}) (rate({counter}[$__rate_interval]))"


def _missed_over_time() -> Panel:
    return graph(
        Text(
            "Changes missed over time",
            "Changes that only a resync found. Anything above 0 is a defect: please report it.",
            _SILENT,
        ),
        [over_time(f"sum(increase({_MISSED}[$__rate_interval]))", "missed")],
        bars=True,
        decimals=0,
    )


def _processor() -> Panel:
    return graph(
        Text(
            "Processor",
            "Share of one core that the exporter uses. At rest below 0.5 % with 1,000 MicroVMs;"
            " what it makes systemd and the bus do is not in it.",
            _SILENT,
        ),
        [over_time(f"sum(rate({_CPU}[$__rate_interval]))", "of a core")],
        "percentunit",
    )


def _memory() -> Panel:
    return graph(
        Text(
            "Memory",
            "Resident memory of the exporter. It stays flat; below 90 MB with 1,000 MicroVMs.",
            _SILENT,
        ),
        [over_time(f"max({_MEMORY})", "resident")],
        "bytes",
    )


def _series() -> Panel:
    panel = graph(
        Text(
            "Series",
            "Series of the last scrape, and what they may be: 80 a host, 10 a MicroVM, 2 a finding."
            " The budget is unknown while a collector fails.",
            _SILENT,
        ),
        [
            over_time(f"max({_SAMPLES})", "series"),
            over_time(_BUDGET, "budget"),
        ],
        decimals=0,
    )
    return colour_by_name(panel, {"series": colours.INFO, "budget": colours.OFF})


def _scrapes() -> Panel:
    return graph(
        Text(
            "Scrape",
            "How long Prometheus waited for the metrics. The page is ready before it is asked for:"
            " more than some milliseconds are the network's or a busy host's.",
            "unknown: not a target",
        ),
        [over_time(f"max({_SCRAPE})", "scrape")],
        "s",
    )


def _version() -> Panel:
    by = "by (instance, version, python_version)"
    of = f"on (instance) group_left (version, python_version) max {by} ({_BUILD})"
    return panel_table(
        Text(
            "Version",
            "What runs on this host, since when, and how many files it holds open. An exporter"
            " that starts again and again is told by its mark in the graphs.",
            _SILENT,
        ),
        [
            as_table(f"1000 * max by (instance) ({_STARTED}) * {of}"),
            as_table(f"max by (instance) ({series('process_open_fds', HOST)}) * {of}"),
        ],
        [
            Column("instance", "Host"),
            Column("version", "Exporter"),
            Column("python_version", "Python"),
            Column("Value #A", "Started", unit="dateTimeAsIso"),
            Column("Value #B", "Open files"),
        ],
    )
