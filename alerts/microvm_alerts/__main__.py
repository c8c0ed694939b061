"""Write the rule file: ``python -m microvm_alerts [--settings=FILE] [--output=FILE]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from microvm_alerts.drift import drift_group
from microvm_alerts.exporter import exporter_group
from microvm_alerts.recording import recording_group
from microvm_alerts.rules import to_yaml
from microvm_alerts.settings import Settings, SettingsError, read_settings
from microvm_alerts.vms import vms_group

__all__ = ["RULES_FILE", "main", "make_rules"]

RULES_FILE: Final = Path(__file__).parents[1] / "microvm.rules.yml"


def make_rules(settings: Settings) -> str:
    """Give the text of the rule file."""
    groups = (recording_group, drift_group, vms_group, exporter_group)
    return to_yaml(tuple(group(settings) for group in groups))


def main() -> int:
    """Write the file; 2 when the settings cannot be used."""
    parser = argparse.ArgumentParser(prog="microvm_alerts", description="Write the rule file.")
    parser.add_argument("--settings", type=Path, help="JSON file of what is to be otherwise")
    parser.add_argument("--output", type=Path, default=RULES_FILE, help="file to write")
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.settings) if arguments.settings else Settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    arguments.output.write_text(make_rules(settings), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
