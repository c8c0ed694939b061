"""Everything that an installation may want otherwise, in one place: a mixin's ``_config``.

A JSON file overrides what it names: ``{"selector": "job=\\"microvms\\"", "for_critical": "10m"}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from microvm_exporter.durations import parse_duration

__all__ = ["Settings", "SettingsError", "read_settings"]


class SettingsError(Exception):
    """The settings cannot be used: file, key, what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings, with their defaults. Durations are Prometheus's: ``5m``, ``1h30m``."""

    selector: str = 'job="microvm"'
    """What picks the exporter's targets, by their labels. It has to name the job: an absent one is
    told by it."""
    cluster_label: str = "cluster"
    """The label that tells clusters apart. Where there is none it changes nothing.

    The dashboards and the example for Alertmanager know it as ``cluster`` only: with another name,
    links to dashboards leave it out, and that example has to name it.
    """
    grafana_url: str = "http://localhost:3000"
    runbook_url: str = (
        "https://github.com/microvm-exporter/microvm-exporter/blob/main/docs/runbooks"
    )

    time_scale: float = 1.0
    """What all durations are multiplied by: below 1 for a demonstration or a test."""
    alerts_interval: str = "1m"
    """How often alerts are evaluated, but for those on findings, which record what they go by.

    They look at half an hour of every VM and at a day of every host, and wait for minutes.
    """
    for_critical: str = "5m"
    for_warning: str = "15m"
    for_info: str = "1h"
    keep_firing_for: str = "5m"
    """How long an alert that can flap goes on after its cause was last seen."""
    scrape_gap: str = "5m"
    """How long a value still counts after the last scrape that worked."""
    linger: str = "2m"
    """How long a finding still counts after it was last seen, although it was looked for."""
    remember: str = "1d"
    """How long what was known still counts while it cannot be told whether it still holds."""
    forget_gone: str = "15m"
    """The same for a target that is no longer one: it may have been taken out of service."""
    history: str = "1d"
    """How far back a target that has gone is looked for, and the most VMs that were declared."""

    restart_loop_restarts: int = 5
    restart_loop_window: str = "30m"
    restart_loop_pause: str = "10m"
    """So many restarts in the window make a loop, until there was none for the pause."""
    host_down_ratio: float = 0.5
    host_down_vms: int = 3
    """A host is mostly down: less than the ratio of its VMs run, and so many at least do not."""
    fleet_degraded_ratio: float = 0.25
    fleet_degraded_hosts: int = 3
    declared_dropped_ratio: float = 0.5
    declared_dropped_vms: int = 4
    """No drop is told of where fewer than that were declared before."""
    snapshot_age: str = "10m"
    """Without a new snapshot for that long the exporter stands still; above --collect.interval."""
    series_per_host: int = 80
    series_per_vm: int = 10
    series_per_finding: int = 2

    @property
    def job(self) -> str:
        """The labels of a job in a ``by`` or ``on`` clause; more can follow."""
        return f"{self.cluster_label}, job"

    @property
    def host(self) -> str:
        """The same for a host."""
        return f"{self.job}, instance"

    @property
    def recorded(self) -> str:
        """The part of the selector that recorded series still have the labels for."""
        kept = ("job", self.cluster_label)
        return ", ".join(m[0] for m in re.finditer(_MATCHER, self.selector) if m[1] in kept)

    def seconds(self, duration: str) -> float:
        """Give a duration in seconds, to scale."""
        return parse_duration(duration) * self.time_scale

    def span(self, duration: str) -> str:
        """Give a duration as Prometheus writes it, to scale."""
        return _format_duration(self.seconds(duration))


