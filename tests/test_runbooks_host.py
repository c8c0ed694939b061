"""What stands in the runbooks is so, on a real host.

The commands of a page are run as they are printed, one page after the other on one host that has
all the cases at once, each in a MicroVM of its own. What a page shows as their output has to be in
it, and the mitigation has to make the finding go.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

import pytest

from host import Fleet, Machine, Origin, Vm, cases, chain
from host.exporter import COMMAND, DECLARATION, USER, brief, check_json
from host.layout import STATE, UNITS
from host.machine import PYTHON, eventually
from host.runners import write_runner
from microvm_exporter.drift import Kind
from runbook_pages import Page

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
CHECK: Final = "microvm-exporter check\n"
TOLD: Final = "No such file or directory"
"""The one thing that a command of a diagnosis may complain of: it is what one looks for."""


def test_each_kind_of_drift_is_tried() -> None:
    alerts = {"Microvm" + kind.title().replace("_", "") for kind in Kind}
    assert alerts <= {*DRIFT, "MicrovmUnusedTemplate"}


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


def mend(machine: Machine, page: Page, vm: Vm | None) -> None:
    """Do as the mitigation says, and as ``check`` says where it is that what it says."""
    if vm and page.blocks("sh", "Mitigation") == [CHECK]:
        chain.paste(machine, chain.commands_of(vm.name, chain.paste(machine, CHECK)))
    else:
        paste(machine, page, "Mitigation")


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
    for name, (vm, _, _) in DRIFT.items():
        mend(fleet.machine, Page.read(name), vm)
    fleet.settle()
    assert findings(fleet) == LEFT


def findings(fleet: Fleet) -> list[str]:
    fleet.write_declaration(DECLARATION)
    return brief(check_json(fleet.machine, f"--declaration.file={DECLARATION}")[1]["findings"])


def test_templates_without_vms_are_found_as_the_page_says(fleet: Fleet) -> None:
    assert "info unused_template - microvm@" in findings(fleet)
    assert_shown(fleet.machine, "MicrovmUnusedTemplate")


def test_a_vm_that_is_installed_once_comes_back_with_its_disks(fleet: Fleet) -> None:
    """As ``check`` says of one with updateFlake that has lost its links, but not its directory."""
    machine, vm = fleet.machine, Vm("home", Origin.DEPLOYED)
    fleet.declare(vm)
    fleet.switch()
    fleet.stop("home")
    for name in ("current", "flake"):
        machine.remove(vm.state / name)
    machine.write(vm.state / "data" / ".hidden.img", "all that matters")
    machine.write(vm.state / ".lock", "")
    machine.run("chown", "-R", "microvm:kvm", str(vm.state))
    (remedy,) = (
        finding["remedy"]
        for finding in check_json(machine)[1]["findings"]
        if finding["kind"] == Kind.MISSING_STATE
    )
    machine.run("sh", "-e", input=remedy)
    assert findings(fleet) == []
    assert machine.show("microvm@home.service", "ActiveState") == {"ActiveState": "active"}
    assert machine.path(vm.state / "data" / ".hidden.img").read_text() == "all that matters"
    assert [path.name for path in machine.path(STATE).iterdir()] == ["home"]


HOLD_TAP: Final = """\
import fcntl, os, resource, struct
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"vm-lab", 0x5002))  # TUNSETIFF, see if_tun.h
for _ in range(8000):
    os.dup(0)
print("ready", flush=True)
os.read(0, 1)
"""
HOLD_MACVTAP: Final = """\
import os
with open("/sys/class/net/mv-lab/ifindex") as index:
    os.open(f"/dev/tap{int(index.read())}", os.O_RDWR)
print("ready", flush=True)
os.read(0, 1)
"""


@pytest.mark.parametrize(
    ("alert", "device", "hold"),
    [
        ("MicrovmStrayTap", "vm-lab", HOLD_TAP),
        ("MicrovmStrayMacvtap", "mv-lab", HOLD_MACVTAP),
    ],
)
def test_a_device_is_deleted_only_when_no_process_holds_it(
    fleet: Fleet, alert: str, device: str, hold: str
) -> None:
    """However many descriptors there are: a command line takes 2 MB, and here 128 KB."""
    machine = fleet.machine
    fleet.declare(Vm("lab", autostart=False, taps=("vm-lab",), macvtaps=("mv-lab",)))
    fleet.switch()
    cases.leak_links(fleet, "lab")
    found = check_json(machine)[1]["findings"]
    (remedy,) = (finding["remedy"] for finding in found if finding["object"] == device)
    (mitigation,) = Page.read(alert).blocks("sh", "Mitigation")
    scripts = [f"ulimit -s 512\n{each}" for each in (remedy, f"device='{device}'\n{mitigation}")]
    with machine.popen(str(PYTHON), "-c", hold, stdin=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "ready\n"
        for script in scripts:
            machine.run("bash", "-e", input=script)
            assert device in machine.links(), script
    for script in scripts:
        cases.leak_links(fleet, "lab")
        machine.run("bash", "-e", input=script)
        assert device not in machine.links(), script


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
