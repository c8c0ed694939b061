# For work on the project on NixOS, where `make setup` cannot install anything. The tests that
# package.nix names run here: `python -m pytest -m "not host" tests/test_drift.py`, say.
{
  deadnix,
  microvm-exporter,
  mkShell,
  nixfmt,
  prometheus,
  statix,
}:
mkShell {
  inputsFrom = [ microvm-exporter ];

  packages = [
    deadnix
    nixfmt
    prometheus.cli # promtool
    statix
    (microvm-exporter.python.withPackages (
      python:
      microvm-exporter.dependencies
      ++ [
        python.hypothesis
        python.mypy
        python.pytest
        python.pytest-cov
        python.pytest-timeout
        python.pytest-xdist
        python.pyyaml
        python.ruff
        python.types-pyyaml
      ]
    ))
  ];

  PYTHONPATH = "exporter";
}
