"""The declaration, from a file and from the host: what is read, and what is said of bad files."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microvm_exporter.collectors.declaration import (
    DeclarationDocument,
    InterfaceDocument,
    declare_from_host,
)
from microvm_exporter.collectors.declaration_file import DeclarationFile
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import (
    Cause,
    Declaration,
    DeclaredVm,
    Following,
    Interface,
    InterfaceType,
    Leftouts,
    Origin,
    StateTree,
    Symlink,
    UnitTable,
    VmState,
)
from unprivileged import reachable_directory, unprivileged

FULL: DeclarationDocument = {
    "version": 1,
    "state_dir": "/var/lib/microvms",
    "vms": {
        "firewall": {
            "origin": "declarative",
            "autostart": True,
            "hypervisor": "qemu",
            "runner": "/nix/store/abc-microvm-qemu-firewall",
            "interfaces": [{"type": "tap", "id": "vm-fw"}, {"type": "user", "id": "usernet"}],
        },
        "web.example_1@x:y-z": {"origin": "flake", "interfaces": []},
        "ci": {
            "origin": "deployed",
            "autostart": None,
            "hypervisor": None,
            "runner": None,
            "interfaces": None,
        },
    },
    "imperative": ["scratch"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "declaration.json"


def collect(path: Path, limit: int = 100) -> Declaration:
    return DeclarationFile(str(path), limit=limit, follow=False).collect(Cause.RESYNC)


def test_the_whole_document_is_read(path: Path) -> None:
    path.write_text(json.dumps(FULL))
    assert collect(path) == Declaration(
        vms={
            "ci": DeclaredVm("ci", Origin.DEPLOYED),
            "firewall": DeclaredVm(
                "firewall",
                Origin.DECLARATIVE,
                autostart=True,
                hypervisor="qemu",
                runner="/nix/store/abc-microvm-qemu-firewall",
                interfaces=(
                    Interface(InterfaceType.TAP, "vm-fw"),
                    Interface(InterfaceType.USER, "usernet"),
                ),
            ),
            "web.example_1@x:y-z": DeclaredVm("web.example_1@x:y-z", Origin.FLAKE, interfaces=()),
        },
        imperative=frozenset({"scratch"}),
        state_dir="/var/lib/microvms",
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 1, "vms": {}}',
        '{"version": 1, "vms": {}, "state_dir": null, "imperative": null}',
        '\ufeff{"version": 1, "vms": {}}\n',
        '{"version": 1, "vms": {}, "since": {"a newer": ["module", 1e999]}}',
    ],
    ids=["least", "nulls", "byte order mark", "a newer module's members"],
)
def test_a_document_that_declares_nothing_gives_an_empty_declaration(path: Path, text: str) -> None:
    path.write_text(text)
    assert collect(path) == Declaration()


def test_members_of_a_newer_module_are_let_pass(path: Path) -> None:
    vm = {"origin": "flake", "memory": 512, "interfaces": [{"type": "tap", "id": "t", "mac": 0}]}
    path.write_text(json.dumps({"version": 1, "vms": {"a": vm}}))
    interfaces = (Interface(InterfaceType.TAP, "t"),)
    assert collect(path).vms == {"a": DeclaredVm("a", Origin.FLAKE, interfaces=interfaces)}


def test_the_schema_has_every_type_of_interface() -> None:
    assert get_args(get_type_hints(InterfaceDocument)["type"]) == tuple(InterfaceType)


def test_beyond_the_limit_the_first_names_are_kept(path: Path) -> None:
    path.write_text(json.dumps({"version": 1, "vms": {n: {"origin": "flake"} for n in "dacb"}}))
    declaration = collect(path, limit=3)
    assert list(declaration.vms) == ["a", "b", "c"]
    assert declaration.left_out == Leftouts(limit=1)


# ------------------------------------------------------------------------------------- bad files


def vms(text: str) -> bytes:
    return b'{"version": 1, "vms": ' + text.encode() + b"}"


def vm(text: str) -> bytes:
    return vms(f'{{"fw": {{"origin": "flake", {text}}}}}')


def interface(text: str) -> bytes:
    return vm(f'"interfaces": [{{"type": "tap", "id": "vm-a"}}, {text}]')


ORIGINS = '"declarative", "flake" or "deployed"'
NAME = "a VM's name (1 to 220 letters, digits and :_.@-, no dot first)"
DEVICE = "a network device's name (1 to 15 bytes, no /, : or space)"
TYPES = '"tap", "macvtap", "bridge" or "user"'
HYPERVISOR = "a hypervisor's name (a-z, 0-9 and -)"

BAD_TEXTS = {
    "empty": (b"", "line 1, column 1: expected JSON, found an error: Expecting value"),
    "truncated": (
        b'{"version": 1,\n "vms": {"fw": {"ori',
        "line 2, column 17: expected JSON, found an error: Unterminated string starting at",
    ),
    "two documents": (
        b'{"version": 1, "vms": {}} {}',
        "line 1, column 27: expected JSON, found an error: Extra data",
    ),
    "not UTF-8": (b'{"version": 1, "\xff": 0}', "expected UTF-8, found the byte 0xff at offset 16"),
    "UTF-16": ("{}".encode("utf-16"), "expected UTF-8, found the byte 0xff at offset 0"),
    "NaN": (b'{"version": NaN}', "expected JSON, found NaN"),
    "infinity": (b'{"version": 1, "vms": {}, "x": -Infinity}', "expected JSON, found -Infinity"),
    "huge number": (
        b'{"version": 1%s}' % (b"0" * 5000),
        "expected JSON, found a number of 5001 digits",
    ),
    "deep arrays": (b"[" * 100_000, "expected JSON, found arrays or objects nested too deep"),
    "deep objects": (b'{"a":' * 100_000, "expected JSON, found arrays or objects nested too deep"),
    "over 16 MiB": (b" " * (16 * 1024 * 1024 + 1), "expected at most 16 MiB, found more"),
    "null": (b"null", "$: expected an object, found null"),
    "array": (b"[]", "$: expected an object, found an array"),
    "no version": (b'{"vms": {}}', "$.version: expected 1, found nothing"),
    "newer version": (b'{"version": 2, "vms": []}', "$.version: expected 1, found 2"),
    "version true": (b'{"version": true, "vms": {}}', "$.version: expected 1, found true"),
    "version 1.0": (b'{"version": 1.0, "vms": {}}', "$.version: expected 1, found 1.0"),
    "no vms": (b'{"version": 1}', "$.vms: expected an object, found nothing"),
    "vms null": (vms("null"), "$.vms: expected an object, found null"),
    "vms array": (vms("[]"), "$.vms: expected an object, found an array"),
    "vm null": (vms('{"fw": null}'), '$.vms["fw"]: expected an object, found null'),
    "vm string": (vms('{"fw": "x"}'), '$.vms["fw"]: expected an object, found "x"'),
    "name escaped": (
        vms('{"a b": {"origin": "flake"}}'),
        f'$.vms["a b"]: expected {NAME}, found "a b"',
    ),
    "name with a backslash": (
        vms('{"a\\\\x20b": {"origin": "flake"}}'),
        f'$.vms["a\\\\x20b"]: expected {NAME}, found "a\\\\x20b"',
    ),
    "name empty": (vms('{"": {}}'), f'$.vms[""]: expected {NAME}, found ""'),
    "name hidden": (vms('{".zfs": {}}'), f'$.vms[".zfs"]: expected {NAME}, found ".zfs"'),
    "name climbing": (vms('{"../x": {}}'), f'$.vms["../x"]: expected {NAME}, found "../x"'),
    "name not ASCII": (
        vms('{"zürich": {}}'),
        f'$.vms["z\\u00fcrich"]: expected {NAME}, found "z\\u00fcrich"',
    ),
    "name too long": (
        vms(json.dumps({"n" * 221: {}})),
        f'$.vms["{"n" * 60}\\u2026"]: expected {NAME}, found "{"n" * 60}\\u2026"',
    ),
    "vm twice": (
        vms('{"fw": {"origin": "flake"}, "db": 0, "fw": {"origin": "flake"}}'),
        '$.vms: expected each key once, found "fw" twice',
    ),
    "member twice": (
        vm('"autostart": true, "autostart": false'),
        '$.vms["fw"]: expected each key once, found "autostart" twice',
    ),
    "version twice": (
        b'{"version": 1, "version": 1, "vms": {}}',
        '$: expected each key once, found "version" twice',
    ),
    "no origin": (vms('{"fw": {}}'), f'$.vms["fw"].origin: expected {ORIGINS}, found nothing'),
    "origin unknown": (
        vms('{"fw": {"origin": "imperative"}}'),
        f'$.vms["fw"].origin: expected {ORIGINS}, found "imperative"',
    ),
    "origin null": (
        vms('{"fw": {"origin": null}}'),
        f'$.vms["fw"].origin: expected {ORIGINS}, found null',
    ),
    "autostart string": (
        vm('"autostart": "yes"'),
        '$.vms["fw"].autostart: expected true or false, found "yes"',
    ),
    "autostart number": (
        vm('"autostart": 1'),
        '$.vms["fw"].autostart: expected true or false, found 1',
    ),
    "hypervisor number": (
        vm('"hypervisor": 7'),
        f'$.vms["fw"].hypervisor: expected {HYPERVISOR}, found 7',
    ),
    "hypervisor odd": (
        vm('"hypervisor": "QEMU\\n"'),
        f'$.vms["fw"].hypervisor: expected {HYPERVISOR}, found "QEMU\\n"',
    ),
    "runner relative": (
        vm('"runner": "nix/store/x"'),
        '$.vms["fw"].runner: expected an absolute path, found "nix/store/x"',
    ),
    "runner with NUL": (
        vm('"runner": "/nix\\u0000"'),
        '$.vms["fw"].runner: expected an absolute path, found "/nix\\u0000"',
    ),
    "runner with half a character": (
        vm('"runner": "/nix\\ud800"'),
        '$.vms["fw"].runner: expected an absolute path, found "/nix\\ud800"',
    ),
    "runner object": (
        vm('"runner": {}'),
        '$.vms["fw"].runner: expected an absolute path, found an object',
    ),
    "interfaces object": (
        vm('"interfaces": {}'),
        '$.vms["fw"].interfaces: expected an array, found an object',
    ),
    "interface null": (
        interface("null"),
        '$.vms["fw"].interfaces[1]: expected an object, found null',
    ),
    "interface without type": (
        interface('{"id": "x"}'),
        f'$.vms["fw"].interfaces[1].type: expected {TYPES}, found nothing',
    ),
    "interface of unknown type": (
        interface('{"type": "veth", "id": "x"}'),
        f'$.vms["fw"].interfaces[1].type: expected {TYPES}, found "veth"',
    ),
    "interface without id": (
        interface('{"type": "tap"}'),
        f'$.vms["fw"].interfaces[1].id: expected {DEVICE}, found nothing',
    ),
    "state_dir relative": (
        b'{"version": 1, "state_dir": "microvms", "vms": {}}',
        '$.state_dir: expected an absolute path, found "microvms"',
    ),
    "state_dir empty": (
        b'{"version": 1, "state_dir": "", "vms": {}}',
        '$.state_dir: expected an absolute path, found ""',
    ),
    "imperative string": (
        b'{"version": 1, "vms": {}, "imperative": "scratch"}',
        '$.imperative: expected an array, found "scratch"',
    ),
    "imperative with a number": (
        b'{"version": 1, "vms": {}, "imperative": ["a", 1]}',
        f"$.imperative[1]: expected {NAME}, found 1",
    ),
    "imperative with a bad name": (
        b'{"version": 1, "vms": {}, "imperative": ["a/b"]}',
        f'$.imperative[0]: expected {NAME}, found "a/b"',
    ),
}


@pytest.mark.parametrize(("data", "expected"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_bad_text_is_an_error_that_says_where_and_why(
    path: Path, data: bytes, expected: str
) -> None:
    path.write_bytes(data)
    with pytest.raises(CollectorError) as error:
        collect(path)
    assert str(error.value) == f"{path}: {expected}"


@pytest.mark.parametrize("name", ["vm-a", "a", "fifteen-bytes-x", "zürich", 'quo"te', "-", "ü" * 7])
def test_a_name_that_the_kernel_takes_is_a_device(path: Path, name: str) -> None:
    path.write_bytes(interface(json.dumps({"type": "macvtap", "id": name})))
    assert (collect(path).vms["fw"].interfaces or ())[1] == Interface(InterfaceType.MACVTAP, name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "sixteen-bytes-xx",
        "ü" * 8,
        "a/b",
        "a:b",
        "a b",
        "a\tb",
        "à",
        "\x00",
        "\ud800",
    ],
)
def test_a_name_that_the_kernel_refuses_is_no_device(path: Path, name: str) -> None:
    """ "à" has the byte 0xa0, which is white space to the kernel."""
    path.write_bytes(interface(json.dumps({"type": "tap", "id": name})))
    with pytest.raises(CollectorError) as error:
        collect(path)
    found = json.dumps(name)
    assert str(error.value) == (
        f'{path}: $.vms["fw"].interfaces[1].id: expected {DEVICE}, found {found}'
    )


def test_the_longest_vm_name_is_taken(path: Path) -> None:
    path.write_bytes(vms(json.dumps({"n" * 220: {"origin": "flake"}})))
    assert list(collect(path).vms) == ["n" * 220]


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "expected a readable file, found: No such file or directory"),
        (
            lambda path: path.symlink_to("nowhere"),
            "expected a readable file, found: No such file or directory",
        ),
        (
            lambda path: path.symlink_to(path.name),
            "expected a readable file, found: Too many levels of symbolic links",
        ),
        (Path.mkdir, "expected a regular file, found a directory"),
        (os.mkfifo, "expected a regular file, found a fifo"),
        (make_socket, "expected a regular file, found a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "expected a regular file, found a device"),
    ],
    ids=["missing", "dangling", "loop", "directory", "fifo", "socket", "device"],
)
def test_what_is_no_file_is_an_error_and_does_not_block(
    path: Path, make: Callable[[Path], None], expected: str
) -> None:
    make(path)
    with pytest.raises(CollectorError) as error:
        collect(path)
    assert str(error.value) == f"{path}: {expected}"


def test_a_path_through_a_file_is_an_error(path: Path) -> None:
    path.touch()
    with pytest.raises(
        CollectorError, match=r": expected a readable file, found: Not a directory$"
    ):
        collect(path / "declaration.json")


def test_a_file_that_may_not_be_read_is_an_error(path: Path) -> None:
    path.write_text(json.dumps(FULL))
    path.chmod(0)
    with unprivileged(), pytest.raises(CollectorError) as error:
        collect(path)
    assert str(error.value) == f"{path}: expected a readable file, found: Permission denied"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def mutate(document: object, draw: Callable[[st.SearchStrategy[object]], object]) -> object:
    """Put another value somewhere into the document."""
    if isinstance(document, dict) and document and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(document)))
        return {**document, str(key): mutate(document[key], draw)}
    if isinstance(document, list) and document and draw(st.booleans()):
        return [mutate(document[0], draw), *document[1:]]
    return draw(JSON_VALUES)


@given(data=st.data())
def test_any_other_value_anywhere_is_taken_or_a_collector_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(mutate(FULL, data.draw)))
    text = f"{path}: "
    try:
        collect(path)
    except CollectorError as error:
        text = str(error)
    assert text.isprintable()
    assert text.startswith(f"{path}: ")


@given(data=st.binary() | st.text(alphabet='{}[]":,1.eE-\\u nulltrue\n').map(str.encode))
def test_any_bytes_are_taken_or_a_collector_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    with pytest.raises(CollectorError):
        collect(path)


# -------------------------------------------------------------------------------- a changing file


def declare(*names: str) -> str:
    return json.dumps({"version": 1, "vms": {name: {"origin": "flake"} for name in names}})


def test_an_unchanged_file_is_not_read_again(path: Path) -> None:
    path.write_text(declare("a"))
    file = DeclarationFile(str(path), limit=2, follow=False)
    first = file.collect(Cause.INTERVAL)
    assert file.collect(Cause.INTERVAL) is first
    path.write_text(declare("b", "c"))
    assert list(file.collect(Cause.INTERVAL).vms) == ["b", "c"]


def test_a_file_that_was_replaced_is_read_again(path: Path) -> None:
    """Same size and, as in the Nix store, same time of modification."""
    file = DeclarationFile(str(path), limit=1, follow=False)
    for name in ("a", "b", "c"):
        new = path.with_suffix(".new")
        new.write_text(declare(name))
        os.utime(new, (1, 1))
        new.rename(path)
        assert list(file.collect(Cause.INTERVAL).vms) == [name]


def test_a_file_behind_links_is_read_again_when_one_of_them_turns(tmp_path: Path) -> None:
    """As /etc/NAME → /etc/static/NAME → /nix/store/… turns in a switch."""
    for generation in ("one", "two"):
        (tmp_path / generation).mkdir()
        (tmp_path / generation / "declaration.json").write_text(declare(generation))
    static = tmp_path / "static"
    static.symlink_to("one")
    link = tmp_path / "declaration.json"
    link.symlink_to(static / "declaration.json")
    file = DeclarationFile(str(link), limit=1, follow=False)
    assert list(file.collect(Cause.INTERVAL).vms) == ["one"]
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(static)
    assert list(file.collect(Cause.INTERVAL).vms) == ["two"]


def test_a_file_that_went_bad_is_an_error_until_it_is_mended(path: Path) -> None:
    path.write_text(declare("a"))
    file = DeclarationFile(str(path), limit=1, follow=False)
    file.collect(Cause.INTERVAL)
    path.write_text("{")
    for _ in range(2):
        with pytest.raises(CollectorError, match="expected JSON"):
            file.collect(Cause.INTERVAL)
    path.unlink()
    with pytest.raises(CollectorError, match=r"No such file"):
        file.collect(Cause.INTERVAL)
    path.write_text(declare("b"))
    assert list(file.collect(Cause.INTERVAL).vms) == ["b"]


def test_a_file_written_while_it_is_watched_is_never_taken_by_half(path: Path) -> None:
    """Truncated and written in place: each look gives the old, the new, or an error."""
    path.write_text(declare("a"))
    file = DeclarationFile(str(path), limit=2, follow=False)
    text = declare("a", "b")
    for end in range(0, len(text), 7):
        path.write_text(text[:end])
        with pytest.raises(CollectorError):
            file.collect(Cause.INTERVAL)
    path.write_text(text)
    assert list(file.collect(Cause.INTERVAL).vms) == ["a", "b"]


def test_what_is_declared_as_before_is_the_same_object(path: Path) -> None:
    path.write_text(declare("a", "b"))
    file = DeclarationFile(str(path), limit=3, follow=False)
    first = file.collect(Cause.RESYNC)
    path.write_text(declare("b", "a") + "\n")
    assert file.collect(Cause.EVENT) is first
    path.write_text("{")
    with pytest.raises(CollectorError):
        file.collect(Cause.EVENT)
    path.write_text(declare("a", "b", "c").replace("flake", "deployed", 1))
    second = file.collect(Cause.EVENT)
    assert second.vms["a"] == replace(first.vms["a"], origin=Origin.DEPLOYED)
    assert second.vms["b"] is first.vms["b"]
    assert list(second.vms) == ["a", "b", "c"]


# ------------------------------------------------------------------------------- a followed file


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def followed(path: Path, clock: Clock) -> Iterator[DeclarationFile]:
    file = DeclarationFile(str(path), limit=3, follow=True, clock=clock)
    yield file
    file.close()


def has_heard(file: DeclarationFile) -> bool:
    fileno = file.fileno()
    assert fileno is not None
    return bool(select.select([fileno], [], [], 0)[0])


def test_a_file_that_is_not_followed_has_nothing_to_wait_for(path: Path) -> None:
    path.write_text(declare("a"))
    file = DeclarationFile(str(path), limit=3, follow=False)
    file.collect(Cause.RESYNC)
    assert file.fileno() is None
    assert file.following == Following()
    file.close()


def test_a_change_of_the_file_is_heard_of(path: Path, followed: DeclarationFile) -> None:
    path.write_text(declare("a"))
    first = followed.collect(Cause.RESYNC)
    assert followed.following == Following(active=True)
    (path.parent / "neighbour").touch()
    path.read_text()
    assert followed.collect(Cause.EVENT) is first
    assert followed.following == Following(active=True)
    path.write_text(declare("b"))
    assert has_heard(followed)
    assert list(followed.collect(Cause.EVENT).vms) == ["b"]
    assert not has_heard(followed)
    assert followed.following == Following(active=True, events=1)


def test_an_event_that_changes_nothing_counts_as_heard(
    path: Path, followed: DeclarationFile
) -> None:
    path.write_text(declare("a"))
    first = followed.collect(Cause.RESYNC)
    path.write_text(declare("a"))
    assert followed.collect(Cause.EVENT) is first
    assert followed.following == Following(active=True, events=1)


def test_a_file_that_is_not_there_yet_is_heard_of_when_it_comes(
    path: Path, followed: DeclarationFile
) -> None:
    with pytest.raises(CollectorError, match="No such file"):
        followed.collect(Cause.RESYNC)
    assert followed.following == Following(active=True)
    path.write_text(declare("a"))
    assert has_heard(followed)
    assert list(followed.collect(Cause.EVENT).vms) == ["a"]
    path.unlink()
    assert has_heard(followed)
    with pytest.raises(CollectorError, match="No such file"):
        followed.collect(Cause.EVENT)


def test_a_link_on_the_way_that_turns_is_heard_of(tmp_path: Path) -> None:
    for generation in ("one", "two"):
        (tmp_path / generation).mkdir()
        (tmp_path / generation / "declaration.json").write_text(declare(generation))
    static, link = tmp_path / "static", tmp_path / "declaration.json"
    static.symlink_to("one")
    link.symlink_to(static / "declaration.json")
    file = DeclarationFile(str(link), limit=1, follow=True)
    file.collect(Cause.RESYNC)
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(static)
    assert has_heard(file)
    assert list(file.collect(Cause.EVENT).vms) == ["two"]
    (tmp_path / "two/declaration.json").write_text(declare("three"))
    assert has_heard(file)
    assert list(file.collect(Cause.EVENT).vms) == ["three"]
    file.close()


@pytest.mark.parametrize("cause", [Cause.INTERVAL, Cause.RESYNC])
def test_a_change_that_no_event_told_of_is_found_and_counts_as_missed(
    path: Path, followed: DeclarationFile, clock: Clock, cause: Cause
) -> None:
    """Written under another of its names: inotify tells of the one that was used."""
    other = path.parent / "elsewhere"
    other.mkdir()
    path.write_text(declare("a"))
    followed.collect(Cause.RESYNC)
    (other / "name").hardlink_to(path)
    (other / "name").write_text(declare("b"))
    assert not has_heard(followed)
    assert list(followed.collect(cause).vms) == ["b"]
    assert followed.following == Following(active=True)
    clock.now += 3
    followed.collect(cause)
    assert followed.following == Following(active=True, missed=1)


def test_a_change_seen_before_its_event_is_not_missed(
    path: Path, followed: DeclarationFile, clock: Clock
) -> None:
    path.write_text(declare("a"))
    followed.collect(Cause.RESYNC)
    with path.open("w") as file:
        file.write(declare("b"))
        file.flush()
        assert list(followed.collect(Cause.INTERVAL).vms) == ["b"]
    followed.collect(Cause.EVENT)
    clock.now += 3
    followed.collect(Cause.EVENT)
    assert followed.following == Following(active=True, events=1)


def test_another_name_for_the_file_is_no_missed_change(
    path: Path, followed: DeclarationFile, clock: Clock
) -> None:
    """As `nix-store --optimise` makes one: the inode changes, and nothing that it says."""
    (path.parent / "links").mkdir()
    path.write_text(declare("a"))
    first = followed.collect(Cause.RESYNC)
    (path.parent / "links/hash").hardlink_to(path)
    assert followed.collect(Cause.RESYNC) is first
    clock.now += 3
    followed.collect(Cause.EVENT)
    assert followed.following == Following(active=True)


def test_a_file_that_cannot_be_followed_is_looked_at_until_it_can_be() -> None:
    with reachable_directory() as root:
        root.chmod(0o311)
        path = root / "declaration.json"
        path.write_text(declare("a"))
        file = DeclarationFile(str(path), limit=1, follow=True)
        with unprivileged():
            file.collect(Cause.RESYNC)
            assert (file.following, file.fileno()) == (Following(), None)
        path.write_text(declare("b"))
        root.chmod(0o755)
        with unprivileged():
            assert list(file.collect(Cause.INTERVAL).vms) == ["b"]
            assert file.following == Following()
            file.collect(Cause.RESYNC)
            assert file.following == Following(active=True)
        root.chmod(0o311)
        with unprivileged():
            assert list(file.collect(Cause.EVENT).vms) == ["b"]
            assert (file.following, file.fileno()) == (Following(), None)


def test_lost_events_are_none_that_were_missed(
    path: Path, followed: DeclarationFile, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queue > 100_000:
        pytest.skip("the queue is too long to fill")
    path.write_text(declare("a"))
    followed.collect(Cause.RESYNC)
    other = path.with_suffix(".old")
    for _ in range(queue // 4 + 1):
        path.rename(other)
        other.rename(path)
    path.write_text(declare("b"))
    while followed.fileno() is not None:
        assert list(followed.collect(Cause.INTERVAL).vms) == ["b"]
    assert [record.__dict__["error"].partition(":")[0] for record in caplog.records] == [
        "more changed than inotify's queue holds"
    ]
    clock.now += 3
    followed.collect(Cause.RESYNC)
    following = followed.following
    assert (following.active, following.missed) == (True, 0)


# --------------------------------------------------------------------------------------- the host


LINK = Symlink("/s/vm/toplevel", "/nix/store/x", dangling=False)
BARE = VmState("vm", "/s/vm")
TREE = StateTree("/s")
UNITS = UnitTable(declared=frozenset({"vm"}))


@pytest.mark.parametrize(
    ("tree", "origin"),
    [
        pytest.param(None, Origin.UNKNOWN, id="tree unread"),
        pytest.param(TREE, Origin.UNKNOWN, id="no state"),
        pytest.param(replace(TREE, vms={"vm": BARE}), Origin.UNKNOWN, id="bare"),
        pytest.param(
            replace(TREE, vms={"vm": replace(BARE, toplevel=LINK)}),
            Origin.DECLARATIVE,
            id="toplevel",
        ),
        pytest.param(
            replace(TREE, vms={"vm": replace(BARE, toplevel=replace(LINK, dangling=True))}),
            Origin.DECLARATIVE,
            id="toplevel dangling",
        ),
        pytest.param(
            replace(TREE, vms={"vm": replace(BARE, flake=True)}), Origin.FLAKE, id="flake"
        ),
        pytest.param(
            replace(
                TREE,
                vms={"vm": replace(BARE, flake=True)},
                conditional_installs=frozenset({"vm"}),
            ),
            Origin.DEPLOYED,
            id="conditional install",
        ),
        pytest.param(
            replace(TREE, conditional_installs=frozenset({"vm"})),
            Origin.DEPLOYED,
            id="conditional install, not yet run",
        ),
    ],
)
def test_the_host_tells_the_origin(tree: StateTree | None, origin: Origin) -> None:
    assert declare_from_host(UNITS, tree) == Declaration(
        {"vm": DeclaredVm("vm", origin, autostart=False)}
    )


def test_the_host_keeps_declared_and_autostarted_apart() -> None:
    units = UnitTable(declared=frozenset({"b", "a"}), autostarted=frozenset({"b", "imperative"}))
    assert declare_from_host(units, None).vms == {
        "a": DeclaredVm("a", Origin.UNKNOWN, autostart=False),
        "b": DeclaredVm("b", Origin.UNKNOWN, autostart=True),
    }


def test_the_host_declares_as_before_by_the_same_objects() -> None:
    units = UnitTable(declared=frozenset({"a", "b"}))
    first = declare_from_host(units, TREE)
    assert declare_from_host(units, TREE, first) is first
    tree = replace(TREE, conditional_installs=frozenset({"a"}))
    second = declare_from_host(replace(units, declared=frozenset({"a", "b", "c"})), tree, first)
    assert second.vms["a"] == replace(first.vms["a"], origin=Origin.DEPLOYED)
    assert second.vms["b"] is first.vms["b"]
    third = declare_from_host(replace(units, autostarted=frozenset({"b"})), tree, second)
    assert third.vms["a"] is second.vms["a"]
    assert third.vms["b"].autostart
