"""The runbooks: a page an alert, and what stands there is so, on a real host.

The commands of a page are run as they are printed, one page after the other on one host that has
all the cases at once, each in a MicroVM of its own. What a page shows as their output has to be in
it, and the mitigation has to make the finding go.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from host import Fleet, Machine, Origin, Vm, cases
from host.exporter import COMMAND, DECLARATION, USER, brief, check_json
from host.layout import STATE, UNITS
from host.machine import eventually
from host.runners import write_runner
from microvm_exporter.metrics import METRICS

ROOT: Final = Path(__file__).parents[1]
RUNBOOKS: Final = ROOT / "docs" / "runbooks"
RULES: Final = ROOT / "alerts" / "microvm.rules.yml"
PROMTOOL: Final = ROOT / ".tools" / "usr" / "bin" / "promtool"

HEADINGS: Final = ("Meaning", "Impact", "Diagnosis", "Mitigation")
SHARED: Final = ("README", "background")

_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_ROW: Final = re.compile(r"^\| \[(\w+)\]\((\w+)\.md\) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """A page as text, and by section."""

    name: str
    text: str

    @classmethod
    def read(cls, name: str) -> Page:
        return cls(name, (RUNBOOKS / f"{name}.md").read_text())

    def section(self, heading: str) -> str:
        return self.text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]

    def blocks(self, language: str, heading: str = "") -> list[str]:
        text = self.section(heading) if heading else self.text
        return [block for found, block in _FENCE.findall(text) if found == language]

    def anchors(self) -> set[str]:
        """The names that GitHub gives the headings, for links to them."""
        headings = re.findall(r"^#+ (.*)$", self.text, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def rules(kind: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def severities() -> dict[str, set[str]]:
    """The severities of each alert: most have one."""
    found: dict[str, set[str]] = {}
    for rule in rules("alert"):
        found.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    return found


ALERTS: Final = sorted(severities())
PAGES: Final = sorted(path.stem for path in RUNBOOKS.glob("*.md"))


# ------------------------------------------------------------------------------------ as text


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    assert sorted({*ALERTS, *SHARED}) == PAGES
    for rule in rules("alert"):
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md")


@pytest.mark.parametrize("name", ALERTS)
def test_page_says_what_to_do_first_and_has_the_headings(name: str) -> None:
    page = Page.read(name)
    assert page.text.startswith(f"# {name}\n\n**First:** ")
    assert re.findall(r"^## (.*)$", page.text, re.MULTILINE) == list(HEADINGS)
    assert all(page.section(heading).strip() for heading in HEADINGS)


def test_index_has_each_alert_once_with_its_severities_and_a_line() -> None:
    rows = _ROW.findall(Page.read("README").text)
    assert sorted(name for name, _, _, _ in rows) == ALERTS
    assert all(name == target and line.strip() for name, target, _, line in rows)
    words = r"critical|warning|info|none"
    assert {name: set(re.findall(words, cell)) for name, _, cell, _ in rows} == severities()


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for link in _LINK.findall(Page.read(name).text):
        path, _, anchor = link.partition("#")
        target = (RUNBOOKS / path).resolve() if path else RUNBOOKS / f"{name}.md"
        assert target.exists(), link
        if anchor:
            assert anchor in Page(name, target.read_text()).anchors(), link


def test_nothing_is_deleted_by_a_name_that_is_empty() -> None:
    """``rm -rf "$STATE/$vm"`` without the name deletes all VMs."""
    for name in PAGES:
        for block in Page.read(name).blocks("sh"):
            for line in re.findall(r"rm -[rf]+ .*", block):
                assert re.search(r"\$\{\w+:\?\}", line), f"{name}: {line}"


def test_queries_parse_and_know_their_metrics(tmp_path: Path) -> None:
    queries = [query for name in PAGES for query in Page.read(name).blocks("promql")]
    assert len(queries) > 10
    document = {"name": "runbooks", "rules": [{"record": "a", "expr": query} for query in queries]}
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [document]}))
    check = [str(PROMTOOL), "check", "rules", "--lint=none", str(file)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    known = {metric.name for metric in METRICS} | {rule["record"] for rule in rules("record")}
    named = set(re.findall(r"[\w:]*microvm_\w+[\w:]*|\bjob:\w+:\w+", "\n".join(queries)))
    assert named <= known


def test_errors_in_the_page_of_a_failed_collector_are_those_of_the_code() -> None:
    """``…`` stands for a value. What begins with FILE is put together of many parts."""
    sources = [path.read_text() for path in (ROOT / "exporter").rglob("*.py")]
    table = re.findall(r"^\| (`.*`) \|", Page.read("MicrovmCollectorFailed").text, re.MULTILINE)
    errors = [error for cell in table for error in re.findall(r"`([^`]+)`", cell)]
    assert len(errors) > 10
    for error in errors:
        if not error.startswith("FILE"):
            assert any(
                all(part.strip() in source for part in error.split("…")) for source in sources
            ), error


# ---------------------------------------------------------------------------------- on a host


Bring = Callable[[Fleet], object]

DRIFT: Final[Mapping[str, tuple[Vm | None, Bring, str]]] = {
    # alert: the VM of the page's example, how it comes about, and the finding
    "MicrovmUndeclaredRunning": (
        Vm("mail", taps=("vm-mail",)),
        partial(cases.undeclare_running, name="mail"),
        "warning undeclared_running mail microvm@mail.service",
    ),
    "MicrovmUndeclaredUnit": (
        Vm("firewall", autostart=False),
        partial(cases.start_removed, name="firewall"),
        "info undeclared_unit firewall microvm@firewall.service",
    ),
    "MicrovmUndeclaredState": (
        Vm("wiki"),
        partial(cases.undeclare_stopped, name="wiki"),
        f"info undeclared_state wiki {STATE}/wiki",
    ),
    "MicrovmOriginUnknown": (
        Vm("media", Origin.FLAKE),
        partial(cases.undeclare_stopped, name="media"),
        f"info origin_unknown media {STATE}/media",
    ),
    "MicrovmMissingUnit": (
        Vm("proxy", autostart=False),
        lambda fleet: fleet.machine.systemctl("mask", "--runtime", "microvm@proxy.service"),
        "critical missing_unit proxy microvm@proxy.service",
    ),
    "MicrovmMissingState": (
        Vm("cache"),
        partial(cases.delete_state, name="cache"),
        f"critical missing_state cache {STATE}/cache/current",
    ),
    "MicrovmNotRunning": (
        Vm("dns"),
        partial(cases.stop_autostarted, name="dns"),
        "critical not_running dns microvm@dns.service",
    ),
    "MicrovmUnitFailed": (
        Vm("vpn", taps=("vm-vpn",)),
        partial(cases.fail_helper, name="vpn"),
        "warning unit_failed vpn microvm-tap-interfaces@vpn.service",
    ),
    "MicrovmConditionUnmet": (
        Vm("web", taps=("vm-web",)),
        partial(cases.start_broken_runner, name="web"),
        "critical condition_unmet web microvm@web.service",
    ),
    "MicrovmWouldNotStart": (
        Vm("build", autostart=False),
        partial(cases.break_runner, name="build"),
        f"warning would_not_start build {STATE}/build/current/bin/microvm-run",
    ),
    "MicrovmRestartPending": (
        Vm("db", taps=("vm-db",)),
        partial(cases.update_running, name="db"),
        f"info restart_pending db {STATE}/db/booted",
    ),
    "MicrovmOutdated": (
        Vm("git", Origin.FLAKE),
        partial(cases.skip_install, name="git"),
        f"warning outdated git {STATE}/git/current",
    ),
    "MicrovmDanglingLink": (
        Vm("chat", autostart=False),
        partial(cases.collect_garbage, name="chat"),
        f"warning dangling_link chat {STATE}/chat/current",
    ),
    "MicrovmHelperWithoutVm": (
        Vm("files", autostart=False, virtiofs=("data",)),
        partial(cases.start_helper_alone, name="files"),
        "warning helper_without_vm files microvm-virtiofsd@files.service",
    ),
    "MicrovmMissingInterface": (
        Vm("gateway", taps=("vm-gateway",)),
        partial(cases.delete_tap, name="gateway"),
        "critical missing_interface gateway vm-gateway",
    ),
    "MicrovmStrayTap": (
        None,
        partial(cases.add_tap, tap="vm-old"),
        "warning stray_tap - vm-old",
    ),
    "MicrovmStrayMacvtap": (
        Vm("lab", autostart=False, macvtaps=("mv-lab",)),
        partial(cases.leak_links, name="lab"),
        "warning stray_macvtap lab mv-lab",
    ),
    "MicrovmResidualUnitFile": (
        None,
        partial(cases.leave_drop_in, name="gone"),
        "info residual_unit_file gone "
        "/etc/systemd/system.control/microvm@gone.service.d/50-MemoryMax.conf",
    ),
    "MicrovmRestartLoop": (
        Vm("radio"),
        partial(cases.crash_in_a_loop, name="radio"),
        "critical not_running radio microvm@radio.service",
    ),
    # The last: each reload of systemd mends it.
    "MicrovmDaemonReloadNeeded": (
        Vm("home"),
        partial(cases.change_unit_file, name="home"),
        "info daemon_reload_needed home microvm@home.service",
    ),
}
BROKEN: Final = ("vpn", "web", "build", "chat", "radio")
"""VMs whose runner only a switch mends, which builds it again."""

LEFT: Final = [
    # what two mitigations leave for another day, as their pages say
    f"info restart_pending git {STATE}/git/booted",
    f"info undeclared_state mail {STATE}/mail",
]
TOLD: Final = "No such file or directory"
"""The one thing that a command of a diagnosis may complain of: it is what one looks for."""


def paste(machine: Machine, page: Page, heading: str) -> str:
    """Run the commands of a section, with the names that stand further up; give what they say."""
    above = page.text.partition(f"\n## {heading}\n")[0]
    names = re.findall(r"^\w+='[^']*'", above, re.MULTILINE)
    script = "\n".join([*names, *page.blocks("sh", heading)])
    if heading == "Mitigation":
        return machine.run("bash", "-e", input=script).stdout
    done = machine.run("bash", input=script, check=False)
    complaints = [line for line in done.stderr.splitlines() if not line.endswith(TOLD)]
    assert [line for line in complaints if not is_shown(page, line)] == [], page.name
    return done.stdout + done.stderr


def is_shown(page: Page, line: str) -> bool:
    return any(matches(shown, line) for shown in shown_lines(page))


def shown_lines(page: Page) -> list[str]:
    return "".join(page.blocks("text", "Diagnosis")).splitlines()


def matches(shown: str, line: str) -> bool:
    """Whether a line is as the page shows it: with ``…`` for anything, and spaces aside."""
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in shown.split("…"))
    return re.search(pattern, " ".join(line.split())) is not None


def assert_shown(machine: Machine, *names: str) -> None:
    """The commands of the pages' diagnosis work, and say what the pages show."""
    missing = [
        f"{page.name}: {shown}"
        for page in map(Page.read, names)
        for output in [paste(machine, page, "Diagnosis").splitlines()]
        for shown in shown_lines(page)
        if not any(matches(shown, line) for line in output)
    ]
    assert missing == []


