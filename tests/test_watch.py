"""Hearing of changes on a real file system, and of none that nobody asked for."""

from __future__ import annotations

import resource
import select
import shutil
import subprocess
import sys
from collections.abc import Hashable, Iterator
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from microvm_exporter.collectors.watch import Watcher, WatchesLost
from unprivileged import can_run, reachable_directory, unprivileged

Told = set[tuple[Hashable, str | None]]

QUEUE_MAX = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    watcher = Watcher()
    yield watcher
    watcher.close()


def is_readable(watcher: Watcher) -> bool:
    return bool(select.select([watcher], [], [], 0)[0])


def count_watches(watcher: Watcher) -> int:
    return Path(f"/proc/self/fdinfo/{watcher.fileno()}").read_text().count("inotify wd:")


def replace_link(link: Path, target: str | Path) -> None:
    new = link.with_name("new link")
    new.symlink_to(target)
    new.replace(link)


# ------------------------------------------------------------------------------------- contents


def test_nothing_is_told_when_nothing_changes(watcher: Watcher, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    watcher.watch("key", str(tmp_path))
    assert (tmp_path / "file").read_text() == ""
    assert list(tmp_path.iterdir())
    assert not is_readable(watcher)
    assert watcher.read() == set()


def test_entries_are_told_by_name(watcher: Watcher, tmp_path: Path) -> None:
    for name in ("deleted", "renamed", "written", "touched"):
        (tmp_path / name).touch()
    watcher.watch(7, str(tmp_path))
    (tmp_path / "created").mkdir()
    (tmp_path / "deleted").unlink()
    (tmp_path / "renamed").rename(tmp_path / "to")
    (tmp_path / "written").write_text("x")
    (tmp_path / "touched").chmod(0o600)
    (tmp_path / "link").symlink_to("nowhere")
    assert is_readable(watcher)
    names = ("created", "deleted", "renamed", "to", "written", "touched", "link")
    assert watcher.read() == {(7, name) for name in names}
    assert not is_readable(watcher)


def test_a_file_that_is_written_to_all_the_time_is_told_when_it_is_closed(
    watcher: Watcher, tmp_path: Path
) -> None:
    with (tmp_path / "disk.img").open("w") as image:
        watcher.watch("key", str(tmp_path))
        image.write("x")
        image.flush()
        assert watcher.read() == set()
    assert watcher.read() == {("key", "disk.img")}


def test_a_name_that_is_not_utf_8_is_told_as_python_has_it(
    watcher: Watcher, tmp_path: Path
) -> None:
    watcher.watch("key", str(tmp_path))
    (tmp_path / "a\udcffb").touch()
    assert watcher.read() == {("key", "a\udcffb")}


def test_the_longest_name_is_told(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("key", str(tmp_path))
    (tmp_path / ("n" * 255)).touch()
    assert watcher.read() == {("key", "n" * 255)}


@pytest.mark.parametrize("way", [False, True])
def test_attributes_of_the_directory_are_told(watcher: Watcher, tmp_path: Path, way: bool) -> None:
    watcher.watch("key", str(tmp_path), way=way)
    tmp_path.chmod(0o711)
    assert watcher.read() == {("key", None)}


@pytest.mark.parametrize("way", [False, True])
def test_a_directory_that_was_replaced_is_watched_anew(
    watcher: Watcher, tmp_path: Path, way: bool
) -> None:
    path = tmp_path / "directory"
    path.mkdir()
    watcher.watch("key", str(path), way=way)
    path.rename(tmp_path / "old")
    path.mkdir()
    assert watcher.read() == {("key", None)}
    (tmp_path / "old" / "unwatched").touch()
    (path / "entry").touch()
    assert watcher.read() == {("key", "entry")}
    shutil.rmtree(path)
    path.mkdir()
    assert ("key", None) in watcher.read()
    (path / "another").touch()
    assert watcher.read() == {("key", "another")}


def test_without_the_way_a_deleted_directory_is_told_once(watcher: Watcher, tmp_path: Path) -> None:
    path = tmp_path / "directory"
    path.mkdir()
    watcher.watch("key", str(path), way=False)
    path.rmdir()
    assert watcher.read() == {("key", None)}
    path.mkdir()
    (path / "entry").touch()
    assert watcher.read() == set()
    watcher.watch("key", str(path), way=False)
    (path / "another").touch()
    assert watcher.read() == {("key", "another")}


def test_what_is_no_directory_is_no_error(watcher: Watcher, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for path in ("file", "file/below", "missing", "loop", "n" * 256, "/".join(["n"] * 3000)):
        for way in (False, True):
            watcher.watch((path, way), str(tmp_path / path), way=way)
    assert watcher.read() == set()
    assert watcher.blind == set()


# ------------------------------------------------------------------------------------------ keys


def test_one_directory_under_two_keys_is_watched_until_both_are_forgotten(
    watcher: Watcher, tmp_path: Path
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    watcher.watch("a", str(tmp_path / "directory"))
    watcher.watch("b", str(tmp_path / "link"))
    (tmp_path / "directory/1").touch()
    assert watcher.read() == {("a", "1"), ("b", "1")}
    watcher.forget("a")
    (tmp_path / "directory/2").touch()
    assert watcher.read() == {("b", "2")}
    watcher.forget("b")
    (tmp_path / "directory/3").touch()
    assert watcher.read() == set()


@pytest.mark.parametrize("first", ["directory", "file"])
def test_a_directory_is_watched_for_itself_and_for_what_is_on_the_way(
    watcher: Watcher, tmp_path: Path, first: str
) -> None:
    asked = {"directory": str(tmp_path), "file": str(tmp_path / "file")}
    for key in sorted(asked, key=lambda key: key != first):
        watcher.watch(key, asked[key], contents=key == "directory", way=key == "file")
    (tmp_path / "file").touch()
    assert watcher.read() == {("directory", "file"), ("file", None)}
    watcher.forget("file")
    (tmp_path / "file").unlink()
    assert watcher.read() == {("directory", "file")}
    assert count_watches(watcher) == 1
    tmp_path.rmdir()
    assert watcher.read() == {("directory", None)}


def test_all_watches_are_given_back(watcher: Watcher, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    depth = len(tmp_path.parts)
    watcher.watch("a", str(tmp_path / "a"))
    watcher.watch("b", str(tmp_path / "b"))
    assert count_watches(watcher) == depth + 2
    watcher.watch("a", str(tmp_path / "b"))
    watcher.watch("b", str(tmp_path / "b"))
    assert count_watches(watcher) == depth + 1
    watcher.forget("a")
    assert count_watches(watcher) == depth + 1
    watcher.forget("b")
    assert count_watches(watcher) == 0
    watcher.read()
    watcher.forget("never watched")


def test_events_of_before_are_dropped_when_a_key_is_watched_elsewhere(
    watcher: Watcher, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    watcher.watch("key", str(tmp_path / "a"))
    (tmp_path / "a/entry").touch()
    watcher.watch("key", str(tmp_path / "b"))
    (tmp_path / "b/other").touch()
    assert watcher.read() == {("key", "other")}


def test_a_watch_set_again_outlives_the_end_of_the_old_one(
    watcher: Watcher, tmp_path: Path
) -> None:
    """The kernel says IN_IGNORED of the old watch after the new one was made."""
    watcher.watch("key", str(tmp_path), way=False)
    watcher.forget("key")
    watcher.watch("key", str(tmp_path), way=False)
    assert watcher.read() == set()
    (tmp_path / "entry").touch()
    assert watcher.read() == {("key", "entry")}


# --------------------------------------------------------------------------------------- the way


def test_a_file_on_the_way_is_told_and_its_neighbours_are_not(
    watcher: Watcher, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    watcher.watch("key", str(path), contents=False)
    (tmp_path / "neighbour").touch()
    assert watcher.read() == set()
    path.touch()
    assert watcher.read() == {("key", None)}
    path.write_text("x")
    assert watcher.read() == {("key", None)}
    path.chmod(0o600)
    assert watcher.read() == {("key", None)}
    (tmp_path / "neighbour").replace(path)
    assert watcher.read() == {("key", None)}
    path.unlink()
    assert watcher.read() == {("key", None)}


def test_a_link_on_the_way_that_turns_is_told_and_followed(
    watcher: Watcher, tmp_path: Path
) -> None:
    """As /etc/systemd/system → /etc/static/systemd/system, and /etc/static → /nix/store/…"""
    for generation in ("one", "two", "three"):
        (tmp_path / "store" / generation / "system").mkdir(parents=True)
    static, system = tmp_path / "static", tmp_path / "system"
    static.symlink_to(tmp_path / "store/one")
    system.symlink_to("store/../static/system")
    watcher.watch("key", str(system))
    for generation in ("two", "three"):
        replace_link(static, tmp_path / "store" / generation)
        assert watcher.read() == {("key", None)}
        (tmp_path / "store" / generation / "system/unit").touch()
        assert watcher.read() == {("key", "unit")}
    (tmp_path / "store/one/system/old").touch()
    assert watcher.read() == set()
    replace_link(system, "store/one/system")
    assert watcher.read() == {("key", None)}
    (tmp_path / "store/one/system/new").touch()
    replace_link(static, "nowhere")
    assert watcher.read() == {("key", "new")}


def test_a_parent_moved_away_and_back_is_told_and_followed(
    watcher: Watcher, tmp_path: Path
) -> None:
    path = tmp_path / "a/b/c"
    path.mkdir(parents=True)
    watcher.watch("key", str(path))
    (tmp_path / "a").rename(tmp_path / "away")
    assert watcher.read() == {("key", None)}
    (tmp_path / "away/b/c/unwatched").touch()
    assert watcher.read() == set()
    (tmp_path / "away").rename(tmp_path / "a")
    assert watcher.read() == {("key", None)}
    (path / "entry").touch()
    assert watcher.read() == {("key", "entry")}


def test_a_way_made_step_by_step_is_told_at_each_step(watcher: Watcher, tmp_path: Path) -> None:
    path = tmp_path / "a/b/c"
    watcher.watch("key", str(path))
    watcher.watch("file", str(path / "file"), contents=False)
    for directory in (tmp_path / "a", tmp_path / "a/b", path):
        directory.mkdir()
        assert ("key", None) in watcher.read()
    (path / "file").touch()
    assert watcher.read() == {("key", "file"), ("file", None)}


def test_a_way_made_at_once_is_followed_to_its_end(watcher: Watcher, tmp_path: Path) -> None:
    path = tmp_path / "a/b/c"
    watcher.watch("key", str(path))
    path.mkdir(parents=True)
    assert watcher.read() == {("key", None)}
    (path / "entry").touch()
    assert watcher.read() == {("key", "entry")}


def test_what_a_dangling_link_leads_to_is_told_when_it_comes(
    watcher: Watcher, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/file")
    watcher.watch("key", str(tmp_path / "link"), contents=False)
    (tmp_path / "elsewhere/other").touch()
    assert watcher.read() == set()
    (tmp_path / "elsewhere/file").touch()
    assert watcher.read() == {("key", None)}


def test_a_file_in_the_place_of_a_directory_is_told_when_it_goes(
    watcher: Watcher, tmp_path: Path
) -> None:
    (tmp_path / "a").touch()
    watcher.watch("key", str(tmp_path / "a/b"))
    (tmp_path / "a").unlink()
    (tmp_path / "a/b").mkdir(parents=True)
    assert watcher.read() == {("key", None)}
    (tmp_path / "a/b/entry").touch()
    assert watcher.read() == {("key", "entry")}


def test_a_relative_path_is_followed(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    watcher.watch("key", "a")
    (tmp_path / "a").mkdir()
    assert watcher.read() == {("key", None)}


def test_a_way_ends_as_the_kernel_ends_it(watcher: Watcher, tmp_path: Path) -> None:
    """After 40 links; so a chain of 41 leads nowhere, though its end is there."""
    (tmp_path / "0").mkdir()
    for number in range(1, 42):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    watcher.watch(40, str(tmp_path / "40"))
    watcher.watch(41, str(tmp_path / "41"))
    (tmp_path / "0/entry").touch()
    assert watcher.read() == {(40, "entry")}


def test_a_planted_labyrinth_is_not_walked_to_its_end(watcher: Watcher, tmp_path: Path) -> None:
    """Forty links, each through a hundred directories."""
    (tmp_path / "0").mkdir()
    for number in range(1, 40):
        deep = f"{number}x/" + "x/" * 100
        (tmp_path / deep).mkdir(parents=True)
        (tmp_path / deep / "link").symlink_to(f"{tmp_path}/{number - 1}")
        (tmp_path / str(number)).symlink_to(f"{deep}/link")
    watcher.watch("key", str(tmp_path / "19"), contents=False)
    assert 200 < count_watches(watcher) < 300


def test_names_that_nobody_asked_for_are_not_told(watcher: Watcher, tmp_path: Path) -> None:
    """A way may go through /run or /nix/store, where much happens."""
    watcher.watch("key", str(tmp_path / "asked/for"))
    for number in range(1000):
        (tmp_path / str(number)).touch()
    assert watcher.read() == set()


# ------------------------------------------------------------------------------------ in numbers


def test_a_thousand_directories_are_told_apart(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("all", str(tmp_path))
    for number in range(1000):
        (tmp_path / str(number)).mkdir()
        watcher.watch(number, str(tmp_path / str(number)), way=False)
    watcher.read()
    for number in range(0, 1000, 2):
        (tmp_path / str(number) / "current").symlink_to("nowhere")
    assert watcher.read() == {(number, "current") for number in range(0, 1000, 2)}
    for number in range(1000):
        watcher.forget(number)
    assert count_watches(watcher) == len(tmp_path.parts)


def test_who_reads_what_is_told_knows_all_in_the_end(watcher: Watcher, tmp_path: Path) -> None:
    """Whatever happens between two reads, in the midst of one, and to the way itself."""
    for name in "abc":
        (tmp_path / name / "system").mkdir(parents=True)
    link, path = tmp_path / "link", tmp_path / "link/system"
    replace_link(link, "a")
    watcher.watch("key", str(path))
    seen = entries(path)
    changing = Thread(target=change_at_random, args=(tmp_path, link))
    changing.start()
    while changing.is_alive() or is_readable(watcher):
        for _, entry in watcher.read():
            if entry is None:
                seen = entries(path)
            elif (path / entry).exists():
                seen.add(entry)
            else:
                seen.discard(entry)
    assert seen == entries(path)
    assert seen


def entries(path: Path) -> set[str]:
    try:
        return {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        return set()


def change_at_random(root: Path, link: Path) -> None:
    random = Random(7)
    for number in range(1500):
        directory = root / random.choice("abc")
        match random.randrange(10):
            case 0:
                replace_link(link, directory)
            case 1:
                directory.rename(root / "away")
                (root / "away").rename(directory)
            case 2:
                shutil.rmtree(directory)
                (directory / "system").mkdir(parents=True)
            case _:
                (directory / "system" / str(number % 20)).touch()
    (link / "system" / "last").touch()


# ------------------------------------------------------------------------------ what cannot be


def test_a_directory_that_may_not_be_read_is_an_error_and_the_rest_is_watched() -> None:
    with reachable_directory() as root:
        path = root / "directory"
        path.mkdir(mode=0o311)
        with unprivileged():
            watcher = Watcher()
            with pytest.raises(PermissionError, match=str(path)):
                watcher.watch("key", str(path))
            assert watcher.blind == {"key"}
        path.chmod(0o755)
        with unprivileged():
            assert watcher.read() == {("key", None)}
            assert watcher.blind == set()
        (path / "entry").touch()
        assert watcher.read() == {("key", "entry")}
        watcher.close()


def test_a_directory_replaced_by_one_that_may_not_be_read_is_told_and_blind() -> None:
    with reachable_directory() as root:
        path = root / "a/b"
        path.mkdir(parents=True)
        with unprivileged():
            watcher = Watcher()
            watcher.watch("key", str(path))
        (root / "a").chmod(0)
        with unprivileged():
            assert watcher.read() == {("key", None)}
            assert watcher.blind == {"key"}
        watcher.forget("key")
        assert watcher.blind == set()
        watcher.close()


@pytest.mark.skipif(QUEUE_MAX > 100_000, reason="the queue is too long to fill")
def test_a_flood_is_lost_and_said_so(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("key", str(tmp_path))
    flood(tmp_path, QUEUE_MAX)
    with pytest.raises(WatchesLost, match=r"raise fs\.inotify\.max_queued_events"):
        read_all(watcher)


@pytest.mark.skipif(QUEUE_MAX < 16384, reason="the queue is shorter than by default")
def test_one_read_takes_a_bounded_part_of_a_flood(watcher: Watcher, tmp_path: Path) -> None:
    """Whoever makes changes in a loop would keep the reader for ever."""
    watcher.watch("key", str(tmp_path))
    flood(tmp_path, 16000)
    assert watcher.read() == {("key", "a"), ("key", "b")}
    assert is_readable(watcher)
    read_all(watcher)


def flood(directory: Path, events: int) -> None:
    """Make changes of two names in turn, as those of one that follow each other are merged."""
    a, b = directory / "a", directory / "b"
    a.mkdir()
    for _ in range(events // 4):
        a.rename(b)
        b.rename(a)


def read_all(watcher: Watcher) -> None:
    while is_readable(watcher):
        watcher.read()


def test_changes_that_would_be_told_thousands_of_times_are_lost_and_said_so(
    watcher: Watcher, tmp_path: Path
) -> None:
    """Of 5,000 planted links to one directory, a thousand files made in it were gigabytes."""
    for number in range(1000):
        watcher.watch(number, str(tmp_path), way=False)
    for name in range(20):
        (tmp_path / str(name)).touch()
    assert len(watcher.read()) == 20_000
    for name in range(40):
        (tmp_path / str(name)).unlink(missing_ok=True)
        (tmp_path / f"new {name}").touch()
    with pytest.raises(WatchesLost, match="too many links lead to a directory"):
        watcher.read()


def test_no_descriptor_left_is_said_so() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(WatchesLost, match=r"Too many open files: raise fs\.inotify"):
            Watcher()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


FEW_WATCHES = ["unshare", "--user", "--map-root-user", "sh", "-c"]
FEW_WATCHES += ['echo 3 > /proc/sys/user/max_inotify_watches && exec "$0" "$@"']

WATCH_FOUR = """
import sys
from microvm_exporter.collectors.watch import Watcher, WatchesLost
watcher = Watcher()
try:
    for name in "abcd":
        watcher.watch(name, f"{sys.argv[1]}/{name}", way=False)
except WatchesLost as error:
    print(name, error)
"""


def test_no_watch_left_is_said_so(tmp_path: Path) -> None:
    """A user namespace has a limit of its own, below that of the machine."""
    if not can_run(*FEW_WATCHES, "true"):
        pytest.skip("user namespaces cannot be made here")
    for name in "abcd":
        (tmp_path / name).mkdir()
    command = [*FEW_WATCHES, sys.executable, "-c", WATCH_FOUR, str(tmp_path)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    trouble = "no watch for it: raise fs.inotify.max_user_watches"
    assert run.stdout == f"d {tmp_path}/d: {trouble}\n"
