"""`promtool test rules` on files of tests: what failed, by file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from microvm_alerts.__main__ import RULES_FILE

TESTS = RULES_FILE.parent / "tests"
PROMTOOL = RULES_FILE.parents[1] / ".tools" / "usr" / "bin" / "promtool"


def run_promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROMTOOL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=100,
    )


def run_tests(files: Sequence[Path]) -> Mapping[Path, str]:
    """What promtool says of each file, empty when all its tests hold. One process runs them all."""
    output = run_promtool("test", "rules", *files).stdout
    parts = re.split(r"^Unit Testing:  (.*)$", output, flags=re.MULTILINE)[1:]
    said = {Path(name): text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}
    assert list(said) == list(files), output
    return {path: "" if text == "SUCCESS" else text for path, text in said.items()}
