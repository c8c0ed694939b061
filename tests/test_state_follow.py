"""What is heard of the file system leads to where a fresh look does, and touches nothing else."""

from __future__ import annotations

import os
import resource
import select
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from threading import Event, Thread

import pytest

from host_files import Host, look
from microvm_exporter.collectors import gcroots, missed, state_directory, untrusted
from microvm_exporter.collectors.state import StateCollector
from microvm_exporter.collectors.state_directory import StateDirectory
from microvm_exporter.collectors.unit_files import Entry, list_family
from microvm_exporter.collectors.watches import Watches
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Leftouts, StateTree, Template, UnitFile
from unprivileged import can_run, reachable_directory, unprivileged

pytestmark = pytest.mark.timeout(120)

GRACE = 0.2
"""Seconds after which what no event has told counts as missed here."""

Change = Callable[[Host], object]


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "_GRACE", GRACE)


class Followed:
    """A host that one collector follows."""

    def __init__(self, host: Host, *, limit: int = 100) -> None:
        self.host = host
        self.limit = limit
        self.prefer: frozenset[str] = frozenset()
        self.collector = StateCollector(
            gcroots_dir=str(host.gcroots), limit=limit, follow=True, store=f"{host.store}/"
        )
        self.tree = self.collect(Cause.RESYNC)

    def collect(self, cause: Cause) -> StateTree:
        self.tree = self.collector.collect(
            cause,
            state_dir=str(self.host.state),
            unit_dirs=list(map(str, self.host.unit_dirs)),
            prefer=self.prefer,
        )
        return self.tree

    def is_told(self) -> bool:
        descriptor = self.collector.fileno()
        assert descriptor is not None
        return bool(select.select([descriptor], [], [], 0)[0])

    def hear(self) -> StateTree:
        """Collect because of an event, and expect it to lead to where a fresh look does."""
        assert self.is_told()
        return self.expect(Cause.EVENT)

    def expect(self, cause: Cause) -> StateTree:
        tree = self.collect(cause)
        fresh = self.host.collect(limit=self.limit, prefer=self.prefer)
        assert tree == fresh
        assert times(tree) == times(fresh)
        return tree

    def is_active(self) -> bool:
        return self.collector.following.active

    @property
    def missed(self) -> int:
        return self.collector.following.missed


