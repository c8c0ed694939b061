"""The command line and the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microvm_exporter import __version__
from microvm_exporter.config import CheckConfig, ServeConfig, Sources, parse
from microvm_exporter.durations import parse_duration
from microvm_exporter.errors import UsageError
from microvm_exporter.flags import FLAGS, Command, Flag, ReportFormat
from microvm_exporter.listen import ListenAddress, parse_listen_address
from microvm_exporter.log import LogFormat, LogLevel
from microvm_exporter.usage import flags_table, help_text

SOURCES = Sources(
    declaration_file=None,
    state_dir=None,
    gcroots_dir="/nix/var/nix/gcroots/microvm",
    unit_dirs=(),
    microvm_user="microvm",
    dbus_address=None,
    max_vms=5000,
)


def error_of(argv: list[str], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as error:
        parse(argv, environ or {})
    return str(error.value)


# --------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("argv", [[], ["serve"]])
def test_serve_by_default(argv: list[str]) -> None:
    assert parse(argv, {}) == ServeConfig(
        sources=SOURCES,
        listen_addresses=(ListenAddress("127.0.0.1", 10686),),
        telemetry_path="/metrics",
        interval=15.0,
        resync_interval=300.0,
        log_level=LogLevel.INFO,
        log_format=LogFormat.LOGFMT,
    )


def test_check_by_its_name() -> None:
    assert parse(["check"], {}) == CheckConfig(
        sources=SOURCES,
        format=ReportFormat.TEXT,
        log_level=LogLevel.INFO,
        log_format=LogFormat.LOGFMT,
    )


VALUES = {
    "--web.listen-address": (":1", (ListenAddress("", 1),)),
    "--web.telemetry-path": ("/vms/metrics", "/vms/metrics"),
    "--collect.interval": ("1m30s", 90.0),
    "--collect.resync-interval": ("1h30m", 5400.0),
    "--format": ("json", ReportFormat.JSON),
    "--collect.max-vms": ("7", 7),
    "--declaration.file": ("/etc/vms.json", "/etc/vms.json"),
    "--state-dir": ("/srv//./vms/", "/srv/vms"),
    "--gcroots-dir": ("/roots", "/roots"),
    "--unit-dir": ("/units", ("/units",)),
    "--microvm.user": ("vmm", "vmm"),
    "--dbus.address": ("unix:path=/bus", "unix:path=/bus"),
    "--log.level": ("warn", LogLevel.WARN),
    "--log.format": ("json", LogFormat.JSON),
}
FIELDS = {
    "--web.listen-address": "listen_addresses",
    "--collect.interval": "interval",
    "--collect.resync-interval": "resync_interval",
    "--collect.max-vms": "max_vms",
    "--unit-dir": "unit_dirs",
    "--web.telemetry-path": "telemetry_path",
}


def value_of(flag: Flag[Any], argv: list[str], environ: dict[str, str]) -> object:
    config = parse([*argv, flag.only or "check"], environ)
    name = FIELDS.get(flag.name, flag.name.removeprefix("--").replace(".", "_").replace("-", "_"))
    return getattr(config if hasattr(config, name) else config.sources, name)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_each_flag_is_read(flag: Flag[Any]) -> None:
    text, expected = VALUES[flag.name]
    assert value_of(flag, [flag.name, text], {}) == expected
    assert value_of(flag, [f"{flag.name}={text}"], {}) == expected
    assert value_of(flag, [], {flag.variable: f" {text}\n"}) == expected


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_flag_wins_over_the_environment(flag: Flag[Any]) -> None:
    text, expected = VALUES[flag.name]
    assert value_of(flag, [flag.name, text], {flag.variable: "\0 no sense"}) == expected


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_empty_variable_is_none(flag: Flag[Any]) -> None:
    assert value_of(flag, [], {flag.variable: " "}) == value_of(flag, [], {})


def test_variable_of_a_flag() -> None:
    assert [flag.variable for flag in FLAGS[:2]] == [
        "MICROVM_EXPORTER_WEB_LISTEN_ADDRESS",
        "MICROVM_EXPORTER_WEB_TELEMETRY_PATH",
    ]


def test_flags_stand_before_and_after_the_command() -> None:
    config = parse(["--unit-dir", "/a", "check", "--unit-dir=/b", "--format=json"], {})
    assert isinstance(config, CheckConfig)
    assert config.sources.unit_dirs == ("/a", "/b")
    assert config.format is ReportFormat.JSON


def test_whitespace_separates_the_values_of_a_variable() -> None:
    environ = {
        "MICROVM_EXPORTER_WEB_LISTEN_ADDRESS": "127.0.0.1:1  [::1]:2\n",
        "MICROVM_EXPORTER_UNIT_DIR": "/a /b",
    }
    config = parse([], environ)
    assert isinstance(config, ServeConfig)
    assert [str(address) for address in config.listen_addresses] == ["127.0.0.1:1", "[::1]:2"]
    assert config.sources.unit_dirs == ("/a", "/b")


def test_last_value_of_a_flag_that_takes_one() -> None:
    assert parse(["--state-dir=/a", "--state-dir=/b"], {}).sources.state_dir == "/b"


@pytest.mark.parametrize(
    ("argv", "intervals"),
    [
        (["--collect.interval=200ms", "--collect.resync-interval=1s"], (0.2, 1.0)),
        (["--collect.interval=1m", "--collect.resync-interval=1d"], (60.0, 86_400.0)),
        (["--collect.interval=1m", "--collect.resync-interval=1s"], (60.0, 60.0)),
        (["--collect.interval=10m"], (600.0, 600.0)),
    ],
)
def test_every_look_is_a_resync_when_that_interval_is_the_shorter(
    argv: list[str], intervals: tuple[float, float]
) -> None:
    config = parse(argv, {})
    assert isinstance(config, ServeConfig)
    assert (config.interval, config.resync_interval) == intervals


def test_environment_of_serve_does_not_concern_check() -> None:
    environ = {"MICROVM_EXPORTER_COLLECT_INTERVAL": "soon"}
    assert isinstance(parse(["check"], environ), CheckConfig)


# ---------------------------------------------------------------------------------------- errors

ADDRESS = "--web.listen-address: expected HOST:PORT, [IPV6]:PORT or :PORT, found"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bogus"], "expected the command serve or check, found 'bogus'"),
        (["serve", "check"], "expected the command serve or check, found 'serve check'"),
        (["--bogus", "x"], "unrecognized arguments: --bogus"),
        (["--bogus\x1b[2J\n"], "unrecognized arguments: --bogus\\x1b[2J\\n"),
        (["--web.listen", ":1"], "unrecognized arguments: --web.listen"),
        (["--format=json"], "--format: expected with check only, found with serve"),
        (
            ["check", "--collect.interval=5s"],
            "--collect.interval: expected with serve only, found with check",
        ),
        (
            ["--collect.interval", "15"],
            "--collect.interval: expected a duration from 100ms to 1h, such as 15s or 1m30s,"
            " found '15'",
        ),
        (
            ["--collect.interval"],
            "--collect.interval: expected a duration from 100ms to 1h, such as 15s or 1m30s,"
            " found ''",
        ),
        (
            ["--declaration.file", "vms\n.json\udcff"],
            "--declaration.file: expected a path, found 'vms\\n.json\\udcff'",
        ),
        (["--web.listen-address", "127.0.0.1"], f"{ADDRESS} '127.0.0.1': the port is missing"),
        (["--web.listen-address", "10686"], f"{ADDRESS} '10686': the port is missing"),
        (["--web.listen-address", "http://[::1]:80/"], f"{ADDRESS} 'http://[::1]:80/'"),
        (["--web.listen-address", "http://vmhost:80/"], f"{ADDRESS} 'http://vmhost:80/'"),
        (
            ["--web.listen-address", "::1:80"],
            f"{ADDRESS} '::1:80': an IPv6 address stands in brackets",
        ),
        (
            ["--web.listen-address", ":65536"],
            f"{ADDRESS} ':65536': the port is not a number from 0 to 65535",
        ),
    ],
)
def test_error_names_flag_and_expected_and_found(argv: list[str], message: str) -> None:
    assert error_of(argv) == message


def test_error_names_the_variable() -> None:
    assert error_of([], {"MICROVM_EXPORTER_LOG_LEVEL": "loud"}) == (
        "MICROVM_EXPORTER_LOG_LEVEL: expected debug, info, warn or error, found 'loud'"
    )


def test_path_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse(["check", "--declaration.file=./vms.json"], {})
    assert config.sources.declaration_file == str(tmp_path / "vms.json")


def test_working_directory_that_is_gone_matters_to_relative_paths_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "removed-vm"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert parse(["check", "--state-dir=/srv/vms"], {}).sources.state_dir == "/srv/vms"
    assert error_of(["check", "--state-dir=vms"]) == (
        "--state-dir: expected a path, found 'vms':"
        " the working directory is gone: give the path from /"
    )


REFUSED = {
    "--web.listen-address": ["nowhere", "[::1]", "[::1:80", "[::g]:80", "300.1.1.1:80", "a b:80"],
    "--web.telemetry-path": [
        "metrics",
        "/",
        "/-/healthy",
        "/-/ready",
        "/m?x=1",
        "/m#x",
        "/m/",
        "//m",
        "/m m",
        "/%6d",
    ],
    "--collect.interval": ["0s", "99ms", "1h1s", "-15s", "1.5s", "15 s", "1d", "s"],
    "--collect.resync-interval": ["0s", "99ms", "24h1s", "1d1ms", "-5m", "never", "5"],
    "--format": ["xml", "TEXT"],
    "--collect.max-vms": ["0", "-1", "1.5", "100001", "1_000", "\u0663", "9" * 5000],
    "--declaration.file": ["vms\n.json", "\udcff"],
    "--state-dir": ["/a\0b"],
    "--gcroots-dir": ["/a\x1b[31m"],
    "--unit-dir": ["/a\tb"],
    "--microvm.user": ["a b", "a:b", "/a"],
    "--dbus.address": ["/run/dbus/system_bus_socket", "system", "unix path=/x"],
    "--log.level": ["warning", "INFO"],
    "--log.format": ["text"],
}


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_value_that_makes_no_sense_is_refused(flag: Flag[Any]) -> None:
    for text in ["", *REFUSED[flag.name]]:
        message = error_of([f"{flag.name}={text}", flag.only or "serve"])
        assert message.startswith(f"{flag.name}: expected {flag.expects}, found {text!r}")


words = st.sampled_from([*Command, *(flag.name for flag in FLAGS), "--", "-h", "="])
arguments = st.lists(words | st.text(max_size=9), max_size=5)
variables = st.dictionaries(st.sampled_from([flag.variable for flag in FLAGS]), st.text())


def outcome(argv: list[str], environ: dict[str, str]) -> str:
    try:
        parse(argv, environ)
    except UsageError as error:
        return f"usage: {error}"
    except SystemExit as end:
        return f"exit: {end.code}"
    return "parsed"


@given(arguments, variables)
def test_usage_error_of_one_line_is_the_only_failure(
    argv: list[str], environ: dict[str, str]
) -> None:
    told = outcome(argv, environ)
    assert told in {"parsed", "exit: 0"} or (told.startswith("usage: ") and told.isprintable())


# ----------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15s", 15),
        ("500ms", 0.5),
        ("1m30s", 90),
        ("5m", 300),
        ("1h", 3600),
        ("1h0m1s1ms", 3601.001),
        ("1d", 86_400),
        ("1w", 604_800),
        ("1y", 31_536_000),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "15", "0", "0s", "-1s", "+1s", "1.5s", "1s1m", "1s1s", "1 s", "1S", "\u0661s"]
)
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$|above zero"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:10686", ListenAddress("127.0.0.1", 10686)),
        ("0.0.0.0:0", ListenAddress("0.0.0.0", 0)),
        ("[::]:10686", ListenAddress("::", 10686)),
        ("[0:0::1]:65535", ListenAddress("::1", 65535)),
        ("[fe80::1%eth0]:80", ListenAddress("fe80::1%eth0", 80)),
        (":10686", ListenAddress("", 10686)),
        ("localhost:10686", ListenAddress("localhost", 10686)),
        ("host-1.example.org.:80", ListenAddress("host-1.example.org.", 80)),
    ],
)
def test_listen_address(text: str, address: ListenAddress) -> None:
    assert parse_listen_address(text) == address
    assert parse_listen_address(str(address)) == address


@given(st.text(st.sampled_from("[]:.%019afz-_ "), max_size=20))
def test_listen_address_is_one_or_a_value_error(text: str) -> None:
    try:
        address = parse_listen_address(text)
    except ValueError:
        return
    assert parse_listen_address(str(address)) == address


# ------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["check", "--help"]])
def test_help_is_the_same_on_every_terminal(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(SystemExit) as end:
        parse(argv, {})
    assert end.value.code == 0
    assert capsys.readouterr().out == help_text()


def test_help_tells_of_every_flag_within_80_columns() -> None:
    lines = help_text().splitlines()
    assert max(len(line) for line in lines) < 80
    for flag in FLAGS:
        assert lines.count(f"  {flag.name}={flag.metavar}") == 1
    assert "`" not in help_text()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["--version"], {})
    assert end.value.code == 0
    assert capsys.readouterr().out == f"microvm-exporter {__version__}\n"


def test_table_has_a_row_for_every_flag() -> None:
    rows = flags_table().splitlines()
    assert len(rows) == 2 + len(FLAGS)
    assert rows[2] == (
        "| `--web.listen-address` | `127.0.0.1:10686` | Address to serve HTTP on; `[::]:10686` and"
        " `:10686` mean all addresses, IPv4 and IPv6. Repeatable. Only `serve`. |"
    )
    assert all(row.count("|") == 4 for row in rows)
