"""Join a snapshot by VM: what is declared, known and there.

A VM of which no record is another object than before keeps its `Vm`. A source that could not be
read is empty here. Which rules may run then is decided in `microvm_exporter.drift.rules`, by the
sources that each rule names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeVar

from microvm_exporter.drift.changes import differing
from microvm_exporter.drift.host import Host, Site, Vm
from microvm_exporter.model import (
    Declaration,
    FailedCheck,
    Interface,
    LinkTable,
    Snapshot,
    StateTree,
    Template,
    Unit,
    UnitFile,
    UnitTable,
    parse_unit_name,
)

__all__ = ["join"]

# What stands for a source that was not read is one object: while it is not, nothing changes.
_NO_DECLARATION: Final = Declaration()
_NO_UNITS: Final = UnitTable()
_NO_LINKS: Final = LinkTable()
_NO_TREE: Final = StateTree(state_dir="")

Remembered = Mapping[str, tuple[Interface, ...]]
"""Interfaces by VM."""

T = TypeVar("T")


def join(snapshot: Snapshot, remembered: Remembered, before: Host | None = None) -> Host:
    """Join the four readings by VM name; what did not change since ``before`` is taken from it."""
    declaration = snapshot.declaration.value or _NO_DECLARATION
    units = snapshot.systemd.value or _NO_UNITS
    links = snapshot.links.value or _NO_LINKS
    tree = snapshot.state.value or _NO_TREE
    due = _out_of_date(before.vms, remembered) if before else frozenset()
    if (
        before is not None
        and not due
        and declaration is before.declaration
        and units is before.units
        and links is before.links
        and tree is before.tree
    ):
        return before
    records = _Records(
        declaration,
        units,
        tree,
        unit_files=before.unit_files
        if before and tree.unit_files is before.tree.unit_files
        else _by_vm((file.vm, file) for file in tree.unit_files),
        failed_checks=before.failed_checks
        if before and units.failed_checks is before.units.failed_checks
        else _by_vm(_checks(units)),
        remembered=remembered,
    )
    site = _site(snapshot, records, links)
    vms = _join_again(records, site, before, due) if before else _join_all(records, site)
    return Host(
        site=site,
        vms=vms,
        declaration=declaration,
        units=units,
        links=links,
        tree=tree,
        unit_files=records.unit_files,
        failed_checks=records.failed_checks,
        present_units=_present(vms, before),
    )


@dataclass(frozen=True, slots=True)
class _Records:
    """The tables that have something of a VM, by whatever way leads to it from its name."""

    declaration: Declaration
    units: UnitTable
    tree: StateTree
    unit_files: Mapping[str, tuple[UnitFile, ...]]
    failed_checks: Mapping[str, tuple[FailedCheck, ...]]
    remembered: Remembered

    def wanted_or_loaded(self) -> set[str]:
        """Name the VMs whose state directories are read before any other."""
        return (
            self.declaration.vms.keys()
            | self.declaration.imperative
            | self.tree.gcroots.keys()
            | self.units.autostarted
            | {unit.vm for unit in self.units.units.values()}
        )

    def names(self) -> set[str]:
        """Name every VM of which there is a record."""
        return (
            self.wanted_or_loaded()
            | self.tree.vms.keys()
            | self.tree.booted_gcroots.keys()
            | self.tree.old_gcroots.keys()
            | self.unit_files.keys()
            | self.failed_checks.keys()
        )

    def changed(self, before: Host) -> set[str]:
        """Name the VMs of which a record came, went, or is another object."""
        names: set[str] = set()
        declaration, units, tree = self.declaration, self.units, self.tree
        if declaration is not before.declaration:
            names |= differing(declaration.vms, before.declaration.vms)
            names |= declaration.imperative ^ before.declaration.imperative
        if units is not before.units:
            names |= _vms_of_changed(units.units, before.units.units)
            names |= units.autostarted ^ before.units.autostarted
            names |= _unequal(self.failed_checks, before.failed_checks)
        if tree is not before.tree:
            names |= differing(tree.vms, before.tree.vms)
            names |= differing(tree.gcroots, before.tree.gcroots)
            names |= differing(tree.booted_gcroots, before.tree.booted_gcroots)
            names |= differing(tree.old_gcroots, before.tree.old_gcroots)
            names |= _unequal(self.unit_files, before.unit_files)
        return names

    def vm(self, name: str, site: Site) -> Vm | None:
        """Put together all that there is of a VM; None when that is nothing."""
        tree, loaded = self.tree, self.units.units
        declared = self.declaration.vms.get(name)
        said = declared.autostart if declared else None
        gcroot, state = tree.gcroots.get(name), tree.vms.get(name)
        units = {
            template: unit
            for template in Template
            if (unit := loaded.get(f"{template}{name}.service")) is not None
        }
        vm = Vm(
            name=name,
            declared=declared,
            imperative=gcroot is not None or name in self.declaration.imperative,
            autostart=name in self.units.autostarted if said is None else said,
            units=units,
            failed_checks=self.failed_checks.get(name, ()),
            state=state,
            gcroot=gcroot,
            booted_gcroot=tree.booted_gcroots.get(name),
            old_gcroot=tree.old_gcroots.get(name),
            unit_files=self.unit_files.get(name, ()),
            remembered=self.remembered.get(name),
            unseen=site.units_cut and not units,
            state_unseen=site.state_cut and state is None,
        )
        return vm if _is_anything(vm) else None


def _is_anything(vm: Vm) -> bool:
    return bool(
        vm.known
        or vm.present
        or vm.autostart
        or vm.booted_gcroot
        or vm.old_gcroot
        or vm.unit_files
        or vm.failed_checks
    )


def _site(snapshot: Snapshot, records: _Records, links: LinkTable) -> Site:
    tree, readings = records.tree, snapshot.readings()
    # What is declared or loaded is read first: if anything else was read, nothing of it is cut.
    state_cut = tree.left_out.limit > 0 and tree.vms.keys() <= records.wanted_or_loaded()
    return Site(
        sources=frozenset(name for name, reading in readings.items() if reading.value is not None),
        state_dir=tree.state_dir,
        templates=tree.templates,
        wanted_cut=records.declaration.left_out.limit > 0,
        units_cut=records.units.left_out.limit > 0,
        links_cut=links.left_out.limit > 0,
        state_cut=state_cut,
        links=links.links,
    )


def _join_all(records: _Records, site: Site) -> Mapping[str, Vm]:
    joined = ((name, records.vm(name, site)) for name in sorted(records.names()))
    return {name: vm for name, vm in joined if vm is not None}


def _join_again(
    records: _Records, site: Site, before: Host, due: frozenset[str]
) -> Mapping[str, Vm]:
    """Join the VMs that have changed, and keep the rest."""
    old = before.site
    if (site.units_cut, site.state_cut) != (old.units_cut, old.state_cut):
        return _join_all(records, site)
    names = records.changed(before) | due
    if not names:
        return before.vms
    vms = dict(before.vms)
    for name in names:
        vm = records.vm(name, site)
        if vm is None:
            vms.pop(name, None)
        else:
            vms[name] = vm
    return vms if names <= before.vms.keys() else {name: vms[name] for name in sorted(vms)}


def _out_of_date(vms: Mapping[str, Vm], remembered: Remembered) -> frozenset[str]:
    """Name the VMs of which something else is remembered by now.

    Not those of which nothing was: what they are remembered by is what they show.
    """
    return frozenset(
        name
        for name, vm in vms.items()
        if vm.remembered is not None and vm.remembered != remembered.get(name)
    )


def _present(vms: Mapping[str, Vm], before: Host | None) -> Mapping[tuple[Template, str], int]:
    """Count the units by template and state, anew only those of the VMs that changed."""
    old_vms = before.vms if before else {}
    names = differing(vms, old_vms)
    if before is not None and not names:
        return before.present_units
    present = Counter(before.present_units if before else ())
    present.update(_states(vms, names))
    present.subtract(_states(old_vms, names))
    return +present


def _states(vms: Mapping[str, Vm], names: Iterable[str]) -> Iterable[tuple[Template, str]]:
    units = chain.from_iterable(vms[name].units.values() for name in names if name in vms)
    return ((unit.template, unit.active_state) for unit in units)


def _vms_of_changed(new: Mapping[str, Unit], old: Mapping[str, Unit]) -> set[str]:
    return {(new.get(name) or old[name]).vm for name in differing(new, old)}


def _checks(units: UnitTable) -> Iterable[tuple[str, FailedCheck]]:
    for check in units.failed_checks.values():
        if parsed := parse_unit_name(check.unit):
            yield parsed[1], check


def _by_vm(pairs: Iterable[tuple[str, T]]) -> Mapping[str, tuple[T, ...]]:
    grouped: dict[str, list[T]] = {}
    for name, thing in pairs:
        grouped.setdefault(name, []).append(thing)
    return {name: tuple(things) for name, things in grouped.items()}


def _unequal(new: Mapping[str, tuple[T, ...]], old: Mapping[str, tuple[T, ...]]) -> set[str]:
    if new is old:
        return set()
    return {name for name in new.keys() | old.keys() if new.get(name) != old.get(name)}
