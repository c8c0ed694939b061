"""The shipped examples of `alerts/`, changed in nothing but addresses and in how long they wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from host.nspawn import CHECKOUT

ALERTS = CHECKOUT / "alerts"
ALERTMANAGER = ALERTS / "alertmanager.example.yml"
PROMETHEUS = ALERTS / "prometheus.example.yml"
RULES = ALERTS / "microvm.rules.yml"

Config = dict[str, Any]

_WAITS = {"group_wait": "1s", "group_interval": "1s"}


def alertmanager(secrets: Path, webhook: str, smarthost: str) -> Config:
    """The example that sends to a `host.webhook` and a `host.mailbox`, and waits a second at most.

    What it reads from files is written into the folder ``secrets``. The digest is not held back
    until the morning.
    """
    config: Config = yaml.safe_load(ALERTMANAGER.read_text())
    config["templates"] = [str(ALERTS / name) for name in config["templates"]]
    config["global"] |= {"smtp_smarthost": smarthost, "smtp_require_tls": False}
    for receiver in config["receivers"]:
        for each in receiver.get("pagerduty_configs", ()):
            each["url"] = f"{webhook}/page"
            each["routing_key_file"] = _secret(secrets / "routing-key", "a-key")
        for each in receiver.get("slack_configs", ()):
            each["api_url_file"] = _secret(secrets / "webhook-url", f"{webhook}/chat")
        for each in receiver.get("webhook_configs", ()):
            each["url"] = f"{webhook}/watchdog"
    for route in _routes(config["route"]):
        route |= {name: wait for name, wait in _WAITS.items() if name in route}
        if route["receiver"] == "watchdog":
            route["repeat_interval"] = "1500ms"  # of group_interval as much as in the example
    for interval in config["time_intervals"]:
        interval["time_intervals"] = [{}]  # always
    return config


def prometheus(target: str, instance: str, alertmanager: str, rules: Path) -> Config:
    """The example that scrapes one exporter as ``instance``, each second, and tells one."""
    config: Config = yaml.safe_load(PROMETHEUS.read_text())
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(rules)]
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"] = [{"targets": [target], "labels": {"instance": instance}}]
    (alerting,) = config["alerting"]["alertmanagers"]
    alerting["static_configs"] = [{"targets": [alertmanager]}]
    return config


def _secret(file: Path, text: str) -> str:
    file.write_text(text)
    return str(file)


def _routes(route: Config) -> Iterator[Config]:
    yield route
    for child in route.get("routes", ()):
        yield from _routes(child)
