"""Every kind of drift, and everything that is normal, on hosts put together from records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from microvm_exporter.drift import RULES, Kind, Severity, judge
from microvm_exporter.model import (
    Collector,
    FailedCheck,
    LinkKind,
    Origin,
    Runner,
    Symlink,
    Template,
    UnitFile,
    UnitFileKind,
    VmState,
)
from world import NOW, STATE, World, brief, healthy_world, make_unit, runner_path, tap, unmet

Case = tuple[str, Callable[[World], None], list[str]]


def _undeclared_running(world: World) -> None:
    world.undeclare("web")


def _crash_loop_of_an_undeclared_vm(world: World) -> None:
    world.undeclare("plain")
    world.change_unit("microvm@plain.service", active_state="activating", sub_state="auto-restart")


def _removed_firewall(world: World) -> None:
    """The host of microvm.nix #181: stopped, undeclared, deleted, and started again."""
    world.units["microvm@firewall.service"] = unmet(make_unit(Template.MICROVM, "firewall"))


def _start_of_a_removed_vm(world: World) -> None:
    """Today's units: set-booted fails, and the condition of microvm@ is never tested."""
    world.units["microvm-set-booted@gone.service"] = make_unit(
        Template.SET_BOOTED, "gone", "failed", result="exit-code", exec_main_status=200
    )
    world.units["microvm@gone.service"] = make_unit(Template.MICROVM, "gone", "inactive")


def _undeclared_state(world: World) -> None:
    world.stop("plain")
    world.undeclare("plain")
    world.stop("plain")


def _removed_flake_vm(world: World) -> None:
    world.undeclare("flake")
    world.stop("flake")


def _no_template(world: World) -> None:
    del world.templates[Template.MICROVM]
    world.change_unit("microvm@plain.service", load_state="not-found")
    for name in list(world.declared):
        if name not in ("plain",):
            world.undeclare(name)
            world.imperative.add(name)
    world.units.pop("install-microvm-plain.service")


def _masked(world: World) -> None:
    world.change_unit("microvm@plain.service", load_state="masked")


def _state_deleted(world: World) -> None:
    world.stop("spare")
    del world.vms["spare"]


def _without_current(world: World) -> None:
    """A start makes `booted` a link to itself, and the condition of microvm@ is unmet."""
    world.stop("plain")
    path = f"{STATE}/plain"
    world.vms["plain"] = VmState(
        "plain", path, booted=Symlink(f"{path}/booted", "booted", dangling=True)
    )
    world.units["microvm@plain.service"] = unmet(make_unit(Template.MICROVM, "plain"))


def _without_microvm_run(world: World) -> None:
    """A TAP without a VM: its helper stays active."""
    world.change_state("web", current_runner=Runner(frozenset({"bin/tap-up"}), (tap("vm-web"),)))
    world.units["microvm@web.service"] = unmet(world.units["microvm@web.service"])


def _old_runner_on_a_new_host(world: World) -> None:
    files = frozenset({"bin/microvm-run", "share/microvm/tap-interfaces"})
    world.change_state("web", current_runner=Runner(files, (tap("vm-web"),)))
    unit = "microvm-tap-interfaces@web.service"
    world.units[unit] = unmet(world.units[unit])
    del world.links["vm-web"]


def _would_not_start(world: World) -> None:
    world.change_state("spare", current_runner=Runner(frozenset()))


def _autostarted_and_stopped(world: World) -> None:
    world.stop("plain")


def _crash_loop(world: World) -> None:
    world.change_unit(
        "microvm@plain.service", active_state="activating", sub_state="auto-restart", restarts=41
    )


def _start_limit_hit(world: World) -> None:
    world.stop("spare")
    world.units["microvm@spare.service"] = make_unit(
        Template.MICROVM, "spare", "failed", result="start-limit-hit", exec_main_status=1
    )


def _tap_up_failed(world: World) -> None:
    world.units["microvm-tap-interfaces@spare.service"] = make_unit(
        Template.TAP, "spare", "failed", result="exit-code", exec_main_status=1
    )


