# The host and its MicroVMs. hardware-configuration.nix comes from `nixos-generate-config`.
{
  imports = [ ./hardware-configuration.nix ];

  boot.loader.systemd-boot.enable = true;
  networking.hostName = "vmhost";
  system.stateVersion = "26.05";

  # Finds what is not as declared here, and serves it on port 10686.
  services.prometheus.exporters.microvm.enable = true;

  microvm.vms.hello.config = {
    microvm = {
      hypervisor = "qemu";
      interfaces = [
        {
          type = "tap";
          id = "vm-hello";
          mac = "02:00:00:00:00:01";
        }
      ];
      shares = [
        {
          proto = "9p";
          tag = "ro-store";
          source = "/nix/store";
          mountPoint = "/nix/.ro-store";
        }
      ];
    };
    system.stateVersion = "26.05";
  };
}
