"""Blocks of Prometheus, made of samples by promtool."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from host.service import TOOLS
from microvm_simulator.samples import Samples

__all__ = ["make_blocks"]


def make_blocks(samples: Samples, directory: Path) -> None:
    """Add blocks of the samples to the directory. CalledProcessError when promtool refuses."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "samples.om"
        command = [str(TOOLS / "promtool"), "tsdb", "create-blocks-from", "openmetrics", "--quiet"]
        for part in samples.parts():
            with path.open("wb") as file:
                file.writelines(part)
            subprocess.run([*command, str(path), str(directory)], check=True)
