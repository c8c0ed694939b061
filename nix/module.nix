# `services.prometheus.exporters.microvm`, for hosts with microvm.nix and for those without.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) literalExpression mkOption types;

  cfg = config.services.prometheus.exporters.microvm;

  name = "microvm-exporter";
  declarationFile = "/etc/${name}/declaration.json";

  # Of microvm.nix, the guest module too has options called `microvm`.
  hasHostModule = options ? microvm && options.microvm ? vms;

  declaration =
    imperative:
    import ./declaration.nix (
      if hasHostModule && config.microvm.host.enable then
        {
          inherit (config.microvm) vms stateDir autostart;
          inherit imperative;
        }
      else
        {
          vms = { };
          inherit imperative;
        }
    );

  json = pkgs.formats.json { };

  host =
    if lib.hasInfix ":" cfg.listenAddress && !lib.hasPrefix "[" cfg.listenAddress then
      "[${cfg.listenAddress}]"
    else
      cfg.listenAddress;

  # What the VMs are told by. A declaration names the state directory too.
  source =
    if cfg.declarationFile == null then
      {
        flag = "--state-dir";
        variable = "MICROVM_EXPORTER_STATE_DIR";
        path = cfg.declaration.state_dir;
      }
    else
      {
        flag = "--declaration.file";
        variable = "MICROVM_EXPORTER_DECLARATION_FILE";
        path = cfg.declarationFile;
      };
  sourceFlags = [ "${source.flag}=${source.path}" ];

  unit = import ./unit.nix {
    exe = lib.getExe cfg.package;
    flags = [
      "--web.listen-address=${host}:${toString cfg.port}"
      "--collect.interval=${cfg.interval}"
    ]
    ++ sourceFlags
    ++ cfg.extraFlags;
    inherit (cfg) user group;
    stateDir = cfg.declaration.state_dir;
  };

  report = pkgs.writeShellScript "${name}-report" (
    import ./report.nix {
      exe = lib.getExe cfg.package;
      jq = lib.getExe pkgs.jq;
      setpriv = lib.getExe' pkgs.util-linux "setpriv";
      timeout = lib.getExe' pkgs.coreutils "timeout";
      flags = sourceFlags;
      inherit (cfg) user group;
    }
  );

  # On the command line `check` is to judge by what the service has.
  command = pkgs.writeShellScriptBin name ''
    if [[ ! -v ${source.variable} ]]; then
      export ${source.variable}=${lib.escapeShellArg source.path}
    fi
    exec ${lib.getExe cfg.package} "$@"
  '';

  # One of the two commands that ip46tables runs refuses it.
  filtersByAddress =
    cfg.firewallFilter != null
    && lib.any (word: lib.elem word (lib.splitString " " cfg.firewallFilter)) [
      "-s"
      "-d"
      "--source"
      "--src"
      "--destination"
      "--dst"
    ];

  exporter =
    { config, ... }:
    {
      options = {
        enable = lib.mkEnableOption "the Prometheus exporter for drift between declared MicroVMs and those that are there";

        package = mkOption {
          type = types.package;
          default = pkgs.microvm-exporter or (pkgs.callPackage ./package.nix { });
          defaultText = literalExpression "pkgs.microvm-exporter or (pkgs.callPackage ./package.nix { })";
          description = "The package to use.";
        };

        port = mkOption {
          type = types.port;
          default = 10686;
          description = "Port to listen on.";
        };

        listenAddress = mkOption {
          type = types.str;
          default = "0.0.0.0";
          example = "::";
          description = ''
            Address to listen on, as in every exporter of nixpkgs all of IPv4 unless told otherwise.
            There is no login: the firewall, which stays closed without {option}`openFirewall`, or
            an address like `127.0.0.1` is what keeps others away.
          '';
        };

        extraFlags = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "--collect.max-vms=10000" ];
          description = ''
            More flags for `microvm-exporter serve`. They win over those of other options, but for
            {option}`listenAddress`: a `--web.listen-address` is one more to listen on.
          '';
        };

        openFirewall = mkOption {
          type = types.bool;
          default = false;
          description = "Whether to open the port in the firewall.";
        };

        firewallFilter = mkOption {
          type = types.nullOr types.str;
          default = null;
          defaultText = literalExpression ''"-p tcp -m tcp --dport ''${toString port}", with openFirewall'';
          example = "-i eth0 -p tcp -m tcp --dport 10686";
          description = ''
            What {option}`openFirewall` lets in, where the firewall is iptables: the match of a rule
            for `ip46tables`. It can name no address, which is of IPv4 or of IPv6.
          '';
        };

        firewallRules = mkOption {
          type = types.nullOr types.lines;
          default = null;
          defaultText = literalExpression ''"tcp dport ''${toString port} accept", with openFirewall'';
          example = ''
            iifname "eth0" tcp dport 10686 accept
          '';
          description = ''
            What {option}`openFirewall` lets in, where the firewall is nftables: rules for its chain
            `input`.
          '';
        };

        user = mkOption {
          type = types.str;
          default = name;
          description = "User to run as. The default one is made; it needs no privilege.";
        };

        group = mkOption {
          type = types.str;
          default = name;
          description = "Group to run as. The default one is made.";
        };

        interval = mkOption {
          type = types.str;
          default = "15s";
          example = "1m";
          description = ''
            Longest time between two looks at the host. What systemd, the kernel and the file system
            tell of is looked at as it comes.
          '';
        };

        imperative = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "scratch" ];
          description = ''
            MicroVMs that are accepted without being declared. Those made by `microvm -c` are
            accepted anyway.
          '';
        };

        declaration = mkOption {
          inherit (json) type;
          defaultText = literalExpression "what is declared by config.microvm";
          example = literalExpression ''
            {
              vms.legacy = {
                origin = "declarative";
                autostart = false;
              };
            }
          '';
          description = ''
            The MicroVMs that are wanted, as the exporter's documentation of the declaration file
            has it. What is set here is added to what {option}`microvm.vms` declares, or overrides
            it, value by value.
          '';
        };

        declarationFile = mkOption {
          type = types.nullOr types.str;
          default = declarationFile;
          description = ''
            File with the declaration. The default one is made from {option}`declaration`; any other
            has to be made by other means. With `null` the declared MicroVMs are read off the units
            of the host, which tell less.
          '';
        };

        reportOnActivation = mkOption {
          type = types.bool;
          default = false;
          description = ''
            Whether a switch prints which MicroVMs run although they are no longer declared.
            Nothing is stopped or removed. It is told once the switch has stopped what it stops; it
            takes a look of `microvm-exporter check`, at most 45 s.
          '';
        };
      };

      config = {
        firewallFilter = lib.mkIf config.openFirewall (
          lib.mkDefault "-p tcp -m tcp --dport ${toString config.port}"
        );
        firewallRules = lib.mkIf config.openFirewall (
          lib.mkDefault "tcp dport ${toString config.port} accept comment \"${name}\""
        );
        declaration = lib.mapAttrsRecursive (_: lib.mkDefault) (declaration config.imperative);
      };
    };