def _updated_and_not_restarted(world: World) -> None:
    path = f"{STATE}/web/current"
    world.change_state("web", current=Symlink(path, runner_path("web", 2), dangling=False))
    world.declared["web"] = replace(world.declared["web"], runner=runner_path("web", 2))


def _restart_pending_with_a_new_tap(world: World) -> None:
    """The VM that runs has no such TAP: it needs a restart, not a device."""
    _updated_and_not_restarted(world)
    interfaces = (tap("vm-web"), tap("vm-new"))
    world.declared["web"] = replace(world.declared["web"], interfaces=interfaces)
    runner = world.vms["web"].current_runner or Runner()
    world.change_state("web", current_runner=replace(runner, interfaces=interfaces))


def _outdated(world: World) -> None:
    world.declared["flake"] = replace(world.declared["flake"], runner=runner_path("flake", 2))
    world.declared["deployed"] = replace(
        world.declared["deployed"], runner=runner_path("deployed", 2)
    )


def _dangling_toplevel_and_gcroot(world: World) -> None:
    toplevel = world.vms["plain"].toplevel
    assert toplevel
    world.change_state("plain", toplevel=replace(toplevel, dangling=True))
    world.gcroots["off"] = replace(world.gcroots["off"], dangling=True)


def _gcroots_of_a_deleted_vm(world: World) -> None:
    del world.vms["off"]
    world.gcroots["off"] = replace(world.gcroots["off"], dangling=True)


def _virtiofsd_without_vm(world: World) -> None:
    world.stop("spare")
    world.units["microvm-virtiofsd@spare.service"] = make_unit(Template.VIRTIOFSD, "spare")


def _missing_tap(world: World) -> None:
    del world.links["vm-db2"]


def _missing_macvtap_is_another_kind(world: World) -> None:
    del world.links["mv-dot"]
    world.link("mv-dot", LinkKind.TAP, ours=False)


def _leaked_tap(world: World) -> None:
    world.link("vm-leak")


def _leaked_tap_of_a_stopped_vm(world: World) -> None:
    world.stop("scratch")
    world.link("vm-scr")


def _leaked_macvtap(world: World) -> None:
    world.link("mv-leak", LinkKind.MACVTAP)
    world.link("mv-foreign", LinkKind.MACVTAP, ours=False)


def _foreign_macvtap_that_metadata_names(world: World) -> None:
    world.stop("dotted.name")
    world.link("mv-dot", LinkKind.MACVTAP, ours=False)


def _residual_files(world: World) -> None:
    base = "/etc/systemd/system"
    world.unit_files += [
        UnitFile(
            f"{base}/microvm@old.service.d/x.conf",
            UnitFileKind.DROP_IN,
            "microvm@old.service",
            "old",
        ),
        UnitFile(
            f"{base}/microvms.target.wants/microvm@plain.service",
            UnitFileKind.WANTS,
            "microvm@plain.service",
            "plain",
            dangling=True,
        ),
    ]


def _needs_reload(world: World) -> None:
    world.change_unit("microvm@plain.service", need_daemon_reload=True)


def _forgotten_failed_check(world: World) -> None:
    unit = "microvm@old.service"
    world.failed_checks[unit] = FailedCheck(unit, NOW - 900)


