"""The disposable host itself: it shows what domain.md says that a real one does.

Everything is read with systemctl and ip, never with the exporter, which is tested on this host.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from host import (
    BEFORE_SET_BOOTED,
    ERAS,
    SHARE_CONDITIONS,
    TODAY,
    Fleet,
    Hypervisor,
    Machine,
    MachineError,
    Origin,
    Vm,
    cases,
    eventually,
)
from host.cgroup import own_groups
from host.layout import GCROOTS
from host.machine import EXPORTER_USER

pytestmark = pytest.mark.host

FIREWALL = Vm("firewall", taps=("vm-fw",), virtiofs=("keys",))
RUNNING = {
    "microvm": "active",
    "microvm-set-booted": "active",
    "microvm-tap-interfaces": "active",
    "microvm-virtiofsd": "active",
    "microvm-macvtap-interfaces": "unmet",
    "microvm-pci-devices": "unmet",
}


# The machine


def test_command_says_what_failed(machine: Machine) -> None:
    assert machine.run("cat", input="hello").stdout == "hello"
    with pytest.raises(MachineError, match=r"(?s)ls /nowhere: exit status 2\n.*No such file"):
        machine.run("ls", "/nowhere")
    with pytest.raises(MachineError, match=r"sleep 60: not done after 0\.2 s"):
        machine.run("sleep", "60", timeout=0.2)
    running = machine.run("sh", "-c", "cat /proc/[0-9]*/comm", check=False).stdout.split()
    assert "systemd" in running
    assert "sleep" not in running


def test_command_gets_no_environment_but_its_own(machine: Machine) -> None:
    lines = machine.run("env", env={"KEY": "value"}).stdout.splitlines()
    assert {"KEY=value", "LANG=C.UTF-8"} < set(lines)
    assert not any(line.startswith(("PYTEST", "VIRTUAL_ENV")) for line in lines)


def test_unprivileged_user_can_run_the_package(machine: Machine) -> None:
    asked = "import os, microvm_exporter; print(os.getuid())"
    said = machine.run(sys.executable, "-c", asked, user=EXPORTER_USER).stdout
    assert int(said) == machine.ids(EXPORTER_USER)[0] > 0


def test_signal_reaches_a_command_that_was_left_running(machine: Machine) -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    process = machine.popen("sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(5) == 7
    process.terminate()
    process.communicate()


def test_files_are_written_from_outside(machine: Machine) -> None:
    machine.write("/srv/a/b", "text\n", 0o640)
    machine.link("/srv/a/c", "b")
    machine.link("/srv/a/c", "/srv/a/b")
    assert machine.run("stat", "-c", "%a %N", "/srv/a/c").stdout == "777 '/srv/a/c' -> '/srv/a/b'\n"
    assert machine.run("cat", "/srv/a/c").stdout == machine.path("/srv/a/b").read_text()
    machine.remove("/srv/a")
    assert not machine.path("/srv/a").exists()


def test_port_is_forwarded(machine: Machine) -> None:
    serve = ["-m", "http.server", "8123", "--bind", "127.0.0.1", "--directory", "/etc"]
    server = machine.popen(sys.executable, "-u", *serve, stderr=subprocess.DEVNULL)
    assert server.stdout is not None
    server.stdout.readline()
    host, port = machine.forward(8123, outside=0)
    assert host == "127.0.0.1"
    with urllib.request.urlopen(f"http://{host}:{port}/passwd", timeout=10) as answer:
        assert answer.read() == machine.path("/etc/passwd").read_bytes()
    server.kill()
    server.communicate()
    with pytest.raises(OSError, match=r"refused|reset|closed"):
        urllib.request.urlopen(f"http://{host}:{port}/", timeout=10)


def test_machines_do_not_meet(machine: Machine) -> None:
    with Machine.boot() as other:
        leader = other.leader
        assert other.systemctl("is-system-running").strip() == "running"
        other.systemctl("stop", "dbus.service", "dbus.socket")
        other.run("ip", "tuntap", "add", "dev", "other0", "mode", "tap")
        assert machine.systemctl("is-active", "dbus.service").strip() == "active"
        assert "other0" not in machine.links()
        assert cgroups(other.name)
    assert not Path(f"/proc/{leader}").exists()
    assert cgroups(other.name) == []


def test_machine_ends_with_the_process_that_booted_it() -> None:
    boot = "from host import Machine; print(Machine.boot().leader, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", boot],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    leader = Path("/proc", process.stdout.readline().strip())
    assert (leader / "root/etc/passwd").exists()
    process.kill()
    process.communicate()
    eventually("the machine is gone", lambda: not (leader / "root/etc").exists())


def test_machine_that_does_not_boot_leaves_nothing() -> None:
    before = cgroups("")
    with pytest.raises(MachineError, match=r"host\d+-\d+ did not boot"):
        Machine.boot(timeout=0)
    assert cgroups("") == before


def test_missing_names_what_is_missing(machine: Machine) -> None:
    asked = "from host import Machine; print(Machine.missing())"
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    said = machine.run(sys.executable, "-c", asked, user=EXPORTER_USER, env=env).stdout
    assert said == "a disposable host needs root\n"


# What is normal


@pytest.mark.parametrize(
    ("origin", "state", "roots", "is_declared"),
    [
        (Origin.DECLARATIVE, {"current", "booted", "toplevel"}, [], True),
        (Origin.FLAKE, {"current", "booted", "flake"}, [], True),
        (Origin.DEPLOYED, {"current", "booted", "flake"}, [], True),
        (Origin.IMPERATIVE, {"current", "booted", "flake"}, ["booted-a.b", "a.b"], False),
        (Origin.INSTALLED_ON_HOST, {"current", "booted"}, ["old-a.b", "booted-a.b", "a.b"], False),
    ],
)
def test_origin_leaves_its_marks(
    fleet: Fleet, origin: Origin, state: set[str], roots: list[str], is_declared: bool
) -> None:
    fleet.declare(Vm("a.b", origin, autostart=False))
    fleet.switch()
    fleet.start("a.b")
    machine = fleet.machine
    assert names(machine, "/var/lib/microvms/a.b") == state
    assert names(machine, GCROOTS) == set(roots)
    unit_files = names(machine, "/etc/systemd/system")
    assert ("install-microvm-a.b.service" in unit_files) is is_declared
    assert ("microvm@a.b.service.d" in unit_files) is is_declared
    wanted = machine.show("microvms.target", "Wants")["Wants"]
    assert wanted == ("install-microvm-a.b.service" if is_declared else "")
    assert words(fleet, "a.b")["microvm"] == "active"


def test_deployed_vm_is_installed_once(fleet: Fleet) -> None:
    fleet.declare(Vm("vm", Origin.DEPLOYED))
    fleet.switch()
    first = fleet.vms["vm"].runner
    assert word(fleet, "install-microvm-vm.service") == "inactive"
    fleet.update("vm")
    fleet.switch()
    assert word(fleet, "install-microvm-vm.service") == "unmet"
    assert link(fleet, "vm", "current") == str(fleet.vms["vm"].runner) != str(first)
    assert fleet.declaration()["vms"]["vm"]["runner"] == str(first)


def test_running_vm_has_its_devices(fleet: Fleet) -> None:
    fleet.declare(
        Vm("plain", taps=("vm-plain",), macvtaps=("mv-plain",)),
        Vm("queues", taps=("vm-q0", "vm-q1"), multi_queue=True),
    )
    fleet.switch()
    taps = ("vm-plain", "vm-q0", "vm-q1")
    eventually("they are held open", lambda: all(has_carrier(fleet, tap) for tap in taps))
    links = fleet.machine.links()
    info = links["vm-plain"]["linkinfo"]["info_data"]
    assert (info["type"], info["persist"], info["user"]) == ("tap", True, "microvm")
    assert links["vm-q1"]["linkinfo"]["info_data"]["numqueues"] == 1
    assert links["mv-plain"]["linkinfo"]["info_kind"] == "macvtap"
    device = fleet.machine.path(f"/dev/tap{links['mv-plain']['ifindex']}")
    assert (device.stat().st_uid, device.stat().st_gid) == fleet.machine.ids("microvm")
    fleet.stop("plain", "queues")
    assert set(fleet.machine.links()) == {"lo", "uplink0"}


@pytest.mark.parametrize("fleet", ERAS, indirect=True, ids=lambda era: era.name)
def test_helpers_run_for_what_the_vm_has(fleet: Fleet) -> None:
    bare = Vm("bare")
    full = Vm("full", taps=("vm-t",), macvtaps=("vm-m",), virtiofs=("s",), pci=("0000:00:1f.2",))
    fleet.declare(bare, full)
    fleet.switch()
    helpers = set(RUNNING) - {"microvm", "microvm-set-booted"}
    assert {words(fleet, "bare")[helper] for helper in helpers} == {"unmet"}
    assert set(words(fleet, "full").values()) == {"active"}
    assert set(words(fleet, "full")) == set(RUNNING) - (
        set() if fleet.era is TODAY else {"microvm-set-booted"}
    )


@pytest.mark.parametrize(
    ("fleet", "tap_helper", "is_left"),
    [
        (SHARE_CONDITIONS, "inactive", False),
        (BEFORE_SET_BOOTED, "failed", True),
        (TODAY, "inactive", False),
    ],
    indirect=["fleet"],
)
def test_stop_of_a_vm_with_a_tap(fleet: Fleet, tap_helper: str, is_left: bool) -> None:
    run(fleet, FIREWALL)
    fleet.stop("firewall")
    assert words(fleet, "firewall")["microvm"] == "inactive"
    assert words(fleet, "firewall")["microvm-tap-interfaces"] == tap_helper
    assert ("vm-fw" in fleet.machine.links()) is is_left
    assert names(fleet.machine, FIREWALL.state) == {"current", "toplevel"}


def test_stop_fails_where_the_runner_has_no_shutdown_script(fleet: Fleet) -> None:
    fleet.declare(*(Vm(hypervisor, hypervisor=hypervisor) for hypervisor in Hypervisor))
    fleet.switch()
    fleet.stop(*fleet.vms)
    failed = {name for name, vm in fleet.vms.items() if word(fleet, vm.unit) == "failed"}
    assert failed == {"kvmtool", "stratovirt", "alioth"}


def test_light_vms_start_together(fleet: Fleet) -> None:
    vms = [Vm(f"vm{number}", taps=(f"vm-{number}",), light=True) for number in range(8)]
    fleet.declare(*vms)
    fleet.machine.systemctl("daemon-reload")
    fleet.start(*fleet.vms)
    assert {word(fleet, vm.unit) for vm in vms} == {"active"}
    assert {f"vm-{number}" for number in range(8)} < set(fleet.machine.links())


def test_declaration_names_what_is_declared(fleet: Fleet) -> None:
    web = Vm("web", Origin.FLAKE, False, Hypervisor.CROSVM, taps=("t",), macvtaps=("m",))
    fleet.declare(web, Vm("hand", Origin.IMPERATIVE))
    assert fleet.declaration(imperative=["hand"]) == {
        "version": 1,
        "state_dir": "/var/lib/microvms",
        "vms": {
            "web": {
                "origin": "flake",
                "autostart": False,
                "hypervisor": "crosvm",
                "runner": str(web.runner),
                "interfaces": [{"type": "tap", "id": "t"}, {"type": "macvtap", "id": "m"}],
            }
        },
        "imperative": ["hand"],
    }


def test_reset_leaves_an_empty_host(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    cases.delete_state_and_stop(fleet, "firewall")
    cases.leave_drop_in(fleet, "gone")
    fleet.reset()
    machine = fleet.machine
    assert set(machine.links()) == {"lo"}
    assert machine.systemctl("list-units", "--all", "--no-legend", "*microvm*.service") == ""
    folders = ("/etc/systemd/system.control", "/nix/store", "/var/lib/microvms", GCROOTS)
    assert set().union(*(names(machine, folder) for folder in folders)) == set()


# What is not normal


def test_undeclared_vm_runs_on(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.undeclare_running(fleet, "firewall")
    assert words(fleet, "firewall") == RUNNING
    assert fleet.machine.show(FIREWALL.unit, "DropInPaths")["DropInPaths"] == ""
    assert load_state(fleet, "install-microvm-firewall.service") == "not-found"
    mend()
    assert_removed(fleet, "firewall")


def test_undeclared_vm_leaves_its_state(fleet: Fleet) -> None:
    run(fleet, Vm("vm", Origin.FLAKE))
    mend = cases.undeclare_stopped(fleet, "vm")
    assert names(fleet.machine, "/var/lib/microvms/vm") == {"current", "flake"}
    assert listed(fleet, "vm") == set()
    mend()
    assert_removed(fleet, "vm")


def test_start_of_a_removed_vm_fails_before_its_condition_is_checked(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.start_removed(fleet, "firewall")
    booted = "microvm-set-booted@firewall.service"
    assert fleet.machine.show(booted, "ActiveState", "ExecMainStatus") == {
        "ActiveState": "failed",
        "ExecMainStatus": "200",
    }
    assert word(fleet, FIREWALL.unit) == "inactive"
    mend()
    assert_removed(fleet, "firewall")


@pytest.mark.parametrize("fleet", [SHARE_CONDITIONS, BEFORE_SET_BOOTED], indirect=True)
def test_start_of_a_removed_vm_on_older_units_is_skipped_and_forgotten(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    cases.start_removed(fleet, "firewall")
    said = fleet.machine.run("journalctl", "--output=cat", f"--unit={FIREWALL.unit}").stdout
    path = "ConditionPathExists=/var/lib/microvms/firewall/current/bin/microvm-run"
    last = said.splitlines()[-1]  # systemd 257 has no parentheses
    assert "unmet condition check" in last
    assert path in last
    assert listed(fleet, "firewall") == set()


def test_start_without_current_links_booted_to_itself(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.start_without_current(fleet, "firewall")
    assert link(fleet, "firewall", "booted") == "booted"
    assert words(fleet, "firewall") == {
        **dict.fromkeys(RUNNING, "unmet"),
        "microvm-set-booted": "active",
    }
    mend()
    assert words(fleet, "firewall") == RUNNING


def test_start_without_microvm_run_leaves_a_tap_without_a_vm(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.start_broken_runner(fleet, "firewall")
    assert words(fleet, "firewall") == {**RUNNING, "microvm": "unmet"}
    assert not has_carrier(fleet, "vm-fw")
    mend()
    assert words(fleet, "firewall") == RUNNING


@pytest.mark.parametrize("fleet", [BEFORE_SET_BOOTED, TODAY], indirect=True)
@pytest.mark.parametrize("taps", [(), ("vm-fw",)])
def test_old_runner_on_a_newer_host(fleet: Fleet, taps: tuple[str, ...]) -> None:
    run(fleet, Vm("vm", taps=taps, virtiofs=("keys",)))
    mend = cases.run_old_runner(fleet, "vm")
    found = words(fleet, "vm")
    runner = fleet.vms["vm"].runner
    assert names(fleet.machine, runner / "bin") == {"microvm-run", "microvm-shutdown"}
    assert names(fleet.machine, runner / "share/microvm") >= {"virtiofs", "tap-flags"}
    assert found["microvm-virtiofsd"] == found["microvm-tap-interfaces"] == "unmet"
    assert found["microvm"] == ("activating" if taps else "active")
    mend()
    assert words(fleet, "vm")["microvm-virtiofsd"] == "active"


def test_stop_after_the_state_is_gone_fails_and_leaks_the_tap(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.delete_state_and_stop(fleet, "firewall")
    failed = {name for name, word in words(fleet, "firewall").items() if word == "failed"}
    assert failed == {"microvm", "microvm-set-booted", "microvm-tap-interfaces"}
    assert "vm-fw" in fleet.machine.links()
    mend()
    assert words(fleet, "firewall") == RUNNING


def test_documented_removal_fails_and_the_safe_one_does_not(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.remove_as_documented(fleet, "firewall")
    assert word(fleet, "microvm-set-booted@firewall.service") == "failed"
    mend()
    run(fleet, FIREWALL)
    cases.remove_safely(fleet, "firewall")
    assert_removed(fleet, "firewall")


def test_helper_runs_without_its_vm(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.start_helper_alone(fleet, "firewall")
    assert words(fleet, "firewall")["microvm-virtiofsd"] == "active"
    assert words(fleet, "firewall")["microvm"] == "inactive"
    mend()
    assert words(fleet, "firewall") == RUNNING


def test_crash_loop_never_fails(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.crash_in_a_loop(fleet, "firewall")
    eventually("it is started again", lambda: restarts(fleet, "firewall") == 1)
    eventually("it crashes again", lambda: word(fleet, FIREWALL.unit) == "activating")
    mend()
    assert words(fleet, "firewall") == RUNNING
    assert restarts(fleet, "firewall") == 0


def test_failed_helper_keeps_the_vm_from_starting(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.fail_helper(fleet, "firewall")
    assert words(fleet, "firewall")["microvm-tap-interfaces"] == "failed"
    assert words(fleet, "firewall")["microvm"] == "inactive"
    mend()
    assert words(fleet, "firewall") == RUNNING


@pytest.mark.parametrize("origin", list(Origin))
def test_update_does_not_restart_the_vm(fleet: Fleet, origin: Origin) -> None:
    run(fleet, Vm("vm", origin))
    first = str(fleet.vms["vm"].runner)
    mend = cases.update_running(fleet, "vm")
    assert (link(fleet, "vm", "booted"), link(fleet, "vm", "current")) == (
        first,
        str(fleet.vms["vm"].runner),
    )
    assert link(fleet, "vm", "booted") != link(fleet, "vm", "current")
    mend()
    assert link(fleet, "vm", "booted") == link(fleet, "vm", "current")


def test_declared_runner_is_not_installed(fleet: Fleet) -> None:
    run(fleet, Vm("vm"))
    mend = cases.skip_install(fleet, "vm")
    assert link(fleet, "vm", "current") != fleet.declaration()["vms"]["vm"]["runner"]
    mend()
    assert link(fleet, "vm", "current") == fleet.declaration()["vms"]["vm"]["runner"]


@pytest.mark.parametrize(
    ("case", "lost", "vm_is"),
    [
        (cases.delete_state, "/var/lib/microvms/vm", "inactive"),
        (cases.break_runner, "{runner}/bin/microvm-run", "inactive"),
        (cases.collect_garbage, "{runner}", "active"),
        (cases.delete_tap, "/sys/class/net/vm-t", "active"),
    ],
)
def test_something_is_lost(
    fleet: Fleet, case: Callable[[Fleet, str], cases.Mend], lost: str, vm_is: str
) -> None:
    vm = Vm("vm", taps=("vm-t",))
    run(fleet, vm)
    lost = lost.format(runner=vm.runner)
    assert fleet.machine.path(lost).exists()
    mend = case(fleet, "vm")
    assert not fleet.machine.path(lost).exists()
    assert word(fleet, vm.unit) == vm_is
    mend()
    assert fleet.machine.path(lost).exists()
    assert word(fleet, vm.unit) == "active"


def test_links_of_a_stopped_vm_are_there(fleet: Fleet) -> None:
    run(fleet, Vm("vm", taps=("vm-t",), macvtaps=("vm-m",)))
    mend = cases.leak_links(fleet, "vm")
    assert word(fleet, "microvm@vm.service") == "inactive"
    assert {"vm-t", "vm-m"} < set(fleet.machine.links())
    mend()
    eventually("the VM has them", lambda: has_carrier(fleet, "vm-t"))


def test_tap_of_no_vm_has_the_owner_asked_for(fleet: Fleet) -> None:
    mends = [cases.add_tap(fleet, "vm-lost"), cases.add_tap(fleet, "vpn0", user="root")]
    links = fleet.machine.links()
    owners = {name: links[name]["linkinfo"]["info_data"]["user"] for name in ("vm-lost", "vpn0")}
    assert owners == {"vm-lost": "microvm", "vpn0": "root"}
    for mend in mends:
        mend()
    assert set(fleet.machine.links()) == {"lo"}


def test_roots_of_a_vm_made_by_hand_outlive_it(fleet: Fleet) -> None:
    run(fleet, Vm("vm", Origin.IMPERATIVE))
    mend = cases.leave_gcroots(fleet, "vm")
    assert names(fleet.machine, GCROOTS) == {"vm", "booted-vm"}
    assert names(fleet.machine, "/var/lib/microvms") == set()
    mend()
    assert names(fleet.machine, GCROOTS) == set()


def test_unit_files_outlive_their_vm(fleet: Fleet) -> None:
    mends = [cases.leave_drop_in(fleet, "gone"), cases.leave_wants_link(fleet, "lost")]
    shown = fleet.machine.show("microvm@gone.service", "MemoryMax")
    assert shown == {"MemoryMax": "1073741824"}
    wants = fleet.machine.path("/etc/systemd/system/microvms.target.wants")
    assert [wanted.exists() for wanted in wants.iterdir()] == [False]
    for mend in mends:
        mend()
    assert list(wants.iterdir()) == []
    assert fleet.machine.show("microvm@gone.service", "MemoryMax") == {"MemoryMax": "infinity"}


def test_changed_unit_file_needs_a_reload(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.change_unit_file(fleet, "firewall")
    assert fleet.machine.show(FIREWALL.unit, "NeedDaemonReload")["NeedDaemonReload"] == "yes"
    mend()
    assert fleet.machine.show(FIREWALL.unit, "NeedDaemonReload")["NeedDaemonReload"] == "no"


def test_templates_go_before_the_vms(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.remove_templates(fleet)
    assert words(fleet, "firewall")["microvm"] == "active"
    assert load_state(fleet, "microvm@another.service") == "not-found"
    mend()
    assert load_state(fleet, "microvm@another.service") == "loaded"


def test_autostarted_vm_is_started_by_the_next_switch(fleet: Fleet) -> None:
    run(fleet, FIREWALL)
    mend = cases.stop_autostarted(fleet, "firewall")
    assert words(fleet, "firewall")["microvm"] == "inactive"
    mend()
    cases.stop_autostarted(fleet, "firewall")
    fleet.switch()
    assert words(fleet, "firewall") == RUNNING


# How it is read


def run(fleet: Fleet, vm: Vm) -> None:
    """Declares a VM, and runs it."""
    fleet.declare(vm)
    fleet.switch()
    fleet.start(vm.name)


def words(fleet: Fleet, name: str) -> dict[str, str]:
    """Of each template the state of a VM's unit."""
    return {unit.split("@")[0]: word(fleet, unit) for unit in fleet.era.units(name)}


