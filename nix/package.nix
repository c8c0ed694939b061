# The exporter, for nixpkgs 25.05 and later. `callPackage` it.
{
  lib,
  glib,
  gobject-introspection,
  python3Packages,
  python313Packages,
  testers,
  wrapGAppsNoGuiHook,
}:
let
  # pydbus 0.6.0 runs on Python 3.11 to 3.13.
  python =
    if lib.versionAtLeast python3Packages.python.version "3.14" then
      python313Packages
    else
      python3Packages;

  # The sockets of 0.8.1, which nixpkgs had before, lack methods that are called.
  pyroute2 = lib.throwIf (lib.versionOlder python.pyroute2.version "0.9.1") (
    "microvm-exporter needs pyroute2 0.9.1 or later, and this nixpkgs has ${python.pyroute2.version}:"
    + " take the package from a newer one, as docs/nixos.md says under \"Which nixpkgs\""
  ) python.pyroute2;

  package = builtins.readFile ../exporter/microvm_exporter/__init__.py;

  # Those that need neither root, nor a host, nor the rest of the checkout.
  tests = map (name: "tests/test_${name}.py") [
    "activity"
    "budget"
    "config"
    "declaration"
    "drift"
    "exposition"
    "laws"
    "links"
    "log"
    "missed"
    "news"
    "notify"
    "observer"
    "renderer"
    "restarts"
    "runner"
    "schedule"
    "server"
    "state"
    "state_follow"
    "systemd"
    "systemd_follow"
    "text"
    "unit_files"
    "untrusted"
    "watch"
    "web"
    "worker"
  ];
in
python.buildPythonApplication {
  pname = "microvm-exporter";
  version = builtins.head (builtins.match ".*__version__ = \"([^\"]+)\".*" package);
  pyproject = true;

  # What the build and its tests read, so that nothing else changes the package.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../LICENSE
      ../README.md
      ../exporter
      ../pyproject.toml
      ../tests
    ];
  };

  build-system = [ python.hatchling ];

  dependencies = [
    python.prometheus-client
    python.pydbus
    python.pygobject3
    pyroute2
    python.waitress
  ];

  # PyGObject finds Gio by the type libraries that the wrapper names.
  nativeBuildInputs = [
    gobject-introspection
    wrapGAppsNoGuiHook
  ];
  buildInputs = [ glib ];
  dontWrapGApps = true; # it would wrap a second time
  preFixup = ''
    makeWrapperArgs+=("''${gappsWrapperArgs[@]}")
  '';

  nativeCheckInputs = [
    python.hypothesis
    python.pytest
    python.pytest-timeout
  ];
  # The options of pytestCheckHook for this have other names since nixpkgs 25.11. What is installed is
  # run without the build's environment: whoever misses a bus has found Gio.
  checkPhase = ''
    runHook preCheck
    python -m pytest -m "not host" ${toString tests}
    { env --ignore-environment $out/bin/microvm-exporter check --dbus.address=unix:path=/none || true; } | grep "no system bus"
    runHook postCheck
  '';

  passthru = {
    inherit (python) python;
    tests.vm-test = testers.runNixOSTest ./vm-test.nix;
  };

  meta = {
    description = "Prometheus exporter that finds drift between the MicroVMs a NixOS host declares and what is there";
    homepage = "https://github.com/microvm-exporter/microvm-exporter";
    license = lib.licenses.mit;
    mainProgram = "microvm-exporter";
    platforms = lib.platforms.linux;
  };
}
