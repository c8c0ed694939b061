"""What a rule file is made of, and its YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

__all__ = ["Alert", "Group", "Record", "Rule", "to_yaml"]


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule; ``record`` is named ``level:metric:operation``."""

    record: str
    expr: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alerting rule. ``hold`` is its ``for``; empty: at once."""

    alert: str
    expr: str
    severity: str
    annotations: Mapping[str, str]
    hold: str = ""
    keep_firing_for: str = ""


Rule = Record | Alert


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other, at the same time.

    ``interval`` is how often; empty: as often as Prometheus evaluates unless told otherwise.
    """

    name: str
    rules: tuple[Rule, ...]
    interval: str = ""


HEADER: Final = """\
# Prometheus rules of microvm-exporter: loads in Prometheus 2.42 and later.
# Generated: do not edit. `make alerts` makes it from alerts/microvm_alerts/; for another job name,
# other thresholds or URLs, name them in a JSON file (settings.py lists them all, with defaults):
#   echo '{"selector": "job=\\"my-job\\"", "grafana_url": "https://grafana.example"}' > my.json
#   make alerts SETTINGS=my.json OUT=my.rules.yml
"""


def to_yaml(groups: tuple[Group, ...]) -> str:
    """Give the rule file."""
    document = {"groups": [_group(group) for group in groups]}
    text = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return HEADER + text


def _group(group: Group) -> dict[str, Any]:
    interval = {"interval": group.interval} if group.interval else {}
    return {"name": group.name, **interval, "rules": [_rule(rule) for rule in group.rules]}


def _rule(rule: Rule) -> dict[str, Any]:
    match rule:
        case Record(record=name, expr=expr):
            return {"record": name, "expr": expr}
        case Alert():
            optional = {"for": rule.hold, "keep_firing_for": rule.keep_firing_for}
            return {
                "alert": rule.alert,
                "expr": rule.expr,
                **{key: value for key, value in optional.items() if value},
                "labels": {"severity": rule.severity},
                "annotations": dict(sorted(rule.annotations.items())),
            }


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it is, and lists indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
