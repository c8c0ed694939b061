"""Every case of a real host, good and bad, and what the exporter at work in it finds.

The host boots once. Each case is brought about under a running exporter, which has to find exactly
what is expected within two intervals, and nothing once it is mended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from host import (
    BEFORE_SET_BOOTED,
    ERAS,
    SHARE_CONDITIONS,
    TODAY,
    Fleet,
    Hypervisor,
    Machine,
    Origin,
    Vm,
    cases,
)
from host.exporter import DECLARATION, Exporter, brief, check_json
from host.layout import GCROOTS, STATE, UNITS
from host.machine import eventually

Case = tuple[Callable[[Fleet], cases.Mend], list[str]]

WITH_DECLARATION = f"--declaration.file={DECLARATION}"

HEALTHY = (
    Vm("web", taps=("vm-web",), pci=("0000:00:1f.0",)),
    Vm("db", taps=("vm-db", "vm-db2"), multi_queue=True, virtiofs=("data",)),
    Vm("dotted.name", macvtaps=("mv-dot",)),
    Vm("hypervisor", hypervisor=Hypervisor.CLOUD_HYPERVISOR, hostname="guest"),
    Vm("spare", autostart=False, taps=("vm-spare",)),
    Vm("flake", Origin.FLAKE, taps=("vm-flake",)),
    Vm("deployed", Origin.DEPLOYED, taps=("vm-dep",)),
    Vm("scratch", Origin.IMPERATIVE, taps=("vm-scr",)),
    Vm("pushed", Origin.INSTALLED_ON_HOST),
    Vm("off", Origin.IMPERATIVE, autostart=False),
)

FLEET = (
    Vm("web", taps=("vm-web",)),
    Vm("files", virtiofs=("data",)),
    Vm("flake", Origin.FLAKE),
    Vm("spare", autostart=False, taps=("vm-spare",), macvtaps=("mv-spare",)),
    Vm("scratch", Origin.IMPERATIVE, autostart=False),
)


def state(name: str, member: str = "") -> str:
    return str(STATE / name / member)


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    """A small healthy host: one VM of each kind that the cases need."""
    fleet.declare(*FLEET)
    fleet.switch()
    fleet.settle()
    eventually("all run", lambda: all_run(fleet), 30)  # one may be waiting for its second start
    return fleet


def all_run(fleet: Fleet) -> bool:
    units = [vm.unit for vm in fleet.vms.values() if vm.autostart]
    shown = fleet.machine.systemctl("show", "--property=ActiveState", "--value", *units)
    return set(shown.split()) == {"active"}


@pytest.fixture
def exporter(running: Fleet) -> Iterator[Exporter]:
    running.write_declaration(DECLARATION)
    with Exporter(running.machine, WITH_DECLARATION) as exporter:
        yield exporter


CASES: dict[str, Case] = {
    "undeclare running": (
        partial(cases.undeclare_running, name="web"),
        ["warning undeclared_running web microvm@web.service"],
    ),
    "undeclare stopped": (
        partial(cases.undeclare_stopped, name="web"),
        [f"info undeclared_state web {state('web')}"],
    ),
    "undeclare stopped flake": (
        partial(cases.undeclare_stopped, name="flake"),
        [f"info origin_unknown flake {state('flake')}"],
    ),
    "start removed": (
        partial(cases.start_removed, name="web"),
        [
            "info undeclared_unit web microvm@web.service",
            "warning unit_failed web microvm-set-booted@web.service",
        ],
    ),
    "delete state and stop": (
        partial(cases.delete_state_and_stop, name="web"),
        [
            f"critical missing_state web {state('web', 'current')}",
            "critical not_running web microvm@web.service",
            "warning stray_tap web vm-web",
            "warning unit_failed web microvm-set-booted@web.service",
            "warning unit_failed web microvm-tap-interfaces@web.service",
            "warning unit_failed web microvm@web.service",
            f"warning would_not_start web {state('web', 'current/bin/microvm-run')}",
            f"warning would_not_start web {state('web', 'current/bin/tap-up')}",
        ],
    ),
    "delete state": (
        partial(cases.delete_state, name="files"),
        [
            f"critical missing_state files {state('files', 'current')}",
            "critical not_running files microvm@files.service",
            f"warning would_not_start files {state('files', 'current/bin/microvm-run')}",
        ],
    ),
    "leave gcroots": (
        partial(cases.leave_gcroots, name="scratch"),
        [
            f"warning dangling_link scratch {GCROOTS}/booted-scratch",
            f"warning dangling_link scratch {GCROOTS}/scratch",
        ],
    ),
    "leave drop-in": (
        partial(cases.leave_drop_in, name="gone"),
        [
            "info residual_unit_file gone "
            "/etc/systemd/system.control/microvm@gone.service.d/50-MemoryMax.conf"
        ],
    ),
    "leave wants link": (
        partial(cases.leave_wants_link, name="gone"),
        [
            f"info residual_unit_file gone {UNITS}/microvms.target.wants/"
            "install-microvm-gone.service"
        ],
    ),
    "start without current": (
        partial(cases.start_without_current, name="web"),
        [
            "critical condition_unmet web microvm@web.service",
            f"critical missing_state web {state('web', 'current')}",
            "critical not_running web microvm@web.service",
            "warning condition_unmet web microvm-tap-interfaces@web.service",
            f"warning dangling_link web {state('web', 'booted')}",
            "warning helper_without_vm web microvm-set-booted@web.service",
        ],
    ),
    "collect garbage": (
        partial(cases.collect_garbage, name="files"),
        [
            f"warning dangling_link files {state('files', 'booted')}",
            f"warning dangling_link files {state('files', 'current')}",
            f"warning would_not_start files {state('files', 'current/bin/microvm-run')}",
        ],
    ),
    "break runner": (
        partial(cases.break_runner, name="spare"),
        [f"warning would_not_start spare {state('spare', 'current/bin/microvm-run')}"],
    ),
    "start broken runner": (
        partial(cases.start_broken_runner, name="web"),
        [
            "critical condition_unmet web microvm@web.service",
            "critical not_running web microvm@web.service",
            "warning helper_without_vm web microvm-set-booted@web.service",
            "warning helper_without_vm web microvm-tap-interfaces@web.service",
        ],
    ),
    "run old runner": (
        partial(cases.run_old_runner, name="files"),
        ["warning condition_unmet files microvm-virtiofsd@files.service"],
    ),
    "update running": (
        partial(cases.update_running, name="web"),
        [f"info restart_pending web {state('web', 'booted')}"],
    ),
    "skip install": (
        partial(cases.skip_install, name="flake"),
        [f"warning outdated flake {state('flake', 'current')}"],
    ),
    "stop autostarted": (
        partial(cases.stop_autostarted, name="web"),
        ["critical not_running web microvm@web.service"],
    ),
    "crash in a loop": (
        partial(cases.crash_in_a_loop, name="files"),
        ["critical not_running files microvm@files.service"],
    ),
    "fail helper": (
        partial(cases.fail_helper, name="web"),
        [
            "critical not_running web microvm@web.service",
            "warning helper_without_vm web microvm-set-booted@web.service",
            "warning unit_failed web microvm-tap-interfaces@web.service",
        ],
    ),
    "start helper alone": (
        partial(cases.start_helper_alone, name="files"),
        [
            "critical not_running files microvm@files.service",
            "warning helper_without_vm files microvm-virtiofsd@files.service",
        ],
    ),
    "change unit file": (
        partial(cases.change_unit_file, name="web"),
        ["info daemon_reload_needed web microvm@web.service"],
    ),
    "leak links": (
        partial(cases.leak_links, name="spare"),
        ["warning stray_macvtap spare mv-spare", "warning stray_tap spare vm-spare"],
    ),
    "leak TAP": (
        partial(cases.add_tap, tap="vm-leak"),
        ["warning stray_tap - vm-leak"],
    ),
    "foreign TAP": (partial(cases.add_tap, tap="vpn0", user="root"), []),
    "delete TAP": (
        partial(cases.delete_tap, name="web"),
        ["critical missing_interface web vm-web"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_findings_when_case_comes_and_goes(name: str, running: Fleet, exporter: Exporter) -> None:
    bring_about, expected = CASES[name]
    mend = bring_about(running)
    running.write_declaration(DECLARATION)
    assert_findings(exporter, expected)
    mend()
    running.settle()
    running.write_declaration(DECLARATION)
    assert_findings(exporter, [])


def assert_findings(exporter: Exporter, expected: list[str]) -> None:
    """They are there after two intervals, and still after one more."""
    for intervals in (2, 1):
        exporter.refresh(intervals)
        assert exporter.findings() == expected


def test_findings_when_removed_as_documented(running: Fleet, exporter: Exporter) -> None:
    """Both commands at once: set-booted always fails, luck decides about the TAP and its helper."""
    mend = cases.remove_as_documented(running, "web")
    running.write_declaration(DECLARATION)
    expected = [
        "info undeclared_unit web microvm@web.service",
        "warning unit_failed web microvm-set-booted@web.service",
    ]
    tap_helper = "microvm-tap-interfaces@web.service"
    if running.machine.show(tap_helper, "ActiveState") == {"ActiveState": "failed"}:
        expected.append(f"warning unit_failed web {tap_helper}")
    if "vm-web" in running.machine.links():
        expected.append("warning stray_tap - vm-web")
    assert_findings(exporter, sorted(expected))
    mend()
    assert_findings(exporter, [])


def test_findings_when_removed_safely(running: Fleet, exporter: Exporter) -> None:
    cases.remove_safely(running, "web")
    running.write_declaration(DECLARATION)
    assert_findings(exporter, [])


def test_templates_without_vms(running: Fleet, exporter: Exporter) -> None:
    for vm in FLEET:
        cases.remove_safely(running, vm.name)
    running.write_declaration(DECLARATION)
    templates = sorted(f"info unused_template - {template}@" for template in TODAY.templates)
    assert_findings(exporter, templates)
    running.declare(Vm("new"))
    running.switch()
    running.write_declaration(DECLARATION)
    assert_findings(exporter, [])


def test_vms_without_templates(running: Fleet, exporter: Exporter) -> None:
    mend = cases.remove_templates(running)
    exporter.refresh(2)
    missing = [line for line in exporter.findings() if "missing_unit" in line]
    declared = sorted(vm.name for vm in FLEET if vm.origin.is_declared)
    assert missing == [f"critical missing_unit {name} microvm@{name}.service" for name in declared]
    mend()
    running.switch()
    running.settle()
    assert_findings(exporter, [])


# ----------------------------------------------------------------------------------- remedies

# What a command cannot bring back: the runner itself, or a unit's file.
NOT_MENDED_BY_COMMANDS = {
    "break runner",
    "collect garbage",
    "crash in a loop",
    "fail helper",
    "leave gcroots",
    "leave wants link",
    "run old runner",
    "start broken runner",
}


@pytest.mark.parametrize("fleet", [TODAY, BEFORE_SET_BOOTED], indirect=True, ids=lambda e: e.name)
@pytest.mark.parametrize("name", CASES)
def test_remedies_when_pasted_in_the_order_in_which_they_are_printed(
    name: str, running: Fleet
) -> None:
    """They mend, in at most two rounds, and never make anything worse."""
    machine = running.machine
    CASES[name][0](running)
    running.write_declaration(DECLARATION)
    before = check_json(machine, WITH_DECLARATION)[1]["findings"]
    after = before
    for _ in range(2):
        if not after:
            break
        for remedy in dict.fromkeys(finding["remedy"] for finding in after):
            machine.run("sh", input=remedy, check=False)
        running.settle()
        after = check_json(machine, WITH_DECLARATION)[1]["findings"]
    if name in NOT_MENDED_BY_COMMANDS:
        assert set(brief(after)) <= set(brief(before))
    else:
        assert brief(after) == []


def test_remedy_when_pasted_for_a_name_with_a_backslash(running: Fleet) -> None:
    """No VM is declared by such a name, but `systemd-escape` makes them."""
    machine = running.machine
    machine.systemctl("start", "microvm-set-booted@a\\x2db.service", check=False)
    findings = check_json(machine)[1]["findings"]
    assert brief(findings) == [
        "info undeclared_unit a\\x2db microvm@a\\x2db.service",
        "warning unit_failed a\\x2db microvm-set-booted@a\\x2db.service",
    ]
    for finding in findings:
        machine.run("sh", input=finding["remedy"], check=False)
    assert check_json(machine)[1]["findings"] == []


# ------------------------------------------------------------------------------------- normal


@pytest.mark.parametrize("fleet", ERAS, indirect=True, ids=lambda era: era.name)
@pytest.mark.parametrize("flags", [(), (WITH_DECLARATION,)], ids=["host's units", "file"])
def test_no_finding_when_healthy(fleet: Fleet, flags: tuple[str, ...]) -> None:
    """Ten VMs of all origins, half an hour's life of them in a few seconds."""
    fleet.declare(*HEALTHY)
    fleet.switch()
    fleet.settle()
    fleet.write_declaration(DECLARATION)
    with Exporter(fleet.machine, *flags) as exporter:
        assert_findings(exporter, [])
        assert exporter.value("microvm_declared_vms") == sum(v.origin.is_declared for v in HEALTHY)
        assert exporter.value("microvm_present_units", template="microvm@", state="active") == 8
        checks = exporter.samples()["microvm_failed_condition_checks"]
        assert [value for _, value in checks] == [0] * 7
        assert exporter.value("microvm_stray_tap_devices") == 0
        fleet.machine.systemctl("daemon-reload")
        fleet.restart("web", "db")
        fleet.settle()
        assert_findings(exporter, [])


