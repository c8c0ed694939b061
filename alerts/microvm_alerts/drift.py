"""Drift: an alert for each kind.

**What is known, and what cannot be told.** ``microvm_drift_finding`` has a series a finding, and
when a collector fails, the scrape fails or the target goes, all of them are absent: to a rule on
the metric itself that looks as if all were well, so it would resolve, and start its ``for`` anew
later. ``microvm_drift_findings{kind}`` tells the difference: it is there, if only as 0, exactly
when the kind was judged. So the alerts do not read the metric but `LAST_SEEN`, which holds for
every finding when it was last seen, and keeps it

- while it is seen;
- while its kind was not judged in the last scrape, for ``linger``: a scrape that failed;
- and for at most ``remember`` when its alert fires, or did within `_FIRED`. What tells of the
  trouble meanwhile is MicrovmCollectorFailed or MicrovmExporterDown. One that does not fire yet is
  not brought to it by that nothing can be told: who takes a host down stops its MicroVMs first.
  The limit is for a kind that an exporter of another version does not judge at all;
- but for ``forget_gone`` only when the host is no target any more: what was taken out of service
  is no drift, and MicrovmExporterGone tells of the rest.

The rule reads its own last result, so what had ended before a failure is not found again by it; a
range selector over the findings would find it, and cost more the longer it looks back. Prometheus
loses that result when it does not run for five minutes, its lookback: a finding that cannot be
judged just then is unknown after that.

**Flapping.** The alerts look back on `LAST_SEEN` for ``linger``: an exporter that has just started
needs two looks for what has to be seen twice, and a MicroVM in a crash loop is up every few
seconds. What comes and goes within ``for`` less ``linger`` never fires, and what comes back every
``linger`` does. Kinds that can flap go on firing for a while after that.

**Identity.** Alerts aggregate by cluster, job, instance, vm, object and kind: what else a target
may have (pod, endpoint, a version) changes without a change of the drift. Two targets on one host
are two instances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from microvm_alerts.remedies import REMEDIES
from microvm_alerts.rules import Alert, Group, Record
from microvm_alerts.settings import Settings
from microvm_alerts.wording import INSTANCE, VM, links
from microvm_exporter.drift import SEVERITIES, Kind, Severity

__all__ = ["LAST_SEEN", "alert_name", "drift_group"]

LAST_SEEN: Final = "object:microvm_drift_finding:last_seen"
"""Unix time, by Prometheus's clock, when each finding that counts was last seen."""

_FIRED: Final = "15m"
"""A Prometheus that was restarted waits with its alerts again: for ten minutes at most, or ``for``
where that is shorter (``--rules.alert.for-grace-period``)."""


@dataclass(frozen=True, slots=True)
class _Drift:
    """What an alert says of its kind. ``flaps``: with a VM that comes and goes, or an exporter."""

    summary: str
    description: str
    flaps: bool = False
    of_host: bool = False


