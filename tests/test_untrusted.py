"""Hostile files: every look ends, at a bounded cost, with an answer or an OSError."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from microvm_exporter.collectors.untrusted import (
    FILE_MAX,
    Fingerprint,
    exists,
    fingerprint,
    has_entry,
    identify,
    leads_nowhere,
    open_directory,
    read_file,
    read_symlink,
)
from microvm_exporter.model import Symlink
from unprivileged import reachable_directory, unprivileged

pytestmark = pytest.mark.timeout(30)

LONG_NAME = "n" * 256


@contextmanager
def directory(path: Path) -> Iterator[int]:
    with open_directory(str(path)) as fd:
        yield fd


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_link_through_a_file(path: Path) -> None:
    (path.parent / "plain").write_text("x")
    path.symlink_to("plain/below")


def make_overlong_link(path: Path) -> None:
    path.symlink_to(LONG_NAME)


LEADS_NOWHERE = [make_loop, make_dangling, make_link_through_a_file, make_overlong_link]


@pytest.mark.parametrize("make", LEADS_NOWHERE)
def test_nothing_is_there_when_a_link_leads_nowhere(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "entry")
    with directory(tmp_path) as fd:
        assert not exists("entry", dir_fd=fd)
        assert read_file("entry", dir_fd=fd) is None
        assert not has_entry("entry", dir_fd=fd)
        assert leads_nowhere(fingerprint("entry", dir_fd=fd))
        link, behind = found(tmp_path / "entry", fd)
    assert link.dangling
    assert leads_nowhere(behind)


def test_exists_follows_links_as_a_condition_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    with directory(tmp_path) as fd:
        assert exists("file", dir_fd=fd)
        assert exists("link", dir_fd=fd)
        assert not exists("other", dir_fd=fd)


# ------------------------------------------------------------------------------------- fingerprint


def test_fingerprint_is_another_when_something_else_is_there(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a")
    before = fingerprint(f"{tmp_path}/link")
    (tmp_path / "a").mkdir()
    after = fingerprint(f"{tmp_path}/link")
    assert (leads_nowhere(before), leads_nowhere(after)) == (True, False)
    assert after == fingerprint(f"{tmp_path}/a")
    (tmp_path / "a/entry").touch()
    assert fingerprint(f"{tmp_path}/link") != after
    assert identify(f"{tmp_path}/link") == after[:2]


# ------------------------------------------------------------------------------------ read_symlink


def found(path: Path, dir_fd: int) -> tuple[Symlink, Fingerprint]:
    entry = read_symlink(str(path), dir_fd=dir_fd)
    assert entry is not None
    return entry


def test_read_symlink_keeps_the_target_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("./there")
    (tmp_path / "odd").symlink_to("\udcff\n'\"")
    with directory(tmp_path) as fd:
        link, behind = found(tmp_path / "link", fd)
        odd, _ = found(tmp_path / "odd", fd)
        assert read_symlink(f"{tmp_path}/none", dir_fd=fd) is None
    assert behind == fingerprint(f"{tmp_path}/there")
    assert (link.path, link.target, link.dangling) == (f"{tmp_path}/link", "./there", False)
    assert (odd.target, odd.dangling) == ("\udcff\n'\"", True)


def test_read_symlink_of_an_entry_that_is_no_link_leads_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "current"
    path.mkdir()
    with directory(tmp_path) as fd:
        link, _ = found(path, fd)
    assert (link.target, link.dangling) == (str(path), False)


def test_read_symlink_is_not_dangling_when_that_cannot_be_told() -> None:
    with reachable_directory() as path:
        (path / "closed").mkdir()
        (path / "closed/file").write_text("")
        (path / "link").symlink_to("closed/file")
        (path / "closed").chmod(0)
        with unprivileged(), directory(path) as fd:
            link, behind = found(path / "link", fd)
            with pytest.raises(PermissionError):
                exists("link", dir_fd=fd)
        (path / "closed").chmod(0o700)
    assert not link.dangling
    assert behind == (errno.EACCES,)


# --------------------------------------------------------------------------------------- read_file


@pytest.mark.parametrize("size", [0, 1, FILE_MAX])
def test_read_file_reads_up_to_the_maximum(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    (tmp_path / "link").symlink_to("file")
    with directory(tmp_path) as fd:
        assert read_file("file", dir_fd=fd) == b"x" * size
        assert read_file("link", dir_fd=fd) == b"x" * size


def make_fifo(path: Path) -> None:
    os.mkfifo(path, 0o666)


def make_directory(path: Path) -> None:
    path.mkdir()


def make_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_long_file(path: Path) -> None:
    path.write_bytes(b"x" * (FILE_MAX + 1))


def make_sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def make_secret(path: Path) -> None:
    path.write_text("secret\n")
    path.chmod(0o640)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, open_directory(str(path.parent)) as fd:
        listener.bind(f"/proc/self/fd/{fd}/{path.name}")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (make_fifo, errno.EINVAL),
        (make_directory, errno.EINVAL),
        (make_device_link, errno.EINVAL),
        (make_socket, errno.EINVAL),
        (make_long_file, errno.EFBIG),
        (make_sparse_file, errno.EFBIG),
        (make_secret, errno.EACCES),
    ],
)
def test_read_file_refuses(tmp_path: Path, make: Callable[[Path], None], code: int) -> None:
    make(tmp_path / "entry")
    before = count_descriptors()
    with directory(tmp_path) as fd, pytest.raises(OSError, match=rf"^\[Errno {code}\]"):
        read_file("entry", dir_fd=fd)
    assert count_descriptors() == before


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_read_file_reads_what_only_root_may_read_when_trusted(tmp_path: Path) -> None:
    make_secret(tmp_path / "entry")
    assert read_file(str(tmp_path / "entry"), trusted=True) == b"secret\n"


def test_read_file_reads_nothing_that_the_kernel_makes_up(tmp_path: Path) -> None:
    """Some of procfs and tracefs waits for an event, and reading it takes the event away."""
    (tmp_path / "entry").symlink_to("/proc/self/status")
    with directory(tmp_path) as fd:
        assert read_file("entry", dir_fd=fd) == b""


LEASE_HOLDER = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


def test_read_file_does_not_wait_for_a_lease(tmp_path: Path) -> None:
    path = tmp_path / "leased"
    path.write_text("x")
    command = [sys.executable, "-c", LEASE_HOLDER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            read_file(str(path))
        holder.communicate()
    assert read_file(str(path)) == b"x"


@pytest.mark.parametrize("other", [make_fifo, make_loop, make_directory, make_device_link])
def test_read_file_while_someone_swaps_it(tmp_path: Path, other: Callable[[Path], None]) -> None:
    entry, good, bad = tmp_path / "entry", tmp_path / "good", tmp_path / "bad"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            good.write_text("content")
            good.rename(entry)
            other(bad)
            remove(entry)
            bad.rename(entry)
            remove(entry)

    def remove(path: Path) -> None:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: set[bytes | None] = set()
    codes: set[int | None] = set()
    try:
        for _ in range(2000):
            try:
                seen.add(read_file(str(entry)))
            except OSError as error:
                codes.add(error.errno)
    finally:
        stop.set()
        swapper.join()
    assert seen <= {b"content", None}
    assert codes <= {errno.EINVAL}


# --------------------------------------------------------------------------------------- has_entry


def test_has_entry_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full/one").mkdir(parents=True)
    (tmp_path / "link").symlink_to("full")
    (tmp_path / "file").write_text("")
    with directory(tmp_path) as fd:
        assert not has_entry("empty", dir_fd=fd)
        assert has_entry("full", dir_fd=fd)
        assert has_entry("link", dir_fd=fd)
        assert not has_entry("file", dir_fd=fd)
        assert not has_entry("none", dir_fd=fd)


def test_has_entry_of_an_unreadable_directory_raises() -> None:
    with reachable_directory() as path:
        (path / "closed").mkdir(mode=0)
        with unprivileged(), directory(path) as fd, pytest.raises(PermissionError):
            has_entry("closed", dir_fd=fd)
