# Stands in for the host module of microvm.nix: the options that are read of it, its units and its
# files, after tests/host/layout.py. No guest boots: a runner's process holds the VM's TAPs open, as
# a hypervisor does, so that the test needs no nested virtualisation.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.microvm;
  inherit (cfg) stateDir;
  inherit (lib) mkOption types;

  ip = "${pkgs.iproute2}/bin/ip";
  current = "${stateDir}/%i/current";
  booted = "${stateDir}/%i/booted";

  holdTaps = pkgs.writeText "hold-taps.py" ''
    import fcntl, os, signal, struct, sys

    for name in sys.argv[1:]:
        tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x5002))
    signal.pause()
  '';

  script = text: pkgs.writeShellScript "script" "set -eu\n${text}";

  runner =
    name: taps:
    pkgs.linkFarm "microvm-qemu-${name}" {
      "bin/microvm-run" = script "exec ${pkgs.python3}/bin/python3 ${holdTaps} ${toString taps}";
      "bin/microvm-shutdown" = script ''
        kill "$MAINPID"
        while kill -0 "$MAINPID" 2>/dev/null; do sleep 0.02; done
      '';
      "bin/tap-up" = script (
        lib.concatMapStrings (tap: ''
          if [ -e /sys/class/net/${tap} ]; then ${ip} link delete ${tap}; fi
          ${ip} tuntap add name ${tap} mode tap user microvm vnet_hdr
          ${ip} link set ${tap} up
        '') taps
      );
      "bin/tap-down" = script (lib.concatMapStrings (tap: "${ip} link delete ${tap}\n") taps);
      "share/microvm/tap-interfaces" = pkgs.writeText "tap-interfaces" (
        lib.concatMapStrings (tap: "${tap}\n") taps
      );
      "share/microvm/hypervisor" = pkgs.writeText "hypervisor" "qemu\n";
    };

  # What the guest's own configuration would give.
  guest = name: taps: {
    config = {
      microvm = {
        hypervisor = "qemu";
        declaredRunner = runner name taps;
        interfaces = map (id: {
          type = "tap";
          inherit id;
        }) taps;
      };
      system.build.toplevel = pkgs.writeText "nixos-system-${name}" name;
    };
  };

  vm =
    { name, config, ... }:
    {
      options = {
        autostart = mkOption {
          type = types.bool;
          default = true;
        };
        taps = mkOption {
          type = types.listOf types.str;
          default = [ ];
        };
        config = mkOption {
          type = types.raw;
          default = guest name config.taps;
        };
        evaluatedConfig = mkOption {
          type = types.raw;
          default = null;
        };
        flake = mkOption {
          type = types.raw;
          default = null;
        };
        updateFlake = mkOption {
          type = types.nullOr types.str;
          default = null;
        };
      };
    };

  helpers = [
    "microvm-tap-interfaces"
    "microvm-macvtap-interfaces"
    "microvm-pci-devices"
    "microvm-virtiofsd"
  ];
  instance = name: template: "${template}@${name}.service";

  helper =
    {
      up,
      down ? null,
      after ? [ "microvm-set-booted@%i.service" ],
    }:
    {
      before = [ "microvm@%i.service" ];
      inherit after;
      partOf = [ "microvm@%i.service" ];
      unitConfig.ConditionPathExists = "${current}/bin/${up}";
      restartIfChanged = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${current}/bin/${up}";
        ExecStop = lib.mkIf (down != null) "${booted}/bin/${down}";
      };
    };

  templates = {
    "microvm-tap-interfaces@" = helper {
      up = "tap-up";
      down = "tap-down";
    };
    "microvm-macvtap-interfaces@" = helper {
      up = "macvtap-up";
      down = "macvtap-down";
    };
    "microvm-pci-devices@" = helper {
      up = "pci-setup";
      after = [ ];
    };
    "microvm-virtiofsd@" = helper { up = "virtiofsd-run"; };

    "microvm-set-booted@" = {
      before = [ "microvm@%i.service" ];
      partOf = [ "microvm@%i.service" ];
      restartIfChanged = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        WorkingDirectory = "${stateDir}/%i";
        User = "microvm";
        Group = "kvm";
        ExecStart = "${script ''
          rm -f booted
          ln -s "$(readlink current)" booted
        ''}";
        ExecStop = "${pkgs.coreutils}/bin/rm booted";
      };
    };

    "microvm@" = {
      requires = map (instance "%i") (helpers ++ [ "microvm-set-booted" ]);
      after = map (instance "%i") (helpers ++ [ "microvm-set-booted" ]);
      unitConfig.ConditionPathExists = "${current}/bin/microvm-run";
      restartIfChanged = false;
      serviceConfig = {
        WorkingDirectory = "${stateDir}/%i";
        ExecStart = "${current}/bin/microvm-run";
        ExecStop = "${booted}/bin/microvm-shutdown";
        Restart = "always";
        RestartSec = "5s";
        User = "microvm";
        Group = "kvm";
      };
    };
  };

  declared = name: vm: {
    "install-microvm-${name}" = {
      before = map (instance name) ([ "microvm" ] ++ helpers ++ [ "microvm-set-booted" ]);
      partOf = [ "microvm@${name}.service" ];
      wantedBy = [ "microvms.target" ];
      serviceConfig.Type = "oneshot";
      script = ''
        mkdir -p ${stateDir}/${name}
        cd ${stateDir}/${name}
        ln -sTf ${vm.config.config.microvm.declaredRunner} current
        ln -sTf ${vm.config.config.system.build.toplevel} toplevel
        chown -h microvm:kvm . current
      '';
    };
  }
  // lib.genAttrs (map (template: "${template}@${name}") [
    "microvm"
    "microvm-tap-interfaces"
    "microvm-pci-devices"
    "microvm-virtiofsd"
  ]) (_: {
    overrideStrategy = "asDropin";
    path = lib.mkForce [ ];
    serviceConfig.X-RestartIfChanged = [
      ""
      false
    ];
  });
in
{
  options.microvm = {
    host.enable = mkOption {
      type = types.bool;
      default = true;
    };
    stateDir = mkOption {
      type = types.path;
      default = "/var/lib/microvms";
    };
    autostart = mkOption {
      type = types.listOf types.str;
      default = [ ];
    };
    vms = mkOption {
      type = types.attrsOf (types.submodule vm);
      default = { };
    };
  };

  config = {
    boot.kernelModules = [ "tun" ];

    users.users.microvm = {
      isSystemUser = true;
      group = "kvm";
    };

    microvm.autostart = lib.attrNames (lib.filterAttrs (_: vm: vm.autostart) cfg.vms);

    systemd = {
      tmpfiles.settings."10-microvm".${stateDir}.d = {
        user = "microvm";
        group = "kvm";
        mode = "0775";
      };

      services = lib.mkMerge ([ templates ] ++ lib.mapAttrsToList declared cfg.vms);

      targets.microvms = {
        wantedBy = [ "multi-user.target" ];
        wants = map (name: "microvm@${name}.service") cfg.autostart;
      };
    };
  };
}