_OBJECT: Final = "{{ $labels.object }}"
_DRIFT: Final[Mapping[Kind, _Drift]] = {
    Kind.UNDECLARED_RUNNING: _Drift(
        f"MicroVM {VM} runs on {INSTANCE}, and nobody declares it",
        f"{_OBJECT} is active on {INSTANCE}, but {VM} is not in the configuration: it was taken out"
        " while it ran, and goes on with its disks, devices and addresses.",
        flaps=True,
    ),
    Kind.UNDECLARED_UNIT: _Drift(
        f"Units of MicroVM {VM} are left on {INSTANCE}, and nobody declares it",
        f"{VM} is not in the configuration and does not run, but systemd on {INSTANCE} still has"
        " units of it loaded.",
    ),
    Kind.UNDECLARED_STATE: _Drift(
        f"State of MicroVM {VM} is left on {INSTANCE}, and nobody declares it",
        f"{_OBJECT} is on {INSTANCE}, but {VM} is neither declared nor running. Its disk images may"
        " be in there.",
    ),
    Kind.ORIGIN_UNKNOWN: _Drift(
        f"MicroVM {VM} on {INSTANCE} was removed, or made by hand",
        f"{_OBJECT} on {INSTANCE} has a flake file and no gcroot link: {VM} was removed from the"
        " configuration, or somebody made it by hand.",
    ),
    Kind.MISSING_UNIT: _Drift(
        f"MicroVM {VM} is declared, but {INSTANCE} has no unit for it",
        f"systemd on {INSTANCE} has nothing to start {VM} with: {_OBJECT} is masked, or the host"
        " module of microvm.nix is not installed.",
    ),
    Kind.MISSING_STATE: _Drift(
        f"MicroVM {VM} is declared, but not installed on {INSTANCE}",
        f"{_OBJECT} is not there on {INSTANCE}, so {VM} cannot start, or will not start again.",
    ),
    Kind.NOT_RUNNING: _Drift(
        f"MicroVM {VM} does not run on {INSTANCE}",
        f"{VM} starts automatically, but {_OBJECT} on {INSTANCE} is down, or comes up only to fail"
        " again.",
        flaps=True,
    ),
    Kind.UNIT_FAILED: _Drift(
        f"Unit {_OBJECT} failed on {INSTANCE}",
        f"{_OBJECT}, of MicroVM {VM}, has failed on {INSTANCE}, and not just because it was"
        " stopped.",
        flaps=True,
    ),
    Kind.CONDITION_UNMET: _Drift(
        f"Start of {_OBJECT} was skipped on {INSTANCE}",
        f"systemd on {INSTANCE} did not start {_OBJECT}, of MicroVM {VM}: a start condition that"
        " should have held did not. systemd does not count that as a failure.",
        flaps=True,
    ),
    Kind.WOULD_NOT_START: _Drift(
        f"MicroVM {VM} on {INSTANCE} would not start completely",
        f"{_OBJECT} is not there on {INSTANCE}, so the next start of {VM}, or of one of its"
        " helpers, will be skipped. What runs now is not affected.",
        flaps=True,
    ),
    Kind.RESTART_PENDING: _Drift(
        f"MicroVM {VM} on {INSTANCE} runs an old build",
        f"{VM} was updated on {INSTANCE} and not restarted: {_OBJECT} is not what is installed.",
    ),
    Kind.OUTDATED: _Drift(
        f"MicroVM {VM} on {INSTANCE} was not updated",
        f"{_OBJECT} on {INSTANCE} is not the runner that is declared: the switch did not install"
        " it.",
    ),
    Kind.DANGLING_LINK: _Drift(
        f"A link of MicroVM {VM} leads nowhere on {INSTANCE}",
        f"{_OBJECT} on {INSTANCE} leads to something that is not there, or to itself: garbage"
        " was collected, or a start without an installed runner made it.",
    ),
    Kind.HELPER_WITHOUT_VM: _Drift(
        f"{_OBJECT} is up without its MicroVM on {INSTANCE}",
        f"{_OBJECT} on {INSTANCE} is active, but microvm@{VM}.service is not: it holds devices or"
        " shares that nobody uses.",
        flaps=True,
    ),
    Kind.MISSING_INTERFACE: _Drift(
        f"MicroVM {VM} runs without its device {_OBJECT} on {INSTANCE}",
        f"microvm@{VM}.service is active on {INSTANCE}, but {_OBJECT} is not there: the guest has"
        " lost that network.",
        flaps=True,
    ),
    Kind.STRAY_TAP: _Drift(
        f"TAP {_OBJECT} is left over on {INSTANCE}",
        f"{_OBJECT} on {INSTANCE} is a TAP of the microvm user that no running MicroVM claims.",
        flaps=True,
        of_host=True,
    ),
    Kind.STRAY_MACVTAP: _Drift(
        f"macvtap {_OBJECT} is left over on {INSTANCE}",
        f"{_OBJECT} on {INSTANCE} is a macvtap of a MicroVM, or of the microvm user, that no"
        " running MicroVM claims.",
        flaps=True,
        of_host=True,
    ),
    Kind.RESIDUAL_UNIT_FILE: _Drift(
        f"A unit file of MicroVM {VM} is left on {INSTANCE}",
        f"{_OBJECT} on {INSTANCE} names {VM}, which nobody wants, or leads nowhere.",
    ),
    Kind.UNUSED_TEMPLATE: _Drift(
        f"{INSTANCE} has unit templates of microvm.nix and no MicroVM",
        f"{_OBJECT} is installed on {INSTANCE}, and there is no MicroVM that could use it.",
        of_host=True,
    ),
    Kind.DAEMON_RELOAD_NEEDED: _Drift(
        f"systemd on {INSTANCE} has not read {_OBJECT} anew",
        f"The file of {_OBJECT}, of MicroVM {VM}, changed on {INSTANCE} after systemd had read it:"
        " the next start will use the old one.",
    ),
}