in
{
  # A submodule inside of nixpkgs' own: what it computes of itself is no definition of
  # `services.prometheus.exporters`, which would need itself to be known.
  options.services.prometheus.exporters = mkOption {
    type = types.submodule {
      options.microvm = mkOption {
        type = types.submodule exporter;
        default = { };
        description = "The exporter for MicroVM drift.";
      };
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !cfg.openFirewall -> cfg.firewallFilter == null && cfg.firewallRules == null;
        message = ''
          services.prometheus.exporters.microvm: firewallFilter and firewallRules have no effect
          without openFirewall.
        '';
      }
      {
        assertion = cfg.openFirewall -> config.networking.firewall.backend or null != "firewalld";
        message = ''
          services.prometheus.exporters.microvm: openFirewall has no effect where the firewall is
          firewalld: open port ${toString cfg.port} in one of its zones.
        '';
      }
      {
        assertion = filtersByAddress -> config.networking.nftables.enable || !config.networking.enableIPv6;
        message = ''
          services.prometheus.exporters.microvm: firewallFilter is for IPv4 and IPv6 alike, and with
          an address in it the firewall would not start: match an interface, use nftables, or write
          the rule into networking.firewall.extraCommands.
        '';
      }
      {
        assertion = cfg.declarationFile == null -> cfg.imperative == [ ];
        message = ''
          services.prometheus.exporters.microvm: imperative has no effect where declarationFile is
          null, as the host's units do not tell of it.
        '';
      }
    ];

    systemd.services."prometheus-${name}" = unit;

    users.users = lib.mkIf (cfg.user == name) {
      ${name} = {
        description = "Prometheus exporter for MicroVM drift";
        isSystemUser = true;
        inherit (cfg) group;
      };
    };
    users.groups = lib.mkIf (cfg.group == name) { ${name} = { }; };

    networking.firewall = lib.mkIf cfg.openFirewall {
      extraCommands = lib.mkIf (!config.networking.nftables.enable) ''
        ip46tables -A nixos-fw ${cfg.firewallFilter} -m comment --comment ${name} -j nixos-fw-accept
      '';
      extraInputRules = lib.mkIf config.networking.nftables.enable cfg.firewallRules;
    };

    environment.etc = lib.mkIf (cfg.declarationFile == declarationFile) {
      ${lib.removePrefix "/etc/" declarationFile}.text = builtins.toJSON cfg.declaration;
    };

    environment.systemPackages = [ command ];

    # Of the snippets, `etc` brings the new declaration. At boot, where nothing runs yet, there is no
    # NIXOS_ACTION.
    system.activationScripts = lib.mkIf cfg.reportOnActivation {
      ${name} = lib.stringAfter [ "etc" ] ''
        case "''${NIXOS_ACTION-}" in
          switch | test) ${report} ;;
        esac
      '';
    };
  };
}
