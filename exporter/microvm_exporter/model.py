"""What the exporter knows of a host at one moment: plain, immutable records.

Every other module speaks in these. The collectors fill them in, drift judges them, and exposition,
report and page show them; this module imports nothing of the package.

The facts behind the records are microvm.nix's (``nixos-modules/host/default.nix``) and systemd's
(``org.freedesktop.systemd1(5)``); each field says its unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

__all__ = [
    "HELPERS",
    "Cause",
    "Collector",
    "Condition",
    "Declaration",
    "DeclaredVm",
    "FailedCheck",
    "Following",
    "Interface",
    "InterfaceType",
    "Leftouts",
    "Link",
    "LinkKind",
    "LinkTable",
    "Origin",
    "Reading",
    "Runner",
    "Snapshot",
    "StateTree",
    "Symlink",
    "Template",
    "Unit",
    "UnitFile",
    "UnitFileKind",
    "UnitTable",
    "VmState",
    "is_device_name",
    "is_instance_name",
    "is_vm_name",
    "parse_unit_name",
]


class Collector(StrEnum):
    """The four sources, by the name that metrics, logs and reports give them."""

    DECLARATION = "declaration"
    SYSTEMD = "systemd"
    LINKS = "links"
    STATE = "state"


class Cause(StrEnum):
    """Why the host is looked at, and with it how closely.

    ``event``: something was heard of, and only that is read. ``interval``: also what no event
    tells, and all of a source that cannot be followed. ``resync``: everything, as if nothing were
    known.
    """

    EVENT = "event"
    INTERVAL = "interval"
    RESYNC = "resync"


class Origin(StrEnum):
    """How a MicroVM came to be, as far as the host tells."""

    DECLARATIVE = "declarative"
    FLAKE = "flake"
    DEPLOYED = "deployed"
    IMPERATIVE = "imperative"
    UNDECLARED = "undeclared"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Leftouts:
    """How many objects a collector passed over, by reason.

    ``limit``: beyond the cap on objects. ``name``: no unit could carry the name.
    ``unreadable``: could not be looked at, or was not what it should be.
    """

    limit: int = 0
    name: int = 0
    unreadable: int = 0


# ---------------------------------------------------------------------------------------- units


class Template(StrEnum):
    """The unit family of microvm.nix. All but ``install-microvm-`` are instantiated templates."""

    MICROVM = "microvm@"
    TAP = "microvm-tap-interfaces@"
    MACVTAP = "microvm-macvtap-interfaces@"
    PCI = "microvm-pci-devices@"
    VIRTIOFSD = "microvm-virtiofsd@"
    SET_BOOTED = "microvm-set-booted@"
    INSTALL = "install-microvm-"


HELPERS: Final = (
    Template.TAP,
    Template.MACVTAP,
    Template.PCI,
    Template.VIRTIOFSD,
    Template.SET_BOOTED,
)
"""The units that ``microvm@N`` requires, in microvm.nix's order."""

_SUFFIX: Final = ".service"
_TEMPLATES: Final = tuple(Template)  # to go through the class takes twice as long

# What systemd allows in a unit name (systemd.unit(5)). A leading dot is a hidden file
# (`.snapshots`, `.zfs`), not a VM.
_INSTANCE: Final = re.compile(r"[A-Za-z0-9:_@\\-][A-Za-z0-9:_.@\\-]*", re.ASCII)
_UNIT_NAME_MAX: Final = 255
_INSTANCE_MAX: Final = _UNIT_NAME_MAX - len(Template.MACVTAP + _SUFFIX)


def is_instance_name(name: str) -> bool:
    """Tell whether every unit of the family can carry the name as its instance."""
    return len(name) <= _INSTANCE_MAX and _INSTANCE.fullmatch(name) is not None


def is_vm_name(name: str) -> bool:
    """Tell whether a MicroVM can be declared by the name: systemd would not escape it.

    microvm.nix puts names into unit names as they are, so a backslash, which only an escape
    sequence brings into a unit name, is none of a declared VM's.
    """
    return "\\" not in name and is_instance_name(name)


# What the kernel's dev_valid_name() refuses; its isspace() goes by Latin-1, where 0xa0 is a space.
_NOT_IN_DEVICE_NAMES: Final = frozenset(b"/:\t\n\v\f\r \xa0")
_DEVICE_NAME_MAX: Final = 15  # IFNAMSIZ less the final NUL, in bytes


