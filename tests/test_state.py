"""The state directory and the gcroots, sound and hostile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_files import Host, look
from microvm_exporter.collectors import state_directory
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import (
    Leftouts,
    Runner,
    Symlink,
    Template,
    UnitFile,
    UnitFileKind,
    VmState,
    is_instance_name,
)
from unprivileged import reachable_directory, unprivileged

pytestmark = pytest.mark.timeout(60)

RUNNER = Runner(files=frozenset({"bin/microvm-run"}))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def reachable_host() -> Iterator[Host]:
    with reachable_directory() as path:
        yield Host(path)


def link_to(path: Path, target: Path | str, *, dangling: bool = False) -> Symlink:
    return Symlink(str(path), str(target), dangling)


# -------------------------------------------------------------------------------------- a sound VM


def test_collect_declarative_vm_that_runs(host: Host) -> None:
    runner, toplevel = host.runner("a"), host.store / "nixos-system"
    toplevel.mkdir()
    path = host.vm("web", current=runner, booted=runner, toplevel=toplevel)
    vm = host.collect().vms["web"]
    assert vm == VmState(
        name="web",
        path=str(path),
        current=link_to(path / "current", runner),
        booted=link_to(path / "booted", runner),
        toplevel=link_to(path / "toplevel", toplevel),
        current_runner=RUNNER,
        booted_runner=RUNNER,
    )
    assert vm.booted_runner is vm.current_runner


def test_collect_flake_vm_that_was_updated_while_it_runs(host: Host) -> None:
    old, new = host.runner("old"), host.runner("new")
    (old / "bin/microvm-shutdown").write_text("")
    path = host.vm("web", current=new, booted=old)
    (path / "flake").write_text("git+file:///etc/nixos\n")
    vm = host.collect().vms["web"]
    assert vm.flake
    assert vm.current_runner == RUNNER
    assert vm.booted_runner == Runner(files=RUNNER.files | {"bin/microvm-shutdown"})


def test_collect_empty_vm_directory(host: Host) -> None:
    path = host.vm("web")
    assert host.collect().vms == {"web": VmState("web", str(path))}


def test_collect_vm_directory_behind_a_link(host: Host, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "current").symlink_to(host.runner("a"))
    (host.state / "web").symlink_to(elsewhere)
    vm = host.collect().vms["web"]
    assert vm.path == str(host.state / "web")
    assert vm.current_runner == RUNNER


def test_paths_are_as_the_operator_wrote_them(host: Host, tmp_path: Path) -> None:
    host.vm("web", current=host.runner("a"))
    (tmp_path / "alias").symlink_to(host.state)
    tree = look(f"{tmp_path}/alias/")
    assert tree.state_dir == f"{tmp_path}/alias/"
    assert tree.vms["web"].path == f"{tmp_path}/alias/web"
    assert tree.vms["web"].current == link_to(tmp_path / "alias/web/current", host.store / "a")


def test_unit_files_are_part_of_it(host: Host) -> None:
    (host.units / "microvm@.service").write_text("[Unit]\nConditionPathExists=/s/%i/current\n")
    install = host.units / "install-microvm-web.service"
    install.write_text("[Unit]\nConditionPathExists=!/s/web\n")
    tree = host.collect()
    assert tree.templates == {Template.MICROVM: ("/s/%i/current",)}
    assert tree.conditional_installs == {"web"}
    assert tree.unit_files == (UnitFile(str(install), UnitFileKind.UNIT, install.name, "web"),)


# ----------------------------------------------------------------------------------- a broken link


def test_link_that_leads_nowhere_is_dangling_and_has_no_runner(host: Host) -> None:
    path = host.vm("web", current=host.store / "gone", booted=Path("booted"))
    vm = host.collect().vms["web"]
    assert vm.current == link_to(path / "current", host.store / "gone", dangling=True)
    assert vm.booted == link_to(path / "booted", "booted", dangling=True)
    assert (vm.current_runner, vm.booted_runner) == (None, None)


def test_current_that_is_a_directory_leads_to_itself(host: Host) -> None:
    path = host.vm("web")
    host.runner("a").rename(path / "current")
    vm = host.collect().vms["web"]
    assert vm.current == link_to(path / "current", path / "current")
    assert vm.current_runner == RUNNER


def test_runner_that_cannot_be_read_is_none_and_counted_once(host: Host) -> None:
    runner = host.runner("a")
    (runner / "share/microvm").mkdir(parents=True)
    os.mkfifo(runner / "share/microvm/tap-interfaces")
    host.vm("web", current=runner, booted=runner)
    tree = host.collect()
    assert (tree.vms["web"].current_runner, tree.vms["web"].booted_runner) == (None, None)
    assert tree.left_out == Leftouts(unreadable=1)


@pytest.mark.parametrize(
    ("make", "flake"),
    [
        (Path.touch, True),
        (lambda path: path.symlink_to("nowhere"), True),
        (Path.mkdir, False),
        (os.mkfifo, False),
    ],
)
def test_flake_is_a_file_or_a_link(host: Host, make: Callable[[Path], object], flake: bool) -> None:
    make(host.vm("web") / "flake")
    assert host.collect().vms["web"].flake is flake


# -------------------------------------------------------------------------------- not a VM at all


@pytest.mark.parametrize(
    ("make", "left_out"),
    [
        (Path.touch, Leftouts()),
        (os.mkfifo, Leftouts()),
        (lambda path: path.symlink_to("/dev/null"), Leftouts()),
        (lambda path: path.symlink_to("nowhere"), Leftouts(unreadable=1)),
        (lambda path: path.symlink_to(path.name), Leftouts(unreadable=1)),
    ],
)
def test_entry_that_is_no_directory_is_no_vm(
    host: Host, make: Callable[[Path], object], left_out: Leftouts
) -> None:
    make(host.state / "entry")
    host.vm("web")
    tree = host.collect()
    assert list(tree.vms) == ["web"]
    assert tree.left_out == left_out


@pytest.mark.parametrize(
    "name", [b"a b", b"a\nb", b'a"b', b"a{b}", b"\xff", "ä".encode(), b".snapshots", b"n" * 255]
)
def test_directory_that_no_unit_could_be_named_after_is_left_out(host: Host, name: bytes) -> None:
    (host.state / os.fsdecode(name)).mkdir()
    (host.state / os.fsdecode(name[:-1] + b"?")).touch()
    host.vm("web")
    tree = host.collect()
    assert list(tree.vms) == ["web"]
    assert tree.left_out == Leftouts(name=1)


def test_vm_that_may_not_be_entered_is_unreadable(reachable_host: Host) -> None:
    path = reachable_host.vm("closed", current=reachable_host.runner("a"))
    path.chmod(0)
    reachable_host.vm("web", current=reachable_host.store / "a")
    with unprivileged():
        tree = reachable_host.collect()
    path.chmod(0o755)
    assert tree.vms["closed"] == VmState("closed", str(path), readable=False)
    assert tree.vms["web"].current_runner == RUNNER
    assert tree.left_out == Leftouts(unreadable=1)


def test_link_that_is_too_long_for_a_path_makes_one_vm_unreadable(host: Host) -> None:
    path = host.vm("long", current=Path("y" * 600))
    (host.state / "longer").symlink_to("y" * 600)
    host.vm("web", current=host.runner("a"))
    tree = host.collect()
    assert tree.vms["long"] == VmState("long", str(path), readable=False)
    assert tree.vms["web"].current_runner == RUNNER
    assert "longer" not in tree.vms
    assert tree.left_out == Leftouts(unreadable=2)


def test_more_entries_than_can_be_listed_are_an_error(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_directory, "_ENTRIES_MAX", 9)
    for number in range(9):
        (host.state / f"{number}").touch()
    assert host.collect().vms == {}
    (host.state / "9").touch()
    with pytest.raises(CollectorError, match=f"{host.state}: it has more than 9 entries"):
        host.collect()


def test_vm_that_may_be_entered_but_not_listed_is_read(reachable_host: Host) -> None:
    path = reachable_host.vm("web", current=reachable_host.runner("a"))
    path.chmod(0o711)
    with unprivileged():
        tree = reachable_host.collect()
    assert tree.vms["web"].current_runner == RUNNER
    assert tree.left_out == Leftouts()


# ------------------------------------------------------------------------------------- the limit


def test_beyond_the_limit_the_rest_is_left_out_by_name(host: Host) -> None:
    for name in ("c", "a", "d", "b"):
        host.vm(name)
    tree = host.collect(limit=3)
    assert list(tree.vms) == ["a", "b", "c"]
    assert tree.left_out == Leftouts(limit=1)


def test_planted_directories_displace_no_vm_that_is_known(host: Host) -> None:
    for number in range(300):
        host.vm(f"aaa-{number}")
    for name in ("declared", "imperative", "zzz"):
        host.vm(name)
    (host.gcroots / "imperative").symlink_to(host.state / "imperative/current")
    tree = host.collect(limit=3, prefer={"declared", "absent"})
    assert list(tree.vms) == ["aaa-0", "declared", "imperative"]
    assert tree.left_out == Leftouts(limit=300)


def test_twenty_thousand_entries(host: Host) -> None:
    for number in range(10_000):
        (host.state / f"link-{number}").symlink_to(f"link-{number}")
        (host.state / f"dir-{number}").mkdir()
    host.vm("web", current=host.runner("a"))
    tree = host.collect(limit=1000, prefer={"web"})
    assert len(tree.vms) == 1000
    assert tree.vms["web"].current_runner == RUNNER
    assert tree.left_out == Leftouts(limit=19_001)


# ---------------------------------------------------------------------------------- no state at all


def test_missing_state_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CollectorError, match=rf"{tmp_path}/none.*--state-dir"):
        look(f"{tmp_path}/none")


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_state_directory_that_is_none_is_an_error(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "state")
    with pytest.raises(CollectorError, match="state directory"):
        look(f"{tmp_path}/state")


def test_state_directory_that_may_not_be_read_is_an_error(reachable_host: Host) -> None:
    reachable_host.state.chmod(0)
    with unprivileged(), pytest.raises(CollectorError, match=r"Permission denied.*--state-dir"):
        reachable_host.collect()
    reachable_host.state.chmod(0o755)


# ----------------------------------------------------------------------------------------- gcroots


def test_gcroots_of_an_imperative_vm(host: Host) -> None:
    path = host.vm("web", current=host.runner("a"))
    (host.gcroots / "web").symlink_to(path / "current")
    (host.gcroots / "booted-web").symlink_to(path / "booted")
    tree = host.collect()
    assert tree.gcroots == {"web": link_to(host.gcroots / "web", path / "current")}
    assert tree.booted_gcroots == {
        "web": link_to(host.gcroots / "booted-web", path / "booted", dangling=True)
    }
    assert tree.left_out == Leftouts()


def test_gcroots_of_vms_called_like_a_prefix(host: Host) -> None:
    for vm in ("booted-x", "old-x"):
        (host.gcroots / vm).symlink_to(f"/s/{vm}/current")
        (host.gcroots / f"booted-{vm}").symlink_to(f"/s/{vm}/booted")
    tree = host.collect()
    assert set(tree.gcroots) == {"booted-x", "old-x"}
    assert set(tree.booted_gcroots) == {"booted-x", "old-x"}


def test_gcroots_that_lead_elsewhere_go_by_their_names(host: Host) -> None:
    for name in ("web", "booted-web", "old-web"):
        (host.gcroots / name).symlink_to("/nix/store/abc")
    tree = host.collect()
    assert set(tree.gcroots) == {"web"}
    assert set(tree.booted_gcroots) == {"web"}


def test_gcroot_of_the_build_before_the_last_names_no_vm(host: Host) -> None:
    (host.gcroots / "old-web").symlink_to("/s/web/old")
    tree = host.collect()
    assert (tree.gcroots, tree.booted_gcroots) == ({}, {})


def test_gcroots_entries_that_are_no_links_or_no_names_are_passed_over(host: Host) -> None:
    (host.gcroots / "directory").mkdir()
    (host.gcroots / "file").touch()
    for name in ("a b", "booted-"):
        (host.gcroots / name).symlink_to("/s/x/current")
    tree = host.collect()
    assert (tree.gcroots, tree.booted_gcroots) == ({}, {})
    assert tree.left_out == Leftouts(name=2)


def test_gcroots_beyond_the_limit_are_left_out(host: Host) -> None:
    for vm in "abc":
        (host.gcroots / vm).symlink_to(f"/s/{vm}/current")
        (host.gcroots / f"booted-{vm}").symlink_to(f"/s/{vm}/booted")
    tree = host.collect(limit=2, prefer={"c"})
    assert list(tree.gcroots) == ["a", "c"]
    assert list(tree.booted_gcroots) == ["a", "c"]
    assert tree.left_out == Leftouts(limit=1)


def test_missing_gcroots_directory_is_a_host_without_imperative_vms(host: Host) -> None:
    host.gcroots.rmdir()
    host.vm("web")
    tree = host.collect()
    assert (tree.gcroots, tree.booted_gcroots) == ({}, {})
    assert "web" in tree.vms


def test_gcroots_directory_that_may_not_be_read_is_an_error(reachable_host: Host) -> None:
    reachable_host.gcroots.chmod(0)
    with unprivileged(), pytest.raises(CollectorError, match=r"Permission denied.*--gcroots-dir"):
        reachable_host.collect()


# --------------------------------------------------------------------------------------------- law

ENTRY_NAMES = st.one_of(
    st.binary(min_size=1, max_size=255),
    st.from_regex(rb"[a-zA-Z0-9:_.@\\ \n\"-]{1,20}", fullmatch=True),
).filter(lambda name: not {*b"/\0"} & {*name} and name not in (b".", b".."))
MAKERS: dict[str, Callable[[Path], object]] = {
    "directory": Path.mkdir,
    "file": Path.touch,
    "fifo": os.mkfifo,
    "link": lambda path: path.symlink_to("."),
    "dangling": lambda path: path.symlink_to("none-of-these/either"),
}


@given(st.dictionaries(ENTRY_NAMES, st.sampled_from(sorted(MAKERS)), max_size=8))
def test_any_entries_give_vms_that_units_can_be_named_after(entries: dict[bytes, str]) -> None:
    with tempfile.TemporaryDirectory() as root:
        host = Host(Path(root))
        for name, kind in entries.items():
            MAKERS[kind](host.state / os.fsdecode(name))
        tree = host.collect(limit=5)
        expected = sorted(
            os.fsdecode(name)
            for name, kind in entries.items()
            if kind in ("directory", "link", "dangling") and is_instance_name(os.fsdecode(name))
        )
    assert all(is_instance_name(name) for name in tree.vms)
    taken = len(tree.vms) + tree.left_out.unreadable
    assert taken + tree.left_out.limit == len(expected)
    assert set(tree.vms) <= set(expected[:5])
