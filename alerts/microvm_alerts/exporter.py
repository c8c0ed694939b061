"""The exporter itself: whether what all other alerts stand on can be trusted."""

from __future__ import annotations

from microvm_alerts.rules import Alert, Group
from microvm_alerts.settings import Settings
from microvm_alerts.wording import INSTANCE, links

__all__ = ["exporter_group"]

COLLECTOR = "{{ $labels.collector }}"


def exporter_group(settings: Settings) -> Group:
    """Give the alerts."""
    alerts = (
        _down,
        _gone,
        _absent,
        _collector_failed,
        _snapshot_old,
        _series_budget_exceeded,
        _changes_missed,
        _collector_not_following,
        _objects_left_out,
        _watchdog,
    )
    return Group(
        "microvm-exporter",
        tuple(alert(settings) for alert in alerts),
        settings.span(settings.alerts_interval),
    )


def _down(s: Settings) -> Alert:
    name = "MicrovmExporterDown"
    return Alert(
        name,
        f"max by ({s.host}) (up{{{s.selector}}}) == 0",
        "warning",
        {
            "summary": f"The exporter on {INSTANCE} cannot be scraped",
            "description": f"Prometheus gets no metrics from {INSTANCE}: the exporter is down, the"
            " host is, or the way there. What was known of its MicroVMs is kept meanwhile, and"
            " nothing new is seen.",
            **links(s, name, "microvm-exporter", "job", "instance"),
        },
        hold=s.span(s.for_critical),
        keep_firing_for=s.span(s.keep_firing_for),
    )


def _gone(s: Settings) -> Alert:
    """A target that has left service discovery is watched by nobody, and no ``up`` is 0."""
    name, history = "MicrovmExporterGone", s.span(s.history)
    return Alert(
        name,
        f"max by ({s.host}) (max_over_time(up{{{s.selector}}}[{history}])) == 1\n"
        f"unless on ({s.host})\n"
        f"up{{{s.selector}}}",
        "warning",
        {
            "summary": f"{INSTANCE} is no longer a target of {{{{ $labels.job }}}}",
            "description": f"Prometheus scraped {INSTANCE} within {history}, and does not know it"
            " any more: its MicroVMs are watched by nobody. If it was taken out of service, this"
            " ends by itself.",
            **links(s, name, "microvm-exporter", "job", "instance"),
        },
        hold=s.span(s.for_warning),
    )


def _absent(s: Settings) -> Alert:
    name = "MicrovmExporterAbsent"
    return Alert(
        name,
        f"absent(up{{{s.selector}}})",
        "critical",
        {
            "summary": "No host of {{ $labels.job }} is watched any more",
            "description": "Prometheus has no target of the job {{ $labels.job }}: the scrape"
            " configuration or its service discovery lost them all, or the job has another name"
            " and the rules have to be made for it.",
            **links(s, name, "microvm-fleet", "job"),
        },
        hold=s.span(s.for_critical),
    )


def _collector_failed(s: Settings) -> Alert:
    name, by = "MicrovmCollectorFailed", f"{s.host}, collector"
    success = f"microvm_exporter_collector_success{{{s.selector}}}[{s.span(s.scrape_gap)}]"
    return Alert(
        name,
        f"max by ({by}) (last_over_time({success})) == 0",
        "warning",
        {
            "summary": f"Collector {COLLECTOR} fails on {INSTANCE}",
            "description": f"The exporter on {INSTANCE} cannot read the source {COLLECTOR}, so"
            " kinds of drift that need it are not judged: alerts on them stay as they were. Its"
            " log says why.",
            **links(s, name, "microvm-exporter", "job", "instance"),
        },
        hold=s.span(s.for_warning),
        keep_firing_for=s.span(s.keep_firing_for),
    )


def _snapshot_old(s: Settings) -> Alert:
    """By how long the time of the snapshot stands still: the host's clock may be wrong.

    It has to have been there before as well: one that is scraped now and then stands still between.
    """
    name, age = "MicrovmSnapshotOld", s.span(s.snapshot_age)
    refresh = f"microvm_exporter_last_refresh_timestamp_seconds{{{s.selector}}}"
    return Alert(
        name,
        f"max by ({s.host}) (changes({refresh}[{age}])) == 0\n"
        f"and on ({s.host})\n"
        f"last_over_time({refresh}[{s.span(s.scrape_gap)}] offset {age})",
        "warning",
        {
            "summary": f"The exporter on {INSTANCE} stands still",
            "description": f"The exporter on {INSTANCE} answers, but has not looked at the host for"
            f" {age} or longer: what it serves is old.",
            **links(s, name, "microvm-exporter", "job", "instance"),
        },
        hold=s.span(s.for_critical),
    )


