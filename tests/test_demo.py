"""The demo's host: what the program prints there is what the README shows."""

from __future__ import annotations

import re

from golden import assert_golden
from host import Fleet
from host.demo import VMS, spoil
from host.exporter import DECLARATION, Exporter, run_check
from microvm_exporter import __version__

WITH_DECLARATION = f"--declaration.file={DECLARATION}"
VARIES = re.compile(
    r"^(\w+_(?:timestamp|duration|start_time)_seconds(?:{.*})?|process_\w+"
    r"|\w+_(?:events|refreshes)_total{.*}|\w+_event_to_publish_seconds_\w+(?:{.*})?) .*",
    re.MULTILINE,
)


def test_report_and_metrics_of_the_demo(fleet: Fleet) -> None:
    fleet.declare(*VMS)
    fleet.switch()
    fleet.settle()
    assert len(list(spoil(fleet))) == 5
    fleet.write_declaration(DECLARATION)
    status, report, log = run_check(fleet.machine, WITH_DECLARATION)
    assert (status, log) == (1, "")
    assert_golden("demo/report.txt", report)
    with Exporter(fleet.machine, WITH_DECLARATION) as exporter:
        exporter.refresh(2)
        metrics = exporter.get("/metrics").decode()
    metrics = re.sub(r'python_version="[^"]*"', 'python_version="PYTHON"', metrics)
    metrics = metrics.replace(f'version="{__version__}"', 'version="VERSION"')
    assert_golden("demo/metrics.prom", VARIES.sub(r"\1 VARIES", metrics))
