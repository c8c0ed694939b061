"""What all tests share: the disposable host, and what a skip is worth."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from host import TODAY, Fleet, Machine

# By default an example has 200 ms, which says more about what else a machine is doing.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")

# Grafana's types come from npm, which is too large to be installed for one check.
HAS_NPM = shutil.which("npm") is not None
collect_ignore = [] if HAS_NPM else ["test_dashboards_types.py"]


def pytest_report_header() -> list[str]:
    return [] if HAS_NPM else ["no npm: the dashboards are not held to Grafana's types"]


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A booted host for the whole session."""
    with Machine.boot() as machine:
        yield machine


@pytest.fixture
def fleet(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A host without any VM, in today's layout, or that of an era given as indirect parameter."""
    fleet = Fleet(machine, getattr(request, "param", TODAY))
    yield fleet
    fleet.reset()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "machine" in getattr(item, "fixturenames", ()):
            item.add_marker("host")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("host") and (why := Machine.missing()):
        pytest.skip(why)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_a_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_a_skip(report)
    return report


def fail_a_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Where CI=true, a skipped test has failed: nobody would miss it."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{reason}: no test may be skipped where CI=true"
