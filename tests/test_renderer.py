"""What is rendered look after look is what is rendered from scratch, and costs what changed."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import pytest
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector as FamilySource

from microvm_exporter.activity import Activity, Tally
from microvm_exporter.drift import Judgement, judge
from microvm_exporter.exposition import Renderer, make_family
from microvm_exporter.metrics import METRICS
from microvm_exporter.model import Cause, Collector, Template
from microvm_exporter.samples import View
from test_drift import DRIFT
from world import NOW, World, healthy_world, tap

HOSTILE = ('a"b\\c\nd\x1b[31m\udcff</p>', "x\r\x0b\x85\u2028y", "# EOF", 'q"} 1.0')


class FromScratch(FamilySource):
    """All metrics as the library renders them when it is given them at once."""

    def __init__(self, view: View) -> None:
        found = ((metric, metric.samples(view)) for metric in METRICS)
        self.families = [make_family(m, samples) for m, samples in found if samples is not None]

    def collect(self) -> list[Family]:
        return self.families

    def render(self) -> tuple[bytes, bytes]:
        openmetrics: bytes = generate_openmetrics(self)  # type: ignore[no-untyped-call]
        return generate_latest(self), openmetrics


def own(page: bytes) -> bytes:
    """Without what tells of the process, which is never the same twice."""
    return b"".join(line for line in page.splitlines(keepends=True) if b"process_" not in line)


# ------------------------------------------------------------------------------------ the walk

Step = Callable[[World, Random], World]


def _nothing(world: World, _: Random) -> World:
    return world


def _drift(world: World, random: Random) -> World:
    fresh = healthy_world()
    _, spoil, _ = random.choice(DRIFT)
    spoil(fresh)
    return fresh


def _add_a_vm(world: World, random: Random) -> World:
    name = f"vm{random.randrange(30)}"
    return world.add(name, interfaces=(tap(f"tap-{name}"),), running=random.random() < 0.7)


def _stop_a_vm(world: World, random: Random) -> World:
    world.stop(random.choice(sorted(world.vms)))
    return world


def _restart_a_vm(world: World, random: Random) -> World:
    units = [n for n, unit in world.units.items() if unit.template is Template.MICROVM]
    changes = {"restarts": random.randrange(9), "active_enter_timestamp": random.random() * 1e9}
    world.change_unit(random.choice(sorted(units)), **changes)
    return world


def _leak_taps(world: World, random: Random) -> World:
    for name in random.sample(HOSTILE, 3):
        world.link(name)
    return world


def _lose_or_find_a_source(world: World, random: Random) -> World:
    collector = random.choice(list(Collector))
    if not world.unread.pop(collector, None):
        world.unread[collector] = "gone"
    return world


STEPS: tuple[Step, ...] = (
    _nothing,
    _drift,
    _add_a_vm,
    _stop_a_vm,
    _restart_a_vm,
    _leak_taps,
    _lose_or_find_a_source,
)


def walk(random: Random, steps: int) -> Iterator[View]:
    world, tally = healthy_world(), Tally()
    judgement = world.judge()
    for number in range(steps):
        yield View(judgement, tally.now())
        step = random.choice(STEPS)
        world = step(world, random)
        tally.count(random.choice(list(Cause)))
        tally.observe(random.random() * 2)
        snapshot = judgement.snapshot if step is _nothing else world.snapshot()
        judgement = judge(replace(snapshot, taken_at=NOW + number), judgement)


@pytest.mark.parametrize("seed", range(4))
def test_rendered_in_steps_is_rendered_from_scratch(seed: int) -> None:
    renderer = Renderer()
    for view in walk(Random(seed), 50):
        rendered = tuple(map(own, renderer.render(view)))
        assert rendered == FromScratch(view).render()


# ------------------------------------------------------------------------------------ the cost


def _many(number: int) -> World:
    world = World()
    for index in range(number):
        world.add(f"vm{index}", interfaces=(tap(f"tap{index}"),))
    return world


def _seconds(renderer: Renderer, judgement: Judgement) -> float:
    begin = time.thread_time()
    renderer.render(View(judgement, Activity()))
    return time.thread_time() - begin


def test_look_at_which_little_changed_is_cheap() -> None:
    world = _many(400)
    before = world.judge()
    world.change_unit("microvm@vm7.service", restarts=3)
    after = judge(world.snapshot(), before)
    renderer = Renderer()
    first = _seconds(renderer, before)
    same = min(_seconds(renderer, before) for _ in range(3))
    changed = min(_seconds(renderer, judgement) for judgement in (after, before, after))
    assert max(same, changed) < first / 3


def test_lines_of_what_is_gone_are_forgotten() -> None:
    renderer = Renderer()

    def held_after(numbers: range) -> int:
        for number in numbers:
            world = healthy_world().add(f"vm{number}", interfaces=(tap(f"tap{number}"),))
            world.link(f"leak{number}")
            renderer.render(View(world.judge(), Activity()))
        del world
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = held_after(range(100, 150))
        assert held_after(range(150, 250)) < before + 10_000
    finally:
        tracemalloc.stop()
