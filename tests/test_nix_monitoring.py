"""nix/monitoring.nix: the targets, and how it makes the rules anew."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import nix_eval
from nix_eval import NIX, ROOT

SCRAPE = """
(import ./nix/monitoring.nix {
  lib.mkIf = condition: value: if condition then value else null;
  config.services.microvm-monitoring.scrape = {
    hosts = [ %s ]; port = 10686; interval = "30s"; labels.cluster = "home";
  };
  pkgs = { };
}).config.services.prometheus.scrapeConfigs
"""


@pytest.mark.skipif(bool(nix_eval.missing()), reason=str(nix_eval.missing()))
def test_scrape_job_has_each_host_with_its_port() -> None:
    hosts = ("vmhost.example", "10.0.0.2:9999", "fd00::2", "[fd00::3]", "[::1]:9999")
    [job] = nix_eval.evaluate(SCRAPE % " ".join(f'"{host}"' for host in hosts))
    targets = ["vmhost.example:10686", "10.0.0.2:9999"]
    targets += ["[fd00::2]:10686", "[fd00::3]:10686", "[::1]:9999"]
    assert job == {
        "job_name": "microvm",
        "scrape_interval": "30s",
        "static_configs": [{"targets": targets, "labels": {"cluster": "home"}}],
    }
    assert nix_eval.evaluate(SCRAPE % "") is None


def test_rules_are_made_with_no_library_but_yaml(tmp_path: Path) -> None:
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