def word(fleet: Fleet, unit: str) -> str:
    """ActiveState, or `unmet` for an inactive unit whose last start its condition prevented."""
    shown = fleet.machine.show(unit, "ActiveState", "ConditionResult", "ConditionTimestamp")
    is_unmet = shown["ConditionResult"] == "no" and shown["ConditionTimestamp"]
    return "unmet" if shown["ActiveState"] == "inactive" and is_unmet else shown["ActiveState"]


def load_state(fleet: Fleet, unit: str) -> str:
    return fleet.machine.show(unit, "LoadState")["LoadState"]


def restarts(fleet: Fleet, name: str) -> int:
    return int(fleet.machine.show(f"microvm@{name}.service", "NRestarts")["NRestarts"])


def listed(fleet: Fleet, name: str) -> set[str]:
    """The units of a VM that are loaded."""
    pattern = f"*microvm*{name}.service"
    lines = fleet.machine.systemctl("list-units", "--all", "--plain", "--no-legend", pattern)
    return {line.split()[0] for line in lines.splitlines()}


def link(fleet: Fleet, vm: str, name: str) -> str:
    return str(fleet.machine.path(f"/var/lib/microvms/{vm}/{name}").readlink())


def names(machine: Machine, folder: str | os.PathLike[str]) -> set[str]:
    """The names in a folder; none when it is not there."""
    here = machine.path(os.fspath(folder))
    return {entry.name for entry in here.iterdir()} if here.exists() else set()


def has_carrier(fleet: Fleet, tap: str) -> bool:
    return fleet.machine.path(f"/sys/class/net/{tap}/carrier").read_text() == "1\n"


def assert_removed(fleet: Fleet, name: str) -> None:
    """Nothing of a VM is left: no unit, no state, no link of its."""
    assert listed(fleet, name) == set()
    assert names(fleet.machine, "/var/lib/microvms") == set()
    assert set(fleet.machine.links()) == {"lo"}


def cgroups(name: str) -> list[Path]:
    """The groups of machines that this process booted."""
    pattern = f"microvm-host-{os.getpid()}-*{name}"
    return sorted(group for parent in own_groups() for group in parent.glob(pattern))
