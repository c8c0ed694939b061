"""The rules: how each kind of drift is found, and what must have been read to judge it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, ParamSpec

from microvm_exporter.drift import conditions, declared, devices, undeclared, units
from microvm_exporter.drift.host import Host, Site, Vm
from microvm_exporter.drift.kinds import Finding, Kind
from microvm_exporter.model import Collector

__all__ = ["HOST_RULES", "RULES", "VM_RULES", "Rule"]

_DECLARATION, _SYSTEMD, _LINKS, _STATE = Collector

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Rule(Generic[P]):
    """How a kind is found, and the sources without which it cannot be judged.

    ``twice``: fires only when the same object is found in two observations running. ``blind``
    tells of a site on which the kind cannot be judged although its sources were read.
    """

    find: Callable[P, Iterator[Finding]]
    sources: frozenset[Collector]
    twice: bool = False
    blind: Callable[[Site], bool] | None = None

    def applies(self, site: Site) -> bool:
        """Tell whether what is needed to judge the kind is known."""
        return self.sources <= site.sources and not (self.blind and self.blind(site))


def _rule(
    find: Callable[P, Iterator[Finding]],
    *sources: Collector,
    twice: bool = False,
    blind: Callable[[Site], bool] | None = None,
) -> Rule[P]:
    return Rule(find, frozenset(sources), twice, blind)


def _wanted_cut(site: Site) -> bool:
    return site.wanted_cut


_ALL_OF_VM: Final = (_DECLARATION, _SYSTEMD, _STATE)

VM_RULES: Final[Mapping[Kind, Rule[[Site, Vm]]]] = {
    Kind.UNDECLARED_RUNNING: _rule(undeclared.undeclared_running, *_ALL_OF_VM, blind=_wanted_cut),
    Kind.UNDECLARED_UNIT: _rule(undeclared.undeclared_unit, *_ALL_OF_VM, blind=_wanted_cut),
    Kind.UNDECLARED_STATE: _rule(undeclared.undeclared_state, *_ALL_OF_VM, blind=_wanted_cut),
    Kind.ORIGIN_UNKNOWN: _rule(undeclared.origin_unknown, *_ALL_OF_VM, blind=_wanted_cut),
    Kind.MISSING_UNIT: _rule(declared.missing_unit, *_ALL_OF_VM),
    Kind.MISSING_STATE: _rule(declared.missing_state, _DECLARATION, _STATE),
    Kind.NOT_RUNNING: _rule(declared.not_running, _DECLARATION, _SYSTEMD),
    Kind.UNIT_FAILED: _rule(units.unit_failed, _SYSTEMD, _STATE),
    Kind.CONDITION_UNMET: _rule(conditions.condition_unmet, _SYSTEMD, _STATE),
    Kind.WOULD_NOT_START: _rule(conditions.would_not_start, *_ALL_OF_VM),
    Kind.RESTART_PENDING: _rule(declared.restart_pending, _SYSTEMD, _STATE),
    Kind.OUTDATED: _rule(declared.outdated, _DECLARATION, _STATE),
    Kind.DANGLING_LINK: _rule(declared.dangling_link, _STATE),
    Kind.HELPER_WITHOUT_VM: _rule(units.helper_without_vm, _SYSTEMD, twice=True),
    Kind.MISSING_INTERFACE: _rule(
        devices.missing_interface, _SYSTEMD, _LINKS, _STATE, blind=devices.links_cut
    ),
    Kind.RESIDUAL_UNIT_FILE: _rule(undeclared.residual_unit_file, *_ALL_OF_VM, blind=_wanted_cut),
    Kind.DAEMON_RELOAD_NEEDED: _rule(units.daemon_reload_needed, _SYSTEMD),
}
"""What shows on one VM. Such a rule finds nothing that is not its VM's."""

_stray: Final = partial(_rule, twice=True, blind=devices.owners_cut)

HOST_RULES: Final[Mapping[Kind, Rule[[Host]]]] = {
    Kind.STRAY_TAP: _stray(devices.stray_tap, _SYSTEMD, _LINKS, _STATE),
    Kind.STRAY_MACVTAP: _stray(devices.stray_macvtap, _SYSTEMD, _LINKS, _STATE),
    Kind.UNUSED_TEMPLATE: _rule(undeclared.unused_template, *_ALL_OF_VM),
}
"""What only shows on all VMs together, or belongs to none."""

RULES: Final[Mapping[Kind, Rule[[Site, Vm]] | Rule[[Host]]]] = {**VM_RULES, **HOST_RULES}
"""The rule of every kind."""
