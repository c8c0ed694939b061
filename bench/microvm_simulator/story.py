"""What happens in the history: six hosts, and eight hours of their lives.

Minutes are counted from the beginning. Each kind of trouble comes and goes somewhere, and some of
it is there at the end, so that a dashboard which is opened then has something to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from microvm_exporter.model import Collector
from microvm_simulator.happenings import (
    Action,
    break_runner,
    crash,
    crash_loop,
    declare_again,
    declare_runner,
    follow,
    forget,
    lose,
    lose_tap,
    make_tap,
    miss,
    needs_reload,
    regain,
    remove_in_one_go,
    restart,
    start,
    stop,
    undeclare,
    update,
)

__all__ = ["DOWN", "GONE", "STORY"]

DOWN: Final = {"cedar": (230, 252)}
"""When an exporter is down: from and to which minute its scrapes fail."""

GONE: Final = {"oak": 415}
"""From which minute a host is in service discovery no more."""

_WORKERS: Final = tuple(f"worker-{number}" for number in range(1, 11))
_HALF_OF_TENANTS: Final = tuple(f"tenant-{number:02}" for number in range(6, 13))

STORY: Final[Mapping[str, tuple[tuple[float, Action], ...]]] = {
    "alder": (
        (20, crash("api")),
        # A switch: one VM is taken out and runs on, two are updated and not restarted.
        (60, undeclare("firewall")),
        (60, update("mail.internal", "metrics")),
        (60, needs_reload("chat", needed=True)),
        (75, needs_reload("chat", needed=False)),
        (150, restart("mail.internal")),
        (170, crash("api")),
        (200, remove_in_one_go("firewall")),
        (215, forget("firewall")),
        (290, lose_tap("vm-firewall")),
        (300, crash_loop("web")),
        (345, restart("web")),
        (355, declare_runner("cache", 2)),
        (380, lose_tap("vm-queue")),
        (400, make_tap("vm-left")),
        (420, undeclare("wiki")),
        (440, stop("db")),
        (450, break_runner("ci")),
        (455, crash_loop("api")),
    ),
    "birch": (
        (110, lose(Collector.SYSTEMD, "no system bus at unix:path=/run/dbus/system_bus_socket")),
        (140, regain(Collector.SYSTEMD)),
        (270, stop("proxy")),
        (278, start("proxy")),
    ),
    "cedar": (
        (40, follow(Collector.STATE, active=False)),
        (252, lambda host, now: host.restart_exporter(now)),
        (253, follow(Collector.STATE, active=True)),
        (310, crash("ntp")),
        (360, miss(3)),
    ),
    "elm": (
        (190, stop(*_WORKERS[:7])),
        (212, start(*_WORKERS[:7])),
        (330, update(*_WORKERS)),
        *((332 + 4 * n, restart(worker)) for n, worker in enumerate(_WORKERS)),
    ),
    "fir": (
        (365, undeclare(*_HALF_OF_TENANTS)),
        (393, declare_again(*_HALF_OF_TENANTS)),
    ),
    "oak": ((90, crash("edge-3")),),
}
"""What happens to each host, in order: at which minute, and what."""
