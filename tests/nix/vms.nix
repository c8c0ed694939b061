# `microvm.vms` as its option gives it, with a MicroVM of each origin. What the host's own modules
# would not evaluate throws.
let
  unread = what: throw "${what} was read";

  runner =
    name:
    derivation {
      name = "microvm-qemu-${name}";
      system = "none";
      builder = "none";
    };

  guest =
    name:
    {
      hypervisor ? "qemu",
      interfaces ? [ ],
    }:
    {
      config = {
        microvm = {
          inherit hypervisor interfaces;
          declaredRunner = runner name;
          runner = unread "the runner of each hypervisor";
          mem = unread "memory";
        };
        services = unread "the guest's services";
      };
      options = unread "the guest's options";
    };

  # All interfaces have all options. `link` and `mode` have no default: unset, they throw.
  interface = type: id: {
    inherit type id;
    mac = unread "a MAC address";
    bridge = unread "the bridge";
    tap.vhost = unread "a TAP's vhost";
    macvtap.link = unread "a macvtap's link";
    macvtap.mode = unread "a macvtap's mode";
  };

  declarative = config: {
    inherit config;
    autostart = true;
    restartIfChanged = true;
    flake = null;
    evaluatedConfig = null;
    updateFlake = unread "updateFlake";
    pkgs = unread "the guest's packages";
    specialArgs = unread "specialArgs";
  };

  ofFlake =
    name:
    {
      updateFlake ? null,
    }:
    declarative (unread "config beside flake")
    // {
      evaluatedConfig = unread "evaluatedConfig beside flake";
      flake.nixosConfigurations.${name} = guest name { hypervisor = "cloud-hypervisor"; };
      inherit updateFlake;
    };
in
{
  firewall = declarative (
    guest "firewall" {
      interfaces = [
        (interface "tap" "vm-fw")
        (interface "macvtap" "vm-fw-uplink")
        (interface "user" "a name that no device can have")
        (interface "bridge" "vm-fw-br")
      ];
    }
  );

  "mail.internal" = declarative (guest "mail" { }) // {
    autostart = false;
  };

  evaluated = declarative (unread "config beside evaluatedConfig") // {
    evaluatedConfig = guest "evaluated" { hypervisor = "firecracker"; };
  };

  # microvm.nix before 2025-11
  legacy = builtins.removeAttrs (declarative (guest "legacy" { })) [
    "evaluatedConfig"
    "restartIfChanged"
  ];

  flake = ofFlake "flake" { };

  # That there is one matters, not what it says: it may hold a token.
  deployed = ofFlake "deployed" { updateFlake = [ (unread "the text of updateFlake") ]; };
}
