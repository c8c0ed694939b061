"""What the file system tells: the state directory, the gcroots, the unit directories.

``STATE`` belongs to the microvm user (see `untrusted`), the other two to root.

inotify tells what changes in them, so that little is read again. It does not tell what happens to
that where a link leads: that is looked after at each interval, by a stat. Of targets in the store
one is enough, of the store: a directory tells when an entry has come or gone. Nor does it tell of
mounts: of these there is a list. That a link in a ``.wants`` or ``.d`` directory leads nowhere any
more is all that only a look at everything finds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Final

from microvm_exporter.collectors.gcroots import Gcroots
from microvm_exporter.collectors.state_directory import StateDirectory
from microvm_exporter.collectors.unit_directories import STORE, UnitDirectories
from microvm_exporter.collectors.watches import Event, Place, Watches
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Following, Leftouts, StateTree

__all__ = ["StateCollector"]

_PARTS: Final = tuple(
    field.name for field in fields(StateTree) if field.name not in ("state_dir", "left_out")
)


class StateCollector:
    """Looks at all three places, for one thread at a time.

    At most ``limit`` VMs are read, the preferred ones first, then those with a gcroot, which only
    root can make: directories that someone plants in ``STATE`` displace none of them. Without
    ``follow`` each look is at everything. ``store`` is the path of the store, with a slash at its
    end.
    """

    def __init__(self, *, gcroots_dir: str, limit: int, follow: bool, store: str = STORE) -> None:
        self._follow = follow
        self._watches = Watches(follow=follow)
        self._gcroots = Gcroots(gcroots_dir, limit=limit, watches=self._watches)
        self._units = UnitDirectories(watches=self._watches, store=store)
        self._state = StateDirectory(limit=limit, watches=self._watches, store=store)
        self._parts = (self._gcroots, self._units, self._state)
        self._tree: StateTree | None = None
        self._error: str | None = None
        self._asked: object = None
        self._following = Following()

    def collect(
        self, cause: Cause, *, state_dir: str, unit_dirs: Sequence[str], prefer: Collection[str]
    ) -> StateTree:
        """Look as closely as the cause asks for.

        Raises `CollectorError` when one of the places cannot be read; while nothing else is heard
        of, it does so again without another look.
        """
        try:
            cause = cause if self._follow else Cause.RESYNC
            return self._look(cause, state_dir, tuple(unit_dirs), prefer)
        except CollectorError as error:
            self._error = str(error)
            raise
        finally:
            self._following = self._follow_up()

    @property
    def following(self) -> Following:
        """How it heard of changes, up to the last look."""
        return self._following

    @property
    def unit_file_events(self) -> int:
        """How many events have told of unit files of the family."""
        return self._units.heard

    def fileno(self) -> int | None:
        """Return what is readable when there is something to collect."""
        return self._watches.fileno()

    def close(self) -> None:
        """Give the watches back."""
        self._watches.close()

    def _look(
        self, cause: Cause, state_dir: str, unit_dirs: tuple[str, ...], prefer: Collection[str]
    ) -> StateTree:
        asked = (state_dir, unit_dirs)
        if not self._hear(cause) and self._error and cause is Cause.EVENT and asked == self._asked:
            raise CollectorError(self._error)
        self._asked = asked
        self._read(cause, state_dir, unit_dirs, prefer)
        self._error = None
        return self._publish(state_dir)

    def _follow_up(self) -> Following:
        return Following(
            active=self._watches.active and all(part.followed for part in self._parts),
            events=self._watches.heard,
            missed=sum(part.missed.count() for part in self._parts),
        )

    def _hear(self, cause: Cause) -> bool:
        """Hand on what was touched; tell whether there is anything to be read."""
        if cause is Cause.RESYNC and self._watches.open():
            for part in self._parts:
                part.distrust()
        was_active = self._watches.active
        heard = [self._tell(event) for event in self._watches.drain()]
        if was_active and not self._watches.active:
            self._suspect_nothing()
        return any(heard)

    def _tell(self, event: Event) -> bool:
        (place, of), name = event
        match place:
            case Place.STATE:
                return self._state.hear(name)
            case Place.VM:
                return self._state.hear_vm(of, name)
            case Place.GCROOTS:
                return self._gcroots.hear(name)
            case Place.UNITS:
                return self._units.hear(of, name)
            case Place.PART:
                return self._units.hear_part(of, name)

    def _read(
        self, cause: Cause, state_dir: str, unit_dirs: Sequence[str], prefer: Collection[str]
    ) -> None:
        self._gcroots.read(cause, prefer)
        self._units.read(cause, unit_dirs)
        looked_at = self._state.read(cause, state_dir, [prefer, self._gcroots.links["current"]])
        if cause is not Cause.RESYNC:
            self._gcroots.check(looked_at)  # they lead to links that may be others now
        if not self._watches.active:
            self._suspect_nothing()

    def _suspect_nothing(self) -> None:
        for part in self._parts:
            part.missed.clear()

    def _publish(self, state_dir: str) -> StateTree:
        """Return the tree, the same one as before when it has the same parts."""
        gcroots, units = self._gcroots.links, self._units.files
        tree = StateTree(
            state_dir=state_dir,
            vms=self._state.vms,
            gcroots=gcroots["current"],
            booted_gcroots=gcroots["booted"],
            old_gcroots=gcroots["old"],
            templates=units.templates,
            conditional_installs=units.conditional_installs,
            unit_files=units.entries,
            left_out=self._left_out(),
        )
        if self._tree is None or not _is_same(self._tree, tree):
            self._tree = tree
        return self._tree

    def _left_out(self) -> Leftouts:
        parts = self._gcroots.left_out, self._state.left_out
        return Leftouts(
            limit=sum(part.limit for part in parts),
            name=sum(part.name for part in parts),
            unreadable=sum(part.unreadable for part in parts) + self._units.files.unreadable,
        )


def _is_same(old: StateTree, new: StateTree) -> bool:
    """Tell whether the parts are the same objects; the two small ones need only be equal."""
    return (old.state_dir, old.left_out) == (new.state_dir, new.left_out) and all(
        getattr(old, part) is getattr(new, part) for part in _PARTS
    )