def is_device_name(name: str) -> bool:
    """Tell whether a network device can be called that, and the name can be shown."""
    if name in (".", "..") or not name.isprintable():
        return False
    raw = name.encode()
    return 0 < len(raw) <= _DEVICE_NAME_MAX and _NOT_IN_DEVICE_NAMES.isdisjoint(raw)


def parse_unit_name(unit: str) -> tuple[Template, str] | None:
    """Split a unit name into template and VM, or None when it is not one of the family.

    The template unit itself (``microvm@.service``) has no instance and gives None too.
    """
    if not unit.endswith(_SUFFIX):
        return None
    stem = unit[: -len(_SUFFIX)]
    for template in _TEMPLATES:
        if stem.startswith(template):
            vm = stem[len(template) :]
            return (template, vm) if is_instance_name(vm) else None
    return None


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of systemd's ``Conditions``: what was tested, and what came of it.

    ``state`` is below 0 when it did not hold, 0 when untested (also after every daemon-reload),
    above 0 when it held.
    """

    type: str
    parameter: str
    negate: bool = False
    trigger: bool = False
    state: int = 0


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """A start that systemd skipped because a condition did not hold.

    ``at`` is Unix time in seconds. Kept apart from the unit because systemd forgets a unit that
    nothing references a moment after its check failed.
    """

    unit: str
    at: float
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Unit:
    """One loaded instance of the family, in systemd's own words. Times are Unix seconds, 0 never.

    ``job`` is true while a job for the unit is queued or runs: what it shows then is about to
    change. ``exec_main_status``, ``result`` and ``restarts`` are those of the service.
    ``waits_since`` is when it began to wait for an automatic restart, 0 when it does not.
    """

    name: str
    template: Template
    vm: str
    load_state: str = "loaded"
    active_state: str = "inactive"
    sub_state: str = "dead"
    job: bool = False
    need_daemon_reload: bool = False
    condition_result: bool = False
    condition_timestamp: float = 0.0
    conditions: tuple[Condition, ...] = ()
    active_enter_timestamp: float = 0.0
    result: str = "success"
    exec_main_status: int = 0
    restarts: int = 0
    waits_since: float = 0.0


@dataclass(frozen=True, slots=True)
class UnitTable:
    """What the service manager tells.

    ``units`` is keyed by unit name. ``autostarted`` and ``declared`` are the names that
    ``Wants`` of ``microvms.target`` pulls in as ``microvm@N`` and as ``install-microvm-N``.
    ``unit_path`` is the manager's ``UnitPath``. ``failed_checks`` holds the skipped starts of
    units that are no longer loaded, keyed by unit name.
    """

    units: Mapping[str, Unit] = field(default_factory=dict)
    autostarted: frozenset[str] = frozenset()
    declared: frozenset[str] = frozenset()
    unit_path: tuple[str, ...] = ()
    failed_checks: Mapping[str, FailedCheck] = field(default_factory=dict)
    left_out: Leftouts = Leftouts()


# --------------------------------------------------------------------------------- declaration


class InterfaceType(StrEnum):
    """``microvm.interfaces.*.type``."""

    TAP = "tap"
    MACVTAP = "macvtap"
    BRIDGE = "bridge"
    USER = "user"


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """A network interface of a MicroVM; ``id`` is the device's name on the host."""

    type: InterfaceType
    id: str


@dataclass(frozen=True, slots=True)
class DeclaredVm:
    """A declared MicroVM. None means that the declaration does not say: ask the host."""

    name: str
    origin: Origin
    autostart: bool | None = None
    hypervisor: str | None = None
    runner: str | None = None
    interfaces: tuple[Interface, ...] | None = None


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the operator wants: declared VMs by name, and undeclared ones that are accepted."""

    vms: Mapping[str, DeclaredVm] = field(default_factory=dict)
    imperative: frozenset[str] = frozenset()
    state_dir: str | None = None
    left_out: Leftouts = Leftouts()


# --------------------------------------------------------------------------------------- links


class LinkKind(StrEnum):
    """The kinds of network device that MicroVMs use and that can be left behind."""

    TAP = "tap"
    MACVTAP = "macvtap"


@dataclass(frozen=True, slots=True)
class Link:
    """A TAP or macvtap device on the host.

    ``ours`` is true when it belongs to the microvm user: a TAP by ``IFLA_TUN_OWNER``, a macvtap
    by the owner of ``/dev/tap<ifindex>``. A macvtap has no ``persistent``.
    """

    name: str
    index: int
    kind: LinkKind
    ours: bool
    persistent: bool = False
    carrier: bool = False


@dataclass(frozen=True, slots=True)
class LinkTable:
    """The host's TAP and macvtap devices by name."""

    links: Mapping[str, Link] = field(default_factory=dict)
    left_out: Leftouts = Leftouts()