DRIFT: list[Case] = [
    (
        "undeclared running",
        _undeclared_running,
        ["warning undeclared_running web microvm@web.service"],
    ),
    (
        "crash loop of an undeclared VM",
        _crash_loop_of_an_undeclared_vm,
        ["warning undeclared_running plain microvm@plain.service"],
    ),
    (
        "removed firewall",
        _removed_firewall,
        [
            "critical condition_unmet firewall microvm@firewall.service",
            "info undeclared_unit firewall microvm@firewall.service",
        ],
    ),
    (
        "start of a removed VM",
        _start_of_a_removed_vm,
        [
            "warning unit_failed gone microvm-set-booted@gone.service",
            "info undeclared_unit gone microvm@gone.service",
        ],
    ),
    ("undeclared state", _undeclared_state, [f"info undeclared_state plain {STATE}/plain"]),
    ("removed flake VM", _removed_flake_vm, [f"info origin_unknown flake {STATE}/flake"]),
    ("no template", _no_template, ["critical missing_unit plain microvm@plain.service"]),
    ("masked", _masked, ["critical missing_unit plain microvm@plain.service"]),
    (
        "state deleted",
        _state_deleted,
        [
            f"critical missing_state spare {STATE}/spare/current",
            f"warning would_not_start spare {STATE}/spare/current/bin/microvm-run",
        ],
    ),
    (
        "state without current",
        _without_current,
        [
            "critical condition_unmet plain microvm@plain.service",
            f"critical missing_state plain {STATE}/plain/current",
            "critical not_running plain microvm@plain.service",
            f"warning dangling_link plain {STATE}/plain/booted",
        ],
    ),
    (
        "runner without microvm-run",
        _without_microvm_run,
        [
            "critical condition_unmet web microvm@web.service",
            "critical not_running web microvm@web.service",
            "warning helper_without_vm web microvm-set-booted@web.service",
            "warning helper_without_vm web microvm-tap-interfaces@web.service",
        ],
    ),
    (
        "old runner on a new host",
        _old_runner_on_a_new_host,
        [
            "critical missing_interface web vm-web",
            "warning condition_unmet web microvm-tap-interfaces@web.service",
        ],
    ),
    (
        "would not start",
        _would_not_start,
        [f"warning would_not_start spare {STATE}/spare/current/bin/microvm-run"],
    ),
    (
        "autostarted and stopped",
        _autostarted_and_stopped,
        ["critical not_running plain microvm@plain.service"],
    ),
    ("crash loop", _crash_loop, ["critical not_running plain microvm@plain.service"]),
    ("start limit hit", _start_limit_hit, ["warning unit_failed spare microvm@spare.service"]),
    (
        "tap-up failed",
        _tap_up_failed,
        ["warning unit_failed spare microvm-tap-interfaces@spare.service"],
    ),
    (
        "updated and not restarted",
        _updated_and_not_restarted,
        [f"info restart_pending web {STATE}/web/booted"],
    ),
    (
        "restart pending with a new TAP",
        _restart_pending_with_a_new_tap,
        [f"info restart_pending web {STATE}/web/booted"],
    ),
    ("outdated", _outdated, [f"warning outdated flake {STATE}/flake/current"]),
    (
        "dangling toplevel and gcroot",
        _dangling_toplevel_and_gcroot,
        [
            "warning dangling_link off /gcroots/off",
            f"warning dangling_link plain {STATE}/plain/toplevel",
        ],
    ),
    (
        "gcroots of a deleted VM",
        _gcroots_of_a_deleted_vm,
        [
            "warning dangling_link off /gcroots/booted-off",
            "warning dangling_link off /gcroots/off",
        ],
    ),
    (
        "virtiofsd without VM",
        _virtiofsd_without_vm,
        ["warning helper_without_vm spare microvm-virtiofsd@spare.service"],
    ),
    ("missing TAP", _missing_tap, ["critical missing_interface db vm-db2"]),
    (
        "missing macvtap",
        _missing_macvtap_is_another_kind,
        ["critical missing_interface dotted.name mv-dot"],
    ),
    ("leaked TAP", _leaked_tap, ["warning stray_tap - vm-leak"]),
    (
        "leaked TAP of a stopped VM",
        _leaked_tap_of_a_stopped_vm,
        ["warning stray_tap scratch vm-scr"],
    ),
    ("leaked macvtap", _leaked_macvtap, ["warning stray_macvtap - mv-leak"]),
    (
        "macvtap that metadata names",
        _foreign_macvtap_that_metadata_names,
        [
            "critical not_running dotted.name microvm@dotted.name.service",
            "warning stray_macvtap dotted.name mv-dot",
        ],
    ),
    (
        "residual files",
        _residual_files,
        [
            "info residual_unit_file old /etc/systemd/system/microvm@old.service.d/x.conf",
            "info residual_unit_file plain "
            "/etc/systemd/system/microvms.target.wants/microvm@plain.service",
        ],
    ),
    ("daemon-reload", _needs_reload, ["info daemon_reload_needed plain microvm@plain.service"]),
    (
        "forgotten failed check",
        _forgotten_failed_check,
        ["critical condition_unmet old microvm@old.service"],
    ),
]


