"""What a signal of systemd's is about: called by GDBus, in the thread of the bus, for every one.

The values are GVariants, which are taken apart as far as it takes to know. Anyone may send a signal
of whatever shape, so the type is looked at first.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from microvm_exporter.collectors.bus_terms import object_path
from microvm_exporter.collectors.signals import Signals

__all__ = ["News"]

_CHANGES: Final = "(sa{sv}as)"


class News:
    """Notes what matters in ``signals``: of units whose names begin with one of ``prefixes``.

    ``names`` are the properties that are read of a change. The arguments of the methods are those
    of ``GDBusSignalCallback``.
    """

    def __init__(self, signals: Signals, prefixes: tuple[str, ...], names: Iterable[str]) -> None:
        self._signals = signals
        self._prefixes = prefixes
        self._paths = tuple(map(object_path, prefixes))
        self._names = tuple(names)

    def change(
        self, _connection: Any, _sender: str, path: str, _of: str, _name: str, values: Any
    ) -> None:
        """Hear of any unit of the host: cheap for those that are not watched."""
        if path.startswith(self._paths) and values.get_type_string() == _CHANGES:
            self._signals.change(path, partial(_read, values, self._names))

    def manager(
        self, _connection: Any, _sender: str, _path: str, _of: str, name: str, values: Any
    ) -> None:
        """Hear of units that are loaded and unloaded, and of systemd's reloads."""
        match name, values.get_type_string():
            case "Reloading", "(b)":
                self._signals.reload(begins=values.get_child_value(0).get_boolean())
            case (("UnitNew" | "UnitRemoved"), "(so)"):
                unit = values.get_child_value(0).get_string()
                if unit.startswith(self._prefixes):
                    self._unit(unit, is_new=name == "UnitNew")

    def owner(
        self, _connection: Any, _sender: str, _path: str, _of: str, _name: str, values: Any
    ) -> None:
        """Hear that systemd has come to the bus."""
        if values.get_type_string() == "(sss)" and values.get_child_value(2).get_string():
            self._signals.appear()

    def _unit(self, unit: str, *, is_new: bool) -> None:
        if is_new:
            self._signals.come(unit)
        else:
            self._signals.go(unit, object_path(unit))


def _read(parameters: Any, names: Iterable[str]) -> dict[str, Any]:
    changed = parameters.get_child_value(1)
    found = {name: changed.lookup_value(name, None) for name in names}
    return {name: value.unpack() for name, value in found.items() if value is not None}
