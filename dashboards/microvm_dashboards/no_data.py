"""What panels say when there is nothing to show: what that means, and never that all is well."""

from __future__ import annotations

from typing import Final

__all__ = ["NOT_WHOLE", "NO_HOST", "NO_RULES", "NO_SYSTEMD", "NO_TARGET", "SILENT"]

NO_HOST: Final = "unknown: Prometheus has nothing of this host in this time"
NO_RULES: Final = "unknown: is the job scraped, and are the recording rules loaded?"
NO_SYSTEMD: Final = "unknown: systemd could not be asked"
NO_TARGET: Final = "unknown: not a target"
NOT_WHOLE: Final = (
    "unknown: a collector could not look at everything, or the exporter does not answer"
)
SILENT: Final = "unknown: the exporter does not answer"
