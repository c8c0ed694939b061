"""A disposable machine: the running machine's own /usr, booted by systemd-nspawn.

It has its own systemd, system bus, journal, users, /etc, /var and network. All of it is in memory
and ends with the process that booted it, however that ends.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import IO, Any, Self

from host import nspawn
from host.cgroup import Cgroup
from host.forward import Forward

EXPORTER_USER = "microvm-exporter"
"""An unprivileged user with a group of the same name, for running the exporter as."""

PYTHON = Path(sys.executable).resolve()
"""An interpreter that every machine has, at this path, for every user."""

_USERS = ("g kvm -", "u microvm -:kvm", f"u {EXPORTER_USER} -")
_FOLDERS = ("/nix/store", "/nix/var/nix/gcroots/microvm", "/var/lib/microvms")
_BUS = "/run/dbus/system_bus_socket"
_GENERATORS = "systemd/system-generators"
_OPEN_TO_ALL = 0o011

_numbers = itertools.count(1)


class MachineError(Exception):
    """A machine did not boot, or a command in it failed: says which, and what was printed."""


class Machine:
    """A booted machine. `with Machine.boot() as machine:` ends it, and so does `close()`.

    `leader` is the process id, as seen from outside, of the systemd in it.
    """

    @staticmethod
    def missing() -> str | None:
        """Why no machine can be booted here, in one line; None when one can."""
        return nspawn.missing()

    @classmethod
    def boot(cls, timeout: float = 60.0) -> Self:
        """Boots a machine and waits until its systemd has started everything, the bus included.

        Raises MachineError with what was printed when that takes longer than `timeout` seconds.
        Call it in a thread that lives at least as long as the machine: with it the machine ends.
        """
        machine = cls()
        try:
            machine._wait_until_up(timeout)
            machine._prepare()
        except BaseException:
            machine.close()
            raise
        return machine

    def __init__(self) -> None:
        """Only starts it; `boot` is the way to have a machine."""
        self.name = f"host{os.getpid()}-{next(_numbers)}"
        self.leader = 0
        self._forwards: list[Forward] = []
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - until close()
        self._cgroup = Cgroup.create(self.name)
        self._process = subprocess.Popen(
            nspawn.command(self.name, self._cgroup),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=nspawn.ENVIRONMENT,
            start_new_session=True,  # Ctrl-C is for the caller, who then ends the machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the machine with all that runs in it, at once: nothing in it is worth a wait."""
        for forward in self._forwards:
            forward.close()
        # The first process of a PID namespace takes all others along and is the last to be gone.
        for pid in (*_children(self._process.pid), self._process.pid):
            if self._process.poll() is None:
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.kill(pid, signal.SIGKILL)
                    self._process.wait(10)
        self._cgroup.remove()
        self._output.close()

    def run(
        self,
        *argv: str,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the machine, as root or `user`, and returns what it printed.

        `env` is added to a small fixed environment; nothing comes from the caller's. Raises
        MachineError when the command exits other than 0 (unless `check` is false), or is not done
        after `timeout` seconds, which ends it.
        """
        process = self.popen(*argv, user=user, env=env, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(input or "", timeout)
        except BaseException as error:
            process.kill()
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise MachineError(f"{' '.join(argv)}: not done after {timeout} s") from None
            raise
        if check and process.returncode:
            status = f"exit status {process.returncode}"
            raise MachineError(f"{' '.join(argv)}: {status}\n{out}{err}".rstrip())
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def popen(
        self,
        *argv: str,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
    ) -> Inside:
        """Starts a command in the machine and returns at once; the machine's end ends it too."""
        return Inside(
            self._inside(argv, user),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env={**nspawn.ENVIRONMENT, **(env or {})},
        )

    def systemctl(self, *argv: str, check: bool = True, timeout: float = 120.0) -> str:
        """Runs systemctl in the machine and returns its standard output."""
        return self.run("systemctl", *argv, check=check, timeout=timeout).stdout

    def path(self, inside: str | PurePath) -> Path:
        """Where a file of the machine is for this process, to be read and written directly.

        A symbolic link with an absolute target leads out of the machine from here: read such a
        link, or make one, but do not follow it.
        """
        return Path(f"/proc/{self.leader}/root", str(inside).lstrip("/"))

    def write(self, path: str | PurePath, text: str, mode: int = 0o644) -> None:
        """Writes a file of the machine, with the folders that it needs."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def link(self, path: str | PurePath, target: str | PurePath) -> None:
        """Makes a symbolic link in the machine, or points the one that is there elsewhere."""
        link = self.path(path)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    def remove(self, path: str | PurePath) -> None:
        """Removes a file, link or folder of the machine with all in it, if it is there."""
        here = self.path(path)
        if here.is_dir() and not here.is_symlink():
            shutil.rmtree(here)
        else:
            here.unlink(missing_ok=True)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit as `systemctl show` has them; asking loads the unit."""
        wanted = f"--property={','.join(properties)}"
        lines = self.systemctl("show", "--timestamp=unix", wanted, unit).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def links(self) -> dict[str, dict[str, Any]]:
        """The network links by name, as `ip -details -json link` has them."""
        found = json.loads(self.run("ip", "-details", "-json", "link").stdout)
        return {link["ifname"]: link for link in found}

    def ids(self, user: str) -> tuple[int, int]:
        """A user's numeric id, and that of the user's own group."""
        for line in self.path("/etc/passwd").read_text().splitlines():
            name, _, uid, gid, *_ = line.split(":")
            if name == user:
                return int(uid), int(gid)
        raise MachineError(f"{self.name} has no user {user}")

    def forward(self, port: int, outside: int | None = None) -> tuple[str, int]:
        """Makes a port of the machine's loopback reachable here; returns the address to use here.

        It has the same port here, or the port `outside`, where 0 means any free one. Raises
        OSError when it is taken.
        """
        forward = Forward(self.leader, port, port if outside is None else outside)
        self._forwards.append(forward)
        return forward.address

    def _inside(self, argv: tuple[str, ...], user: str | None) -> list[str]:
        # nsenter waits for the command in the other PID namespace, which must not outlive it.
        enter = ["nsenter", f"--target={self.leader}", "--all", "setpriv", "--pdeathsig=KILL"]
        if user:
            uid, gid = self.ids(user)
            enter += [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        return [*enter, *argv]

    def _wait_until_up(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not (self._has_bus() and self._has_started()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._output.seek(0)
                raise MachineError(f"{self.name} did not boot:\n{self._output.read()}")
            time.sleep(0.02)

    def _has_bus(self) -> bool:
        """The processes are unshare, its child nspawn, and the systemd that this one boots."""
        for parent in _children(self._process.pid):
            for child in _children(parent):
                with suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                        self.leader = child
        return self.leader != 0 and self.path(_BUS).exists()

    def _has_started(self) -> bool:
        state = self.systemctl("is-system-running", check=False)
        return state.strip() in ("running", "degraded")

    def _prepare(self) -> None:
        """Makes the users, folders and permissions of a host that is to run MicroVMs."""
        self.run("systemd-sysusers", "--inline", *_USERS)
        self.path("/dev/net/tun").chmod(0o666)  # as udev has it, which does not run in here
        for folder in _FOLDERS:
            self.path(folder).mkdir(parents=True)
        for generator in Path("/usr/lib", _GENERATORS).iterdir():  # half of a reload's time
            self.link(f"/etc/{_GENERATORS}/{generator.name}", "/dev/null")
        for parent in {parent for bound in nspawn.bound_paths() for parent in bound.parents}:
            inside = self.path(parent)  # where a home is closed to other users, it is not in here
            inside.chmod(inside.stat().st_mode | _OPEN_TO_ALL)


class Inside(subprocess.Popen[str]):
    """A command running in a machine. Signals reach the command itself, whose status this has."""

    @property
    def command_pid(self) -> int:
        """The command's process id as seen from outside; ProcessLookupError when it has ended."""
        while self.poll() is None:
            if children := _children(self.pid):
                return children[0]
            time.sleep(0.005)  # nsenter has yet to fork
        raise ProcessLookupError(f"{self.args!r} has ended")

    def send_signal(self, sig: int) -> None:
        """Signals the command; nothing happens when it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.command_pid, sig)


def eventually(what: str, holds: Callable[[], object], timeout: float = 10.0) -> None:
    """Waits until `holds` gives something true; raises AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []
