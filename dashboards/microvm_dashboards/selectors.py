"""Label matchers: what a dashboard's variables select.

The Prometheus data source escapes ``$variable`` itself: for a string where one value can be chosen,
for a regular expression where several can. So names with dots and dashes are matched as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["FLEET", "HOST", "VM", "alerts", "any_of", "series"]

FLEET: Final = 'cluster=~"$cluster", job="$job"'
HOST: Final = f'{FLEET}, instance="$instance"'
VM: Final = f'{HOST}, vm="$vm"'


def series(metric: str, scope: str, *matchers: str, **labels: str) -> str:
    """Select the series of a metric; ``labels`` have these values."""
    equal = (f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{', '.join((scope, *matchers, *equal))}}}"


def alerts(scope: str, state: str, *matchers: str, **labels: str) -> str:
    """Select alerts of this project, ``pending`` or ``firing``; but not its dead man's switch."""
    ours = ('alertname=~"Microvm.+"', 'severity!="none"')
    return series("ALERTS", scope, *ours, *matchers, alertstate=state, **labels)


def any_of(kinds: Iterable[str]) -> str:
    """Match findings of these kinds."""
    return f'kind=~"{"|".join(sorted(kinds))}"'