@pytest.mark.parametrize("fleet", [TODAY, SHARE_CONDITIONS], indirect=True, ids=lambda e: e.name)
def test_no_finding_when_stopped(fleet: Fleet) -> None:
    """VMs that are not autostarted are stopped, one with a hypervisor that has no shutdown."""
    fleet.declare(
        Vm("spare", autostart=False, taps=("vm-spare",)),
        Vm("tool", autostart=False, hypervisor=Hypervisor.KVMTOOL),
        Vm("hand", Origin.IMPERATIVE, autostart=False, macvtaps=("mv-hand",)),
    )
    fleet.switch()
    with Exporter(fleet.machine) as exporter:
        for _ in range(2):
            fleet.start("spare", "tool", "hand")
            fleet.settle()
            assert_findings(exporter, [])
            fleet.stop("spare", "tool", "hand")
            assert_findings(exporter, [])


@pytest.mark.parametrize("fleet", [BEFORE_SET_BOOTED], indirect=True, ids=lambda e: e.name)
def test_failed_tap_helper_is_normal_before_set_booted_but_its_leaked_tap_is_not(
    fleet: Fleet,
) -> None:
    fleet.declare(Vm("spare", autostart=False, taps=("vm-spare",)))
    fleet.switch()
    with Exporter(fleet.machine) as exporter:
        fleet.start("spare")
        fleet.stop("spare")
        failed = fleet.machine.show("microvm-tap-interfaces@spare.service", "ActiveState")
        assert failed == {"ActiveState": "failed"}
        assert_findings(exporter, ["warning stray_tap spare vm-spare"])


