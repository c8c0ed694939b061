"""A snapshot joined by VM: what is declared, known and there, for the rules to read.

A source that could not be read is empty here. Which rules may run then is decided in
`microvm_exporter.drift.judge`, by the sources that each rule names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from microvm_exporter.model import (
    HELPERS,
    Collector,
    Declaration,
    DeclaredVm,
    Interface,
    LinkTable,
    Origin,
    Runner,
    Snapshot,
    StateTree,
    Template,
    Unit,
    UnitTable,
    VmState,
)

__all__ = ["Host", "Vm", "is_active", "is_down", "join"]

_ACTIVE: Final = frozenset({"active", "reloading", "refreshing"})
_DOWN: Final = frozenset({"inactive", "failed"})


@dataclass(frozen=True, slots=True)
class Vm:
    """All that is known of one MicroVM.

    ``imperative`` is true when a gcroot link or the operator's list vouches for it.
    ``remembered`` are the interfaces it had when they could last be read while it ran. ``unseen``
    and ``state_unseen`` tell that its units or its directory may be among what was left out.
    """

    name: str
    declared: DeclaredVm | None = None
    imperative: bool = False
    autostart: bool = False
    units: Mapping[Template, Unit] = field(default_factory=dict)
    state: VmState | None = None
    remembered: tuple[Interface, ...] | None = None
    unseen: bool = False
    state_unseen: bool = False

    @property
    def known(self) -> bool:
        """Declared, or imperative: somebody wants it to be there."""
        return self.declared is not None or self.imperative

    @property
    def present(self) -> bool:
        """Something of it is on the host: a loaded unit or a state directory."""
        return bool(self.units) or self.state is not None

    @property
    def service(self) -> Unit | None:
        """The ``microvm@`` unit, when it is loaded."""
        return self.units.get(Template.MICROVM)

    @property
    def active(self) -> bool:
        """``microvm@`` is active or reloading."""
        return is_active(self.service)

    @property
    def running(self) -> bool:
        """``microvm@`` is active or activating, which includes a crash loop."""
        return self.active or (
            self.service is not None and self.service.active_state == "activating"
        )

    @property
    def stopped(self) -> bool:
        """``microvm@`` is inactive or failed or not loaded; not on its way up or down."""
        if self.service is None:
            return not self.unseen
        return is_down(self.service)

    @property
    def waiting_for_restart(self) -> bool:
        """``microvm@`` sits out RestartSec; newer systemd has auto-restart-queued too."""
        return self.service is not None and self.service.sub_state.startswith("auto-restart")

    @property
    def in_transit(self) -> bool:
        """A job for one of its units is pending: what shows may be over in a moment."""
        return any(unit.job for unit in self.units.values())

    @property
    def has_flake(self) -> bool:
        """``STATE/N/flake`` is there."""
        return self.state is not None and self.state.flake

    @property
    def current_runner(self) -> Runner | None:
        """What the next start runs, when it could be read."""
        return self.state.current_runner if self.state else None

    @property
    def next_interfaces(self) -> tuple[Interface, ...] | None:
        """The interfaces that the next start needs; None when nothing tells."""
        if self._declaration_applies and self.declared is not None:
            return self.declared.interfaces
        if self.current_runner is not None:
            return self.current_runner.interfaces
        return self.declared.interfaces if self.declared else None

    @property
    def running_interfaces(self) -> tuple[Interface, ...] | None:
        """The interfaces that the VM runs with; None when nothing tells.

        A VM that was updated and not restarted still runs what it booted.
        """
        booted = self.state.booted_runner if self.state else None
        if booted is not None and not self.booted_is_current:
            return booted.interfaces
        found = self.next_interfaces
        return self.remembered if found is None else found

    @property
    def booted_is_current(self) -> bool:
        """``booted`` and ``current`` are links with the same target."""
        state = self.state
        if state is None or state.booted is None or state.current is None:
            return False
        return state.booted.target == state.current.target

    @property
    def claims(self) -> frozenset[Interface]:
        """Every interface that anything calls this VM's: enough not to call the device stray."""
        runners = (self.state.current_runner, self.state.booted_runner) if self.state else ()
        return frozenset(
            interface
            for interfaces in (
                self.declared.interfaces if self.declared else None,
                *(runner.interfaces for runner in runners if runner),
                self.remembered,
            )
            for interface in interfaces or ()
        )

    @property
    def _declaration_applies(self) -> bool:
        """The declared interfaces are those of ``current``: not so once they went separate ways."""
        declared, state = self.declared, self.state
        if declared is None or declared.interfaces is None or declared.origin is Origin.DEPLOYED:
            return False
        if declared.runner is None or state is None or state.current is None:
            return True
        return state.current.target == declared.runner


