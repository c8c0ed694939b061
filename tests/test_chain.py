"""The whole chain: a host drifts, people hear of it, do as they are told, and hear of the end."""

from __future__ import annotations

import time

from host import Fleet, Vm, examples
from host.chain import ALERT, INSTANCE, chain, undeclare_and_remove
from host.exporter import DECLARATION, Exporter
from host.inbox import Inbox
from promtool import run_promtool
from tools import tool

VM = "mail.internal"


def test_example_for_prometheus_is_accepted() -> None:
    tool("promtool")
    assert run_promtool("check", "config", examples.PROMETHEUS).returncode == 0


def test_from_drift_to_the_chat_and_back(fleet: Fleet) -> None:
    tool("prometheus")
    tool("prometheus-alertmanager")
    begun = time.monotonic()
    fleet.declare(Vm("web", taps=("vm-web",)), Vm(VM, taps=("vm-mail",)))
    fleet.switch()
    fleet.settle()
    fleet.write_declaration(DECLARATION)
    state = fleet.vms[VM].state
    inbox, said = Inbox(), list[str]()
    with (
        Exporter(fleet.machine, f"--declaration.file={DECLARATION}") as exporter,
        chain(exporter, inbox) as watched,
    ):
        told, ended = undeclare_and_remove(fleet, exporter, watched, VM, said.append)
        inbox.wait_for("the dead man's switch", lambda each: each.receiver == "watchdog")
        assert exporter.findings() == []
        assert [each.title for each in inbox.of("chat")] == [told.title, ended.title]
        assert inbox.of("page") == []
        assert (watched.alertmanager.log, watched.prometheus.log) == ("", "")

    assert told.title == f"[warning] MicroVM {VM} runs on {INSTANCE}, and nobody declares it"
    assert f"systemctl stop 'microvm@{VM}.service' " in told.text, "the remedy"
    assert f"/{ALERT}.md" in told.text, "the runbook"
    assert f"var-instance=demo-host%3A10686&var-vm={VM}" in told.text, "the dashboard"
    assert ended.title == told.title.replace("warning", "resolved")
    assert f"the exporter finds: warning undeclared_running {VM} microvm@{VM}.service" in said

    assert fleet.machine.show(f"microvm@{VM}.service", "ActiveState")["ActiveState"] == "inactive"
    assert "vm-mail" not in fleet.machine.links()
    assert not fleet.machine.path(state).exists()
    assert fleet.machine.show("microvm@web.service", "ActiveState")["ActiveState"] == "active"
    assert time.monotonic() - begun < 60
