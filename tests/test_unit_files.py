"""What the unit directories tell, in the layouts of NixOS and of a hand-made host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from microvm_exporter.collectors.unit_directories import UnitDirectories, UnitFiles
from microvm_exporter.collectors.unit_files import parse_conditions
from microvm_exporter.collectors.untrusted import FILE_MAX
from microvm_exporter.collectors.watches import Watches
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Condition, Template, UnitFile, UnitFileKind
from unprivileged import reachable_directory, unprivileged

pytestmark = pytest.mark.timeout(30)

RUN = "[Unit]\nConditionPathExists=/s/%i/current/bin/microvm-run\n"


def read(*directories: Path) -> UnitFiles:
    files = look(*directories)
    assert files.unreadable == 0
    return files


def look(*directories: Path) -> UnitFiles:
    reader = UnitDirectories(watches=Watches(follow=False))
    reader.read(Cause.RESYNC, [str(path) for path in directories])
    return reader.files


def write(path: Path, text: str = "[Unit]\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def link(path: Path, target: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def entry(
    path: Path, kind: UnitFileKind, unit: str, vm: str, *, dangling: bool = False
) -> UnitFile:
    return UnitFile(str(path), kind, unit, vm, dangling)


# ------------------------------------------------------------------------------------- conditions


def path_exists(path: str, *, negate: bool = False, trigger: bool = False) -> Condition:
    return Condition("ConditionPathExists", path, negate=negate, trigger=trigger)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", ()),
        (RUN, (path_exists("/s/%i/current/bin/microvm-run"),)),
        ("[Unit]\n ConditionPathExists = /a b \n", (path_exists("/a b"),)),
        ("[Unit]\nConditionPathExists=!/a\n", (path_exists("/a", negate=True),)),
        ("[Unit]\nConditionPathExists=| /a\n", (path_exists("/a", trigger=True),)),
        ("[Unit]\nConditionPathExists=|! /a", (path_exists("/a", negate=True, trigger=True),)),
        (
            "[Unit]\nConditionPathExists=/a\nConditionPathExists=/b\n",
            (path_exists("/a"), path_exists("/b")),
        ),
        (
            "[Unit]\nConditionPathExists=/a\nConditionPathExists=\nConditionPathExists=/b\n",
            (path_exists("/b"),),
        ),
        ("[Unit]\nConditionPathExists=/a\nConditionUser=\n", ()),
        ("[Unit]\nConditionUser=root\nConditionPathExistsGlob=/a\n", ()),
        ("[Service]\nConditionPathExists=/a\n[Unit]\nDescription=x\n", ()),
        ("[Service]\nExecStart=/x\n[Unit]\nConditionPathExists=/a\n", (path_exists("/a"),)),
        ("[Unit]\n#ConditionPathExists=/a\n; ConditionPathExists=/b\n", ()),
        ("[Unit]\nConditionPathExists=\\\n/a\n", (path_exists("/a"),)),
        ("ConditionPathExists=/a\n", ()),
        ("[Unit]\nConditionPathExists\n[Unit\n\0\udcff=\n", ()),
    ],
)
def test_parse_conditions(text: str, conditions: tuple[Condition, ...]) -> None:
    assert parse_conditions(text) == conditions


# -------------------------------------------------------------------------------------- templates


def test_templates_with_the_paths_that_have_to_be_there(tmp_path: Path) -> None:
    write(tmp_path / "microvm@.service", RUN + "ConditionPathExists=!/a\nConditionPathExists=|/b\n")
    write(tmp_path / "microvm-set-booted@.service")
    write(tmp_path / "microvm-other@.service")
    files = read(tmp_path)
    assert files.templates == {
        Template.MICROVM: ("/s/%i/current/bin/microvm-run",),
        Template.SET_BOOTED: (),
    }
    assert files.entries == ()


def test_template_of_the_first_directory_wins(tmp_path: Path) -> None:
    write(tmp_path / "etc/microvm@.service", "[Unit]\nConditionPathExists=/first\n")
    write(tmp_path / "lib/microvm@.service", "[Unit]\nConditionPathExists=/second\n")
    write(tmp_path / "lib/microvm-tap-interfaces@.service")
    assert read(tmp_path / "etc", tmp_path / "lib").templates == {
        Template.MICROVM: ("/first",),
        Template.TAP: (),
    }


@pytest.mark.parametrize("target", ["/dev/null", "empty"])
def test_template_that_is_masked_is_not_installed(tmp_path: Path, target: str) -> None:
    write(tmp_path / "etc/empty", "")
    link(tmp_path / "etc/microvm@.service", target)
    write(tmp_path / "lib/microvm@.service", RUN)
    assert read(tmp_path / "etc", tmp_path / "lib").templates == {}


def test_template_that_leads_nowhere_is_not_installed_and_hides_none(tmp_path: Path) -> None:
    link(tmp_path / "etc/microvm@.service", "gone")
    assert read(tmp_path / "etc").templates == {}
    write(tmp_path / "lib/microvm@.service", "[Unit]\nConditionPathExists=/lib\n")
    assert read(tmp_path / "etc", tmp_path / "lib").templates == {Template.MICROVM: ("/lib",)}


@pytest.mark.parametrize("text", ["", "x" * FILE_MAX])
def test_template_that_cannot_be_read_is_installed_all_the_same(tmp_path: Path, text: str) -> None:
    path = tmp_path / "microvm@.service"
    if text:
        path.write_text(RUN + text)
    else:
        (path / "a-directory").mkdir(parents=True)
    files = look(tmp_path)
    assert files.templates == {Template.MICROVM: ()}
    assert files.unreadable == 1


def test_template_that_may_not_be_read_is_installed_all_the_same() -> None:
    with reachable_directory() as path:
        write(path / "closed/microvm@.service", RUN)
        link(path / "microvm@.service", "closed/microvm@.service")
        (path / "closed").chmod(0)
        with unprivileged():
            files = look(path)
        (path / "closed").chmod(0o755)
    assert files.templates == {Template.MICROVM: ()}
    assert files.unreadable == 1


def test_template_that_only_root_may_read_is_read_by_root(tmp_path: Path) -> None:
    write(tmp_path / "microvm@.service", RUN).chmod(0o600)
    assert read(tmp_path).templates == {Template.MICROVM: ("/s/%i/current/bin/microvm-run",)}


# --------------------------------------------------------------------------------------- installs


def test_conditional_installs_are_those_with_a_negated_condition(tmp_path: Path) -> None:
    write(tmp_path / "install-microvm-first.service", "[Unit]\nConditionPathExists=!/s/first\n")
    write(tmp_path / "install-microvm-always.service", "[Unit]\nBefore=x.service\n")
    write(tmp_path / "install-microvm-odd.service", "[Unit]\nConditionPathExists=/s/odd\n")
    link(tmp_path / "install-microvm-masked.service", "/dev/null")
    assert read(tmp_path).conditional_installs == {"first"}


# -------------------------------------------------------------------------------------- instances


def test_instances_in_the_layout_of_nixos(tmp_path: Path) -> None:
    store, etc = tmp_path / "store", tmp_path / "etc"
    units = store / "units"
    write(store / "unit-install/install-microvm-web.service")
    install = link(
        units / "install-microvm-web.service", "../unit-install/install-microvm-web.service"
    )
    wants = link(
        units / "microvms.target.wants/install-microvm-web.service",
        "../install-microvm-web.service",
    )
    write(store / "unit-drop-in/microvm@web.service")
    drop_in = link(
        units / "microvm@web.service.d/overrides.conf", "../../unit-drop-in/microvm@web.service"
    )
    etc.mkdir()
    (etc / "system").symlink_to(units)

    def seen(path: Path) -> Path:
        return etc / "system" / path.relative_to(units)

    unit = "install-microvm-web.service"
    assert read(etc / "system").entries == (
        entry(seen(install), UnitFileKind.UNIT, unit, "web"),
        entry(seen(drop_in), UnitFileKind.DROP_IN, "microvm@web.service", "web"),
        entry(seen(wants), UnitFileKind.WANTS, unit, "web"),
    )


def test_instances_of_every_kind_that_lead_nowhere(tmp_path: Path) -> None:
    unit = link(tmp_path / "microvm@a.service", "/gone/microvm@.service")
    drop_in = link(tmp_path / "microvm-virtiofsd@a.service.d/x.conf", "gone")
    directory = link(tmp_path / "microvm-tap-interfaces@a.service.d", "gone")
    wants = link(tmp_path / "multi-user.target.wants/microvm@a.service", "gone")
    requires = link(tmp_path / "x.target.requires/microvm@a.service", "microvm@a.service")
    assert set(read(tmp_path).entries) == {
        entry(unit, UnitFileKind.UNIT, unit.name, "a", dangling=True),
        entry(drop_in, UnitFileKind.DROP_IN, drop_in.parent.name[:-2], "a", dangling=True),
        entry(directory, UnitFileKind.DROP_IN, directory.name[:-2], "a", dangling=True),
        entry(wants, UnitFileKind.WANTS, wants.name, "a", dangling=True),
        entry(requires, UnitFileKind.WANTS, requires.name, "a", dangling=True),
    }


def test_masked_instance_does_not_lead_nowhere(tmp_path: Path) -> None:
    path = link(tmp_path / "microvm@a.service", "/dev/null")
    assert read(tmp_path).entries == (entry(path, UnitFileKind.UNIT, path.name, "a"),)


def test_what_an_instance_pulls_in_names_the_instance(tmp_path: Path) -> None:
    path = link(tmp_path / "microvm@a.service.wants/backup.service", "/dev/null")
    both = link(tmp_path / "microvm@a.service.requires/microvm@b.service", "/dev/null")
    assert read(tmp_path).entries == (
        entry(both, UnitFileKind.WANTS, "microvm@b.service", "b"),
        entry(path, UnitFileKind.WANTS, "microvm@a.service", "a"),
    )


def test_what_names_no_instance_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "microvm@.service.d/overrides.conf")
    write(tmp_path / "microvms.target")
    write(tmp_path / "microvm@a.timer")
    write(tmp_path / "microvm@a.service.bak")
    write(tmp_path / "microvm@a.service.d/README")
    write(tmp_path / "microvm@a b.service")
    write(tmp_path / "other@a.service.d/x.conf")
    write(tmp_path / "microvm-tap-interfaces@a.service.d")  # not a directory
    write(tmp_path / "x.target.wants")  # not a directory
    link(tmp_path / "multi-user.target.wants/sshd.service", "/dev/null")
    assert read(tmp_path).entries == ()


def test_entries_whose_names_cannot_be_shown_are_passed_over(tmp_path: Path) -> None:
    directory = tmp_path / "microvm@a.service.d"
    directory.mkdir()
    for name in (b"\xff.conf", b"a\nb.conf", b"good.conf"):
        (directory / os.fsdecode(name)).touch()
    (tmp_path / os.fsdecode(b"microvm@\xff.service")).touch()
    assert [Path(file.path).name for file in read(tmp_path).entries] == ["good.conf"]


# ------------------------------------------------------------------------------------ directories


def test_directory_by_two_names_counts_once_by_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "usr/microvm@a.service")
    (tmp_path / "lib").symlink_to("usr")
    files = read(tmp_path / "lib", tmp_path / "usr")
    assert [file.path for file in files.entries] == [str(tmp_path / "lib" / path.name)]


def test_directory_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "none", tmp_path / "none/below") == UnitFiles()


@pytest.mark.parametrize("name", ["closed", "closed/below"])
def test_directory_that_may_not_be_listed_is_an_error(name: str) -> None:
    with reachable_directory() as path:
        (path / "closed/below").mkdir(parents=True)
        (path / "closed").chmod(0)
        with unprivileged(), pytest.raises(CollectorError, match=rf"{path}/{name}: .*--unit-dir"):
            read(path, path / name)
        (path / "closed").chmod(0o755)


def test_directory_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CollectorError, match="Not a directory"):
        read(write(tmp_path / "file"))


def test_part_that_may_not_be_listed_is_counted() -> None:
    with reachable_directory() as path:
        (path / "microvm@a.service.d").mkdir(mode=0)
        (path / "multi-user.target.wants").mkdir(mode=0)
        (path / "sshd.service.d").mkdir(mode=0)
        with unprivileged():
            files = look(path)
    assert files.entries == ()
    assert files.unreadable == 2