def times(tree: StateTree) -> dict[str, float]:
    """When each link was made: that is no part of a comparison."""
    states = [(vm.current, vm.booted, vm.toplevel) for vm in tree.vms.values()]
    gcroots = (tree.gcroots, tree.booted_gcroots, tree.old_gcroots)
    groups = [*states, *(links.values() for links in gcroots)]
    return {link.path: link.changed for links in groups for link in links if link}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Two VMs that run, with gcroots; a template, and a drop-in of each VM."""
    host = Host(tmp_path)
    fill(host)
    return host


def fill(host: Host) -> None:
    for name in ("old", "new", "toplevel"):
        host.runner(name)
    for name in ("db", "web"):
        path = host.vm(
            name,
            current=host.store / "old",
            booted=host.store / "old",
            toplevel=host.store / "toplevel",
        )
        (host.gcroots / name).symlink_to(path / "current")
        (host.gcroots / f"booted-{name}").symlink_to(path / "booted")
        (host.units / f"microvm@{name}.service.d").mkdir()
        (host.units / f"microvm@{name}.service.d/overrides.conf").touch()
    (host.units / "microvm@.service").write_text("[Unit]\nConditionPathExists=/s/%i/current\n")


@pytest.fixture
def followed(host: Host) -> Iterator[Followed]:
    followed = Followed(host)
    assert followed.is_active()
    yield followed
    followed.collector.close()


def changed_vms(old: StateTree, new: StateTree) -> set[str]:
    """Which VMs have another object, or only one of the two."""
    names = old.vms.keys() | new.vms.keys()
    return {name for name in names if old.vms.get(name) is not new.vms.get(name)}


def changed_parts(old: StateTree, new: StateTree) -> set[str]:
    parts = ("gcroots", "booted_gcroots", "old_gcroots", "templates", "unit_files")
    return {part for part in parts if getattr(old, part) is not getattr(new, part)}


def replace_link(link: Path, target: Path | str) -> None:
    new = link.with_name(".new link")
    new.symlink_to(target)
    new.replace(link)


def remake_link(link: Path, target: Path | str) -> None:
    link.unlink()
    link.symlink_to(target)


# --------------------------------------------------------------------------------------------- a VM


def add_vm(host: Host) -> None:
    host.vm("app", current=host.store / "new")


def rename_vm(host: Host) -> None:
    (host.state / "web").rename(host.state / "app")


def make_vm_a_file(host: Host) -> None:
    shutil.rmtree(host.state / "web")
    (host.state / "web").touch()


def move_vm_behind_a_link(host: Host) -> None:
    (host.state / "web").rename(host.store / "web")
    (host.state / "web").symlink_to(host.store / "web")


def exchange_vms(host: Host) -> None:
    (host.state / "web/flake").touch()
    (host.state / "db/toplevel").unlink()
    (host.state / "web").rename(host.state / ".web")
    (host.state / "db").rename(host.state / "web")
    (host.state / ".web").rename(host.state / "db")


GCROOTS = {"gcroots", "booted_gcroots"}
BOOTED = {"booted_gcroots"}


@pytest.mark.parametrize(
    ("change", "vms", "parts"),
    [
        (add_vm, {"app"}, set()),
        (rename_vm, {"web", "app"}, GCROOTS),
        (lambda host: shutil.rmtree(host.state / "web"), {"web"}, GCROOTS),
        (make_vm_a_file, {"web"}, GCROOTS),
        (move_vm_behind_a_link, set(), set()),
        (exchange_vms, {"web", "db"}, set()),
        (lambda host: (host.state / "web/current").unlink(), {"web"}, {"gcroots"}),
        (lambda host: replace_link(host.state / "web/current", host.store / "new"), {"web"}, set()),
        (lambda host: remake_link(host.state / "web/current", host.store / "new"), {"web"}, set()),
        (lambda host: remake_link(host.state / "web/current", host.store / "old"), {"web"}, set()),
        (lambda host: remake_link(host.state / "web/current", "current"), {"web"}, {"gcroots"}),
        (lambda host: (host.state / "web/booted").unlink(), {"web"}, BOOTED),
        (lambda host: remake_link(host.state / "web/toplevel", "gone"), {"web"}, set()),
        (lambda host: (host.state / "web/flake").write_text("x"), {"web"}, set()),
        (lambda host: (host.state / "loop").symlink_to("loop"), set(), set()),
        (lambda host: (host.state / "a\nb").mkdir(), set(), set()),
    ],
)
def test_change_of_a_vm(followed: Followed, change: Change, vms: set[str], parts: set[str]) -> None:
    before = followed.tree
    change(followed.host)
    tree = followed.hear()
    assert changed_vms(before, tree) == vms
    assert changed_parts(before, tree) == parts
    assert followed.expect(Cause.RESYNC) is tree
    assert followed.is_active()


def make_disk(host: Host) -> None:
    (host.state / "web/disk.img").write_bytes(b"x")
    os.mkfifo(host.state / "web/console")


def make_other_units(host: Host) -> None:
    (host.units / "sshd.service").touch()
    (host.units / "microvm@web.service.d/README").touch()


@pytest.mark.parametrize(
    "change",
    [
        lambda host: None,
        make_disk,
        make_other_units,
        lambda host: (host.state / "lock").write_text(""),
        lambda host: (host.state / "web").chmod(0o700),
        lambda host: os.utime(host.state),
        lambda host: (host.gcroots / "directory").mkdir(),
    ],
)
def test_what_does_not_matter_changes_nothing(followed: Followed, change: Change) -> None:
    before = followed.tree
    change(followed.host)
    assert followed.expect(Cause.EVENT) is before
    assert followed.expect(Cause.INTERVAL) is before
    assert followed.expect(Cause.RESYNC) is before
    assert followed.is_active()
    assert_quiet(followed)


def assert_quiet(followed: Followed) -> None:
    """No look tells of itself. Others may make something on the way to the host meanwhile."""
    before = followed.tree
    deadline = time.monotonic() + 5
    while followed.is_told():
        assert time.monotonic() < deadline
        assert followed.collect(Cause.EVENT) is before


def test_vm_that_was_made_anew_is_followed(followed: Followed) -> None:
    rename_vm(followed.host)
    followed.hear()
    add_current = followed.host.vm("web") / "current"
    followed.hear()
    add_current.symlink_to(followed.host.store / "new")
    assert followed.hear().vms["web"].current_runner is not None
    (followed.host.state / "app/current").unlink()
    assert followed.hear().vms["app"].current is None


def test_vm_behind_a_link_is_followed(followed: Followed) -> None:
    move_vm_behind_a_link(followed.host)
    before = followed.hear()
    (followed.host.store / "web/current").unlink()
    assert changed_vms(before, followed.hear()) == {"web"}


def test_vm_that_may_not_be_entered_is_heard_of() -> None:
    with reachable_directory() as path:
        host = Host(path)
        fill(host)
        with unprivileged():
            followed = Followed(host)
        (host.state / "web").chmod(0)
        with unprivileged():
            tree = followed.hear()
        assert not tree.vms["web"].readable
        assert tree.left_out == Leftouts(unreadable=1)
        (host.state / "web").chmod(0o755)
        with unprivileged():
            tree = followed.hear()
        assert tree.vms["web"].current_runner is not None
        assert tree.left_out == Leftouts()


def test_vm_that_may_not_be_listed_is_looked_at_each_interval() -> None:
    with reachable_directory() as path:
        host = Host(path)
        fill(host)
        (host.state / "web").chmod(0o311)
        with unprivileged():
            followed = Followed(host)
        (host.state / "web/current").unlink()
        with unprivileged():
            assert followed.collect(Cause.EVENT).vms["web"].current
            assert followed.expect(Cause.INTERVAL).vms["web"].current is None


def test_directory_that_may_not_be_followed_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with reachable_directory() as path:
        host = Host(path)
        fill(host)
        (host.state / "web").chmod(0o311)  # a guest's doing, which is not told
        path.chmod(0o311)
        with unprivileged():
            followed = Followed(host)
        (host.state / "db/flake").touch()
        with unprivileged():
            assert followed.expect(Cause.INTERVAL).vms["db"].flake
        assert not followed.is_active()
    told = [(record.__dict__["directory"], record.__dict__["error"]) for record in caplog.records]
    denied = f"[Errno 13] Permission denied: '{path}'"
    assert told == [(str(place), denied) for place in (host.gcroots, host.units, host.state)]


# -------------------------------------------------------------------------------- other directories


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda host: (host.gcroots / "app").symlink_to("/gone"), "gcroots"),
        (lambda host: (host.gcroots / "web").unlink(), "gcroots"),
        (lambda host: replace_link(host.gcroots / "web", host.state / "gone/current"), "gcroots"),
        (lambda host: (host.gcroots / "old-web").symlink_to(host.state / "web/old"), "old_gcroots"),
    ],
)
def test_change_of_a_gcroot(followed: Followed, change: Change, part: str) -> None:
    before = followed.tree
    change(followed.host)
    tree = followed.hear()
    assert changed_parts(before, tree) == {part}
    assert changed_vms(before, tree) == set()
    assert tree.gcroots["db"] is before.gcroots["db"]
    assert followed.expect(Cause.RESYNC) is tree


def test_gcroot_of_the_build_before_the_last_leads_nowhere_any_more(followed: Followed) -> None:
    host = followed.host
    (host.state / "web/old").symlink_to(host.store / "old")
    (host.gcroots / "old-web").symlink_to(host.state / "web/old")
    assert not followed.hear().old_gcroots["web"].dangling
    (host.state / "web/old").unlink()
    assert followed.hear().old_gcroots["web"].dangling


def test_gcroots_directory_that_comes_and_goes(followed: Followed) -> None:
    host = followed.host
    shutil.rmtree(host.gcroots)
    assert followed.hear().gcroots == {}
    host.gcroots.mkdir()
    followed.hear()
    (host.gcroots / "web").symlink_to(host.state / "web/current")
    assert set(followed.hear().gcroots) == {"web"}


DROP_IN = "microvm@web.service.d/overrides.conf"


def add_install(host: Host) -> None:
    (host.units / "install-microvm-web.service").write_text("[Unit]\nConditionPathExists=!/s/web\n")


def pull_in(host: Host) -> None:
    (host.units / "microvms.target.wants").mkdir()
    (host.units / "microvms.target.wants/microvm@web.service").symlink_to("gone")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda host: (host.units / "microvm-tap-interfaces@.service").touch(), set()),
        (lambda host: (host.units / "microvm-virtiofsd@.service").write_text("#"), {"templates"}),
        (lambda host: (host.units / "microvm@.service").write_text("#"), {"templates"}),
        (lambda host: (host.units / "microvm@.service").unlink(), {"templates"}),
        (lambda host: (host.units / DROP_IN).unlink(), {"unit_files"}),
        (lambda host: (host.units / DROP_IN).with_name("x.conf").touch(), {"unit_files"}),
        (lambda host: shutil.rmtree((host.units / DROP_IN).parent), {"unit_files"}),
        (add_install, {"unit_files"}),
        (pull_in, {"unit_files"}),
    ],
)
def test_change_of_a_unit_file(followed: Followed, change: Change, parts: set[str]) -> None:
    before = followed.tree
    change(followed.host)
    heard = followed.collector.unit_file_events
    tree = followed.hear()
    assert changed_parts(before, tree) == parts
    assert changed_vms(before, tree) == set()
    assert any(file is before.unit_files[0] for file in tree.unit_files)
    assert followed.collector.unit_file_events > heard
    assert followed.expect(Cause.RESYNC) is tree


def test_unit_file_elsewhere_that_changes_is_found_at_the_interval(
    followed: Followed, tmp_path: Path
) -> None:
    host, before = followed.host, followed.tree
    linked, pulled_in = tmp_path / "linked", tmp_path / "gone"
    linked.write_text("#")
    (host.units / "microvm-virtiofsd@.service").symlink_to(linked)
    (host.units / "microvms.target.wants").mkdir()
    (host.units / "microvms.target.wants/microvm@web.service").symlink_to(pulled_in)
    followed.hear()
    linked.write_text("[Unit]\nConditionPathExists=/s/%i\n")
    pulled_in.touch()
    tree = followed.expect(Cause.INTERVAL)
    assert tree.templates[Template.VIRTIOFSD] == ("/s/%i",)
    assert [file.dangling for file in tree.unit_files] == [False] * len(tree.unit_files)
    linked.unlink()
    assert followed.expect(Cause.INTERVAL).templates == before.templates
    linked.write_text("#")
    assert Template.VIRTIOFSD in followed.expect(Cause.INTERVAL).templates
    assert followed.missed == 0


def test_entry_of_a_directory_that_is_new_in_a_unit_directory(followed: Followed) -> None:
    pull_in(followed.host)
    followed.hear()
    wants = followed.host.units / "microvms.target.wants"
    (wants / "microvm@db.service").symlink_to("gone")
    (wants / "sshd.service").symlink_to("gone")
    assert [file.vm for file in followed.hear().unit_files] == ["db", "web", "db", "web"]


def test_unit_directory_that_is_named_with_a_slash_at_its_end(host: Host) -> None:
    collector = StateCollector(gcroots_dir=str(host.gcroots), limit=100, follow=True)
    unit_dirs = [f"{host.units}/"]

    def unit_files(cause: Cause) -> dict[str, UnitFile]:
        tree = collector.collect(
            cause, state_dir=str(host.state), unit_dirs=unit_dirs, prefer=frozenset()
        )
        fresh = look(str(host.state), unit_dirs=unit_dirs)
        assert tree.unit_files == fresh.unit_files
        return {Path(file.path).name: file for file in tree.unit_files if file.vm == "web"}

    before = unit_files(Cause.RESYNC)
    (host.units / "microvm@web.service.d/more.conf").touch()
    (host.units / "microvm@web.service").touch()
    after = unit_files(Cause.EVENT)
    assert after.keys() - before.keys() == {"more.conf", "microvm@web.service"}
    assert after["overrides.conf"] is before["overrides.conf"]
    collector.close()


def test_unit_directory_that_comes_later(host: Host) -> None:
    host.unit_dirs.append(host.store.parent / "run/systemd/system")
    followed = Followed(host)
    host.unit_dirs[-1].mkdir(parents=True)
    followed.hear()
    (host.unit_dirs[-1] / "microvm-virtiofsd@.service").write_text("#")
    assert Template.VIRTIOFSD in followed.hear().templates
    followed.collector.close()


def test_unit_directory_that_goes_while_it_is_read_has_nothing(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /run/systemd/generator does in a daemon-reload."""

    def too_late(path: str) -> Iterator[Entry]:
        shutil.rmtree(path)
        return list_family(path)

    monkeypatch.setattr("microvm_exporter.collectors.unit_directories.list_family", too_late)
    assert followed.collect(Cause.RESYNC).unit_files == ()
    monkeypatch.undo()
    followed.host.units.mkdir()
    (followed.host.units / "microvm@web.service").touch()
    assert [file.vm for file in followed.hear().unit_files] == ["web"]
    assert followed.missed == 0