def test_drift_is_found_and_mended_as_the_pages_say(fleet: Fleet) -> None:
    fleet.declare(*(vm for vm, _, _ in DRIFT.values() if vm))
    fleet.switch()
    fleet.settle()
    for _, bring_about, _ in DRIFT.values():
        bring_about(fleet)
    assert {finding for _, _, finding in DRIFT.values()} <= set(findings(fleet))

    assert_shown(fleet.machine, *DRIFT)

    for name in BROKEN:
        write_runner(fleet.machine, fleet.vms[name], fleet.era)
    for page in map(Page.read, DRIFT):
        paste(fleet.machine, page, "Mitigation")
    fleet.settle()
    assert findings(fleet) == LEFT


def findings(fleet: Fleet) -> list[str]:
    fleet.write_declaration(DECLARATION)
    return brief(check_json(fleet.machine, f"--declaration.file={DECLARATION}")[1]["findings"])


def test_templates_without_vms_are_found_as_the_page_says(fleet: Fleet) -> None:
    assert "info unused_template - microvm@" in findings(fleet)
    assert_shown(fleet.machine, "MicrovmUnusedTemplate")


# ------------------------------------------------------------------------- with the exporter


SERVICE: Final = "prometheus-microvm-exporter.service"
UNIT: Final = f"""\
[Service]
Type=notify
ExecStart={COMMAND} serve --declaration.file={DECLARATION} --collect.interval=100ms
User={USER}
"""


