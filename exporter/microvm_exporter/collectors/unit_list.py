"""The list of loaded units: the family in it, and which VMs of many are taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set
from typing import Final

from microvm_exporter.collectors.bus_terms import Listed
from microvm_exporter.model import Template, Unit, parse_unit_name

__all__ = ["FAMILY", "PREFIXES", "choose", "parse_rows", "pulled_in"]

PREFIXES: Final = tuple(Template)
"""How the names of all units of the family begin."""

FAMILY: Final = tuple(f"{prefix}*.service" for prefix in PREFIXES)
"""Patterns of these names."""


def parse_rows(rows: Iterable[Listed]) -> tuple[dict[str, Unit], frozenset[str]]:
    """Give the units of the family by name, sorted, and names like theirs that no VM can have.

    What is not found and inactive is only mentioned by another unit.
    """
    found: dict[str, Unit] = {}
    misnamed: set[str] = set()
    for row in sorted(rows):
        if row.load_state == "not-found" and row.active_state == "inactive":
            continue
        parsed = parse_unit_name(row.name)
        if parsed is None:
            misnamed.add(row.name)
            continue
        template, vm = parsed
        name, load_state, active_state, sub_state, job = row
        found[name] = Unit(name, template, vm, load_state, active_state, sub_state, job)
    return found, frozenset(misnamed)


def pulled_in(wants: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Give the VMs that microvms.target starts, and those that it installs."""
    by_template = defaultdict(set)
    for template, vm in filter(None, map(parse_unit_name, wants)):
        by_template[template].add(vm)
    return frozenset(by_template[Template.MICROVM]), frozenset(by_template[Template.INSTALL])


def choose(vms: Set[str], preferred: Set[str], limit: int) -> frozenset[str]:
    """Take as many VMs as the limit allows, the preferred ones first, by name."""
    if len(vms) <= limit:
        return frozenset(vms)
    return frozenset(sorted(vms, key=lambda vm: (vm not in preferred, vm))[:limit])
