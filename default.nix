# What flake.nix has, for those who do without flakes. The modules need no package set:
#   imports = [ (import ./microvm-exporter { }).nixosModules.default ];
{
  pkgs ? import <nixpkgs> { },
}:
let
  microvm-exporter = pkgs.callPackage ./nix/package.nix { };
  inherit (microvm-exporter.tests) vm-test;
in
{
  inherit microvm-exporter;

  overlays.default = final: _: {
    microvm-exporter = final.callPackage ./nix/package.nix { };
  };

  nixosModules = {
    default.imports = [ ./nix/module.nix ];
    monitoring.imports = [ ./nix/monitoring.nix ];
  };

  checks = {
    inherit microvm-exporter vm-test;
  };

  # The test tells what it does, and can be watched.
  demo = vm-test.driver;

  shell = pkgs.callPackage ./nix/shell.nix { inherit microvm-exporter; };
}
