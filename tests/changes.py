"""Changes to a made-up host, one record at a time, and what snapshots of it share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from microvm_exporter.model import (
    FailedCheck,
    Snapshot,
    Symlink,
    Template,
    UnitFile,
    UnitFileKind,
)
from world import NOW, STATE, TODAY, World, make_unit, runner_path, tap

Change = Callable[[World, str], None]
"""Changes what the host has of a VM. Raises KeyError when there is nothing to change."""


def _declare_and_start(world: World, name: str) -> None:
    world.add(name, interfaces=(tap(f"vm-{name}"),))


def _update(world: World, name: str) -> None:
    """Install a build with another TAP; what runs keeps the one it has."""
    interfaces = (tap(f"new-{name}"),)
    state = world.vms[name]
    assert state.current_runner
    world.change_state(
        name,
        current=Symlink(f"{state.path}/current", runner_path(name, 2), dangling=False),
        current_runner=replace(state.current_runner, interfaces=interfaces),
    )
    if name in world.declared:
        world.declared[name] = replace(
            world.declared[name], runner=runner_path(name, 2), interfaces=interfaces
        )


def _restart(world: World, name: str) -> None:
    state = world.vms[name]
    world.change_state(name, booted=state.current, booted_runner=state.current_runner)


def _begin_or_end_job(world: World, name: str) -> None:
    unit = world.units[f"microvm@{name}.service"]
    world.change_unit(unit.name, job=not unit.job)


def _start_or_end_helper(world: World, name: str) -> None:
    helper = make_unit(Template.TAP, name)
    if world.units.pop(helper.name, None) is None:
        world.units[helper.name] = helper


def _fail_helper(world: World, name: str) -> None:
    helper = make_unit(Template.PCI, name, "failed", result="exit-code")
    world.units[helper.name] = helper


def _unload(world: World, name: str) -> None:
    world.units = {key: unit for key, unit in world.units.items() if unit.vm != name}


def _fail_or_forget_check(world: World, name: str) -> None:
    unit = f"microvm@{name}.service"
    if world.failed_checks.pop(unit, None) is None:
        world.failed_checks[unit] = FailedCheck(unit, NOW - 900)


def _delete_state(world: World, name: str) -> None:
    del world.vms[name]


def _make_or_delete_device(world: World, name: str) -> None:
    if world.links.pop(f"vm-{name}", None) is None:
        world.link(f"vm-{name}")


def _use_or_leave_device(world: World, name: str) -> None:
    link = world.links[f"vm-{name}"]
    world.links[link.name] = replace(link, carrier=not link.carrier)


def _accept_or_not(world: World, name: str) -> None:
    world.imperative ^= {name}


def _autostart_or_not(world: World, name: str) -> None:
    world.autostarted ^= {name}


def _dangle(world: World, name: str) -> None:
    world.gcroots[name] = Symlink(f"/gcroots/{name}", f"{STATE}/{name}/current", dangling=True)


def _dangle_booted(world: World, name: str) -> None:
    path = f"/gcroots/booted-{name}"
    world.booted_gcroots[name] = Symlink(path, f"{STATE}/{name}/booted", dangling=True)


def _dangle_old(world: World, name: str) -> None:
    world.old_gcroots[name] = Symlink(f"/gcroots/old-{name}", f"{STATE}/{name}/old", dangling=True)


def _delete_gcroot(world: World, name: str) -> None:
    del world.gcroots[name]


def _put_unit_file(world: World, name: str) -> None:
    unit = f"microvm@{name}.service"
    path = f"/etc/systemd/system/{unit}"
    world.unit_files.append(UnitFile(path, UnitFileKind.UNIT, unit, name))


def _install_or_remove_template(world: World, _: str) -> None:
    if world.templates.pop(Template.MICROVM, None) is None:
        world.templates[Template.MICROVM] = TODAY[Template.MICROVM]


def _undeclare(world: World, name: str) -> None:
    world.undeclare(name)


def _stop(world: World, name: str) -> None:
    world.stop(name)


CHANGES: tuple[Change, ...] = (
    _declare_and_start,
    _undeclare,
    _stop,
    _update,
    _restart,
    _begin_or_end_job,
    _start_or_end_helper,
    _fail_helper,
    _unload,
    _fail_or_forget_check,
    _delete_state,
    _make_or_delete_device,
    _use_or_leave_device,
    _accept_or_not,
    _autostart_or_not,
    _dangle,
    _dangle_booted,
    _dangle_old,
    _delete_gcroot,
    _put_unit_file,
    _install_or_remove_template,
)


def share_nothing(new: Snapshot, _: Snapshot) -> Snapshot:
    """The same with every record another object, as two full looks would bring."""
    return _with_tables(new, lambda name, table: _each(table, _copied))


def share_records(new: Snapshot, _: Snapshot) -> Snapshot:
    """The tables are other objects, their records are not."""
    return new


def share_tables(new: Snapshot, old: Snapshot) -> Snapshot:
    """What has the same records is the same object, and so is a whole table."""

    def shared(name: str, table: Any) -> Any:
        known = getattr(old, name).value
        if known is None:
            return table
        kept = {
            field.name: getattr(known, field.name)
            for field in fields(table)
            if _is_same(getattr(table, field.name), getattr(known, field.name))
        }
        return known if len(kept) == len(fields(table)) else replace(table, **kept)

    return _with_tables(new, shared)


def _with_tables(snapshot: Snapshot, make: Callable[[str, Any], Any]) -> Snapshot:
    readings: dict[str, Any] = {
        name: reading
        if reading.value is None
        else replace(reading, value=make(name, reading.value))
        for name, reading in snapshot.readings().items()
    }
    return replace(snapshot, **readings)


def _each(table: Any, make: Callable[[Any], Any]) -> Any:
    return replace(
        table, **{field.name: make(getattr(table, field.name)) for field in fields(table)}
    )


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(record) for key, record in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    return copy.copy(value) if is_dataclass(value) else value


def _is_same(new: Any, old: Any) -> bool:
    if isinstance(new, Mapping):
        return new.keys() == old.keys() and all(new[key] is old[key] for key in new)
    return bool(new == old)