@pytest.mark.parametrize(("spoil", "expected"), [c[1:] for c in DRIFT], ids=[c[0] for c in DRIFT])
def test_drift_when_spoiled(spoil: Callable[[World], None], expected: list[str]) -> None:
    world = healthy_world()
    spoil(world)
    assert brief(world.judge().findings) == expected


def test_drift_cases_cover_every_kind() -> None:
    covered = {line.split()[1] for _, _, lines in DRIFT for line in lines}
    assert covered | {Kind.UNUSED_TEMPLATE} == set(Kind)


def test_unused_template_when_no_vm_is_left() -> None:
    world = World(templates={Template.MICROVM: (), Template.TAP: ()})
    assert brief(world.judge().findings) == [
        "info unused_template - microvm-tap-interfaces@",
        "info unused_template - microvm@",
    ]


# ------------------------------------------------------------------------------------- normal


def _stopped_vm_that_failed_as_on_old_hosts(world: World) -> None:
    """2024-12-03 to 2026-02-21: tap-down ran after `booted` was gone."""
    del world.templates[Template.SET_BOOTED]
    world.stop("spare")
    for template in (Template.TAP, Template.MACVTAP):
        unit = make_unit(template, "spare", "failed", result="exit-code")
        world.units[unit.name] = unit


def _stopped_vm_without_microvm_shutdown(world: World) -> None:
    runner = Runner(frozenset({"bin/microvm-run"}), hypervisor="kvmtool")
    world.change_state("spare", current_runner=runner)
    unit = make_unit(Template.MICROVM, "spare", "failed", result="exit-code", exec_main_status=143)
    world.units[unit.name] = unit


def _layout_before_tap_up(world: World) -> None:
    """2022-08 to 2024-12: the helpers tested the metadata files."""
    del world.templates[Template.SET_BOOTED]
    for template, member in {
        Template.TAP: "tap-interfaces",
        Template.MACVTAP: "macvtap-interfaces",
        Template.PCI: "pci-devices",
        Template.VIRTIOFSD: "virtiofs",
    }.items():
        world.templates[template] = (f"{STATE}/%i/current/share/microvm/{member}",)
    for name, state in world.vms.items():
        runner = state.current_runner or Runner()
        world.change_state(
            name,
            current_runner=replace(runner, files=runner.files - {"bin/tap-up", "bin/macvtap-up"}),
        )


def _listed_imperative(world: World) -> None:
    world.add("handmade", Origin.IMPERATIVE, interfaces=(tap("vm-hand"),), autostart=False)
    del world.gcroots["handmade"]
    del world.booted_gcroots["handmade"]
    world.imperative.add("handmade")


def _deployed_on_host(world: World) -> None:
    world.add("pushed", Origin.IMPERATIVE)
    world.change_state("pushed", flake=False)


def _foreign_devices(world: World) -> None:
    world.link("vpn0", ours=False)
    world.link("qemu0", persistent=False)


def _stopped_with_a_job_to_start(world: World) -> None:
    world.stop("plain")
    world.change_unit("microvm@plain.service", job=True)


def _vm_in_the_middle_of_a_stop(world: World) -> None:
    world.undeclare("plain")
    world.change_unit(
        "microvm@plain.service", active_state="deactivating", sub_state="stop-sigterm", job=True
    )


def _state_deleted_under_a_declared_vm_that_runs(world: World) -> None:
    world.undeclare("web")
    world.imperative.add("web")
    del world.vms["web"]


