"""``make demo``: a host with a dozen MicroVMs, some of them drifted, and what the exporter says.

It boots a disposable host, looks at it with ``check``, and serves its metrics until Ctrl-C, or for
``DEMO_SECONDS`` seconds.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

from host import cases
from host.exporter import DECLARATION, Exporter, run_check
from host.fleet import Fleet
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
    _say("booting a disposable host (systemd-nspawn)")
    with Machine.boot() as machine:
        fleet = Fleet(machine)
        _say(f"starting {len(VMS)} MicroVMs of all origins")
        fleet.declare(*VMS)
        fleet.switch()
        fleet.settle()
        for what in spoil(fleet):
            _say(what)
        fleet.write_declaration(DECLARATION)
        _say("microvm-exporter check")
        print("\n" + run_check(machine, f"--declaration.file={DECLARATION}")[1])
        _serve(machine)


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


def _serve(machine: Machine) -> None:
    with Exporter(machine, f"--declaration.file={DECLARATION}", interval="5s") as exporter:
        exporter.refresh(1)
        for line in exporter.get("/metrics").decode().splitlines():
            if line.startswith(HEADLINES) and not line.endswith(" 0.0"):
                print(line)
        seconds = os.environ.get("DEMO_SECONDS")
        until = f"for {seconds} s" if seconds else "until Ctrl-C"
        print(f"\nserving {exporter.url}/metrics and {exporter.url}/ {until}", flush=True)
        threading.Event().wait(float(seconds) if seconds else None)


def _say(what: str) -> None:
    print(f"demo: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
