"""One MicroVM: all that the four sources tell of it, for the rules to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from microvm_exporter.model import (
    DeclaredVm,
    FailedCheck,
    Interface,
    InterfaceType,
    LinkKind,
    Origin,
    Runner,
    Symlink,
    Template,
    Unit,
    UnitFile,
    VmState,
)

__all__ = ["DEVICE_KIND", "HELPER", "Device", "Vm", "is_active", "is_down"]

_ACTIVE: Final = frozenset({"active", "reloading", "refreshing"})
_DOWN: Final = frozenset({"inactive", "failed"})

DEVICE_KIND: Final = {InterfaceType.TAP: LinkKind.TAP, InterfaceType.MACVTAP: LinkKind.MACVTAP}
"""The device of an interface, for the types that leave one on the host."""

HELPER: Final = {LinkKind.TAP: Template.TAP, LinkKind.MACVTAP: Template.MACVTAP}
"""Who makes the devices of a kind."""

Device = tuple[LinkKind, str]
"""The kind and name of a network device."""


# Without slots, for what is cached. A Vm is kept from look to look while nothing of it changes.
@dataclass(frozen=True)
class Vm:
    """All that is known of one MicroVM.

    ``imperative`` is true when a gcroot link or the operator's list vouches for it.
    ``unit_files`` and ``failed_checks`` are those that name it. ``remembered`` are the interfaces
    it had when they could last be read while it ran. ``unseen`` and ``state_unseen`` tell that its
    units or its directory may be among what was left out.
    """

    name: str
    declared: DeclaredVm | None = None
    imperative: bool = False
    autostart: bool = False
    units: Mapping[Template, Unit] = field(default_factory=dict)
    failed_checks: tuple[FailedCheck, ...] = ()
    state: VmState | None = None
    gcroot: Symlink | None = None
    booted_gcroot: Symlink | None = None
    old_gcroot: Symlink | None = None
    unit_files: tuple[UnitFile, ...] = ()
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

    @cached_property
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

    @cached_property
    def claims(self) -> frozenset[Device]:
        """Every device that anything calls this VM's: enough not to call it stray."""
        runners = (self.state.current_runner, self.state.booted_runner) if self.state else ()
        return frozenset(
            (DEVICE_KIND[interface.type], interface.id)
            for interfaces in (
                self.declared.interfaces if self.declared else None,
                *(runner.interfaces for runner in runners if runner),
                self.remembered,
            )
            for interface in interfaces or ()
            if interface.type in DEVICE_KIND
        )

    @cached_property
    def helpers(self) -> frozenset[str]:
        """The helper units that it has, had or will have a device for.

        The condition of any other is unmet on a healthy host, so nobody wants to know of it.
        """
        runners = (self.state.current_runner, self.state.booted_runner) if self.state else ()
        templates = {HELPER[kind] for kind, _ in self.claims}
        if any(runner.pci for runner in runners if runner):
            templates.add(Template.PCI)
        if any(runner.virtiofs for runner in runners if runner):
            templates.add(Template.VIRTIOFSD)
        return frozenset(f"{template}{self.name}.service" for template in templates)

    @cached_property
    def holds(self) -> frozenset[Device]:
        """The devices that may be in use: what makes them is up, or on its way up or down."""
        return frozenset(device for device in self.claims if device[0] in self._holding)

    @cached_property
    def may_hold(self) -> frozenset[LinkKind]:
        """The kinds of which any device may be in use by it: nothing tells its interfaces."""
        return self._holding if self.running_interfaces is None else frozenset()

    @property
    def _holding(self) -> frozenset[LinkKind]:
        """The kinds of which ``microvm@N``, or the helper that makes them, is not down."""
        helpers = ((kind, self.units.get(template)) for kind, template in HELPER.items())
        return frozenset(
            kind
            for kind, helper in helpers
            if not self.stopped or (helper is not None and not is_down(helper))
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


def is_active(unit: Unit | None) -> bool:
    """Active or reloading."""
    return unit is not None and unit.active_state in _ACTIVE


def is_down(unit: Unit) -> bool:
    """Inactive or failed."""
    return unit.active_state in _DOWN