NORMAL: list[tuple[str, Callable[[World], None], int]] = [
    ("healthy", lambda world: None, 2),
    ("failed stop on old hosts", _stopped_vm_that_failed_as_on_old_hosts, 2),
    ("no microvm-shutdown", _stopped_vm_without_microvm_shutdown, 2),
    ("layout before tap-up", _layout_before_tap_up, 2),
    ("listed imperative", _listed_imperative, 2),
    ("deployed on host", _deployed_on_host, 2),
    ("foreign devices", _foreign_devices, 2),
    ("a start job, in one look", _stopped_with_a_job_to_start, 1),
    ("a leaked TAP, in one look", _leaked_tap, 1),
    ("a helper without its VM, in one look", _virtiofsd_without_vm, 1),
    ("in the middle of a stop", _vm_in_the_middle_of_a_stop, 2),
]


@pytest.mark.parametrize(("change", "looks"), [c[1:] for c in NORMAL], ids=[c[0] for c in NORMAL])
def test_no_drift_when_normal(change: Callable[[World], None], looks: int) -> None:
    world = healthy_world()
    change(world)
    assert brief(world.judge(looks).findings) == []


# ------------------------------------------------------------------------------------- memory


def test_job_excuses_what_is_new_for_a_minute() -> None:
    world = healthy_world()
    judgement = judge(world.snapshot())
    _stopped_with_a_job_to_start(world)
    found = {}
    for seconds in (0, 15, 45, 60, 75):
        judgement = judge(replace(world.snapshot(), taken_at=NOW + seconds), judgement)
        found[seconds] = brief(judgement.findings)
    down = ["critical not_running plain microvm@plain.service"]
    assert found == {0: [], 15: [], 45: [], 60: down, 75: down}


def test_finding_lasts_when_a_job_begins() -> None:
    world = healthy_world()
    _outdated(world)
    first = judge(world.snapshot())
    world.change_unit("microvm@flake.service", job=True)
    second = judge(world.snapshot(), first)
    assert second.findings == first.findings != ()
    assert not second.unconfirmed


def test_candidate_is_kept_while_its_source_is_unknown() -> None:
    world = healthy_world()
    _leaked_tap(world)
    first = judge(world.snapshot())
    assert first.unconfirmed
    world.unread[Collector.LINKS] = "gone"
    second = judge(world.snapshot(), first)
    assert Kind.STRAY_TAP not in second.judged
    del world.unread[Collector.LINKS]
    assert brief(judge(world.snapshot(), second).findings) == ["warning stray_tap - vm-leak"]


def test_candidate_that_goes_away_starts_anew() -> None:
    world = healthy_world()
    _leaked_tap(world)
    judgement = judge(world.snapshot())
    link = world.links.pop("vm-leak")
    judgement = judge(world.snapshot(), judgement)
    world.links["vm-leak"] = link
    assert brief(judge(world.snapshot(), judgement).findings) == []


def test_tap_of_a_vm_whose_state_is_deleted_under_it_is_not_stray() -> None:
    world = healthy_world()
    judgement = world.judge()
    _state_deleted_under_a_declared_vm_that_runs(world)
    for _ in range(3):
        judgement = judge(world.snapshot(), judgement)
        assert Kind.STRAY_TAP not in {f.kind for f in judgement.findings}
        assert Kind.STRAY_TAP in judgement.judged


def test_tap_in_use_is_not_stray_when_a_running_vm_has_interfaces_that_nobody_knows() -> None:
    world = healthy_world()
    _state_deleted_under_a_declared_vm_that_runs(world)
    world.links["vm-web"] = replace(world.links["vm-web"], carrier=True)
    _leaked_tap(world)
    strays = [f.object for f in world.judge().findings if f.kind is Kind.STRAY_TAP]
    assert strays == ["vm-leak"]


# ------------------------------------------------------------------------------- what goes on


