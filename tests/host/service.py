"""A server of the Prometheus family at work on this machine, on a free port of its loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Self

from host.nspawn import CHECKOUT

TOOLS = CHECKOUT / ".tools" / "usr" / "bin"

_SHARE = TOOLS.parent / "share"
# Debian's programs read templates and pages from /usr/share/prometheus, where nothing is installed:
# they see what was unpacked there, and nobody else does. The process stays the same one.
_WITH_SHARE = 'mount --bind "$0" /usr/share && exec "$@"'


class ServiceError(Exception):
    """A server did not start, or refused a request: says which, and what it said."""


def missing(*programs: str) -> str | None:
    """Why these programs cannot be run here, in one line; None when they can."""
    absent = [name for name in programs if shutil.which(name, path=str(TOOLS)) is None]
    return f"{', '.join(absent)} not found: make setup says why" if absent else None


class Service:
    """A program of `.tools` that serves HTTP. `with` waits until it is ready, and ends it.

    ``folder`` is its own, and goes with it. It ends with the thread that made it, too. An error
    that leaves the `with` tells what it has printed.
    """

    def __init__(self, program: str) -> None:
        """Only makes the folder and picks a port; a subclass knows what to `start` it with."""
        self._program = program
        self._temporary = tempfile.TemporaryDirectory(prefix=f"{program}-")
        self.folder = Path(self._temporary.name)
        self.address = f"127.0.0.1:{_free_port()}"
        self.url = f"http://{self.address}"
        self._log = self.folder / "log"

    def start(self, *flags: str, memory: str) -> None:
        """Start it. ``memory`` is what Go's collector tries to stay under, as ``256MiB``."""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *_in_its_place(self._program), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GOMEMLIMIT": memory},
                start_new_session=True,  # Ctrl-C is for the caller, who then ends it
            )

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if error and self.log:
            error.add_note(f"{self._program} had printed:\n{self.log}")
        self.stop()

    def stop(self) -> None:
        """End it, by force when it takes longer than ten seconds, and remove its folder."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._temporary.cleanup()

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Wait until it serves; raises ServiceError, with its log, when it does not."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError, ServiceError):
                self.request("/-/ready")
                return
            time.sleep(0.05)
        raise ServiceError(f"{self._program} is not ready:\n{self.log}")

    def reload(self) -> None:
        """Read the configuration again; raises ServiceError with what is wrong with it."""
        self.request("/-/reload", method="POST")

    def request(self, path: str, method: str = "GET", body: object = None) -> bytes:
        """Request a page, with ``body`` as JSON.

        Raises ServiceError with the reason for a refusal, OSError when nothing answers.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answered: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise ServiceError(f"{path}: {error.code} {error.read().decode()}") from None
        return answered


def _in_its_place(program: str) -> list[str]:
    path = str(TOOLS / program)
    if not (_SHARE / "prometheus").is_dir():
        return [path]
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *as_root, "sh", "-c", _WITH_SHARE, str(_SHARE), path]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
