"""The files of a host with MicroVMs, under any root, and a fresh look at them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from microvm_exporter.collectors.state import StateCollector
from microvm_exporter.model import Cause, StateTree


class Host:
    """A state directory, gcroots, a store, and a unit directory or more, under a root."""

    def __init__(self, root: Path) -> None:
        self.state, self.gcroots, self.units = root / "microvms", root / "gcroots", root / "system"
        self.store = root / "store"
        for directory in (self.state, self.gcroots, self.units, self.store):
            directory.mkdir()
        self.unit_dirs = [self.units]

    def runner(self, name: str) -> Path:
        path = self.store / name
        (path / "bin").mkdir(parents=True)
        (path / "bin/microvm-run").write_text("")
        return path

    def vm(self, name: str, **links: Path) -> Path:
        path = self.state / name
        path.mkdir()
        for link, target in links.items():
            (path / link).symlink_to(target)
        return path

    def collect(self, *, limit: int = 100, prefer: Collection[str] = ()) -> StateTree:
        units = list(map(str, self.unit_dirs))
        return look(str(self.state), str(self.gcroots), units, limit=limit, prefer=prefer)


def look(
    state_dir: str,
    gcroots_dir: str = "/none",
    unit_dirs: Sequence[str] = (),
    *,
    limit: int = 1,
    prefer: Collection[str] = (),
) -> StateTree:
    collector = StateCollector(gcroots_dir=gcroots_dir, limit=limit, follow=False)
    return collector.collect(Cause.RESYNC, state_dir=state_dir, unit_dirs=unit_dirs, prefer=prefer)
