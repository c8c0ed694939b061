"""Laws of the drift model, on hosts that Hypothesis puts together and breaks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from changes import CHANGES, Change, share_nothing, share_records, share_tables
from microvm_exporter.drift import RULES, Judgement, Kind, judge
from microvm_exporter.drift.judge import judge_all
from microvm_exporter.drift.kinds import finding_order
from microvm_exporter.drift.memory import Memory
from microvm_exporter.model import Collector, Interface, Origin, Snapshot
from test_drift import DRIFT, NORMAL
from world import NOW, World, brief, healthy_world, macvtap, tap

K = TypeVar("K")
V = TypeVar("V")
Spoil = Callable[[World], None]
Look = tuple[list[Spoil], Spoil | None, bool, float]

SPOILS: list[Spoil] = [case[1] for case in (*DRIFT, *NORMAL)]

origins = st.sampled_from(
    [Origin.DECLARATIVE, Origin.FLAKE, Origin.DEPLOYED, Origin.IMPERATIVE],
)


@st.composite
def healthy_hosts(draw: st.DrawFn) -> World:
    world = World()
    names = draw(st.lists(st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True), unique=True))
    for name in names:
        running = draw(st.booleans())
        devices: tuple[Interface, ...] = tuple(
            make(f"{prefix}{len(world.links)}-{name}"[:15])
            for make, prefix in ((tap, "t"), (macvtap, "m"))
            if draw(st.booleans())
        )
        autostart = running and draw(st.booleans())
        world.add(name, draw(origins), interfaces=devices, running=running, autostart=autostart)
    if not names:
        world.templates = {}
    return world


@st.composite
def spoiled_hosts(draw: st.DrawFn) -> World:
    """The healthy host of the table with some of the table's changes, those that still fit."""
    world = healthy_world()
    for spoil in draw(st.lists(st.sampled_from(SPOILS), max_size=5, unique=True)):
        try_to(spoil, world)
    return world


def try_to(spoil: Spoil, world: World) -> None:
    with suppress(KeyError, AssertionError):  # an earlier change took away what this one changes
        spoil(world)


def _set(attribute: str, value: int) -> Spoil:
    return lambda world: setattr(world, attribute, value)


def _of(change: Change, name: str) -> Spoil:
    return lambda world: change(world, name)


of_a_vm = st.builds(
    _of, st.sampled_from(CHANGES), st.sampled_from(["web", "plain", "scratch", "other"])
)
of_all = st.one_of(
    st.sampled_from(SPOILS),
    st.sampled_from(Collector).map(lambda name: lambda world: world.unread.update({name: "gone"})),
    st.just(lambda world: world.unread.clear()),
    st.builds(
        _set,
        st.sampled_from([f"{what}_left_out" for what in ("units", "wanted", "links", "state")]),
        st.integers(0, 1),
    ),
)
looks = st.tuples(
    st.lists(of_a_vm, max_size=2),
    st.one_of(st.none(), st.none(), of_all),
    st.booleans(),
    st.sampled_from([0.25, 15.0, 60.0]),
)
"""What changes before a look, whether it is an observation, and the seconds since the last one."""


def shuffled(snapshot: Snapshot, seed: int) -> Snapshot:
    """The same snapshot with every mapping and sequence in another order."""
    order = random.Random(seed)

    def shuffle(mapping: Mapping[K, V]) -> dict[K, V]:
        items = list(mapping.items())
        order.shuffle(items)
        return dict(items)

    units, tree = snapshot.systemd.value, snapshot.state.value
    links, declaration = snapshot.links.value, snapshot.declaration.value
    assert units is not None
    assert tree is not None
    assert links is not None
    assert declaration is not None
    files = list(tree.unit_files)
    order.shuffle(files)
    return replace(
        snapshot,
        declaration=replace(
            snapshot.declaration, value=replace(declaration, vms=shuffle(declaration.vms))
        ),
        systemd=replace(snapshot.systemd, value=replace(units, units=shuffle(units.units))),
        links=replace(snapshot.links, value=replace(links, links=shuffle(links.links))),
        state=replace(
            snapshot.state,
            value=replace(
                tree,
                vms=shuffle(tree.vms),
                gcroots=shuffle(tree.gcroots),
                templates=shuffle(tree.templates),
                unit_files=tuple(files),
            ),
        ),
    )


@given(healthy_hosts())
def test_healthy_host_has_no_finding(world: World) -> None:
    judgement = world.judge()
    assert brief(judgement.findings) == []
    assert judgement.judged == set(Kind)


@given(spoiled_hosts(), st.integers())
def test_order_of_input_does_not_matter(world: World, seed: int) -> None:
    judgement = world.judge()
    again = judge(shuffled(world.snapshot(), seed), judgement)
    assert again.findings == judgement.findings


@given(spoiled_hosts())
def test_findings_are_sorted_and_last_while_nothing_changes(world: World) -> None:
    judgement = world.judge()
    assert list(judgement.findings) == sorted(judgement.findings, key=finding_order)
    assert len(set(judgement.findings)) == len(judgement.findings)
    assert judge(world.snapshot(), judgement).findings == judgement.findings


@given(spoiled_hosts(), st.sets(st.sampled_from(Collector), min_size=1))
def test_unknown_never_turns_into_missing(world: World, unread: set[Collector]) -> None:
    """What is found without a source is also found with it, if only excused by a pending job."""
    full = set(brief(tuple(world.judge().found)))
    world.unread = dict.fromkeys(unread, "could not be read")
    partial = world.judge()
    assert set(brief(partial.findings)) <= full
    assert all(not RULES[kind].sources & unread for kind in partial.judged)


@settings(max_examples=300)
@given(
    st.lists(looks, min_size=3, max_size=12),
    st.sampled_from([share_nothing, share_records, share_tables]),
)
def test_judging_what_changed_is_judging_everything(
    sequence: list[Look], share: Callable[[Snapshot, Snapshot], Snapshot]
) -> None:
    world, now = healthy_world(), NOW
    full = judge_all(world.snapshot(), Memory())
    again = judge(world.snapshot())
    for spoils, spoil_all, observation, seconds in sequence:
        for spoil in (*spoils, *filter(None, [spoil_all])):
            try_to(spoil, world)
        now += seconds
        snapshot = replace(world.snapshot(), taken_at=now)
        full = judge_all(snapshot, full.memory, observation=observation)
        again = judge(share(snapshot, again.snapshot), again, observation=observation)
        assert told(again) == told(full)


def told(judgement: Judgement) -> tuple[object, ...]:
    """All that is told of a host, and remembered of it."""
    host = judgement.host
    # What a VM that runs is remembered by is what it shows, so it need not be said of it.
    vms = [(name, replace(vm, remembered=None), vm.claims) for name, vm in host.vms.items()]
    return (
        judgement.findings,
        judgement.judged,
        judgement.unconfirmed,
        judgement.memory,
        host.site,
        dict(host.present_units),
        vms,
    )
