"""What to do about each kind of drift, as lines for a root shell on the host.

Nothing in here deletes: an alert may be hours old when somebody pastes from it, and what it calls
left over may be declared again. ``microvm-exporter check`` judges anew and prints the commands
that remove, for this moment. Names stand in quotes, and never in a comment, which a line break in
one would end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from microvm_alerts.wording import shell_word
from microvm_exporter.drift import Kind
from microvm_exporter.model import HELPERS, Template

__all__ = ["REMEDIES"]

_CHECK: Final = "microvm-exporter check"
_MEMBERS: Final = [
    shell_word(f"{template}{{vm}}.service") for template in (Template.MICROVM, *HELPERS)
]
_SERVICE: Final = _MEMBERS[0]
_OBJECT: Final = shell_word("{object}")
_LOOK: Final = (
    f"systemctl --no-pager status {_OBJECT}",
    f"journalctl --no-pager -b -u {_OBJECT} -n 50",
)
_REMOVE: Final = (
    "# to keep it: declare it again, or accept it as imperative;"
    " to remove it: the commands that this prints",
    _CHECK,
)
_INSTALL: Final = (
    "# to install it again, or to remove what nobody declares: the commands that this prints",
    _CHECK,
)
_DELETE_LINK: Final = (
    "# to delete the device, unless it has come into use: the command that this prints",
    _CHECK,
)

_LINES: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.UNDECLARED_RUNNING: (
        "# to keep it: declare it again, or accept it as imperative; to stop it:",
        # All of them in one command: `systemctl stop microvm@N` does not wait for the helpers.
        f"systemctl stop {' '.join(_MEMBERS)}",
        "# and to remove what it leaves behind: the commands that this prints",
        _CHECK,
    ),
    Kind.UNDECLARED_UNIT: _REMOVE,
    Kind.UNDECLARED_STATE: _REMOVE,
    Kind.ORIGIN_UNKNOWN: _REMOVE,
    Kind.MISSING_UNIT: (
        "# import microvm.nixosModules.host, set microvm.host.enable = true, and switch;"
        " or unmask the unit; then:",
        f"systemctl --no-pager cat {_OBJECT}",
    ),
    Kind.MISSING_STATE: _INSTALL,
    Kind.NOT_RUNNING: (
        *_LOOK,
        # systemd starts it by itself, and counts other starts too: it gives up after a few.
        "# unless it is waiting for an automatic restart (then mend what the log says),"
        " and if it is still wanted:",
        f"systemctl start {_OBJECT}",
    ),
    Kind.UNIT_FAILED: (*_LOOK, f"systemctl reset-failed {_OBJECT}"),
    Kind.CONDITION_UNMET: _INSTALL,
    Kind.WOULD_NOT_START: _INSTALL,
    Kind.RESTART_PENDING: ("# restarts the guest:", f"systemctl restart {_SERVICE}"),
    Kind.OUTDATED: _INSTALL,
    Kind.DANGLING_LINK: _INSTALL,
    Kind.HELPER_WITHOUT_VM: (
        "# to start the MicroVM, or to stop its helpers: the command that this prints",
        _CHECK,
    ),
    Kind.MISSING_INTERFACE: (
        "systemctl --no-pager status"
        f" {shell_word(f'{Template.TAP}{{vm}}.service')}"
        f" {shell_word(f'{Template.MACVTAP}{{vm}}.service')}",
        "# restarts the guest:",
        f"systemctl restart {_SERVICE}",
    ),
    Kind.STRAY_TAP: _DELETE_LINK,
    Kind.STRAY_MACVTAP: _DELETE_LINK,
    Kind.RESIDUAL_UNIT_FILE: (
        "# made by NixOS: switch to the current configuration again;"
        " made by hand: the command that this prints",
        _CHECK,
    ),
    Kind.UNUSED_TEMPLATE: (
        "# no MicroVMs wanted here any more: set microvm.host.enable = false and switch",
    ),
    Kind.DAEMON_RELOAD_NEEDED: ("systemctl daemon-reload",),
}

REMEDIES: Final[Mapping[Kind, str]] = {kind: "\n".join(lines) for kind, lines in _LINES.items()}
"""The remedy of each kind: a template, for its alert's annotation."""
