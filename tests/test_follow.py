"""Following changes leads to where a fresh look does, whatever happens and in whatever order.

A seeded generator changes the host at random while two exporters follow it. One looks at everything
again every few seconds and tells whether that ever found what no event had told; the other never
does, and has but events. When the host is at rest, both have to show what a fresh exporter shows.

`make test` runs a short form. Thousands of changes, with another seed::

    FOLLOW_CHANGES=5000 FOLLOW_SEED=7 .venv/bin/python -m pytest -s tests/test_follow.py
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

import pytest

from host import Fleet, Machine
from host.exporter import Exporter
from host.machine import eventually
from host.random_changes import DECLARATION, STATIC, UNIT_DIRS, RandomChanges
from microvm_exporter.collectors import units

CHANGES = int(os.environ.get("FOLLOW_CHANGES") or 200)
SEED = int(os.environ.get("FOLLOW_SEED") or 1)

ROUND = 200
"""Changes between two comparisons: few enough to see which one was not followed."""

COLLECTORS = ("declaration", "systemd", "links", "state")
FLAGS = (
    f"--declaration.file={DECLARATION}",
    *(f"--unit-dir={folder}" for folder in UNIT_DIRS),
    "--log.level=warn",
)
NEVER = "1h"
PIPE_SIZE = 1 << 20

Key = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a sample, and its labels in order."""

FINDING = "microvm_drift_finding"
COUNTED = ("microvm_drift_findings", "microvm_drifted_vms")
CHECKS = "microvm_failed_condition_checks"
RESTARTS = "microvm_vm_restarts_total"


