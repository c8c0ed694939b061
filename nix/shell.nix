# For work on the project on NixOS, where `make setup` cannot install anything: the tests that need
# no disposable host run by `python -m pytest -m "not host"`.
{
  deadnix,
  microvm-exporter,
  mkShell,
  nixfmt,
  prometheus,
  python3,
  statix,
}:
mkShell {
  inputsFrom = [ microvm-exporter ];

  packages = [
    deadnix
    nixfmt
    prometheus.cli # promtool
    statix
    (python3.withPackages (
      ps:
      microvm-exporter.dependencies
      ++ [
        ps.hypothesis
        ps.mypy
        ps.pytest
        ps.pytest-cov
        ps.pytest-timeout
        ps.pytest-xdist
        ps.pyyaml
        ps.ruff
        ps.types-pyyaml
      ]
    ))
  ];

  PYTHONPATH = "exporter";
}