@pytest.mark.parametrize(
    ("looks", "fires"),
    [("o", 0), ("oo", 2), ("oeo", 3), ("oee", 0), ("eo", 0), ("eoo", 3), ("ooe", 2)],
)
def test_stray_counts_in_the_second_observation(looks: str, fires: int) -> None:
    """An `o` is an observation, an `e` a look because of an event; 0 is never."""
    world = healthy_world()
    judgement = judge(world.snapshot())
    _leaked_tap(world)
    fired = []
    for look in looks:
        judgement = judge(world.snapshot(), judgement, observation=look == "o")
        fired.append(bool(judgement.findings))
    assert fired == [0 < fires <= number for number in range(1, len(looks) + 1)]


def test_candidate_that_an_event_tells_to_be_gone_starts_anew() -> None:
    world = healthy_world()
    _leaked_tap(world)
    judgement = judge(world.snapshot())
    link = world.links.pop("vm-leak")
    judgement = judge(world.snapshot(), judgement, observation=False)
    world.links["vm-leak"] = link
    judgement = judge(world.snapshot(), judgement, observation=False)
    assert not judge(world.snapshot(), judgement).findings


def test_event_that_changes_nothing_gives_the_judgement_before() -> None:
    world = healthy_world()
    _leaked_tap(world)
    before = judge(world.snapshot())
    later = replace(before.snapshot, taken_at=NOW + 1)
    assert judge(later, before, observation=False) is before
    assert judge(later, before).snapshot is later


def test_event_that_changes_nothing_counts_when_the_job_takes_its_time() -> None:
    world = healthy_world()
    _stopped_with_a_job_to_start(world)
    before = judge(world.snapshot())
    for seconds, findings in ((59, 0), (60, 1)):
        later = replace(before.snapshot, taken_at=NOW + seconds)
        assert len(judge(later, before, observation=False).findings) == findings


def test_what_does_not_change_is_the_same_object() -> None:
    world = healthy_world()
    _outdated(world)
    before = judge(world.snapshot())
    world.change_unit("microvm@web.service", restarts=1)
    after = judge(world.snapshot(), before)
    changed = {name for name, vm in after.host.vms.items() if vm is not before.host.vms[name]}
    assert changed == {"web"}
    assert after.findings is before.findings


# -------------------------------------------------------------------------------------- remedies


@pytest.mark.parametrize("unread", [Collector.DECLARATION, Collector.STATE])
def test_nothing_is_removed_while_nobody_can_tell_what_is_wanted(unread: Collector) -> None:
    world = healthy_world()
    _without_current(world)
    world.autostarted.add("off")  # made by hand: its gcroot tells that it is wanted
    world.units["microvm@off.service"] = make_unit(Template.MICROVM, "off", "inactive")
    world.unread[unread] = "truncated"
    remedies = [line for f in world.judge().findings for line in f.remedy]
    assert remedies
    assert [line for line in remedies if "rm " in line or "stop" in line] == []


@pytest.mark.parametrize(
    ("link", "deleted"),
    [
        ({}, ["grep -rqs '^iff:.vm-web$' /proc/[0-9]*/fdinfo || ip link delete dev vm-web"]),
        ({"ours": False}, []),
        ({"kind": LinkKind.MACVTAP}, []),
    ],
    ids=["own", "foreign", "other kind"],
)
def test_device_that_a_stop_leaves_behind_is_deleted_when_it_is_unused_and_its_own(
    link: dict[str, Any], deleted: list[str]
) -> None:
    world = healthy_world()
    world.undeclare("web")
    del world.templates[Template.SET_BOOTED]
    world.links["vm-web"] = replace(world.links["vm-web"], **link)
    (remedy,) = (f.remedy for f in world.judge().findings if f.kind is Kind.UNDECLARED_RUNNING)
    found = [line for line in remedy if "ip link" in line]
    assert found == [f"{line} 2>/dev/null || true" for line in deleted]


