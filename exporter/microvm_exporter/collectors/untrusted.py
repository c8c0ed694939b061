"""Looking at files that whoever broke out of a guest may have put there.

``STATE`` and all below belongs to the microvm user, the user that runs the hypervisors. So a file
may be a fifo, a device, a loop or a gigabyte, may lead anywhere, and may be another one by the time
of the next look. These functions take a bounded number of system calls and bytes, wait for nothing,
and open no device: opening one can act (``/dev/watchdog`` reboots the machine). A call can take
50 ms and more, as the kernel follows forty links of 4 KB each: whoever makes many counts the time.

All of them raise `OSError` when an object cannot be looked at or is not what it should be. That it
is not there is an answer, not an error.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from microvm_exporter.model import Symlink

__all__ = [
    "FILE_MAX",
    "Fingerprint",
    "Tally",
    "exists",
    "fingerprint",
    "has_entry",
    "identify",
    "is_missing",
    "is_symlink",
    "leads_nowhere",
    "open_directory",
    "read_file",
    "read_symlink",
]

FILE_MAX: Final = 64 * 1024
"""Longest file that is read, in bytes. Real metadata has a line for each device."""

_TARGET_MAX: Final = 512
"""Longest target of a link that is taken, in characters. A path in the store has 266 at most."""

_SECONDS: Final = 0.5
"""What may be asked of one VM takes no longer."""

_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


Fingerprint = tuple[int, ...]
"""What a path leads to: device, inode and ctime in ns; or only the errno of the failed look."""


@dataclass(slots=True)
class Tally:
    """A count of what could not be looked at, as of `microvm_exporter.model.Leftouts`."""

    unreadable: int = 0
    _until: float = field(default_factory=lambda: time.monotonic() + _SECONDS)

    def check_time(self) -> None:
        """Raise `OSError` when looking has taken too long since the tally was made."""
        if time.monotonic() > self._until:
            raise OSError(errno.ETIME, "it takes too long")


def is_missing(error: OSError) -> bool:
    """Tell whether the error says that nothing is there, a loop included."""
    return error.errno in _MISSING


@contextmanager
def open_directory(path: str, *, dir_fd: int | None = None, listing: bool = False) -> Iterator[int]:
    """Give a descriptor to look up names under, following links; with ``listing`` also to scan."""
    mode = os.O_RDONLY if listing else os.O_PATH
    fd = os.open(path, mode | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def exists(path: str, *, dir_fd: int | None = None) -> bool:
    """Tell whether anything is there, following links, as ``ConditionPathExists=`` does."""
    try:
        os.stat(path, dir_fd=dir_fd)
    except OSError as error:
        if is_missing(error):
            return False
        raise
    return True


def fingerprint(path: str, *, dir_fd: int | None = None) -> Fingerprint:
    """Tell in short what the path leads to: another one means that something else is there."""
    try:
        status = os.stat(path, dir_fd=dir_fd)
    except OSError as error:
        return (error.errno or 0,)
    return status.st_dev, status.st_ino, status.st_ctime_ns


def identify(path: str, *, dir_fd: int | None = None) -> Fingerprint:
    """Tell which directory the path leads to, whatever is made in it: without its ctime."""
    return fingerprint(path, dir_fd=dir_fd)[:2]


def is_symlink(path: str, *, dir_fd: int) -> bool:
    """Tell whether a link is there, as far as that can be told: a mount may be in its place."""
    try:
        return stat.S_ISLNK(os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


def leads_nowhere(seen: Fingerprint) -> bool:
    """Tell whether nothing was there. False when that could not be told: never take it for so."""
    return len(seen) == 1 and seen[0] in _MISSING


def read_symlink(
    path: str, *, dir_fd: int, follow: bool = True
) -> tuple[Symlink, Fingerprint] | None:
    """Read the link that has the last component of the path as its name under ``dir_fd``.

    Gives with it what it leads to; unless it is to ``follow`` it, it is taken to lead somewhere. An
    entry that is not a link leads to itself: something is there, though not what should be.
    """
    name = path.rpartition("/")[2]
    try:
        target = _read_target(name, dir_fd) or path
        changed = os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return None
    behind = fingerprint(name, dir_fd=dir_fd) if follow else ()
    return Symlink(path, target, leads_nowhere(behind), changed), behind


def _read_target(name: str, dir_fd: int) -> str | None:
    try:
        target = os.readlink(name, dir_fd=dir_fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None
    if len(target) > _TARGET_MAX:
        raise OSError(errno.EFBIG, f"leads to a path of more than {_TARGET_MAX} characters")
    return target


def read_file(path: str, *, dir_fd: int | None = None, trusted: bool = False) -> bytes | None:
    """Read a regular file of at most `FILE_MAX` bytes, following links; None when not there.

    Unless ``trusted``, only what all the world may read: else a link to a file that only root
    may read would have a root exporter publish its lines.
    """
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        if is_missing(error):
            return None
        raise
    try:
        size = _check_file(os.fstat(handle), trusted)
        return _read_handle(handle) if size else b""
    finally:
        os.close(handle)


def _check_file(status: os.stat_result, trusted: bool) -> int:
    """Return the size, which is 0 for what procfs and tracefs make up, some of it by waiting."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if not trusted and not status.st_mode & stat.S_IROTH:
        raise OSError(errno.EACCES, "not readable by everyone")
    if status.st_size > FILE_MAX:
        raise OSError(errno.EFBIG, f"longer than {FILE_MAX} bytes")
    return status.st_size


def _read_handle(handle: int) -> bytes:
    # O_NONBLOCK: opening a file under a lease (fcntl(2)) waits for its holder otherwise.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(f"/proc/self/fd/{handle}", flags)
    try:
        data = os.read(fd, FILE_MAX + 1)
    finally:
        os.close(fd)
    if len(data) > FILE_MAX:
        raise OSError(errno.EFBIG, f"longer than {FILE_MAX} bytes")
    return data


def has_entry(path: str, *, dir_fd: int) -> bool:
    """Tell whether a directory has an entry, at the cost of its first block however many it has."""
    try:
        with (
            open_directory(path, dir_fd=dir_fd, listing=True) as fd,
            os.scandir(fd) as entries,
        ):
            return next(entries, None) is not None
    except OSError as error:
        if is_missing(error):
            return False
        raise
