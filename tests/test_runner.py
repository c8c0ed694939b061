"""What is read of a runner, sound or hostile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from microvm_exporter.collectors.runner import INTERFACES_MAX, read_runner
from microvm_exporter.collectors.untrusted import FILE_MAX, Tally, open_directory
from microvm_exporter.model import Interface, InterfaceType, Leftouts, Runner
from unprivileged import reachable_directory, unprivileged

pytestmark = pytest.mark.timeout(30)


def make_runner(path: Path, **metadata: str | bytes) -> Path:
    """Make a runner with ``bin/microvm-run`` and the metadata, ``_`` in a name being ``-``."""
    (path / "bin").mkdir(parents=True)
    (path / "bin/microvm-run").write_text("")
    share = path / "share/microvm"
    share.mkdir(parents=True)
    for name, text in metadata.items():
        data = text.encode() if isinstance(text, str) else text
        (share / name.replace("_", "-")).write_bytes(data)
    return path


def read(path: Path) -> tuple[Runner | None, Leftouts]:
    tally = Tally()
    with open_directory(str(path.parent)) as fd:
        runner = read_runner(path.name, dir_fd=fd, tally=tally)
    return runner, Leftouts(unreadable=tally.unreadable)


def read_sound(path: Path) -> Runner:
    runner, left_out = read(path)
    assert runner is not None
    assert left_out == Leftouts()
    return runner


def tap(name: str) -> Interface:
    return Interface(InterfaceType.TAP, name)


def macvtap(name: str) -> Interface:
    return Interface(InterfaceType.MACVTAP, name)


def test_read_runner_of_today(tmp_path: Path) -> None:
    path = make_runner(
        tmp_path / "0123-microvm-crosvm-fw",
        tap_interfaces="vm-fw\nvm-fw2\n",
        macvtap_interfaces="vm-mac 02:00:00:00:00:01 eth0 bridge\n",
        pci_devices="0000:06:00.1\n",
        hypervisor="crosvm\n",
    )
    (path / "bin/tap-up").symlink_to("microvm-run")
    (path / "share/microvm/virtiofs/ro-store").mkdir(parents=True)
    link = tmp_path / "current"
    link.symlink_to(path)
    assert read_sound(link) == Runner(
        files=frozenset(
            {
                "bin/microvm-run",
                "bin/tap-up",
                "share/microvm/macvtap-interfaces",
                "share/microvm/pci-devices",
                "share/microvm/tap-interfaces",
                "share/microvm/virtiofs",
            }
        ),
        interfaces=(tap("vm-fw"), tap("vm-fw2"), macvtap("vm-mac")),
        pci=True,
        virtiofs=True,
        hypervisor="crosvm",
    )


def test_read_runner_of_2022_has_all_taps_in_one_line(tmp_path: Path) -> None:
    path = make_runner(tmp_path / "0123-microvm-qemu-fw", tap_interfaces="a b\n")
    assert read_sound(path).interfaces == (tap("a"), tap("b"))


def test_read_runner_of_2022_without_a_tap_has_the_file_all_the_same(tmp_path: Path) -> None:
    runner = read_sound(make_runner(tmp_path / "r", tap_interfaces="\n", pci_devices="\n"))
    assert "share/microvm/tap-interfaces" in runner.files
    assert runner.interfaces == ()
    assert not runner.pci


def test_read_runner_without_a_share_has_no_virtiofs(tmp_path: Path) -> None:
    path = make_runner(tmp_path / "r")
    (path / "share/microvm/virtiofs").mkdir()
    runner = read_sound(path)
    assert "share/microvm/virtiofs" in runner.files
    assert not runner.virtiofs


def test_member_that_leads_nowhere_is_not_there(tmp_path: Path) -> None:
    path = make_runner(tmp_path / "r")
    (path / "bin/tap-up").symlink_to("gone")
    (path / "bin/pci-setup").symlink_to("pci-setup")
    assert read_sound(path).files == {"bin/microvm-run"}


@pytest.mark.parametrize(
    ("store_name", "hypervisor"),
    [
        ("0a1b-microvm-qemu-web", "qemu"),
        ("0a1b-microvm-cloud-hypervisor-web-1", "cloud-hypervisor"),
        ("0a1b-microvm-firecracker-qemu-x", "firecracker"),
        ("0a1b-microvm-vfkit-a", "vfkit"),
        ("0a1b-microvm-cloud-web", None),
        ("0a1b-microvm-qemu", None),
        ("0a1b-other-microvm-qemu-web", None),
        ("0a1b-microvm-openvmm-web", None),
    ],
)
def test_hypervisor_by_store_name(tmp_path: Path, store_name: str, hypervisor: str | None) -> None:
    make_runner(tmp_path / store_name)
    (tmp_path / "result").symlink_to(store_name)
    (tmp_path / "current").symlink_to("result")
    assert read_sound(tmp_path / "current").hypervisor == hypervisor


@pytest.mark.parametrize("said", ['evil"\n} 1', "qemu\nqemu", "", "\xff", b"\xff\xfe", "Qemu"])
def test_hypervisor_that_is_not_known_is_none(tmp_path: Path, said: str | bytes) -> None:
    path = make_runner(tmp_path / "0a1b-microvm-qemu-web", hypervisor=said)
    assert read_sound(path).hypervisor is None


def test_hypervisor_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    path = make_runner(tmp_path / "0a1b-microvm-qemu-web")
    os.mkfifo(path / "share/microvm/hypervisor")
    runner, left_out = read(path)
    assert runner == Runner(files=frozenset({"bin/microvm-run"}))
    assert left_out == Leftouts(unreadable=1)


@pytest.mark.parametrize(
    "bad",
    [
        b"sixteen-bytes-16",
        "ä".encode() * 8,  # 16 bytes
        b"a/b",
        b"root:x:0:0",
        b".",
        b"..",
        b"\xff\xfe",
        b"\x1b[31mred",
        "a\u00a0b".encode(),
        b"a\0b",
    ],
)
def test_interface_name_that_no_device_has_is_left_out(tmp_path: Path, bad: bytes) -> None:
    path = make_runner(
        tmp_path / "r",
        tap_interfaces=b"vm-a\n" + bad + b"\nvm-b\n",
        macvtap_interfaces=bad + b" 02:00:00:00:00:01 eth0 bridge\n\n",
    )
    runner, left_out = read(path)
    assert runner is not None
    assert runner.interfaces == (tap("vm-a"), tap("vm-b"))
    assert left_out == Leftouts(unreadable=2)


@pytest.mark.parametrize("name", ["fifteen-bytes-1", 'a"b', "{x}", "ä" * 7])
def test_interface_name_that_the_kernel_allows_is_taken(tmp_path: Path, name: str) -> None:
    assert read_sound(make_runner(tmp_path / "r", tap_interfaces=name)).interfaces == (tap(name),)


@pytest.mark.parametrize("beyond", [0, 1, 30_000])
def test_interfaces_beyond_the_cap_are_not_looked_at(tmp_path: Path, beyond: int) -> None:
    """The rest of each file counts as one object, however long it is."""
    names = [f"vm{number}" for number in range(INTERFACES_MAX)]
    path = make_runner(
        tmp_path / "r",
        tap_interfaces="\n".join(names) + "\n" + "x\n" * beyond,
        macvtap_interfaces="".join(f"m-{name} MAC eth0 bridge\n" for name in names)
        + "x\n" * beyond,
    )
    runner, left_out = read(path)
    assert runner is not None
    assert runner.interfaces == (*map(tap, names), *(macvtap(f"m-{name}") for name in names))
    assert left_out == Leftouts(unreadable=2 if beyond else 0)


def make_fifo(path: Path) -> None:
    os.mkfifo(path, 0o666)


def make_megabyte(path: Path) -> None:
    path.write_bytes(b"vm-a\n" * 200_000)


def make_one_long_line(path: Path) -> None:
    path.write_bytes(b"a" * (FILE_MAX + 1))


def make_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_private_file(path: Path) -> None:
    path.write_text("vm-a\n")
    path.chmod(0o600)


HOSTILE = [
    make_fifo,
    Path.mkdir,
    make_megabyte,
    make_one_long_line,
    make_link_to_a_device,
    make_private_file,
]


@pytest.mark.parametrize("name", ["tap-interfaces", "macvtap-interfaces", "pci-devices"])
@pytest.mark.parametrize("make", HOSTILE)
def test_runner_is_unknown_when_its_metadata_cannot_be_read(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    """Not without interfaces: the TAPs of the VM would count as strays."""
    path = make_runner(tmp_path / "r")
    make(path / "share/microvm" / name)
    assert read(path) == (None, Leftouts(unreadable=1))


def test_virtiofs_with_many_entries_is_not_listed(tmp_path: Path) -> None:
    path = make_runner(tmp_path / "r")
    (path / "share/microvm/virtiofs").mkdir()
    for number in range(5000):
        (path / f"share/microvm/virtiofs/{number}").symlink_to("x")
    assert read_sound(path).virtiofs


@pytest.mark.parametrize("make", [Path.touch, make_fifo, make_link_to_a_device])
def test_runner_that_is_no_directory_has_no_member(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "r")
    assert read_sound(tmp_path / "r") == Runner()


def test_runner_that_has_gone_is_none_and_not_counted(tmp_path: Path) -> None:
    assert read(tmp_path / "gone") == (None, Leftouts())


@pytest.mark.parametrize("closed", ["r", "r/bin", "r/share/microvm", "r/share/microvm/virtiofs"])
def test_runner_that_may_not_be_read_is_none(closed: str) -> None:
    with reachable_directory() as directory:
        path = make_runner(directory / "r")
        (path / "share/microvm/virtiofs").mkdir()
        (directory / closed).chmod(0)
        with unprivileged():
            result = read(path)
        (directory / closed).chmod(0o755)
    assert result == (None, Leftouts(unreadable=1))
