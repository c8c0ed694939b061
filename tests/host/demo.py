"""``make demo``: a host with a dozen MicroVMs, what goes wrong there, and who hears of it.

It boots a disposable host and has it watched by the exporter, Prometheus and Alertmanager, with
what `alerts/` ships. One MicroVM is undeclared while it runs; the chat says what to do, and it is
done. Then more drift comes, for ``check`` and for ``/metrics``. All of it is served until Ctrl-C,
or for ``DEMO_SECONDS`` seconds.
"""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from host import cases, service
from host.chain import Chain, chain, undeclare_and_remove
from host.exporter import DECLARATION, Exporter, run_check
from host.fleet import Fleet
from host.inbox import Inbox, Notification
from host.machine import Machine
from host.vms import Hypervisor, Origin, Vm

HEADLINES = (
    "microvm_declared_vms",
    "microvm_present_units",
    "microvm_failed_condition_checks",
    "microvm_stray_tap_devices",
    "microvm_drifted_vms",
    "microvm_drift_finding{",
)

VMS = (
    Vm("gateway", taps=("vm-gateway",)),
    Vm("firewall", taps=("vm-firewall",)),
    Vm("dns", taps=("vm-dns",), hypervisor=Hypervisor.CLOUD_HYPERVISOR),
    Vm("mail.internal", taps=("vm-mail",)),
    Vm("web", taps=("vm-web",), virtiofs=("ro-store",)),
    Vm("db", taps=("vm-db", "vm-db-backup")),
    Vm("build", autostart=False, hypervisor=Hypervisor.KVMTOOL),
    Vm("metrics", Origin.FLAKE, taps=("vm-metrics",)),
    Vm("media", Origin.FLAKE, macvtaps=("vm-media",)),
    Vm("home", Origin.DEPLOYED, taps=("vm-home",), hypervisor=Hypervisor.FIRECRACKER),
    Vm("scratch", Origin.IMPERATIVE, autostart=False),
    Vm("staging", Origin.INSTALLED_ON_HOST, taps=("vm-staging",)),
)

REMOVED = Vm("wiki", taps=("vm-wiki",))
"""The one that is undeclared and removed, without a trace, before the others drift."""

PEOPLE = {"page": "the pager", "chat": "the chat", "digest": "the daily mail, not held back here,"}


def main() -> int:
    if why := Machine.missing():
        print(f"make demo needs a disposable host: {why}", file=sys.stderr)
        return 1
    try:
        _demo()
    except KeyboardInterrupt:
        print()
    return 0


def _demo() -> None:
    why_untold = service.missing("prometheus", "prometheus-alertmanager")
    _say("booting a disposable host (systemd-nspawn)")
    with Machine.boot() as machine, ExitStack() as stack:
        fleet = _start(machine, VMS if why_untold else (*VMS, REMOVED))
        flag = f"--declaration.file={DECLARATION}"
        exporter = stack.enter_context(Exporter(machine, flag, interval="5s"))
        watched = None
        if why_untold:
            _say(f"nobody will be told of drift: {why_untold}")
        else:
            _say("starting Prometheus and Alertmanager with what alerts/ ships, but shorter waits")
            watched = stack.enter_context(chain(exporter, Inbox(_print)))
            undeclare_and_remove(fleet, exporter, watched, REMOVED.name, _say)
        for what in spoil(fleet):
            fleet.write_declaration(DECLARATION)
            _say(what)
        fleet.write_declaration(DECLARATION)
        _report(machine, exporter)
        if watched:
            _tell(watched)
        _serve(exporter)


def _start(machine: Machine, vms: Sequence[Vm]) -> Fleet:
    _say(f"starting {len(vms)} MicroVMs of all origins")
    fleet = Fleet(machine)
    fleet.declare(*vms)
    fleet.switch()
    fleet.settle()
    fleet.write_declaration(DECLARATION)
    return fleet


def spoil(fleet: Fleet) -> Iterator[str]:
    """Bring the drift about, step by step; say what each step is before it is done."""
    yield "undeclaring mail.internal while it runs"
    cases.undeclare_running(fleet, "mail.internal")
    yield "removing firewall, and starting it again by hand"
    cases.start_removed(fleet, "firewall")
    yield "stopping web and deleting its runner's bin/microvm-run"
    cases.start_broken_runner(fleet, "web")
    yield "updating dns without a restart"
    cases.update_running(fleet, "dns")
    yield "leaking a TAP of the microvm user"
    cases.add_tap(fleet, "vm-old")


def _print(notification: Notification) -> None:
    """Print what people get of the one MicroVM, in full. The rest comes at the end, by titles."""
    if REMOVED.name in notification.title:
        text = f"{notification.title}\n\n{notification.text}"
        box = textwrap.indent(text, "    | ", lambda _: True)
        _say(f"{PEOPLE[notification.receiver]} gets\n\n{box}\n")


def _report(machine: Machine, exporter: Exporter) -> None:
    _say("microvm-exporter check")
    print("\n" + run_check(machine, f"--declaration.file={DECLARATION}")[1])
    exporter.refresh(1)
    for line in exporter.get("/metrics").decode().splitlines():
        if line.startswith(HEADLINES) and not line.endswith(" 0.0"):
            print(line)
    print(flush=True)


def _tell(watched: Chain) -> None:
    for receiver, who in PEOPLE.items():
        watched.inbox.wait_for(who, partial(_is_of_others, receiver))
        _say(f"{who} gets: {watched.inbox.of(receiver)[-1].title}")
    _say(f"Prometheus: {watched.prometheus.url}/alerts")
    _say(f"Alertmanager: {watched.alertmanager.url}/#/alerts")


def _is_of_others(receiver: str, notification: Notification) -> bool:
    return notification.receiver == receiver and REMOVED.name not in notification.title


def _serve(exporter: Exporter) -> None:
    seconds = os.environ.get("DEMO_SECONDS")
    until = f"for {seconds} s" if seconds else "until Ctrl-C"
    _say(f"serving {exporter.url}/metrics and {exporter.url}/ {until}")
    threading.Event().wait(float(seconds) if seconds else None)


def _say(what: str) -> None:
    print(f"demo: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