def read_settings(path: Path) -> Settings:
    """Read the file. Raises `SettingsError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: expected a JSON file, found: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{path}: expected JSON, found an error: {error}") from None
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: expected an object, found {_found(document)}")
    for key, value in document.items():
        _check(path, key, value)
    settings = replace(Settings(), **document)
    for order in _ORDERS:
        _check_order(path, order, settings)
    return settings


class _Wanted(NamedTuple):
    """What a value must be, in words and as a test."""

    expected: str
    accepts: Callable[[Any], bool]


def _is_duration(value: object) -> bool:
    try:
        return isinstance(value, str) and parse_duration(value) > 0
    except ValueError:
        return False


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value <= high


def _matches(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.ASCII))


_MATCHER: Final = r'([a-zA-Z_]\w*)(?:=~|!~|!=|=)"(?:[^"\\\n]|\\.)*"'
_JOB: Final = r'job="(?:[^"\\\n]|\\.)+"'
_URL: Final = _Wanted("a URL that starts with http:// or https://", _matches(r"https?://[^\s{}]+"))
_SHARE: Final = _Wanted("a number above 0, and at most 1", lambda value: _is_number(value, 0, 1))
_DURATION: Final = _Wanted("a duration such as 5m or 1h30m", _is_duration)
_COUNT: Final = _Wanted(
    "a whole number above 0", lambda value: isinstance(value, int) and _is_number(value, 0, 1e9)
)
_WANTED: Final[Mapping[str, _Wanted]] = {
    "selector": _Wanted(
        'matchers with the job among them, such as job="microvm"',
        _matches(rf"(?:{_MATCHER},\s*)*{_JOB}(?:,\s*{_MATCHER})*"),
    ),
    "cluster_label": _Wanted(
        "the name of a label that no alert has otherwise",
        _matches(r"(?!(?:job|instance|vm|object|kind|severity|collector|reason)$)[a-zA-Z_]\w*"),
    ),
    "grafana_url": _URL,
    "runbook_url": _URL,
    "time_scale": _Wanted("a number above 0, and at most 1000", lambda v: _is_number(v, 0, 1e3)),
    "host_down_ratio": _SHARE,
    "fleet_degraded_ratio": _SHARE,
    "declared_dropped_ratio": _Wanted(
        "a number above 0, and below 1", lambda value: _is_number(value, 0, 1) and value < 1
    ),
}
"""What the values must be that are neither a duration nor a count."""


def _check(path: Path, key: str, value: object) -> None:
    kinds = {field.name: str(field.type) for field in fields(Settings)}
    if key not in kinds:
        raise SettingsError(f"{path}: {key}: expected one of {', '.join(kinds)}")
    wanted = _WANTED.get(key) or (_DURATION if kinds[key] == "str" else _COUNT)
    if not wanted.accepts(value):
        raise SettingsError(f"{path}: {key}: expected {wanted.expected}, found {_found(value)}")


class _Order(NamedTuple):
    """A duration that has to be shorter than another, and what would come of it otherwise."""

    shorter: str
    longer: str
    otherwise: str
    may_equal: bool = False
    share: float = 1
    """Of the longer one."""


_ONE_LOOK: Final = "else what was seen once would fire"
_ORDERS: Final = (
    *(
        # What is known of a finding lingers for that long, and the alert looks back on it as long.
        _Order("linger", f"for_{each}", _ONE_LOOK, share=0.5)
        for each in ("critical", "warning", "info")
    ),
    *(_Order("scrape_gap", f"for_{each}", _ONE_LOOK) for each in ("warning", "info")),
    _Order("for_warning", "history", "else a host that has gone would never be told of"),
    _Order("for_info", "history", "else missed changes would never be told of"),
    _Order("forget_gone", "remember", "nothing is known for longer than that", may_equal=True),
    _Order(
        "restart_loop_pause",
        "restart_loop_window",
        "a loop has ended when the window has passed",
        may_equal=True,
    ),
)


def _check_order(path: Path, order: _Order, settings: Settings) -> None:
    shorter, longer = (str(getattr(settings, key)) for key in (order.shorter, order.longer))
    excess = settings.seconds(shorter) - settings.seconds(longer) * order.share
    if excess > 0 or (excess == 0 and not order.may_equal):
        wanted = "at most" if order.may_equal else "less than"
        if order.share < 1:
            wanted += " half of"
        raise SettingsError(
            f"{path}: {order.shorter}: expected {wanted} {order.longer} ({longer}), found"
            f" {_found(shorter)}: {order.otherwise}"
        )


def _found(value: object) -> str:
    match value:
        case list():
            return "an array"
        case dict():
            return "an object"
        case _:
            return json.dumps(value)


_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def _format_duration(seconds: float) -> str:
    rest = max(1, round(seconds * 1000))
    parts = []
    for unit, worth in _UNITS.items():
        count, rest = divmod(rest, worth)
        parts.append(f"{count}{unit}" if count else "")
    return "".join(parts)