def test_unit_directory_in_the_store_behind_links_that_are_replaced(host: Host) -> None:
    root = host.store.parent
    for build in ("1", "2"):
        units = host.store / f"etc-{build}/systemd/system"
        shutil.copytree(host.units, units)
        (units / f"install-microvm-{build}.service").write_text("#")
    (root / "etc/systemd").mkdir(parents=True)
    (root / "etc/static").symlink_to(host.store / "etc-1")
    (root / "etc/systemd/system").symlink_to(root / "etc/static/systemd/system")
    host.unit_dirs[:] = [root / "etc/systemd/system"]
    followed = Followed(host)
    assert [file.vm for file in followed.tree.unit_files] == ["1", "db", "web"]
    replace_link(root / "etc/static", host.store / "etc-2")
    assert [file.vm for file in followed.hear().unit_files] == ["2", "db", "web"]
    followed.collect(Cause.EVENT)  # the watches that were given back
    (host.store / "etc-2/systemd/system/microvm@db.service.d/more.conf").touch()
    assert_quiet(followed)
    followed.collector.close()


def test_other_directories_are_asked_for(followed: Followed, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Host(tmp_path / "other")
    other.vm("app", current=other.runner("a"))
    followed.host.state, followed.host.unit_dirs = other.state, [other.units]
    assert set(followed.expect(Cause.EVENT).vms) == {"app"}
    (other.state / "app/current").unlink()
    (other.units / "microvm@app.service").touch()
    tree = followed.hear()
    assert tree.vms["app"].current is None
    assert [file.vm for file in tree.unit_files] == ["app"]
    assert followed.expect(Cause.RESYNC) is tree


# ------------------------------------------------------------------------------ what no event tells


def test_target_of_a_link_that_is_gone_is_found_at_the_interval(followed: Followed) -> None:
    before = followed.tree
    shutil.rmtree(followed.host.store / "old")
    assert followed.collect(Cause.EVENT) is before
    tree = followed.expect(Cause.INTERVAL)
    current = tree.vms["web"].current
    assert current
    assert current.dangling
    assert tree.gcroots["web"].dangling
    followed.host.runner("old")
    assert followed.expect(Cause.INTERVAL) == before


@pytest.mark.parametrize("place", ["store", "store/some-package", "store/../store", "elsewhere"])
def test_target_that_goes_after_an_interval_is_found_at_the_next(
    followed: Followed, place: str
) -> None:
    target = Path(f"{followed.host.store.parent}/{place}/runner")
    target.mkdir(parents=True)
    replace_link(followed.host.state / "web/current", target)
    followed.hear()
    followed.expect(Cause.INTERVAL)
    followed.expect(Cause.INTERVAL)
    target.rmdir()
    current = followed.expect(Cause.INTERVAL).vms["web"].current
    assert current
    assert current.dangling


def test_directory_behind_a_link_that_is_another_is_found_at_the_interval(
    followed: Followed,
) -> None:
    host = followed.host
    move_vm_behind_a_link(host)
    followed.hear()
    (host.store / "web").rename(host.store / "was-web")
    (host.store / "web").mkdir()
    assert followed.expect(Cause.INTERVAL).vms["web"].current is None
    (host.store / "web/flake").touch()
    assert followed.hear().vms["web"].flake


def test_what_no_event_tells_is_not_missed(followed: Followed) -> None:
    host = followed.host
    move_vm_behind_a_link(host)
    followed.hear()
    (host.store / "web").rename(host.store / "was-web")
    (host.store / "web").mkdir()
    shutil.rmtree(host.store / "toplevel")
    (host.store / "old/bin/tap-up").touch()
    assert changed_vms(followed.tree, followed.expect(Cause.RESYNC)) == {"db", "web"}
    time.sleep(GRACE + 0.1)
    followed.expect(Cause.RESYNC)
    assert followed.missed == 0


def test_what_no_event_has_told_is_missed(followed: Followed) -> None:
    host = followed.host
    (host.state / "web/current").unlink()
    host.vm("app")
    (host.gcroots / "app").symlink_to("/gone")
    (host.units / "microvm@app.service").touch()
    swallow_events(followed)
    followed.expect(Cause.RESYNC)
    assert followed.missed == 0
    time.sleep(GRACE + 0.1)
    followed.expect(Cause.EVENT)
    assert followed.missed == 4  # two VMs, a gcroot, a unit directory


def swallow_events(followed: Followed) -> None:
    descriptor = followed.collector.fileno()
    assert descriptor is not None
    os.read(descriptor, 1 << 16)


# ------------------------------------------------------------------------------------------ trouble


def test_error_is_told_again_until_something_is_heard(followed: Followed) -> None:
    state = followed.host.state
    state.rename(state.with_name("moved"))
    for _ in range(2):
        with pytest.raises(CollectorError, match=r"No such file.*--state-dir"):
            followed.collect(Cause.EVENT)
        assert not followed.is_active()
    with pytest.raises(CollectorError, match="No such file"):
        followed.collect(Cause.INTERVAL)
    state.with_name("moved").rename(state)
    (state / "web/flake").touch()
    assert followed.hear().vms["web"].flake
    assert followed.is_active()


def test_error_stays_while_there_is_no_more_patience(host: Host) -> None:
    for number in range(600):
        host.vm(f"vm-{number}")
    followed = Followed(host, limit=1000)
    host.state.rename(host.state.with_name("moved"))
    with pytest.raises(CollectorError, match="No such file"):
        followed.collect(Cause.EVENT)
    host.state.with_name("moved").rename(host.state)
    with pytest.raises(CollectorError, match="No such file"):
        followed.collect(Cause.EVENT)
    followed.expect(Cause.INTERVAL)
    assert followed.is_active()
    followed.collector.close()


@pytest.mark.parametrize("cause", Cause)
def test_unit_directory_that_cannot_be_listed_is_an_error_for_a_while(
    followed: Followed, cause: Cause
) -> None:
    units = followed.host.units
    units.rename(units.with_name("moved"))
    units.touch()
    for one in (cause, Cause.EVENT):
        with pytest.raises(CollectorError, match="Not a directory"):
            followed.collect(one)
        (followed.host.state / "db/flake").touch()
    (followed.host.state / "web/flake").touch()
    units.unlink()
    units.with_name("moved").rename(units)
    assert followed.hear().vms["web"].flake
    assert followed.is_active()


def overflow(directory: Path) -> None:
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (directory / "a").touch()
    for _ in range(queue // 4 + 1):
        (directory / "a").rename(directory / "b")
        (directory / "b").rename(directory / "a")


def test_lost_events_are_made_up_for_at_each_interval(followed: Followed) -> None:
    before = followed.tree
    overflow(followed.host.state)
    (followed.host.state / "web/current").unlink()
    while followed.collector.fileno() is not None:
        assert followed.collect(Cause.EVENT) is before
    assert not followed.is_active()
    assert followed.expect(Cause.INTERVAL).vms["web"].current is None
    (followed.host.gcroots / "web").unlink()
    (followed.host.units / DROP_IN).unlink()
    assert changed_parts(before, followed.expect(Cause.INTERVAL)) == {"gcroots", "unit_files"}
    assert not followed.is_active()
    followed.expect(Cause.RESYNC)
    assert followed.is_active()
    (followed.host.state / "db/current").unlink()
    assert followed.hear().vms["db"].current is None
    assert followed.missed == 0


def test_no_descriptor_left(caplog: pytest.LogCaptureFixture) -> None:
    watches = Watches(follow=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert not watches.open()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not watches.active
    assert caplog.messages == [
        "cannot follow the directories: all are looked at each time until the next resync"
    ]
    assert watches.open()
    watches.close()


FEW_WATCHES = ["unshare", "--user", "--map-root-user", "sh", "-c"]
FEW_WATCHES += ['echo 20 > /proc/sys/user/max_inotify_watches && exec "$0" "$@"']

FOLLOW_THIRTY = """
import shutil, sys
from pathlib import Path
from host_files import Host, look
from microvm_exporter.model import Cause
from test_state_follow import Followed
host = Host(Path(sys.argv[1]))
for number in range(30):
    host.vm(f"vm-{number}")
followed = Followed(host)
assert len(followed.tree.vms) == 30
assert not followed.is_active()
assert followed.collector.fileno() is None
(host.state / "vm-7/flake").touch()
assert not followed.collect(Cause.EVENT).vms["vm-7"].flake
assert followed.expect(Cause.INTERVAL).vms["vm-7"].flake
for number in range(20):
    shutil.rmtree(host.state / f"vm-{number}")
followed.expect(Cause.INTERVAL)
assert not followed.is_active()
followed.expect(Cause.RESYNC)
assert followed.is_active()
assert followed.missed == 0
"""


def test_too_few_watches_are_made_up_for_at_each_interval(tmp_path: Path) -> None:
    """A user namespace has a limit of its own, below that of the machine."""
    if not can_run(*FEW_WATCHES, "true"):
        pytest.skip("user namespaces cannot be made here")
    run_script(FEW_WATCHES, FOLLOW_THIRTY, tmp_path)


def run_script(within: Sequence[str], script: str, path: Path) -> None:
    """Run it as a program of its own, with the path as its argument."""
    subprocess.run(
        [*within, sys.executable, "-c", script, str(path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        check=True,
    )


MOUNTS = """
import subprocess, sys
from pathlib import Path
from test_state_follow import Cause, Followed, Host, fill

host = Host(Path(sys.argv[1]))
fill(host)
followed = Followed(host)
followed.expect(Cause.INTERVAL)
before = followed.expect(Cause.INTERVAL)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host.state / "web"], check=True)
assert followed.expect(Cause.INTERVAL).vms["web"].current is None
(host.state / "web/flake").touch()
assert followed.hear().vms["web"].flake
subprocess.run(["umount", host.state / "web"], check=True)
assert followed.expect(Cause.INTERVAL) == before
assert followed.missed == 0
"""


def test_mount_is_found_at_the_interval(tmp_path: Path) -> None:
    alone = ("unshare", "--mount", "--user", "--map-root-user")
    if not can_run(*alone, "mount", "-t", "tmpfs", "tmpfs", "/mnt"):
        pytest.skip("nothing can be mounted here")
    run_script(alone, MOUNTS, tmp_path)


FUSE = """
import os, subprocess, sys
from pathlib import Path
from test_state_follow import Cause, Followed, Host, Leftouts, fill

host = Host(Path(sys.argv[1]))
fill(host)
followed = Followed(host)
fuse = os.open("/dev/fuse", os.O_RDWR)
whose = f"fd={fuse},rootmode=40000,user_id=65534,group_id=65534"
mount = ("mount", "--internal-only", "-t", "fuse", "-o", whose, "none", str(host.state / "web"))
subprocess.run(mount, pass_fds=[fuse], check=True)
tree = followed.expect(Cause.INTERVAL)
assert not tree.vms["web"].readable
assert tree.vms["db"].current_runner is not None
assert tree.left_out == Leftouts(unreadable=1)
"""


def test_mount_that_its_owner_alone_may_look_at_costs_one_vm(tmp_path: Path) -> None:
    """fusermount3 makes it for anyone on a directory of theirs; not even root may stat it."""
    alone = ("unshare", "--mount")
    if not (can_run(*alone, "true") and os.access("/dev/fuse", os.R_OK | os.W_OK)):
        pytest.skip("FUSE cannot be mounted here")
    run_script(alone, FUSE, tmp_path)


def plant_way(directory: Path, end: Path) -> Path:
    """Lead to the end by as many links as the kernel follows, each as long as XFS lets it be."""
    (directory / "a").mkdir(parents=True)
    (directory / "end").symlink_to(end)
    before = "end"
    for number in range(38):
        (directory / str(number)).symlink_to("a/../" * 200 + before)
        before = str(number)
    return directory / before


def test_planted_ways_that_take_their_time_cost_no_other_vm(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_directory, "_SECONDS", 0.2)
    followed = Followed(host, limit=1000)
    before = followed.tree
    followed.prefer = frozenset(before.vms)
    way = plant_way(tmp_path / "ways", host.store / "old")
    for number in range(200):
        host.vm(f"aaa-{number}", current=way)
    assert followed.collect(Cause.EVENT).vms["web"] is before.vms["web"]
    assert not followed.is_active()
    for cause in (Cause.INTERVAL, Cause.RESYNC):
        tree = followed.collect(cause)
        assert tree.vms["web"] is before.vms["web"]
        unread = [vm for vm in tree.vms.values() if not vm.readable]
        assert len(unread) == tree.left_out.unreadable
        assert 0 < len(unread) < 200
        assert not followed.is_active()
    for number in range(200):
        shutil.rmtree(host.state / f"aaa-{number}")
    followed.expect(Cause.INTERVAL)
    assert followed.is_active()
    followed.collector.close()


def test_planted_ways_in_a_runner_take_no_longer_than_one_vm_may(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "_SECONDS", 0.001)
    way = plant_way(tmp_path / "ways", host.store / "old/bin/microvm-run")
    runner = tmp_path / "runner"
    for member in ("bin/microvm-run", "bin/tap-up", "share/microvm/tap-interfaces"):
        (runner / member).parent.mkdir(parents=True, exist_ok=True)
        (runner / member).symlink_to(way)
    host.vm("planted", current=runner)
    tree = host.collect()
    assert tree.vms["planted"].current_runner is None
    assert tree.left_out.unreadable > 0


def test_gcroots_that_take_their_time_are_looked_at_later(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("db", "web"):
        (followed.host.state / name / "current").unlink()
    monkeypatch.setattr(gcroots, "_SECONDS", 1e-9)
    seen = followed.collect(Cause.INTERVAL).gcroots
    assert sum(link.dangling for link in seen.values()) < 2
    assert not followed.is_active()
    monkeypatch.undo()
    seen = followed.expect(Cause.INTERVAL).gcroots
    assert sum(link.dangling for link in seen.values()) == 2
    assert followed.is_active()


def test_names_that_come_while_nothing_can_be_read_are_not_all_kept(host: Host) -> None:
    watches = Watches(follow=True)
    watches.open()
    directory = StateDirectory(limit=10, watches=watches, store=f"{host.store}/")
    directory.read(Cause.RESYNC, str(host.state), [])
    tracemalloc.start()
    for number in range(100_000):
        directory.hear(f"{number}")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000
    assert directory.read(Cause.INTERVAL, str(host.state), []) == {"db", "web"}
    watches.close()


def test_planted_directories_end_the_following_of_the_state_directory(host: Host) -> None:
    followed = Followed(host)
    before = followed.tree
    followed.prefer = frozenset(before.vms)
    for number in range(10_000):
        (host.state / f"aaa-{number}").mkdir()
    tree = followed.hear()
    assert (len(tree.vms), tree.left_out.limit) == (100, 9902)
    assert tree.vms["web"] is before.vms["web"]
    assert not followed.is_active()
    (host.state / "web/current").unlink()
    (host.gcroots / "db").unlink()
    stale = followed.collect(Cause.EVENT)
    assert stale.vms is tree.vms
    assert set(stale.gcroots) == {"web"}
    assert followed.expect(Cause.INTERVAL).vms["web"].current is None
    for number in range(10_000):
        (host.state / f"aaa-{number}").rmdir()
    followed.expect(Cause.INTERVAL)
    assert followed.is_active()
    followed.collector.close()


def test_planted_names_end_the_following_of_the_state_directory(host: Host) -> None:
    followed = Followed(host, limit=10)
    for number in range(50):
        (host.state / f"a b {number}").mkdir()
    assert followed.hear().left_out == Leftouts(name=50)
    assert not followed.is_active()
    for number in range(45):
        (host.state / f"a b {number}").rmdir()
    assert followed.expect(Cause.INTERVAL).left_out == Leftouts(name=5)
    assert followed.is_active()
    (host.state / "a b 49").rmdir()
    assert followed.hear().left_out == Leftouts(name=4)
    followed.collector.close()


def test_events_between_two_intervals_have_no_more_read_than_a_look_at_everything(
    host: Host,
) -> None:
    for number in range(600):
        host.vm(f"vm-{number}")
    followed = Followed(host, limit=1000)
    host.state.chmod(0o700)
    before = followed.hear()
    host.state.chmod(0o755)
    (host.state / "web/flake").touch()
    assert followed.collect(Cause.EVENT) is before
    assert not followed.is_active()
    assert followed.expect(Cause.INTERVAL).vms["web"].flake
    assert followed.is_active()
    (host.state / "web/flake").unlink()
    assert not followed.hear().vms["web"].flake
    followed.collector.close()


def test_link_that_changes_as_fast_as_possible(followed: Followed) -> None:
    host, before, stop = followed.host, followed.tree, Event()

    def flip() -> None:
        while not stop.is_set():
            replace_link(host.state / "web/current", host.store / "new")
            replace_link(host.state / "web/current", host.store / "old")

    flipper = Thread(target=flip)
    flipper.start()
    try:
        for _ in range(50):
            assert changed_vms(before, followed.collect(Cause.EVENT)) <= {"web"}
    finally:
        stop.set()
        flipper.join()
    followed.expect(Cause.EVENT)
    assert followed.is_active()


# ------------------------------------------------------------------------------------------- a walk


class Walk:
    """Random changes by a seed, many of them to what another one has left."""

    def __init__(self, host: Host, seed: int) -> None:
        self.host = host
        self.random = Random(seed)
        self.changes = (
            self.change_link, self.change_link, self.change_flake, self.make_vm, self.remove_vm,
            self.rename_vm, self.change_gcroot, self.change_unit, self.change_drop_in, self.litter,
        )  # fmt: skip

    def step(self) -> None:
        self.random.choice(self.changes)()

    def name(self) -> str:
        return self.random.choice("abcdef")

    def target(self, link: Path) -> Path:
        """Give what is there, what is not, or itself; not by its path: it may be moved."""
        store = self.host.store
        return self.random.choice([store / "old", store / "new", store / "gone", Path(link.name)])

    def put(self, link: Path) -> None:
        if self.random.random() < 0.3:
            link.unlink(missing_ok=True)
        elif self.random.random() < 0.5 or not link.is_symlink():
            link.unlink(missing_ok=True)
            link.symlink_to(self.target(link))
        else:
            replace_link(link, self.target(link))

    def change_link(self) -> None:
        vm = self.host.state / self.name()
        if vm.is_dir():
            self.put(vm / self.random.choice(["current", "booted", "toplevel", "old"]))

    def change_flake(self) -> None:
        vm = self.host.state / self.name()
        if vm.is_dir():
            flake = vm / "flake"
            if flake.exists():
                flake.unlink()
            else:
                flake.touch()

    def make_vm(self) -> None:
        (self.host.state / self.name()).mkdir(exist_ok=True)

    def remove_vm(self) -> None:
        shutil.rmtree(self.host.state / self.name(), ignore_errors=True)

    def rename_vm(self) -> None:
        old, new = self.host.state / self.name(), self.host.state / self.name()
        if old.exists() and not new.exists():
            old.rename(new)

    def change_gcroot(self) -> None:
        vm, (prefix, member) = (
            self.name(),
            self.random.choice([("", "current"), ("booted-", "booted"), ("old-", "old")]),
        )
        link = self.host.gcroots / f"{prefix}{vm}"
        if link.is_symlink():
            link.unlink()
        else:
            link.symlink_to(self.host.state / vm / member)

    def change_unit(self) -> None:
        self.put(self.host.units / f"install-microvm-{self.name()}.service")

    def change_drop_in(self) -> None:
        directory = self.host.units / f"microvm@{self.name()}.service.d"
        if self.random.random() < 0.2:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            directory.mkdir(exist_ok=True)
            self.put(directory / self.random.choice(["a.conf", "b.conf"]))

    def litter(self) -> None:
        name = self.random.choice(["x y", "file", ".hidden", "disk"])
        path = self.host.state / name
        if path.is_dir():
            path.rmdir()
        elif path.exists():
            path.unlink()
        elif name == "file":
            path.touch()
        else:
            path.mkdir()


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_lead_to_where_a_fresh_look_does(followed: Followed, seed: int) -> None:
    walk = Walk(followed.host, seed)
    for _ in range(150):
        for _ in range(walk.random.randrange(6)):
            walk.step()
        followed.expect(Cause.EVENT)
    tree = followed.tree
    assert followed.expect(Cause.RESYNC) is tree
    assert followed.is_active()
    time.sleep(GRACE + 0.1)
    followed.collect(Cause.EVENT)
    assert followed.missed == 0