# --------------------------------------------------------------------------------------- state


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link: where it says it leads, and whether anything is there.

    ``dangling`` covers a missing target and a loop. It is false when that could not be told.
    ``changed`` is when the link itself was made, in Unix seconds.
    """

    path: str
    target: str
    dangling: bool
    changed: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Runner:
    """What ``current`` or ``booted`` leads to, as far as it could be read.

    ``files`` are the members that exist, relative to the runner, among those that the conditions
    of the unit family name (``bin/microvm-run``, ``share/microvm/tap-interfaces``, …) and
    ``bin/microvm-shutdown``. ``pci`` and ``virtiofs`` tell whether it has such devices.
    """

    files: frozenset[str] = frozenset()
    interfaces: tuple[Interface, ...] = ()
    pci: bool = False
    virtiofs: bool = False
    hypervisor: str | None = None


@dataclass(frozen=True, slots=True)
class VmState:
    """``STATE/N``. A member that is not there is None or False.

    ``current_runner`` and ``booted_runner`` are None when the link is missing or dangling, or
    when the runner could not be read. ``readable`` is false when the directory itself could not
    be looked into: then nothing is known of what is in it.
    """

    name: str
    path: str
    readable: bool = True
    current: Symlink | None = None
    booted: Symlink | None = None
    toplevel: Symlink | None = None
    flake: bool = False
    current_runner: Runner | None = None
    booted_runner: Runner | None = None


class UnitFileKind(StrEnum):
    """What an entry of a unit directory is."""

    UNIT = "unit file"
    DROP_IN = "drop-in"
    WANTS = "wants link"


@dataclass(frozen=True, slots=True, order=True)
class UnitFile:
    """An entry of a unit directory that names an instance of the family."""

    path: str
    kind: UnitFileKind
    unit: str
    vm: str
    dangling: bool = False


@dataclass(frozen=True, slots=True)
class StateTree:
    """What the file system tells.

    ``vms`` is keyed by VM name. ``gcroots``, ``booted_gcroots`` and ``old_gcroots`` are the links
    ``GCROOTS/N``, ``booted-N`` and ``old-N`` by VM name. ``templates`` maps each installed template
    unit file to the paths of its ``ConditionPathExists=``, with ``%i`` unexpanded.
    ``conditional_installs`` are the VMs whose ``install-microvm-N.service`` only runs while
    ``STATE/N`` is not there (flake + updateFlake).
    """

    state_dir: str
    vms: Mapping[str, VmState] = field(default_factory=dict)
    gcroots: Mapping[str, Symlink] = field(default_factory=dict)
    booted_gcroots: Mapping[str, Symlink] = field(default_factory=dict)
    old_gcroots: Mapping[str, Symlink] = field(default_factory=dict)
    templates: Mapping[Template, tuple[str, ...]] = field(default_factory=dict)
    conditional_installs: frozenset[str] = frozenset()
    unit_files: tuple[UnitFile, ...] = ()
    left_out: Leftouts = Leftouts()


# ------------------------------------------------------------------------------------ snapshot


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Following:
    """How a collector hears of changes.

    ``active`` is false while it does not, and looks at everything each interval instead. ``events``
    is how many it has heard of, and ``missed`` how many objects a resync has found changed of which
    no event had told.
    """

    active: bool = False
    events: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What a collector brought back: a value, or the reason why there is none.

    ``value`` is None exactly when ``error`` is set: unknown, which is never the same as empty.
    ``duration`` is in seconds, ``last_success`` in Unix seconds (None: never).
    """

    value: T | None
    error: str | None = None
    duration: float = 0.0
    last_success: float | None = None
    following: Following = Following()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that was seen in one look, taken at ``taken_at`` (Unix seconds)."""

    taken_at: float
    declaration: Reading[Declaration]
    systemd: Reading[UnitTable]
    links: Reading[LinkTable]
    state: Reading[StateTree]

    def readings(self) -> Mapping[Collector, Reading[Any]]:
        """Give the four readings by the name of their collector."""
        return {name: getattr(self, name) for name in Collector}
