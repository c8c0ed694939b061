"""What ``make bench`` does in the machine itself: changes, and the wait for what comes of them.

It is run there as ``python -m host.bench_inside``, with what to do as JSON on standard input, so
that neither a port forward nor a start from outside is measured.
"""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import TypedDict

from host.machine import PYTHON, Inside, Machine
from host.nspawn import CHECKOUT

_POLL = 0.010
_TIMEOUT = 40.0  # an interval, and a look at 5,000 VMs that takes its time
_REST = (0.3, 0.8)  # seconds; at random, so that changes come at any moment of a refresh
_LAG = 6  # changes that are not undone at a time
_MAX_RUNNING = 40


class Change(TypedDict):
    """A shell command, what undoes it, and the begin of the sample that is there in between."""

    do: str
    undo: str
    sample: str


class Latencies(TypedDict):
    """Seconds from the begin of each command until /metrics showed what came of it."""

    shown: list[float]
    gone: list[float]


class Churned(TypedDict):
    """How many changes were made, undoing included, and the seconds that it took."""

    changes: int
    seconds: float


class Task(TypedDict):
    """What to do with changes: tell their latencies, or (with a rate) make them for some time."""

    port: int
    changes: Sequence[Change]
    rate: float
    seconds: float


def start(machine: Machine, task: Task) -> Inside:
    """Starts it; its standard output gets the result as JSON."""
    process = machine.popen(
        *(str(PYTHON), "-m", "host.bench_inside"),
        env={"PYTHONPATH": f"{CHECKOUT}/tests"},
        stdin=subprocess.PIPE,
        stderr=sys.stderr,
    )
    assert process.stdin is not None
    json.dump(task, process.stdin)
    process.stdin.close()
    process.stdin = None  # communicate() would flush it
    return process


def _latencies(port: int, changes: Sequence[Change]) -> Latencies:
    page = _Page(port)
    found = Latencies(shown=[], gone=[])
    for change in changes:
        sample = change["sample"].encode()
        found["shown"].append(page.wait(change["do"], sample, there=True))
        found["gone"].append(page.wait(change["undo"], sample, there=False))
    return found


class _Page:
    """`/metrics`, over one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def wait(self, command: str, sample: bytes, *, there: bool) -> float:
        """Seconds from the begin of the command until the sample is there, or gone."""
        time.sleep(random.uniform(*_REST))
        begun = time.perf_counter()
        running = subprocess.Popen(("sh", "-c", command))
        while (sample in self._get()) is not there:
            if time.perf_counter() > begun + _TIMEOUT:
                sys.exit(f"{command}: {sample.decode()} does not change within {_TIMEOUT:.0f} s")
            time.sleep(_POLL)
        seconds = time.perf_counter() - begun
        if running.wait(_TIMEOUT):
            sys.exit(f"{command}: exit status {running.returncode}")
        return seconds

    def _get(self) -> bytes:
        self._connection.request("GET", "/metrics")
        return self._connection.getresponse().read()


def _churn(changes: Sequence[Change], rate: float, seconds: float) -> Churned:
    """Makes changes at a rate, each undone some changes later, and then all that is left."""
    begun = time.monotonic()
    made, running, undo = 0, list[subprocess.Popen[bytes]](), deque[str]()
    following = iter(changes)

    def run(command: str) -> None:
        nonlocal made
        time.sleep(max(0.0, begun + made / rate - time.monotonic()))
        running[:] = [process for process in running if process.poll() is None]
        if len(running) >= _MAX_RUNNING:
            running.pop(0).wait()
        running.append(subprocess.Popen(("sh", "-c", command), stdout=sys.stderr))
        made += 1

    while time.monotonic() < begun + seconds:
        change = next(following, None)
        if change is None:
            following = iter(changes)
            continue
        run(change["do"])
        undo.append(change["undo"])
        if len(undo) > _LAG:
            run(undo.popleft())
    while undo:
        run(undo.popleft())
    took = time.monotonic() - begun
    for process in running:
        process.wait()
    return Churned(changes=made, seconds=took)


def _main(task: Task) -> Latencies | Churned:
    if task["rate"]:
        return _churn(task["changes"], task["rate"], task["seconds"])
    return _latencies(task["port"], task["changes"])


if __name__ == "__main__":
    json.dump(_main(json.load(sys.stdin)), sys.stdout)
