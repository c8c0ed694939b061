"""Snapshots of made-up hosts, for the tests of what is pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from microvm_exporter.drift import Finding, Judgement, judge
from microvm_exporter.model import (
    HELPERS,
    Collector,
    Condition,
    Declaration,
    DeclaredVm,
    FailedCheck,
    Interface,
    InterfaceType,
    Leftouts,
    Link,
    LinkKind,
    LinkTable,
    Origin,
    Reading,
    Runner,
    Snapshot,
    StateTree,
    Symlink,
    Template,
    Unit,
    UnitFile,
    UnitFileKind,
    UnitTable,
    VmState,
)

STATE = "/var/lib/microvms"
NOW = 1_800_000_000.0
MEMBER = {
    Template.MICROVM: "bin/microvm-run",
    Template.TAP: "bin/tap-up",
    Template.MACVTAP: "bin/macvtap-up",
    Template.PCI: "bin/pci-setup",
    Template.VIRTIOFSD: "bin/virtiofsd-run",
}
TODAY = {
    template: (f"{STATE}/%i/current/{MEMBER[template]}",) if template in MEMBER else ()
    for template in (Template.MICROVM, *HELPERS)
}


def runner_path(name: str, build: int = 1) -> str:
    return f"/nix/store/{build:032d}-microvm-qemu-{name}"


def tap(name: str) -> Interface:
    return Interface(InterfaceType.TAP, name)


def macvtap(name: str) -> Interface:
    return Interface(InterfaceType.MACVTAP, name)


def make_unit(template: Template, vm: str, active_state: str = "active", **more: Any) -> Unit:
    sub_state = {"active": "running", "failed": "failed"}.get(active_state, "dead")
    path = f"{STATE}/{vm}/current/{MEMBER.get(template, '')}"
    held = active_state == "active"
    defaults: dict[str, Any] = {
        "sub_state": sub_state,
        "condition_result": held,
        "condition_timestamp": NOW - 500 if held else 0.0,
        "conditions": (Condition("ConditionPathExists", path, state=int(held)),),
        "active_enter_timestamp": NOW - 400 if held else 0.0,
    }
    return Unit(
        f"{template}{vm}.service", template, vm, **{"active_state": active_state} | defaults | more
    )


def unmet(unit: Unit, *, tested: bool = True) -> Unit:
    """The unit as a skipped start leaves it; untested as after a daemon-reload."""
    return replace(
        unit,
        active_state="inactive",
        sub_state="dead",
        condition_result=False,
        condition_timestamp=NOW - 300,
        conditions=tuple(replace(c, state=-1 if tested else 0) for c in unit.conditions),
        active_enter_timestamp=0.0,
    )


@dataclass
class World:
    """A host that a test puts together and then breaks."""

    declared: dict[str, DeclaredVm] = field(default_factory=dict)
    imperative: set[str] = field(default_factory=set)
    units: dict[str, Unit] = field(default_factory=dict)
    autostarted: set[str] = field(default_factory=set)
    failed_checks: dict[str, FailedCheck] = field(default_factory=dict)
    units_left_out: int = 0
    wanted_left_out: int = 0
    links_left_out: int = 0
    state_left_out: int = 0
    links: dict[str, Link] = field(default_factory=dict)
    vms: dict[str, VmState] = field(default_factory=dict)
    gcroots: dict[str, Symlink] = field(default_factory=dict)
    booted_gcroots: dict[str, Symlink] = field(default_factory=dict)
    old_gcroots: dict[str, Symlink] = field(default_factory=dict)
    templates: dict[Template, tuple[str, ...]] = field(default_factory=lambda: dict(TODAY))
    unit_files: list[UnitFile] = field(default_factory=list)
    unread: dict[Collector, str] = field(default_factory=dict)

    def add(
        self,
        name: str,
        origin: Origin = Origin.DECLARATIVE,
        *,
        interfaces: tuple[Interface, ...] = (),
        running: bool = True,
        autostart: bool = True,
    ) -> World:
        """Add a healthy VM of that origin."""
        self._declare(name, origin, interfaces, autostart=autostart)
        self._install(name, origin, interfaces, running=running)
        self._load(name, interfaces, running=running, loaded=running or autostart)
        if running:
            for interface in interfaces:
                self.link(interface.id, LinkKind(interface.type))
        return self

    def link(self, name: str, kind: LinkKind = LinkKind.TAP, **more: Any) -> None:
        index = len(self.links) + 2
        made: dict[str, Any] = {"ours": True, "persistent": kind is LinkKind.TAP} | more
        self.links[name] = Link(name, index, kind, **made)

    def change_unit(self, unit: str, **more: Any) -> None:
        self.units[unit] = replace(self.units[unit], **more)

    def change_state(self, name: str, **more: Any) -> None:
        self.vms[name] = replace(self.vms[name], **more)

    def undeclare(self, name: str) -> None:
        """What a switch to a configuration without the VM leaves while it runs."""
        self.declared.pop(name, None)
        self.autostarted.discard(name)
        self.unit_files = [file for file in self.unit_files if file.vm != name]
        self.units.pop(f"install-microvm-{name}.service", None)

    def stop(self, name: str) -> None:
        """A stop that leaves nothing; units that nothing references are unloaded."""
        for unit in [unit for unit in self.units.values() if unit.vm == name]:
            del self.units[unit.name]
        for interface in (self.vms[name].current_runner or Runner()).interfaces:
            self.links.pop(interface.id, None)
        self.change_state(name, booted=None, booted_runner=None)
        if name in self.autostarted:
            self._load(name, (), running=False, loaded=True)

    def snapshot(self) -> Snapshot:
        """The host as it is now; what is changed later is not changed in it."""
        return Snapshot(
            taken_at=NOW,
            declaration=self._read(
                Collector.DECLARATION,
                Declaration(
                    dict(self.declared),
                    frozenset(self.imperative),
                    left_out=Leftouts(limit=self.wanted_left_out),
                ),
            ),
            systemd=self._read(
                Collector.SYSTEMD,
                UnitTable(
                    units=dict(self.units),
                    autostarted=frozenset(self.autostarted),
                    declared=frozenset(self.declared),
                    failed_checks=dict(self.failed_checks),
                    left_out=Leftouts(limit=self.units_left_out),
                ),
            ),
            links=self._read(
                Collector.LINKS, LinkTable(dict(self.links), Leftouts(limit=self.links_left_out))
            ),
            state=self._read(
                Collector.STATE,
                StateTree(
                    state_dir=STATE,
                    vms=dict(self.vms),
                    gcroots=dict(self.gcroots),
                    booted_gcroots=dict(self.booted_gcroots),
                    old_gcroots=dict(self.old_gcroots),
                    templates=dict(self.templates),
                    unit_files=tuple(self.unit_files),
                    left_out=Leftouts(limit=self.state_left_out),
                ),
            ),
        )

    def judge(self, looks: int = 2) -> Judgement:
        """Look that many times running at the host as it is now."""
        judgement = judge(self.snapshot())
        for _ in range(looks - 1):
            judgement = judge(self.snapshot(), judgement)
        return judgement

    def _read(self, collector: Collector, value: Any) -> Reading[Any]:
        if collector in self.unread:
            return Reading(None, self.unread[collector], 0.25, NOW - 60)
        return Reading(value, None, 0.25, NOW)

    def _declare(
        self, name: str, origin: Origin, interfaces: tuple[Interface, ...], *, autostart: bool
    ) -> None:
        if autostart:
            self.autostarted.add(name)
        if origin is Origin.IMPERATIVE:
            self.gcroots[name] = Symlink(f"/gcroots/{name}", f"{STATE}/{name}/current", False)
            self.booted_gcroots[name] = Symlink(
                f"/gcroots/booted-{name}", f"{STATE}/{name}/booted", False
            )
            return
        self.declared[name] = DeclaredVm(
            name, origin, autostart, "qemu", runner_path(name), interfaces
        )
        path = f"/etc/systemd/system/microvm@{name}.service.d/overrides.conf"
        self.unit_files.append(
            UnitFile(path, UnitFileKind.DROP_IN, f"microvm@{name}.service", name)
        )

    def _install(
        self, name: str, origin: Origin, interfaces: tuple[Interface, ...], *, running: bool
    ) -> None:
        path = f"{STATE}/{name}"
        files = {"bin/microvm-run", "bin/microvm-shutdown", "share/microvm/tap-interfaces"}
        if any(interface.type is InterfaceType.TAP for interface in interfaces):
            files.add("bin/tap-up")
        if any(interface.type is InterfaceType.MACVTAP for interface in interfaces):
            files |= {"bin/macvtap-up", "share/microvm/macvtap-interfaces"}
        runner = Runner(frozenset(files), interfaces, hypervisor="qemu")
        self.vms[name] = VmState(
            name,
            path,
            current=Symlink(f"{path}/current", runner_path(name), False),
            booted=Symlink(f"{path}/booted", runner_path(name), False) if running else None,
            toplevel=Symlink(f"{path}/toplevel", f"/nix/store/top-{name}", False)
            if origin is Origin.DECLARATIVE
            else None,
            flake=origin not in (Origin.DECLARATIVE, Origin.UNDECLARED),
            current_runner=runner,
            booted_runner=runner if running else None,
        )

    def _load(
        self, name: str, interfaces: tuple[Interface, ...], *, running: bool, loaded: bool
    ) -> None:
        if not loaded:
            return
        state = "active" if running else "inactive"
        units = [make_unit(Template.MICROVM, name, state)]
        if running:
            types = {interface.type for interface in interfaces}
            units += [
                self._helper(Template.TAP, name, needed=InterfaceType.TAP in types),
                self._helper(Template.MACVTAP, name, needed=InterfaceType.MACVTAP in types),
                self._helper(Template.PCI, name, needed=False),
                self._helper(Template.VIRTIOFSD, name, needed=False),
                make_unit(Template.SET_BOOTED, name, conditions=()),
            ]
        if name in self.declared:
            install = make_unit(Template.INSTALL, name, "inactive", conditions=())
            if self.declared[name].origin is Origin.DEPLOYED:
                condition = Condition("ConditionPathExists", f"{STATE}/{name}", negate=True)
                install = unmet(replace(install, conditions=(condition,)))
            units.append(install)
        self.units |= {unit.name: unit for unit in units}

    def _helper(self, template: Template, name: str, *, needed: bool) -> Unit:
        unit = make_unit(template, name)
        return unit if needed else unmet(unit)


def brief(findings: tuple[Finding, ...]) -> list[str]:
    """A finding as ``severity kind vm object``, to be compared and read."""
    return [f"{f.severity} {f.kind} {f.vm or '-'} {f.object}" for f in findings]


def healthy_world() -> World:
    """A host of ten healthy VMs of all origins."""
    world = World()
    world.add("web", interfaces=(tap("vm-web"),)).add(
        "db", interfaces=(tap("vm-db"), tap("vm-db2"))
    )
    world.add("dotted.name", interfaces=(macvtap("mv-dot"),)).add("plain")
    world.add("spare", running=False, autostart=False)
    world.add("flake", Origin.FLAKE, interfaces=(tap("vm-flake"),))
    world.add("deployed", Origin.DEPLOYED).add(
        "deployed2", Origin.DEPLOYED, running=False, autostart=False
    )
    world.add("scratch", Origin.IMPERATIVE, interfaces=(tap("vm-scr"),), autostart=False)
    world.add("off", Origin.IMPERATIVE, running=False, autostart=False)
    world.booted_gcroots["off"] = replace(world.booted_gcroots["off"], dangling=True)
    return world