@pytest.mark.parametrize("fleet", [BEFORE_SET_BOOTED], indirect=True, ids=lambda e: e.name)
def test_start_of_a_removed_vm_is_remembered_on_older_units(fleet: Fleet) -> None:
    """microvm.nix #181: systemd forgets the unit and its unmet condition a moment later."""
    fleet.declare(Vm("firewall", autostart=False), Vm("other"))
    fleet.switch()
    with Exporter(fleet.machine) as exporter:
        cases.start_removed(fleet, "firewall")
        loaded = fleet.machine.systemctl("list-units", "--all", "--plain", "microvm@firewall*")
        assert "microvm@firewall" not in loaded
        assert_findings(exporter, ["critical condition_unmet firewall microvm@firewall.service"])
        checks = exporter.value("microvm_failed_condition_checks", template="microvm@")
        assert checks == 1


# -------------------------------------------------------------------------------------- check


def test_check_agrees_with_serve_and_removal_by_its_remedy_mends(running: Fleet) -> None:
    """The remedy is pasted as it is printed."""
    machine = running.machine
    running.write_declaration(DECLARATION)
    assert check_json(machine, WITH_DECLARATION)[0] == 0
    cases.undeclare_running(running, "web")
    cases.add_tap(running, "vm-leak")
    running.write_declaration(DECLARATION)
    status, report = check_json(machine, WITH_DECLARATION)
    assert (status, report["status"]) == (1, "drift")
    assert brief(report["findings"]) == [
        "warning stray_tap - vm-leak",
        "warning undeclared_running web microvm@web.service",
    ]
    for finding in report["findings"]:
        machine.run("sh", "-e", input=finding["remedy"])
    assert check_json(machine, WITH_DECLARATION) == (
        0,
        {
            "version": 1,
            "status": "clean",
            "counts": {
                "declared_vms": 3,
                "present_units": _loaded(machine),
                "failed_condition_checks": 0,
                "stray_tap_devices": 0,
            },
            "collectors": {
                name: {"success": True, "error": None}
                for name in ("declaration", "systemd", "links", "state")
            },
            "findings": [],
        },
    )


def _loaded(machine: Machine) -> int:
    patterns = ("microvm@*.service", "microvm-*@*.service", "install-microvm-*.service")
    listing = machine.systemctl("list-units", "--all", "--plain", "--no-legend", *patterns)
    return sum("not-found" not in line for line in listing.splitlines())
