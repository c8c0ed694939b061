"""A cgroup of its own for each machine.

`systemd-nspawn --keep-unit` makes the children `payload` and `supervisor` in the cgroup that it is
started in. Two machines started in the same one would share them, and end each other's services.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "microvm-host-"


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The same group in each hierarchy that systemd manages: v2, v1's `name=systemd`, or both."""

    paths: tuple[Path, ...]

    @classmethod
    def create(cls, name: str) -> Cgroup:
        """Makes the group; raises OSError where cgroups are read-only, as in most containers."""
        parents = tuple(own_groups())
        for parent in parents:
            for stale in parent.glob(f"{_PREFIX}*"):
                if not Path("/proc", stale.name.split("-")[2]).exists():
                    _remove(stale)
        paths = tuple(parent / f"{_PREFIX}{os.getpid()}-{name}" for parent in parents)
        for path in paths:
            path.mkdir()
        return cls(paths)

    def remove(self, timeout: float = 5.0) -> None:
        """Removes the group and those below it; the last process may need a moment to be gone."""
        deadline = time.monotonic() + timeout
        for path in self.paths:
            while not _remove(path) and time.monotonic() < deadline:
                time.sleep(0.01)


def own_groups() -> Iterator[Path]:
    """The folders of this process's own group, one for each hierarchy that systemd manages."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = {kind: path for _, kind, path in (line.split(":", 2) for line in lines)}
    for mount in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, source = mount.partition(" - ")
        root, point = fields.split()[3:5]
        match source.split():
            case ["cgroup2", *_]:
                kind = ""
            case ["cgroup", _, options] if "name=systemd" in options.split(","):
                kind = "name=systemd"
            case _:
                continue
        inside = Path(point, own.get(kind, "/").removeprefix(root).lstrip("/"))
        yield inside if inside.exists() else Path(point)


def _remove(group: Path) -> bool:
    """Whether the group is gone. Its folder has files, but only groups in it hinder that."""
    for folder, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
    return not group.exists()
