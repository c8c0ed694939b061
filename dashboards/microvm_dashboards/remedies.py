"""What to do about each kind of drift, in a sentence or two, and which kinds belong together.

No name of a VM or device is in a text: a guest may have chosen it. The exact commands, quoted, are
printed by ``microvm-exporter check`` on the host.
"""

from __future__ import annotations

from typing import Final

from microvm_exporter.drift.kinds import Kind

__all__ = ["BLIND", "FAULTS", "LEFTOVERS", "NUMBERS", "REMEDIES", "STRAYS"]

STRAYS: Final = frozenset({Kind.STRAY_TAP, Kind.STRAY_MACVTAP, Kind.HELPER_WITHOUT_VM})
"""Devices and helpers that run without their VM."""

LEFTOVERS: Final = frozenset(
    {
        Kind.UNDECLARED_UNIT,
        Kind.UNDECLARED_STATE,
        Kind.ORIGIN_UNKNOWN,
        Kind.RESIDUAL_UNIT_FILE,
        Kind.UNUSED_TEMPLATE,
    }
)
"""What a removed VM left behind, and what does no harm today."""

FAULTS: Final = frozenset(Kind) - STRAYS - LEFTOVERS
"""What keeps a wanted VM from being as declared, and what runs that nobody declared."""

REMEDIES: Final = {
    Kind.UNDECLARED_RUNNING: "Declare it again, or accept it as imperative. Else stop all its units"
    " in one command, keep disk images that are needed, remove its directory.",
    Kind.UNDECLARED_UNIT: "Stop all its units in one command and reset those that failed.",
    Kind.UNDECLARED_STATE: "Keep its disk images if they are needed, then remove the directory.",
    Kind.ORIGIN_UNKNOWN: "Hand-made: accept it as imperative. Else keep its disk images if they"
    " are needed, then remove the directory.",
    Kind.MISSING_UNIT: "Switch the host to its configuration again: systemd lacks the unit.",
    Kind.MISSING_STATE: "First see that the file system of its disks is mounted. Then run its"
    " install-microvm unit (systemctl restart), and start it.",
    Kind.NOT_RUNNING: "Read its journal, mend what it says; start it if systemd does not.",
    Kind.UNIT_FAILED: "Read the unit's journal, mend what it says, then systemctl reset-failed.",
    Kind.CONDITION_UNMET: "The path that the start asks for is missing. First see that its file"
    " system is mounted. Then install the VM again, and start it; if nobody wants it, remove it.",
    Kind.WOULD_NOT_START: "It runs or rests, but the next start would be skipped. First see that"
    " its file system is mounted. Then install it again, before the next reboot.",
    Kind.RESTART_PENDING: "It runs an older build: restart it when its guest may be interrupted.",
    Kind.OUTDATED: "The host's switch did not install the declared build: restart its"
    " install-microvm unit.",
    Kind.DANGLING_LINK: "The link's target is gone. First see that its file system is mounted. Then"
    " install the VM again, or remove it.",
    Kind.HELPER_WITHOUT_VM: "Start the VM, or stop all its units in one command.",
    Kind.MISSING_INTERFACE: "It runs without one of its network devices: restart the VM.",
    Kind.STRAY_TAP: "See that nothing holds it open, then ip link delete.",
    Kind.STRAY_MACVTAP: "See that no VM uses it, then ip link delete.",
    Kind.RESIDUAL_UNIT_FILE: "Switch the host again; a file that stays was put there by hand:"
    " remove it.",
    Kind.UNUSED_TEMPLATE: "Take microvm.nix's host module out if the host is to run no VM.",
    Kind.DAEMON_RELOAD_NEEDED: "systemctl daemon-reload",
}

BLIND: Final = {
    "could_not_look": (
        "could not look",
        "What this collector looks at is unknown, not fine: see the exporter's dashboard.",
    ),
    "left_out": (
        "left out",
        "Some of what this collector looks at is beyond a limit or unreadable, so its drift is not"
        " seen: microvm-exporter check says how much.",
    ),
    "no_answer": ("no answer", "The exporter does not answer: is the host up, and its unit?"),
    "no_target": ("no target", "Prometheus does not scrape this host any more."),
    "nothing_found": (
        "nothing found",
        "All collectors have looked at everything, and there is nothing to do.",
    ),
}
"""Rows of a table of findings that are none: what they are called, and what to do."""

NUMBERS: Final = {kind: number for number, kind in enumerate((*REMEDIES, *BLIND), start=1)}
"""What stands for each remedy in a query's result."""
