"""What nix/monitoring.nix runs to make the rules anew, with the Python that it has: only PyYAML."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from nix_eval import NIX, ROOT


def test_rules_are_made_with_nothing_but_yaml(tmp_path: Path) -> None:
    text = (NIX / "monitoring.nix").read_text()
    assert re.findall(r"withPackages \(python: \[ (.+?) \]\)", text) == ["python.pyyaml"]
    (tmp_path / "yaml").symlink_to(Path(yaml.__file__).parent)
    settings, rules = tmp_path / "settings.json", tmp_path / "microvm.rules.yml"
    settings.write_text(json.dumps({"grafana_url": "https://grafana.example"}))
    subprocess.run(
        [
            *(sys.executable, "-S", "-m", "microvm_alerts"),
            *(f"--settings={settings}", f"--output={rules}"),
        ],
        env={"PYTHONPATH": f"{ROOT / 'alerts'}:{ROOT / 'exporter'}:{tmp_path}"},
        check=True,
    )
    committed = (ROOT / "alerts/microvm.rules.yml").read_text()
    made = yaml.safe_load(committed.replace("http://localhost:3000", "https://grafana.example"))
    assert yaml.safe_load(rules.read_text()) == made