@dataclass(frozen=True, slots=True)
class Host:
    """The snapshot and its VMs by name, sorted. ``sources`` are those that could be read."""

    sources: frozenset[Collector]
    vms: Mapping[str, Vm]
    declaration: Declaration
    units: UnitTable
    links: LinkTable
    tree: StateTree

    def may_be_wanted(self, vm: Vm) -> bool:
        """Known, or nobody can tell: then nothing may be said that would have it removed."""
        return vm.known or Collector.DECLARATION not in self.sources or self.wanted_cut

    @property
    def wanted_cut(self) -> bool:
        """Some of the VMs that are wanted were left out."""
        return self.declaration.left_out.limit > 0

    def vm(self, name: str) -> Vm:
        """Give the VM of that name, also one of which nothing is known."""
        return self.vms.get(name) or Vm(name)

    def members(self, vm: Vm) -> Iterator[str]:
        """Name the units that a safe stop of the VM has to name together, ``microvm@`` first."""
        for template in (Template.MICROVM, *HELPERS):
            if template in vm.units or template in self.tree.templates:
                yield f"{template}{vm.name}.service"


def is_active(unit: Unit | None) -> bool:
    """Active or reloading."""
    return unit is not None and unit.active_state in _ACTIVE


def is_down(unit: Unit) -> bool:
    """Inactive or failed."""
    return unit.active_state in _DOWN


def join(snapshot: Snapshot, remembered: Mapping[str, tuple[Interface, ...]]) -> Host:
    """Join the four readings by VM name."""
    declaration = snapshot.declaration.value or Declaration()
    units = snapshot.systemd.value or UnitTable()
    tree = snapshot.state.value or StateTree(state_dir="")
    by_vm: dict[str, dict[Template, Unit]] = {}
    for unit in units.units.values():
        by_vm.setdefault(unit.vm, {})[unit.template] = unit
    imperative = declaration.imperative | tree.gcroots.keys()
    names = (
        declaration.vms.keys()
        | imperative
        | by_vm.keys()
        | tree.vms.keys()
        | tree.booted_gcroots.keys()
        | tree.old_gcroots.keys()
        | units.autostarted
    )
    # What is declared or loaded is read first: if anything else was read, nothing of it is cut.
    first = declaration.vms.keys() | imperative | by_vm.keys() | units.autostarted
    state_cut = tree.left_out.limit > 0 and tree.vms.keys() <= first
    vms = {
        name: _join_vm(name, declaration, units, by_vm, tree, imperative, remembered, state_cut)
        for name in sorted(names)
    }
    return Host(
        sources=frozenset(
            name for name, reading in snapshot.readings().items() if reading.value is not None
        ),
        vms=vms,
        declaration=declaration,
        units=units,
        links=snapshot.links.value or LinkTable(),
        tree=tree,
    )


def _join_vm(
    name: str,
    declaration: Declaration,
    units: UnitTable,
    by_vm: Mapping[str, Mapping[Template, Unit]],
    tree: StateTree,
    imperative: frozenset[str],
    remembered: Mapping[str, tuple[Interface, ...]],
    state_cut: bool,
) -> Vm:
    declared = declaration.vms.get(name)
    said = declared.autostart if declared else None
    return Vm(
        name=name,
        declared=declared,
        imperative=name in imperative,
        autostart=name in units.autostarted if said is None else said,
        units=by_vm.get(name, {}),
        state=tree.vms.get(name),
        remembered=remembered.get(name),
        unseen=units.left_out.limit > 0 and name not in by_vm,
        state_unseen=state_cut and name not in tree.vms,
    )
