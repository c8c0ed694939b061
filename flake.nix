{
  description = "Prometheus exporter that finds drift between the MicroVMs a NixOS host declares and what is there";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { nixpkgs, ... }:
    let
      project = import ./.;
      forAllSystems =
        outputs:
        nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
          system: outputs (project { pkgs = nixpkgs.legacyPackages.${system}; })
        );
    in
    {
      inherit (project { }) overlays nixosModules;

      packages = forAllSystems (
        { microvm-exporter, ... }:
        {
          inherit microvm-exporter;
          default = microvm-exporter;
        }
      );

      checks = forAllSystems ({ checks, ... }: checks);

      devShells = forAllSystems ({ shell, ... }: { default = shell; });

      apps = forAllSystems (
        { demo, ... }:
        {
          demo = {
            type = "app";
            program = "${demo}/bin/nixos-test-driver";
            meta.description = "A host on which a MicroVM is removed, and what the exporter and Prometheus say of it";
          };
        }
      );

      templates.default = {
        path = ./nix/template;
        description = "A host with MicroVMs, the exporter, Prometheus and Grafana";
        welcomeText = ''
          What is missing is `hardware-configuration.nix`, as `nixos-generate-config` writes it, and
          a way to log in. Then `nixos-rebuild switch --flake .#vmhost`, and on that host
          `microvm-exporter check`, http://localhost:9090/alerts and http://localhost:3000.
        '';
      };
    };
}
