"""From drift to the people and back: Prometheus and Alertmanager with what `alerts/` ships.

The rules are the generator's, with waits of seconds; addresses are of this machine's loopback.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from host import cases, examples
from host.alertmanager import Alertmanager
from host.exporter import COMMAND, DECLARATION, Exporter
from host.fleet import Fleet
from host.inbox import Inbox, Notification
from host.machine import Machine, eventually
from host.mailbox import mailbox
from host.nspawn import CHECKOUT, ENVIRONMENT
from host.prometheus import Prometheus
from host.webhook import webhook

ALERT = "MicrovmUndeclaredRunning"
INSTANCE = "demo-host:10686"

_SETTINGS = {
    "for_critical": "10s",  # the first scrape may come after five, and none may seem to be a target
    "for_warning": "5s",
    "for_info": "5s",
    "scrape_gap": "4s",
    "alerts_interval": "1s",
    "keep_firing_for": "2s",
    "linger": "2s",  # less than those, or each moment of a switch would fire
}

_SEND_AGAIN = "--rules.alert.resend-delay=3s"
"""The first evaluation may come before Prometheus knows whom to tell; the next is in a minute.

An alert that is not sent again within four times that counts as over.
"""


@dataclass(frozen=True, slots=True)
class Chain:
    """Both servers at work, and what they make people get."""

    prometheus: Prometheus
    alertmanager: Alertmanager
    inbox: Inbox

    def state(self, alert: str, vm: str) -> str:
        """In which state Prometheus has a VM's alert: ``pending``, ``firing``, or none."""
        wanted = {"alertname": alert, "vm": vm}
        alerts = self.prometheus.api("alerts")["alerts"]
        return next((a["state"] for a in alerts if wanted.items() <= a["labels"].items()), "")


@contextmanager
def chain(exporter: Exporter, inbox: Inbox) -> Iterator[Chain]:
    """Has an exporter watched as `INSTANCE`, and the inbox told."""
    target = exporter.url.removeprefix("http://")
    with (
        tempfile.TemporaryDirectory() as temporary,
        webhook(inbox) as url,
        mailbox(inbox) as smarthost,
    ):
        folder = Path(temporary)
        config = examples.alertmanager(folder, url, smarthost)
        with Alertmanager(json.dumps(config)) as alertmanager:
            rules = _make_rules(folder)
            config = examples.prometheus(target, INSTANCE, alertmanager.address, rules)
            with Prometheus(json.dumps(config), None, _SEND_AGAIN) as prometheus:
                yield Chain(prometheus, alertmanager, inbox)


def undeclare_and_remove(
    fleet: Fleet, exporter: Exporter, chain: Chain, name: str, say: Callable[[str], None]
) -> tuple[Notification, Notification]:
    """Undeclares a VM that runs, waits until the chat hears of it, and does what it is told to do.

    Says each step as it is seen. Gives what the chat got: of the drift, and of its end.
    """
    say(f"undeclaring {name} while it runs")
    cases.undeclare_running(fleet, name)
    fleet.write_declaration(DECLARATION)
    finding = f"warning undeclared_running {name} microvm@{name}.service"
    eventually("the finding", lambda: finding in exporter.findings())
    say(f"the exporter finds: {finding}")
    eventually("the alert", lambda: chain.state(ALERT, name), 30)
    say(f"Prometheus has the alert {ALERT}, and waits whether it stays")
    eventually("it fires", lambda: chain.state(ALERT, name) == "firing", 30)
    say(f"{ALERT} fires")
    told = chain.inbox.wait_for("the alert", lambda each: _is_chat(each, name, resolved=False))
    say("doing on the host as it says")
    commands = commands_of(name, paste(fleet.machine, remedy(told)))
    say(f"doing as microvm-exporter check says there:\n\n{indent(commands, '    ')}")
    paste(fleet.machine, commands)
    eventually("no finding", lambda: not any(f" {name} " in each for each in exporter.findings()))
    say("the exporter finds nothing of it any more")
    ended = chain.inbox.wait_for("resolved", lambda each: _is_chat(each, name, resolved=True))
    return told, ended


def remedy(notification: Notification) -> str:
    """The commands that the chat gives for one alert, to be pasted into a root shell."""
    found = re.search(r"```\n(.*?)```", notification.text, re.DOTALL)
    assert found, f"nothing to do:\n{notification.text}"
    return found[1]


def commands_of(vm: str, report: str) -> str:
    """The commands that the report of `check` gives for one VM; they stand furthest right."""
    found = re.search(rf"^{re.escape(vm)}\n((?: .*\n)+)", report, re.MULTILINE)
    assert found, f"nothing about {vm}:\n{report}"
    return "".join(re.findall(r"^ {14}(\S.*\n)", found[1], re.MULTILINE))


def paste(machine: Machine, commands: str) -> str:
    """Gives what a root shell on the host prints, where the exporter is installed."""
    path = f"{Path(COMMAND).parent}:{ENVIRONMENT['PATH']}"
    env = {"PATH": path, "MICROVM_EXPORTER_DECLARATION_FILE": str(DECLARATION)}
    return machine.run("sh", "-uc", commands, check=False, env=env).stdout


def _is_chat(notification: Notification, vm: str, *, resolved: bool) -> bool:
    return (
        notification.receiver == "chat"
        and notification.resolved == resolved
        and vm in notification.text
    )


def _make_rules(folder: Path) -> Path:
    """As a user with settings of their own does it: `make alerts SETTINGS=… OUT=…`."""
    settings, rules = folder / "settings.json", folder / "microvm.rules.yml"
    settings.write_text(json.dumps(_SETTINGS))
    subprocess.run(
        [sys.executable, "-m", "microvm_alerts", f"--settings={settings}", f"--output={rules}"],
        env={"PYTHONPATH": str(CHECKOUT / "alerts")},
        check=True,
    )
    return rules