@pytest.fixture
def host(fleet: Fleet) -> Iterator[Machine]:
    """A host with three VMs, and the exporter as the unit that the pages speak of."""
    machine = fleet.machine
    fleet.declare(Vm("web"), Vm("dns"), Vm("db"))
    fleet.switch()
    fleet.write_declaration(DECLARATION)
    machine.write(UNITS / SERVICE, UNIT)
    machine.systemctl("daemon-reload")
    machine.systemctl("start", SERVICE)
    yield machine
    machine.systemctl("stop", SERVICE)
    machine.remove(UNITS / SERVICE)


def test_pages_of_the_exporter_are_true_of_it(host: Machine) -> None:
    host.path(STATE / "not a name").mkdir()
    eventually("it is left out", lambda: "left_out_objects{" in metrics(host))
    assert_shown(
        host,
        "MicrovmObjectsLeftOut",
        "MicrovmCollectorNotFollowing",
        "MicrovmChangesMissed",
        "MicrovmSnapshotOld",
    )
    host.remove(STATE / "not a name")

    declaration = host.path(DECLARATION).read_text()
    host.write(DECLARATION, declaration.replace('"declarative"', '"declaratif"'))
    failed = 'collector_success{collector="declaration"} 0.0'
    eventually("it fails", lambda: failed in metrics(host))
    assert_shown(host, "MicrovmCollectorFailed")
    host.write(DECLARATION, declaration)
    eventually("it works again", lambda: failed not in metrics(host))

    host.systemctl("stop", SERVICE)
    assert_shown(host, "MicrovmExporterDown")
    paste(host, Page.read("MicrovmExporterDown"), "Mitigation")
    assert "microvm_declared_vms 3.0" in metrics(host)


def test_a_host_that_is_down_comes_up_as_the_page_says(fleet: Fleet) -> None:
    fleet.declare(Vm("web"), Vm("dns"), Vm("db"))
    fleet.switch()
    fleet.stop("web", "dns", "db")
    assert_shown(fleet.machine, "MicrovmHostMostlyDown", "MicrovmDeclaredVmsDropped")
    paste(fleet.machine, Page.read("MicrovmHostMostlyDown"), "Mitigation")
    for name in fleet.vms:
        assert fleet.machine.show(f"microvm@{name}.service", "ActiveState") == {
            "ActiveState": "active"
        }


def metrics(machine: Machine) -> str:
    return machine.run("curl", "--silent", "http://127.0.0.1:10686/metrics").stdout
