"""The exporter at work in a machine, and what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from host.machine import Machine

COMMAND = str(Path(sys.prefix, "bin", "microvm-exporter"))
PORT = 10686
USER = "microvm-exporter"
DECLARATION = PurePosixPath("/etc/microvm-exporter/declaration.json")
REFRESHED = "microvm_exporter_last_refresh_timestamp_seconds"

Labels = Mapping[str, str]

_ROOT = Path(__file__).parents[2]
_COVERAGE = PurePosixPath("/run/coverage")
_OBSERVATIONS = re.compile(
    rb'^microvm_exporter_refreshes_total\{cause="(?:interval|resync)"\} (\S+)$', re.MULTILINE
)


class Endpoint:
    """What an exporter says. ``url`` is where it is reached from outside of the machine."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """Request a page; raises urllib's HTTPError for a status that is not 200."""
        request = urllib.request.Request(self.url + path, headers=dict(headers or {}))
        with urllib.request.urlopen(request, timeout=10) as answer:
            body: bytes = answer.read()
        return body

    def samples(self) -> dict[str, list[tuple[Labels, float]]]:
        """Scrape, and give labels and values by the name of the sample."""
        found: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(self.get("/metrics").decode()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def value(self, name: str, **labels: str) -> float | None:
        """One sample's value; None when there is none."""
        for found, value in self.samples().get(name, []):
            if labels.items() <= found.items():
                return value
        return None

    def findings(self) -> list[str]:
        """The findings as ``severity kind vm object``, sorted."""
        return sorted(
            f"{labels['severity']} {labels['kind']} {labels['vm'] or '-'} {labels['object']}"
            for labels, _ in self.samples().get("microvm_drift_finding", [])
        )

    def refresh(self, times: int = 2, timeout: float = 30.0) -> None:
        """Wait until that many observations have begun and ended since now.

        Looks that events bring about do not count: they confirm nothing.
        """
        last = self._observations() + times  # and the one that may be under way
        deadline = time.monotonic() + timeout
        while self._observations() <= last:
            if time.monotonic() > deadline:
                raise AssertionError(f"no refresh within {timeout} s")
            time.sleep(0.02)

    def _observations(self) -> float:
        counts = _OBSERVATIONS.findall(self.get("/metrics"))  # a whole parse takes seconds at times
        return sum(map(float, counts))


class Exporter(Endpoint):
    """``serve`` as an unprivileged user in the machine. `with Exporter(machine):` ends it."""

    def __init__(self, machine: Machine, *flags: str, interval: str = "100ms") -> None:
        self._machine = machine
        command = (COMMAND, "serve", f"--collect.interval={interval}", *flags)
        self.process = machine.popen(*command, user=USER, env=_measured(machine))
        host, port = machine.forward(PORT, 0)
        super().__init__(f"http://{host}:{port}")

    def __enter__(self) -> Self:
        self.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> str:
        """End it by SIGTERM and give what it logged. Raises TimeoutExpired when it does not end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.communicate(timeout=10)[1]
        finally:
            self.process.kill()
            _keep_measured(self._machine)

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Wait for the first snapshot."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"it ended:\n{self.process.communicate()[1]}")
            with suppress(OSError, urllib.error.HTTPError):
                self.get("/-/ready")
                return
            time.sleep(0.05)
        raise AssertionError(f"not ready after {timeout} s")


def run_check(machine: Machine, *flags: str, user: str | None = USER) -> tuple[int, str, str]:
    """Run ``check`` in the machine; give exit status, standard output and standard error."""
    env = _measured(machine)
    done = machine.run(COMMAND, "check", *flags, check=False, user=user, env=env)
    _keep_measured(machine)
    return done.returncode, done.stdout, done.stderr


def check_json(machine: Machine, *flags: str) -> tuple[int, dict[str, Any]]:
    """Run ``check --format json`` in the machine; give exit status and report."""
    status, out, err = run_check(machine, "--format=json", *flags)
    assert out, err
    return status, json.loads(out)


def brief(findings: Sequence[Mapping[str, str]]) -> list[str]:
    """The findings of a JSON report as `Exporter.findings` gives them."""
    return sorted(f"{f['severity']} {f['kind']} {f['vm'] or '-'} {f['object']}" for f in findings)


def _measured(machine: Machine) -> dict[str, str]:
    """What lets coverage, where it is at work here, measure a process in the machine too."""
    if "COVERAGE_PROCESS_CONFIG" not in os.environ:
        return {}
    folder = machine.path(_COVERAGE)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    config = str(_ROOT / "pyproject.toml")
    return {"COVERAGE_PROCESS_START": config, "COVERAGE_FILE": str(_COVERAGE / "data")}


def _keep_measured(machine: Machine) -> None:
    """Move what was measured to the rest of it: the checkout is read-only inside."""
    for data in machine.path(_COVERAGE).glob("data.*"):
        shutil.move(data, _ROOT / f".coverage.{data.name}")