def _series_budget_exceeded(s: Settings) -> Alert:
    """More series than documented: a leak of labels, or relabelling that adds some.

    A host without any MicroVM has no ``microvm_vm_info``, and nor has one whose collector failed.
    """
    name = "MicrovmSeriesBudgetExceeded"
    return Alert(
        name,
        f"max by ({s.host}) (scrape_samples_post_metric_relabeling{{{s.selector}}})\n"
        f"  > on ({s.host})\n"
        "(\n"
        f"  {s.series_per_host}\n"
        f"  + {s.series_per_vm} * (\n"
        f"    count by ({s.host}) (microvm_vm_info{{{s.selector}}})\n"
        f"    or 0 * max by ({s.host}) (microvm_declared_vms{{{s.selector}}})\n"
        "  )\n"
        f"  + on ({s.host})\n"
        f"  {s.series_per_finding} * sum by ({s.host}) (microvm_drift_findings{{{s.selector}}})\n"
        ")",
        "info",
        {
            "summary": f"The exporter on {INSTANCE} has more series than it should",
            "description": f"A scrape of {INSTANCE} gives {{{{ $value }}}} samples. At most"
            f" {s.series_per_host}, {s.series_per_vm} a MicroVM and {s.series_per_finding} a"
            " finding are expected.",
            **links(s, name, "microvm-exporter", "job", "instance"),
        },
        hold=s.span(s.for_info),
    )


def _changes_missed(s: Settings) -> Alert:
    name, history = "MicrovmChangesMissed", s.span(s.history)
    missed = f"microvm_exporter_missed_changes_total{{{s.selector}}}"
    return Alert(
        name,
        f"max by ({s.host}) (increase({missed}[{history}])) > 0",
        "info",
        {
            "summary": f"The exporter on {INSTANCE} missed changes",
            "description": f"No event had told the exporter on {INSTANCE} of"
            f' {{{{ $value | printf "%.0f" }}}} changes within {history}; a resync found them.'
            " Drift shows up minutes late there. That is a defect: please report it.",
            **links(s, name, "microvm-exporter", "job", "instance"),
        },
        hold=s.span(s.for_info),
    )


def _collector_not_following(s: Settings) -> Alert:
    name, by = "MicrovmCollectorNotFollowing", f"{s.host}, collector"
    following = f"microvm_exporter_collector_following{{{s.selector}}}[{s.span(s.scrape_gap)}]"
    success = f"microvm_exporter_collector_success{{{s.selector}}}"
    return Alert(
        name,
        f"max by ({by}) (last_over_time({following})) == 0\n"
        f"unless on ({by})\n"
        f"max by ({by}) ({success}) == 0",
        "info",
        {
            "summary": f"Collector {COLLECTOR} does not follow changes on {INSTANCE}",
            "description": f"The exporter on {INSTANCE} looks at all of {COLLECTOR} at every"
            " interval, because it is not told of changes: it costs more, and drift shows up"
            " later. Its log says why.",
            **links(s, name, "microvm-exporter", "job", "instance"),
        },
        hold=s.span(s.for_info),
    )


def _objects_left_out(s: Settings) -> Alert:
    name, by = "MicrovmObjectsLeftOut", f"{s.host}, collector, reason"
    left_out = f"microvm_exporter_left_out_objects{{{s.selector}}}[{s.span(s.scrape_gap)}]"
    return Alert(
        name,
        f"max by ({by}) (last_over_time({left_out})) > 0",
        "warning",
        {
            "summary": f"Collector {COLLECTOR} leaves objects out on {INSTANCE}",
            "description": f"The exporter on {INSTANCE} skips {{{{ $value }}}} objects of"
            f" {COLLECTOR} (reason: {{{{ $labels.reason }}}}): drift of those is not seen.",
            **links(s, name, "microvm-exporter", "job", "instance"),
        },
        hold=s.span(s.for_warning),
    )


def _watchdog(s: Settings) -> Alert:
    """A dead man's switch: the receiver tells when it stops coming."""
    name = "MicrovmWatchdog"
    return Alert(
        name,
        "vector(1)",
        "none",
        {
            "summary": "Alerts of microvm-exporter get through",
            "description": "This fires always. When it does not arrive any more, Prometheus,"
            " Alertmanager or the way to its receiver is broken, and so are all alerts.",
            **links(s, name, "microvm-exporter"),
        },
    )
