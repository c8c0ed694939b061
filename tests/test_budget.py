"""How many series a host may have: at most 10 a VM, and 80 besides, when there is no drift."""

from __future__ import annotations

import pytest

from microvm_exporter.activity import Activity
from microvm_exporter.exposition import Renderer
from microvm_exporter.model import HELPERS, Template
from microvm_exporter.samples import View
from test_drift import NORMAL
from world import World, healthy_world, make_unit

NORMALLY = {name: change for name, change, _ in NORMAL}

LAYOUTS = {
    "2022-08": (("layout before tap-up",), 78),
    "2024-12": (("failed stop on old hosts",), 80),
    "2026-02": ((), 80),
}
"""What makes a host one of that layout, and how many series it then has at most."""


def _with_every_normal_state(changes: tuple[str, ...]) -> World:
    """Each template has instances in all states that it is normally in."""
    world = healthy_world()
    for change in (*changes, "no microvm-shutdown"):
        NORMALLY[change](world)
    # The instances that a failed microvm@ keeps loaded, and devices that two templates are for.
    units = [make_unit(template, "spare", "inactive") for template in HELPERS]
    units += [make_unit(template, "plain") for template in (Template.PCI, Template.VIRTIOFSD)]
    world.units = {unit.name: unit for unit in units} | world.units
    for template in (Template.PCI, Template.VIRTIOFSD):
        world.change_unit(f"{template}plain.service", active_state="active")
    if Template.SET_BOOTED not in world.templates:
        booted = Template.SET_BOOTED
        world.units = {n: unit for n, unit in world.units.items() if unit.template is not booted}
    return world


@pytest.mark.parametrize("since", LAYOUTS)
def test_series_of_a_host_without_drift(since: str) -> None:
    changes, most = LAYOUTS[since]
    judgement = _with_every_normal_state(changes).judge()
    assert judgement.findings == ()
    text, _ = Renderer().render(View(judgement, Activity()))
    series = [line for line in text.decode().splitlines() if not line.startswith("#")]
    of_vms = [line for line in series if 'vm="' in line]
    assert len(of_vms) <= 10 * len(judgement.host.vms)
    assert len(series) - len(of_vms) == most <= 80