class Follower(Exporter):
    """An exporter with a port of its own, so that there may be several."""

    _ports = count(10690)

    def __init__(self, machine: Machine, *flags: str, interval: str) -> None:
        port = next(self._ports)
        listen = f"--web.listen-address=127.0.0.1:{port}"
        super().__init__(machine, listen, *FLAGS, *flags, interval=interval)
        host, outside = machine.forward(port, 0)
        self.url = f"http://{host}:{outside}"
        assert self.process.stderr is not None
        # Nobody reads the log of thousands of changes before the end.
        fcntl.fcntl(self.process.stderr, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def resyncs(self) -> float:
        return self.value("microvm_exporter_refreshes_total", cause="resync") or 0.0

    def not_followed(self) -> list[str]:
        """What it says that it has missed, or does not follow."""
        missed = self.value("microvm_exporter_missed_changes_total")
        following = {
            name: self.value("microvm_exporter_collector_following", collector=name)
            for name in COLLECTORS
        }
        told = [f"{name}: following is {value}" for name, value in following.items() if value != 1]
        return told + ([f"missed changes: {missed}"] if missed != 0 else [])


@dataclass(frozen=True, slots=True)
class View:
    """What an exporter shows of the host: its samples without those about itself."""

    samples: Mapping[Key, float]

    @classmethod
    def of(cls, exporter: Exporter) -> View:
        return cls(
            {
                (name, tuple(sorted(labels.items()))): value
                for name, found in exporter.samples().items()
                if name.startswith("microvm_") and not name.startswith("microvm_exporter_")
                for labels, value in found
            }
        )

    def findings(self) -> list[dict[str, str]]:
        return [dict(labels) for name, labels in self.samples if name == FINDING]

    def contradictions(self) -> list[str]:
        """Counts of findings that are not those of the findings: half of a change was published."""
        findings = self.findings()
        kinds = Counter(finding["kind"] for finding in findings)
        vms = {finding["vm"] for finding in findings} - {""}
        derived = {("microvm_drifted_vms", ()): float(len(vms))} | {
            key: float(kinds[dict(key[1])["kind"]])
            for key in self.samples
            if key[0] == "microvm_drift_findings"
        }
        return _difference({key: self.samples.get(key) for key in derived}, derived)

    def of_units(self, kind: str, units: set[str]) -> set[str]:
        """The VMs of the findings of a kind that are about units."""
        found = (finding for finding in self.findings() if finding["kind"] == kind)
        return {finding["vm"] for finding in found if finding["object"] in units}

    def without(self, units: set[str], vms: set[str], names: Collection[str]) -> dict[Key, float]:
        """The samples without the failed checks of units, and without those of these names.

        A failed check stands for the `would_not_start` of its VM too: those of `vms` are left out.
        """
        samples = {key: value for key, value in self.samples.items() if key[0] not in names}
        for key in [key for key in samples if key[0] == FINDING]:
            match dict(key[1]):
                case {"kind": "condition_unmet", "object": unit} if unit in units:
                    del samples[key]
                    samples[CHECKS, (("template", f"{unit.partition('@')[0]}@"),)] -= 1
                case {"kind": "would_not_start", "vm": vm} if vm in vms:
                    del samples[key]
        return samples


def _difference(ours: Mapping[Key, float | None], theirs: Mapping[Key, float]) -> list[str]:
    return [
        f"{name}{dict(labels)}: {ours.get((name, labels))}, and {theirs.get((name, labels))} afresh"
        for name, labels in sorted({**ours, **theirs})
        if ours.get((name, labels)) != theirs.get((name, labels))
    ]


def forgotten_checks(machine: Machine, view: View) -> set[str]:
    """Units with a failed check that systemd has forgotten, and whoever saw it remembers."""
    units = sorted({f["object"] for f in view.findings() if f["kind"] == "condition_unmet"})
    if not units:
        return set()
    shown = machine.systemctl("show", "--property=Id,ConditionTimestampMonotonic", *units)
    blocks = (dict(line.split("=", 1) for line in b.splitlines()) for b in shown.split("\n\n"))
    return {b["Id"] for b in blocks if b["ConditionTimestampMonotonic"] == "0"}


def compare(machine: Machine, followed: Exporter, fresh: Exporter) -> list[str]:
    """Each sample that is not the same in both, aside from what only one can know.

    Those are failed checks, restarts where systemd forgets them, and what is worked out of these.
    """
    ours, theirs = View.of(followed), View.of(fresh)
    checks = forgotten_checks(machine, ours)
    vms = ours.of_units("condition_unmet", checks)
    version = machine.systemctl("show", "--property=Version", "--value")
    names = (*COUNTED, *((RESTARTS,) if units.forgets_restarts(version) else ()))
    return (
        ours.contradictions()
        + theirs.contradictions()
        + _difference(ours.without(checks, vms, names), theirs.without(checks, vms, names))
    )


@pytest.fixture
def changes(fleet: Fleet) -> Iterator[RandomChanges]:
    yield RandomChanges(fleet, SEED)
    fleet.machine.systemctl("start", "dbus.socket", "dbus.service")
    fleet.machine.remove(STATIC)


@pytest.mark.timeout(120 + CHANGES)
def test_what_is_followed_is_what_a_fresh_look_finds(changes: RandomChanges) -> None:
    machine = changes.machine
    with (
        Follower(machine, "--collect.resync-interval=3s", interval="1s") as checking,
        Follower(machine, f"--collect.resync-interval={NEVER}", interval="2s") as trusting,
    ):
        for begin in range(0, CHANGES, ROUND):
            changes.made.clear()
            changes.make(min(ROUND, CHANGES - begin))
            changes.settle()
            wait_for_resyncs(checking)
            with Follower(machine, interval="500ms") as fresh:
                fresh.refresh(3)
                told = {
                    "the one that looks again": differences(machine, checking, fresh),
                    "the one that never looks again": differences(machine, trusting, fresh),
                    "what the first says of itself": checking.not_followed(),
                    "what the second says of itself": trusting.not_followed(),
                }
            if any(told.values()):
                told["the log of the first"] = checking.stop().splitlines()
                pytest.fail(story(changes, told), pytrace=False)


def wait_for_resyncs(exporter: Follower) -> None:
    """Wait until what a look at everything found, and no event told within 2 s, is told."""
    before = exporter.resyncs()
    eventually("looks at everything", lambda: exporter.resyncs() >= before + 3, timeout=30)


def differences(machine: Machine, followed: Exporter, fresh: Exporter) -> list[str]:
    """Compare until both show the same: what takes two observations may come a look later."""
    deadline = time.monotonic() + 10
    while found := compare(machine, followed, fresh):
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return found


def story(changes: RandomChanges, told: Mapping[str, list[str]]) -> str:
    """What was done since the last comparison, and what came of it."""
    lines = [f"after these changes, of FOLLOW_CHANGES={CHANGES} FOLLOW_SEED={SEED}:", *changes.made]
    for title, found in told.items():
        lines += [f"{title}:", *found] if found else []
    return "\n".join(lines)
