"""Label matchers: what a dashboard's variables select.

The Prometheus data source escapes ``$variable`` itself: for a string where one value can be chosen,
for a regular expression where several can. So names with dots and dashes are matched as they are.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FLEET", "HOST", "VM", "series"]

FLEET: Final = 'cluster=~"$cluster", job="$job"'
HOST: Final = f'{FLEET}, instance="$instance"'
VM: Final = f'{HOST}, vm="$vm"'


def series(metric: str, scope: str, *matchers: str) -> str:
    """Select the series of a metric."""
    return f"{metric}{{{', '.join((scope, *matchers))}}}"