def test_dangling_gcroot_that_may_vouch_for_a_vm_is_not_removed_by_pasting() -> None:
    world = healthy_world()
    world.gcroots["off"] = replace(world.gcroots["off"], dangling=True)
    del world.vms["off"]
    remedies = [f.remedy for f in world.judge().findings]
    assert [last for _, last in remedies] == ["# rm /gcroots/booted-off", "# rm /gcroots/off"]
    assert all(first.startswith("# first mount ") for first, _ in remedies)


def test_install_unit_that_nobody_wants_is_stopped_and_reset() -> None:
    world = healthy_world()
    world.units["install-microvm-gone.service"] = make_unit(Template.INSTALL, "gone", "failed")
    (remedy,) = (f.remedy for f in world.judge().findings if f.kind is Kind.UNDECLARED_UNIT)
    assert remedy[1:] == (
        "systemctl stop install-microvm-gone.service",
        "systemctl reset-failed 'microvm*@gone.service' install-microvm-gone.service",
    )


def test_nothing_is_installed_without_a_word_where_disks_may_not_be_mounted() -> None:
    world = healthy_world()
    _state_deleted(world)
    remedies = [f.remedy for f in world.judge().findings]
    install = "systemctl restart install-microvm-spare.service"
    assert [commands for _, commands in remedies] == [install, install]
    assert all(comment.startswith("# first mount ") for comment, _ in remedies)


def test_nothing_is_installed_anew_where_what_is_there_cannot_be_read() -> None:
    world = healthy_world()
    world.units["microvm@deployed.service"] = unmet(make_unit(Template.MICROVM, "deployed"))
    world.vms["deployed"] = VmState("deployed", f"{STATE}/deployed", readable=False)
    remedies = {f.kind: f.remedy for f in world.judge().findings}
    assert remedies[Kind.CONDITION_UNMET][-1] == f"ls -la {STATE}/deployed"


def test_gcroot_of_a_vm_that_is_there_is_not_removed() -> None:
    world = healthy_world()
    world.gcroots["off"] = replace(world.gcroots["off"], dangling=True)
    assert world.judge().findings[0].remedy == ("microvm -u off",)


def test_restart_is_advised_only_of_a_vm_that_should_run_and_does_not() -> None:
    world = healthy_world()
    _outdated(world)
    assert world.judge().findings[0].remedy == ("systemctl restart install-microvm-flake.service",)
    world.stop("flake")
    remedies = [f.remedy for f in world.judge().findings if f.kind is Kind.OUTDATED]
    install = "systemctl restart install-microvm-flake.service"
    assert remedies == [(f"{install} && systemctl start microvm@flake.service",)]


# ----------------------------------------------------------------------------------- severity


@pytest.mark.parametrize(
    ("happens", "starts"), [(_autostarted_and_stopped, True), (_crash_loop, False)]
)
def test_start_is_advised_only_where_systemd_does_not_try_by_itself(
    happens: Callable[[World], None], starts: bool
) -> None:
    """In systemd 257 a start by hand does not wait, and after five in 10 s it gives up."""
    world = healthy_world()
    happens(world)
    (finding,) = (f for f in world.judge().findings if f.kind is Kind.NOT_RUNNING)
    assert ("systemctl start microvm@plain.service" in finding.remedy) is starts


def test_condition_unmet_is_critical_only_for_the_vm_itself() -> None:
    world = healthy_world()
    _old_runner_on_a_new_host(world)
    _removed_firewall(world)
    unmet_checks = {
        f.object: f.severity for f in world.judge().findings if f.kind is Kind.CONDITION_UNMET
    }
    assert unmet_checks == {
        "microvm@firewall.service": Severity.CRITICAL,
        "microvm-tap-interfaces@web.service": Severity.WARNING,
    }


@pytest.mark.parametrize(
    ("result", "status", "how"),
    [
        ("exit-code", 200, "exit-code, status 200/CHDIR"),
        ("exit-code", 1, "exit-code, status 1"),
        ("start-limit-hit", 0, "start-limit-hit"),
    ],
)
def test_failed_unit_says_how_it_failed(result: str, status: int, how: str) -> None:
    world = healthy_world()
    unit = make_unit(Template.VIRTIOFSD, "web", "failed", result=result, exec_main_status=status)
    world.units[unit.name] = unit
    (finding,) = (f for f in world.judge().findings if f.kind is Kind.UNIT_FAILED)
    assert finding.summary == f"{unit.name} failed: {how}"


