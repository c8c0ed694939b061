"""Judge a snapshot: every rule whose sources could be read, in a stable order.

`judge` is a function from values to values. What has to be known of earlier looks is in the
judgement before, which goes in again; so is all that need not be worked out anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from microvm_exporter.drift.found import Found, find_again, find_all
from microvm_exporter.drift.host import Host
from microvm_exporter.drift.join import join
from microvm_exporter.drift.kinds import Finding, Kind, finding_order
from microvm_exporter.drift.memory import Memory, remember, weigh
from microvm_exporter.model import Snapshot

__all__ = ["Judgement", "judge", "judge_all"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The findings, in order, and what they were made of.

    ``found`` is everything that was found, ``unconfirmed`` tells that some of it does not count
    yet. From one judgement to the next ``host``, each of its VMs and ``findings`` are the same
    objects while they are equal.
    """

    snapshot: Snapshot
    host: Host
    found: Found
    findings: tuple[Finding, ...]
    unconfirmed: bool
    memory: Memory

    @property
    def judged(self) -> frozenset[Kind]:
        """The kinds that could be judged. The rest is unknown."""
        return self.found.judged


def judge(
    snapshot: Snapshot, before: Judgement | None = None, *, observation: bool = True
) -> Judgement:
    """Find every drift in the snapshot that its sources allow to judge.

    ``before`` is the judgement that came before; only what changed since is judged anew.
    ``observation`` is false for a look that an event brought about: it confirms nothing that has
    to be seen in two observations. When it tells nothing new, it gives ``before`` itself.
    """
    if before is None:
        return judge_all(snapshot, Memory(), observation=observation)
    host = join(snapshot, before.memory.interfaces, before.host)
    found = find_again(host, before.host, before.found)
    interfaces = remember(host, before.host, before.memory.interfaces)
    memory = replace(before.memory, interfaces=interfaces)
    if found is before.found and not before.unconfirmed:
        # All that was found counted, so it still does, and nothing waits for its time.
        judgement = replace(before, snapshot=snapshot, host=host, memory=memory)
    else:
        judgement = _conclude(snapshot, host, found, memory, observation=observation)
        if judgement.findings == before.findings:
            judgement = replace(judgement, findings=before.findings)
    if not observation and host is before.host and _is_same(judgement, before):
        return before
    return judgement


def judge_all(snapshot: Snapshot, memory: Memory, *, observation: bool = True) -> Judgement:
    """Judge the snapshot as if nothing but the memory were known of an earlier look."""
    host = join(snapshot, memory.interfaces)
    memory = replace(memory, interfaces=remember(host, None, memory.interfaces))
    return _conclude(snapshot, host, find_all(host), memory, observation=observation)


def _conclude(
    snapshot: Snapshot, host: Host, found: Found, memory: Memory, *, observation: bool
) -> Judgement:
    counting, memory = weigh(found, host, memory, now=snapshot.taken_at, observation=observation)
    findings = tuple(sorted((f for f in found if f.key in counting), key=finding_order))
    return Judgement(
        snapshot=snapshot,
        host=host,
        found=found,
        findings=findings,
        unconfirmed=len(findings) < sum(1 for _ in found),
        memory=memory,
    )


def _is_same(judgement: Judgement, before: Judgement) -> bool:
    return judgement.findings is before.findings and judgement.memory == before.memory
