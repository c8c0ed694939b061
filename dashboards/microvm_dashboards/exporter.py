"""Exporter: whether what is shown of a host can be trusted, and what it costs to know it."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours, marks, variables
from microvm_dashboards.document import Page
from microvm_dashboards.exporter_graphs import (
    AGE,
    MISSED,
    SUCCESS,
    age_over_time,
    budget,
    events,
    in_time,
    latency,
    memory,
    missed_over_time,
    processor,
    refreshes,
    scrapes,
    version,
)
from microvm_dashboards.expressions import host_count
from microvm_dashboards.layout import Line, Section
from microvm_dashboards.mappings import ANSWERS, COLLECTOR_STATES
from microvm_dashboards.no_data import NO_TARGET, SILENT
from microvm_dashboards.panels import (
    Column,
    Panel,
    Text,
    graph,
    panel_table,
    tile,
    timeline,
)
from microvm_dashboards.queries import as_table, now, over_time
from microvm_dashboards.selectors import HOST, series
from microvm_dashboards.steps import FRESH, NONE_BROKEN, NONE_WRONG, marked

__all__ = ["page"]

_UP: Final = series("up", HOST)
_FOLLOWING: Final = series("microvm_exporter_collector_following", HOST)
_LAST_SUCCESS: Final = series("microvm_exporter_collector_last_success_timestamp_seconds", HOST)
_DURATION: Final = series("microvm_exporter_collector_duration_seconds", HOST)
_LEFT_OUT: Final = series("microvm_exporter_left_out_objects", HOST)

_STATE: Final = (
    f"max by (collector) ({SUCCESS})"
    f" * on (collector) (1 + max by (collector) ({_FOLLOWING}))"
    f" or max by (collector) ({SUCCESS})"
)


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
                    Line(7, [(8, age_over_time()), (8, latency()), (8, in_time())]),
                    Line(7, [(8, events()), (8, refreshes()), (8, missed_over_time())]),
                ],
            ),
            Section(
                "What does it cost?",
                [Line(7, [(6, processor()), (6, memory()), (6, budget()), (6, scrapes())])],
            ),
            Section("What runs?", [Line(5, [(24, version())])]),
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
            NO_TARGET,
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
            SILENT,
        ),
        now(f"count({SUCCESS} == 0) or 0 * count({SUCCESS})"),
        steps=NONE_BROKEN,
    )


def _age() -> Panel:
    return tile(
        Text(
            "Snapshot age",
            "How long ago the host was looked at. At rest it grows up to `--collect.interval`"
            " (15 s by default) and the scrape interval; from 10 minutes on the exporter stands"
            " still.",
            SILENT,
        ),
        now(AGE),
        "s",
        steps=FRESH,
        decimals=0,
    )


def _not_following() -> Panel:
    return tile(
        Text(
            "Not following",
            "Collectors that are not told of changes and look at everything each interval instead:"
            " drift shows later, and it costs more.",
            SILENT,
        ),
        now(f"count({_FOLLOWING} == 0) or 0 * count({_FOLLOWING})"),
        steps=NONE_WRONG,
    )


def _missed() -> Panel:
    return tile(
        Text(
            "Changes missed",
            "Changes in the time range that no event told of and a resync found. Should be 0: else"
            " drift was shown minutes late, and that is a defect to report.",
            SILENT,
        ),
        now(f"sum(increase({MISSED}[$__range])) and on () ({_UP} == 1)"),
        steps={0: colours.GOOD, 0.5: colours.WARNING},
        decimals=0,
    )


def _left_out() -> Panel:
    return tile(
        Text(
            "Objects left out",
            "Objects that are passed over: beyond a limit, unreadable, or of a name that no unit"
            " can have. Their drift is not seen. *unknown* while a collector fails.",
            SILENT,
        ),
        now(host_count(f"sum({_LEFT_OUT})", HOST)),
        steps=NONE_WRONG,
    )


def _states() -> Panel:
    return timeline(
        Text(
            "Collectors over time",
            "Whether each collector could look, and whether it follows changes as they happen or"
            " looks at everything each interval. Where nothing is drawn the exporter gave no"
            " answer, as its own row says.",
            SILENT,
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
            SILENT,
        ),
        [
            as_table(_STATE),
            as_table(f"time() - max {by} ({_LAST_SUCCESS})"),
            as_table(f"max {by} ({_DURATION})"),
            as_table(f"sum {by} ({_LEFT_OUT}) or 0 * max {by} ({SUCCESS} == 1)"),
        ],
        [
            Column("collector", "Collector", width=95),
            Column("Value #A", "State", mappings=COLLECTOR_STATES, filled=True, width=125),
            Column("Value #B", "Success", least=60, unit="s", decimals=0),
            Column("Value #C", "Took", least=60, unit="s"),
            Column("Value #D", "Left out", least=60, steps=marked(colours.WARNING), filled=True),
        ],
        sort=("State",),
    )


def _durations() -> Panel:
    return graph(
        Text(
            "Duration of a look",
            "How long each collector's last run took. Looks at everything, at the start and every"
            " resync, stand out; those between read only what changed.",
            SILENT,
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
            SILENT,
        ),
        [over_time(f"time() - max by (collector) ({_LAST_SUCCESS})", "{{collector}}")],
        "s",
        steps=FRESH,
    )
