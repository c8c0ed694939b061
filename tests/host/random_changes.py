"""Changes of a host at random: what operators, switches, guests and the kernel do to it, mixed.

The same seed makes the same attempts in the same order. Many of them fail, or undo what another
did, and all that a command starts goes on while the next change is made, as on any host.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from random import Random

from host.fleet import FAMILY, Fleet
from host.layout import GCROOTS, STATE, STORE, TARGET, UNITS
from host.machine import MachineError, eventually
from host.vms import Hypervisor, Origin, Vm

STATIC = PurePosixPath("/etc/static")
"""A link to the files of a generation, replaced by each switch, as NixOS has it."""

_FILE = "microvm-exporter/declaration.json"
DECLARATION = STATIC / _FILE
UNIT_DIRS = (UNITS, STATIC / "systemd")

VMS = (
    Vm("r0", taps=("vm-r0",)),
    Vm("r1", taps=("vm-r1",), virtiofs=("keys",)),
    Vm("r2", light=True, taps=("vm-r2",)),
    Vm("r3", Origin.FLAKE, autostart=False),
    Vm("r4", Origin.FLAKE, light=True, taps=("vm-r4",)),
    Vm("r5", Origin.DEPLOYED),
    Vm("r6", Origin.IMPERATIVE, autostart=False, light=True, taps=("vm-r6",)),
    Vm("r7", Origin.IMPERATIVE, virtiofs=("keys",)),
    Vm("r8", Origin.INSTALLED_ON_HOST, macvtaps=("mv-r8",)),
    Vm("r.9", hypervisor=Hypervisor.KVMTOOL),
)
"""Some of each kind; few, so that changes meet."""

_NAMES = tuple(vm.name for vm in VMS)
_GHOSTS = ("ghost", "r0-old")
"""Names that nobody declares."""

_DEVICES = (*(tap for vm in VMS for tap in (*vm.taps, *vm.macvtaps)), "stray0", "stray1")
_CHANGES_IN_AN_OUTAGE = 3
_REST_SHARE = 0.2
_REST_MAX = 0.4  # seconds: more than the time in which events are folded

Change = Callable[["RandomChanges"], None]


class RandomChanges:
    """Makes changes; `made` tells them as commands, the last one last, until it is cleared."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        """Declares some VMs and starts them."""
        self.fleet = fleet
        self.machine = fleet.machine
        self.random = Random(seed)
        self.made: list[str] = []
        self._generations = 0
        self._generation = STORE
        fleet.declare(*VMS)
        self.switch_generation()
        fleet.switch()
        fleet.settle()

    def make(self, count: int) -> None:
        """Makes that many changes, of each kind if they suffice, some after a moment of rest."""
        kinds, weights = list(_CHANGES), list(_CHANGES.values())
        extra = self.random.choices(kinds, weights, k=max(0, count - len(kinds)))
        chosen = (kinds + extra)[:count]
        self.random.shuffle(chosen)
        for change in chosen:
            self.attempt(change)
            if self.random.random() < _REST_SHARE:
                time.sleep(self.random.uniform(0, _REST_MAX))

    def attempt(self, change: Change) -> None:
        """Makes one change; most can fail, depending on what is there."""
        try:
            change(self)
        except (MachineError, OSError) as error:
            self.note(f"# failed: {str(error).splitlines()[0]}")

    def settle(self) -> None:
        """Waits until nothing goes on any more, and ends what a fresh look could not know of."""
        self.switch_generation()
        eventually("the host is at rest", self._rests, timeout=90)
        if untold := self._untold():
            self.run("systemctl", "stop", *untold)
            eventually("the host is at rest", self._rests, timeout=90)

    def _rests(self) -> bool:
        jobs = self.machine.systemctl("list-jobs", "--no-legend", "--plain").split()
        units = self._units("activating", "deactivating", "reloading")
        # It begins again every 5 s, so that no two looks at it are the same.
        again = [unit for unit, state in units.items() if state == "auto-restart"]
        if again:
            self.machine.systemctl("stop", *again, check=False)
        return not jobs and not units

    def _untold(self) -> list[str]:
        """VMs that are up while nothing tells their interfaces, but to who has seen them before."""
        declared = {name for name, vm in self.fleet.vms.items() if vm.origin.is_declared}
        up = (unit for unit in self._units("active") if unit.startswith("microvm@"))
        return [unit for unit in up if not ((name := _vm_of(unit)) in declared or self._told(name))]

    def _told(self, name: str) -> bool:
        links = (self.machine.path(STATE / name / link) for link in ("current", "booted"))
        return any(
            link.is_symlink() and self.machine.path(link.readlink()).exists() for link in links
        )

    def _units(self, *states: str) -> dict[str, str]:
        """The SubState of each unit of the family whose ActiveState is one of those."""
        listed = ("list-units", "--all", "--no-legend", "--plain", "--full")
        lines = self.machine.systemctl(*listed, f"--state={','.join(states)}", *FAMILY).splitlines()
        return {fields[0]: fields[3] for fields in map(str.split, lines)}

    # -------------------------------------------------------------------- for the changes below

    def note(self, text: str) -> None:
        self.made.append(text)

    def run(self, *argv: str) -> None:
        self.note(" ".join(argv))
        done = self.machine.run(*argv, check=False)
        if done.returncode:
            self.note(f"# exit status {done.returncode}")

    def name(self) -> str:
        return self.random.choice(_NAMES)

    def any_name(self) -> str:
        return self.random.choice((*_NAMES, *_GHOSTS))

    def device(self) -> str:
        return self.random.choice(_DEVICES)

    def declared(self) -> Vm | None:
        """Some VM that is there, or None when all are gone."""
        return self.random.choice([*self.fleet.vms.values(), None])

    def point(self, link: PurePosixPath, target: PurePosixPath) -> None:
        """Replaces a link in one go, as `ln -sfT` and switch-to-configuration do."""
        self.note(f"ln -sfT {target} {link}")
        new = link.with_name(f".{link.name}.new")
        self.machine.link(new, target)
        self.machine.path(new).rename(self.machine.path(link))

    def replace_declaration(self, text: str) -> None:
        """Replaces the file in one go, and not the generation."""
        path = self._generation / _FILE
        self.note(f"replace {path} ({len(text)} bytes)")
        new = path.with_name(f".{path.name}.new")
        self.machine.write(new, text)
        self.machine.path(new).rename(self.machine.path(path))

    def remove(self, path: PurePosixPath) -> None:
        self.note(f"rm -rf {path}")
        self.machine.remove(path)

    def move(self, path: PurePosixPath, to: PurePosixPath) -> None:
        self.note(f"mv -T {path} {to}")
        self.machine.path(path).rename(self.machine.path(to))

    def switch_generation(self) -> None:
        """Builds a generation of what is declared now, and leads `/etc/static` to it."""
        self._generations += 1
        self._generation = root = STORE / f"g3n{self._generations:029}-etc"
        declaration = json.dumps(self.fleet.declaration(self._accepted()))
        self.machine.write(root / _FILE, declaration)
        wanted = self.random.sample(_NAMES, 2)
        for name in wanted:
            drop_in = root / f"systemd/microvm@{name}.service.d/generation.conf"
            self.machine.write(drop_in, "[Service]\n")
        self.note(f"generation {self._generations}, drop-ins of {' '.join(wanted)}")
        self.point(STATIC, root)

    def _accepted(self) -> list[str]:
        return self.random.sample((*_NAMES, *_GHOSTS), 2)


def _vm_of(unit: str) -> str:
    return unit.removeprefix("microvm@").removesuffix(".service")


# -------------------------------------------------------------------------------- units and jobs


def _job(changes: RandomChanges) -> None:
    verb = changes.random.choice(("start", "start", "stop", "restart", "try-restart"))
    changes.run("systemctl", "--no-block", verb, f"microvm@{changes.any_name()}.service")


def _helper_job(changes: RandomChanges) -> None:
    verb = changes.random.choice(("start", "stop"))
    template = changes.random.choice(changes.fleet.era.templates)
    changes.run("systemctl", "--no-block", verb, f"{template}@{changes.name()}.service")


def _kill(changes: RandomChanges) -> None:
    signal = changes.random.choice(("KILL", "TERM"))
    changes.run("systemctl", "kill", f"--signal={signal}", f"microvm@{changes.name()}.service")


def _stop_all_of_one(changes: RandomChanges) -> None:
    changes.run("systemctl", "--no-block", "stop", *changes.fleet.units(changes.any_name()))


def _start_ghost(changes: RandomChanges) -> None:
    """Of a VM that is nowhere; what is left is forgotten at some moment."""
    ghost = changes.random.choice(_GHOSTS)
    changes.run("systemctl", "start", f"microvm@{ghost}.service")
    if changes.random.random() < 0.7:
        changes.run("systemctl", "reset-failed", f"microvm*@{ghost}.service")


def _reset_failed(changes: RandomChanges) -> None:
    changes.run("systemctl", "reset-failed")


def _reload(changes: RandomChanges) -> None:
    changes.run("systemctl", "daemon-reload")


def _reexec(changes: RandomChanges) -> None:
    changes.run("systemctl", "daemon-reexec")


def _restart_bus(changes: RandomChanges) -> None:
    changes.run("systemctl", "reset-failed", "dbus.service")  # it may start only so often
    changes.run("systemctl", "restart", "dbus.service")


def _bus_outage(changes: RandomChanges) -> None:
    """Things happen that no signal tells of."""
    changes.run("systemctl", "stop", "dbus.socket", "dbus.service")
    for _ in range(_CHANGES_IN_AN_OUTAGE):
        changes.attempt(changes.random.choice((_job, _kill, _add_tap, _point_current)))
    changes.run("systemctl", "reset-failed", "dbus.service")
    changes.run("systemctl", "start", "dbus.socket", "dbus.service")


# ------------------------------------------------------------------- configuration and unit files


def _undeclare(changes: RandomChanges) -> None:
    if vm := changes.declared():
        changes.note(f"undeclare {vm.name}")
        changes.fleet.undeclare(vm.name)


def _declare(changes: RandomChanges) -> None:
    vm = changes.random.choice(VMS)
    changes.note(f"declare {vm.name}")
    changes.fleet.delete_links(*vm.taps, *vm.macvtaps)
    changes.fleet.declare(vm)


def _rebuild(changes: RandomChanges) -> None:
    if vm := changes.declared():
        changes.note(f"rebuild {vm.name}")
        changes.fleet.rebuild(vm.name)


def _update(changes: RandomChanges) -> None:
    if vm := changes.declared():
        changes.note(f"update {vm.name}")
        changes.fleet.update(vm.name)


def _switch(changes: RandomChanges) -> None:
    changes.switch_generation()
    changes.run("systemctl", "daemon-reload")
    changes.run("systemctl", "--no-block", "start", TARGET)


def _new_declaration(changes: RandomChanges) -> None:
    """The file alone, some VMs of it, or one that cannot be read."""
    declaration = changes.fleet.declaration([changes.any_name()])
    kept = changes.random.sample(sorted(declaration["vms"]), k=len(declaration["vms"]) // 2)
    declaration["vms"] = {name: declaration["vms"][name] for name in kept}
    text = json.dumps(declaration)
    changes.replace_declaration(changes.random.choice((text, text, text, text[:-9])))


def _switch_generation(changes: RandomChanges) -> None:
    changes.switch_generation()


def _drop_in(changes: RandomChanges) -> None:
    """The manager is not told: some unit needs a daemon-reload then, or names no VM."""
    folder = changes.random.choice((str(UNITS), "/run/systemd/system"))
    path = PurePosixPath(folder, f"microvm@{changes.any_name()}.service.d/local.conf")
    if changes.random.random() < 0.5:
        changes.note(f"write {path}")
        changes.machine.write(path, f"[Service]\nNice={changes.random.randrange(5)}\n")
    else:
        changes.remove(path.parent if changes.random.random() < 0.5 else path)


def _mask(changes: RandomChanges) -> None:
    """What is loaded of a unit changes, and only the reload that comes with it is told."""
    verb = changes.random.choice(("mask", "unmask"))
    changes.run("systemctl", "--runtime", verb, f"microvm@{changes.any_name()}.service")


def _wants_link(changes: RandomChanges) -> None:
    unit = f"install-microvm-{changes.any_name()}.service"
    link = UNITS / f"{TARGET}.wants" / unit
    if changes.random.random() < 0.5:
        changes.point(link, PurePosixPath("..", unit))
    else:
        changes.remove(link)


# ----------------------------------------------------------------------------------------- links


def _add_tap(changes: RandomChanges) -> None:
    user = changes.random.choice(("microvm", "microvm", "root"))
    device = ("tuntap", "add", "name", changes.device(), "mode", "tap", "user", user)
    changes.run("ip", *device, "vnet_hdr")


def _add_macvtap(changes: RandomChanges) -> None:
    over = ("link", "add", "link", "uplink0", "name", changes.device())
    changes.run("ip", *over, "type", "macvtap", "mode", "bridge")


def _add_other_link(changes: RandomChanges) -> None:
    kind = changes.random.choice(("dummy", "bridge"))
    changes.run("ip", "link", "add", "name", changes.device(), "type", kind)


def _delete_link(changes: RandomChanges) -> None:
    changes.run("ip", "link", "delete", changes.device())


def _rename_link(changes: RandomChanges) -> None:
    changes.run("ip", "link", "set", changes.device(), "name", changes.device())


def _set_link(changes: RandomChanges) -> None:
    state = changes.random.choice(("up", "down"))
    changes.run("ip", "link", "set", changes.device(), state)


# ----------------------------------------------------------------------------------------- state


def _state(changes: RandomChanges) -> PurePosixPath:
    return STATE / changes.any_name()


def _remove_current(changes: RandomChanges) -> None:
    changes.remove(_state(changes) / changes.random.choice(("current", "booted", "toplevel")))


def _point_current(changes: RandomChanges) -> None:
    vm = changes.random.choice(VMS)
    built = changes.fleet.vms.get(vm.name, vm)
    targets = (built.runner, replace(built, build=99).runner, PurePosixPath("current"))
    link = STATE / vm.name / changes.random.choice(("current", "current", "booted", "toplevel"))
    changes.point(link, changes.random.choice(targets))


def _rename_current(changes: RandomChanges) -> None:
    folder = _state(changes)
    names = ["current", "current.old"]
    changes.random.shuffle(names)
    changes.move(folder / names[0], folder / names[1])


def _make_state(changes: RandomChanges) -> None:
    folder = _state(changes)
    changes.note(f"mkdir {folder}")
    changes.machine.path(folder).mkdir()
    if changes.random.random() < 0.5:
        changes.note(f"write {folder}/flake")
        changes.machine.write(folder / "flake", "git+file:///etc/nixos\n")


def _plant(changes: RandomChanges) -> None:
    """A guest that broke out writes what it likes."""
    path = STATE / changes.random.choice((".hidden", "a b", "lost+found", "x" * 250, "file"))
    changes.note(f"plant {path}")
    if changes.random.random() < 0.5:
        changes.machine.remove(path)
    elif changes.random.random() < 0.5:
        changes.machine.path(path).mkdir()
    else:
        changes.machine.write(path, "planted\n")


def _remove_state(changes: RandomChanges) -> None:
    changes.remove(_state(changes))


def _move_state(changes: RandomChanges) -> None:
    changes.move(_state(changes), _state(changes))


def _reinstall(changes: RandomChanges) -> None:
    """Back to what it was, lest nothing is left after a thousand changes."""
    if vm := changes.declared():
        changes.note(f"reinstall {vm.name}")
        with suppress(FileExistsError, NotADirectoryError):
            changes.fleet.reinstall(vm.name)


def _gcroot(changes: RandomChanges) -> None:
    link = GCROOTS / f"{changes.random.choice(('', 'booted-', 'old-'))}{changes.any_name()}"
    if changes.random.random() < 0.5:
        changes.point(link, _state(changes) / "current")
    else:
        changes.remove(link)


_CHANGES: Mapping[Change, int] = {
    _job: 12,
    _helper_job: 3,
    _kill: 4,
    _stop_all_of_one: 2,
    _start_ghost: 3,
    _reset_failed: 1,
    _reload: 2,
    _reexec: 1,
    _restart_bus: 1,
    _bus_outage: 1,
    _undeclare: 3,
    _declare: 4,
    _rebuild: 2,
    _update: 2,
    _switch: 3,
    _new_declaration: 4,
    _switch_generation: 3,
    _drop_in: 4,
    _mask: 2,
    _wants_link: 2,
    _add_tap: 6,
    _add_macvtap: 2,
    _add_other_link: 2,
    _delete_link: 5,
    _rename_link: 4,
    _set_link: 4,
    _remove_current: 4,
    _point_current: 6,
    _rename_current: 2,
    _make_state: 3,
    _plant: 2,
    _remove_state: 3,
    _move_state: 3,
    _reinstall: 5,
    _gcroot: 3,
}
"""With how often each is made, of their sum."""
