{
  description = "A host with MicroVMs, and what tells when it is not as declared";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    microvm = {
      url = "github:microvm-nix/microvm.nix";
      inputs.nixpkgs.follows = "nixpkgs";
    };
    microvm-exporter = {
      url = "github:microvm-exporter/microvm-exporter";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    {
      nixpkgs,
      microvm,
      microvm-exporter,
      ...
    }:
    {
      nixosConfigurations.vmhost = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          microvm.nixosModules.host
          microvm-exporter.nixosModules.default
          microvm-exporter.nixosModules.monitoring
          ./configuration.nix
          ./monitoring.nix
        ];
      };
    };
}
