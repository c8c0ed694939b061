"""What the rules read besides a VM: the site, which all VMs share, and the host as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from microvm_exporter.drift.vm import Vm
from microvm_exporter.model import (
    Collector,
    Declaration,
    FailedCheck,
    Link,
    LinkTable,
    StateTree,
    Template,
    UnitFile,
    UnitTable,
)

__all__ = ["Host", "Site", "Vm"]


@dataclass(frozen=True, slots=True)
class Site:
    """What the rules on a VM may ask for besides the VM. When it differs, all are judged again.

    ``sources`` are those that could be read. ``wanted_cut`` tells that some of the VMs that are
    wanted were left out, ``units_cut``, ``links_cut`` and ``state_cut`` the same of units, of
    devices, and of the state directories that are read first. Of ``links`` a rule may ask for
    devices that its VM claims, and those alone.
    """

    sources: frozenset[Collector]
    state_dir: str
    templates: Mapping[Template, tuple[str, ...]]
    wanted_cut: bool
    units_cut: bool
    links_cut: bool
    state_cut: bool
    links: Mapping[str, Link] = field(compare=False)

    def may_be_wanted(self, vm: Vm) -> bool:
        """Known, or nobody can tell: then nothing may be said that would have it removed."""
        # Of a VM that is not declared, a gcroot tells whether it is known.
        could_look = self.sources >= {Collector.DECLARATION, Collector.STATE}
        return vm.known or not could_look or self.wanted_cut


@dataclass(frozen=True, slots=True)
class Host:
    """The snapshot's tables, and the VMs by name, sorted. A source that was not read is empty.

    ``unit_files`` and ``failed_checks`` are the tables' by VM. ``present_units`` is how many units
    are loaded, by template and ActiveState.
    """

    site: Site
    vms: Mapping[str, Vm]
    declaration: Declaration
    units: UnitTable
    links: LinkTable
    tree: StateTree
    unit_files: Mapping[str, tuple[UnitFile, ...]]
    failed_checks: Mapping[str, tuple[FailedCheck, ...]]
    present_units: Mapping[tuple[Template, str], int]

    @property
    def sources(self) -> frozenset[Collector]:
        """The sources that could be read."""
        return self.site.sources