def drift_group(settings: Settings) -> Group:
    """Give what is known of findings, and the alerts on it."""
    alerts = (alert for kind in Kind for alert in _alerts(settings, kind))
    return Group("microvm-drift", (_last_seen(settings), *alerts))


def alert_name(kind: Kind) -> str:
    """Give the name of a kind's alert: ``MicrovmStrayTap`` of ``stray_tap``."""
    return "Microvm" + "".join(word.capitalize() for word in kind.split("_"))


def _last_seen(settings: Settings) -> Record:
    s = settings
    known = f"{LAST_SEEN}{{{s.recorded}}} > time() -"
    return Record(
        LAST_SEEN,
        f"""\
max by ({s.host}, kind, severity, vm, object) (
  timestamp(microvm_drift_finding{{{s.selector}}})
)
or
(
  (
    ({known} {s.seconds(s.remember):g})
    unless on ({s.host}, kind)
    microvm_drift_findings{{{s.selector}}}
  )
  and on ({s.host})
  present_over_time(up{{{s.selector}}}[{s.span(s.forget_gone)}])
  and on ({s.host}, kind, vm, object)
  (
    ({known} {s.seconds(s.linger):g})
    or
    present_over_time(ALERTS{{{s.recorded}, alertstate="firing"}}[{s.span(_FIRED)}])
  )
)""",
    )


def _alerts(settings: Settings, kind: Kind) -> tuple[Alert, ...]:
    """Give the alert of a kind, or the two where the severity is the finding's own."""
    severity = SEVERITIES[kind]
    if kind is not Kind.CONDITION_UNMET:
        return (_alert(settings, kind, severity),)
    # A rule for each, so that each has the `for` of its severity.
    worse = Severity.CRITICAL
    return (
        _alert(settings, kind, worse, f', severity="{worse}"'),
        _alert(settings, kind, severity, f', severity!="{worse}"'),
    )


def _alert(settings: Settings, kind: Kind, severity: Severity, matcher: str = "") -> Alert:
    s, drift, name = settings, _DRIFT[kind], alert_name(kind)
    seen = f'{LAST_SEEN}{{{s.recorded}, kind="{kind}"{matcher}}}'
    hold = {
        Severity.CRITICAL: s.for_critical,
        Severity.WARNING: s.for_warning,
        Severity.INFO: s.for_info,
    }
    dashboard = ("microvm-host",) if drift.of_host else ("microvm-vm",)
    variables = ("job", "instance") if drift.of_host else ("job", "instance", "vm")
    return Alert(
        name,
        f"max by ({s.host}, vm, object, kind) (\n  last_over_time({seen}[{s.span(s.linger)}])\n)",
        str(severity),
        {
            "summary": drift.summary,
            "description": drift.description,
            "remedy": REMEDIES[kind],
            **links(s, name, *dashboard, *variables),
        },
        hold=s.span(hold[severity]),
        keep_firing_for=s.span(s.keep_firing_for) if drift.flaps else "",
    )
