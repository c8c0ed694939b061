"""The changes that ``make bench`` makes to running MicroVMs, and when each shows on /metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice

from host.bench_host import (
    DECLARATION_AS_IT_IS,
    DECLARATION_WITH_ONE_MORE,
    UNDECLARED_YET,
    BenchHost,
    replace_declaration,
)
from host.bench_inside import Change, Latencies, Task, start
from host.exporter import PORT
from host.layout import STATE
from host.machine import MachineError
from host.runners import add_tap
from host.vms import Vm


def measure_latencies(host: BenchHost, samples: int) -> Mapping[str, Latencies]:
    """Makes each kind of change that often, to one VM after the other; gives what it took."""
    vms = list(host.fleet.vms.values())
    found = {}
    for number, (title, change) in enumerate(_KINDS.items()):
        some = islice(cycle(vms), number * samples, (number + 1) * samples)
        found[title] = _latencies(host, [change(vm) for vm in some])
    return found


def _latencies(host: BenchHost, changes: Sequence[Change]) -> Latencies:
    process = start(host.machine, Task(port=PORT, changes=changes, rate=0, seconds=0))
    out, _ = process.communicate()
    if process.returncode:
        raise MachineError("the changes could not be made")
    told: Latencies = json.loads(out)
    return told


def churn(host: BenchHost) -> Sequence[Change]:
    """Changes for a round through all VMs: most of them units, links and state, some declarations.

    In ten, there are three of each of the first and one declaration.
    """
    kinds = (_stop, _delete_tap, _remove_current) * 3 + (_declare,)
    return [kind(vm) for kind, vm in zip(cycle(kinds), host.fleet.vms.values(), strict=False)]


def _stop(vm: Vm) -> Change:
    return Change(
        do=f"systemctl stop {vm.unit}",
        undo=f"systemctl start {vm.unit}",
        sample=_sample("not_running", vm.name, vm.unit),
    )


def _delete_tap(vm: Vm) -> Change:
    (tap,) = vm.taps
    return Change(
        do=f"ip link delete {tap}",
        undo=" && ".join(f"ip {command}" for command in add_tap(vm, tap)),
        sample=_sample("missing_interface", vm.name, tap),
    )


def _remove_current(vm: Vm) -> Change:
    current = vm.state / "current"
    return Change(
        do=f"rm {current}",
        undo=f"ln -s {vm.runner} {current}",
        sample=_sample("missing_state", vm.name, str(current)),
    )


def _declare(_: Vm) -> Change:
    return Change(
        do=replace_declaration(DECLARATION_WITH_ONE_MORE),
        undo=replace_declaration(DECLARATION_AS_IT_IS),
        sample=_sample("missing_state", UNDECLARED_YET, str(STATE / UNDECLARED_YET / "current")),
    )


def _sample(kind: str, vm: str, thing: str) -> str:
    labels = f'kind="{kind}",object="{thing}",severity="critical",vm="{vm}"'
    return f"microvm_drift_finding{{{labels}}}"


_KINDS: Mapping[str, Callable[[Vm], Change]] = {
    "`systemctl stop microvm@x`": _stop,
    "`ip link delete`": _delete_tap,
    "`rm` of a `current` link": _remove_current,
    "a new declaration": _declare,
}
"""By what is done; undone, they are a start, an `ip tuntap add`, an `ln -s` and a declaration."""