def test_condition_unmet_is_named_when_a_daemon_reload_forgot_its_state() -> None:
    world = healthy_world()
    _without_current(world)
    unit = world.units["microvm@plain.service"]
    world.units[unit.name] = unmet(unit, tested=False)
    summaries = [f.summary for f in world.judge().findings if f.kind is Kind.CONDITION_UNMET]
    assert summaries == [
        "the last start of microvm@plain.service was skipped: ConditionPathExists="
        f"{STATE}/plain/current/bin/microvm-run did not hold"
    ]


def test_condition_unmet_of_a_forgotten_unit_is_named_by_its_template() -> None:
    world = healthy_world()
    _forgotten_failed_check(world)
    (finding,) = world.judge().findings
    assert finding.summary == (
        "the last start of microvm@old.service was skipped: ConditionPathExists="
        f"{STATE}/old/current/bin/microvm-run did not hold"
    )


def test_helper_was_skipped_before_the_vm_had_the_device() -> None:
    """An update gave it a TAP: neither the VM that runs nor the one that is down was at fault."""
    world = healthy_world()
    for name in ("plain", "spare"):
        helper = unmet(make_unit(Template.TAP, name))
        world.units[helper.name] = helper
        path = f"{STATE}/{name}/current"
        new = Symlink(path, runner_path(name, 2), dangling=False, changed=NOW - 100)
        runner = Runner(frozenset({"bin/microvm-run", "bin/tap-up"}), (tap("vm-new"),))
        world.change_state(name, current=new, current_runner=runner)
        world.declared[name] = replace(
            world.declared[name], runner=runner_path(name, 2), interfaces=(tap("vm-new"),)
        )
    assert brief(world.judge().findings) == [f"info restart_pending plain {STATE}/plain/booted"]


# --------------------------------------------------------------------------------- beyond the cap


def test_nothing_is_unwanted_when_wanted_vms_are_left_out() -> None:
    world = healthy_world()
    world.undeclare("web")
    world.wanted_left_out = 1
    judgement = world.judge()
    assert judgement.findings == ()
    assert Kind.UNDECLARED_RUNNING not in judgement.judged
    assert Kind.STRAY_TAP not in judgement.judged


def test_missing_state_is_found_whatever_is_planted_beside_it() -> None:
    world = healthy_world()
    del world.vms["spare"]
    world.vms["planted"] = VmState("planted", f"{STATE}/planted")
    world.state_left_out = 10_000
    kinds = {f.kind for f in world.judge().findings if f.vm == "spare"}
    assert kinds == {Kind.MISSING_STATE, Kind.WOULD_NOT_START}


def test_missing_state_is_not_found_when_wanted_vms_are_beyond_the_cap() -> None:
    world = healthy_world()
    del world.vms["spare"]
    world.state_left_out = 1
    assert brief(world.judge().findings) == []


def test_vm_whose_units_may_be_left_out_is_not_called_down() -> None:
    world = healthy_world()
    world.units = {name: unit for name, unit in world.units.items() if unit.vm != "web"}
    world.units_left_out = 1
    assert brief(world.judge().findings) == []


# ------------------------------------------------------------------------------------ sources


@pytest.mark.parametrize("unread", Collector)
def test_kinds_are_unknown_when_a_source_is(unread: Collector) -> None:
    world = healthy_world()
    world.unread[unread] = "gone"
    judgement = world.judge()
    assert judgement.findings == ()
    assert judgement.judged == {kind for kind, rule in RULES.items() if unread not in rule.sources}


def test_every_kind_needs_a_source() -> None:
    assert set(RULES) == set(Kind)
    assert all(rule.sources for rule in RULES.values())
