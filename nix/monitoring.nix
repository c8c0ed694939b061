# For the host that runs Prometheus or Grafana: the rules, the dashboards and the scrape job. It
# adds to what services.prometheus and services.grafana have, and enables neither. It needs nothing
# of the exporter's module, and can be beside it on one host.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.microvm-monitoring;
  inherit (lib) mkEnableOption mkOption types;

  json = pkgs.formats.json { };

  rules =
    if cfg.rules.settings == { } then
      ../alerts/microvm.rules.yml
    else
      pkgs.runCommand "microvm.rules.yml"
        { nativeBuildInputs = [ (pkgs.buildPackages.python3.withPackages (python: [ python.pyyaml ])) ]; }
        ''
          PYTHONPATH=${../alerts}:${../exporter} python3 -m microvm_alerts \
            --settings=${json.generate "settings.json" cfg.rules.settings} --output=$out
        '';

  # Only what Grafana reads: the folder also has the code that makes it.
  dashboards = builtins.path {
    name = "microvm-dashboards";
    path = ../dashboards;
    filter = path: type: type == "regular" && lib.hasSuffix ".json" path;
  };

  # The colons of an IPv6 address without brackets are not those of a port.
  target =
    host:
    if builtins.match "[^[]*:[^[]*:[^[]*" host != null then
      target "[${host}]"
    else if builtins.match ".*:[0-9]+" host == null then
      "${host}:${toString cfg.scrape.port}"
    else
      host;
in
{
  options.services.microvm-monitoring = {
    rules = {
      enable = mkEnableOption "the recording rules and alerts about MicroVMs in Prometheus";

      settings = mkOption {
        inherit (json) type;
        default = { };
        example = {
          grafana_url = "https://grafana.example";
          for_critical = "10m";
        };
        description = ''
          What the rules are to have otherwise: the settings of `make alerts`, which
          `alerts/microvm_alerts/settings.py` lists. The rules are then made anew.
        '';
      };
    };

    dashboards = {
      enable = mkEnableOption "the dashboards about MicroVMs in Grafana";

      folder = mkOption {
        type = types.str;
        default = "MicroVMs";
        description = "Folder of Grafana that they are in.";
      };
    };

    scrape = {
      hosts = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [
          "vmhost1.example"
          "fd00::2"
          "vmhost3.example:9999"
        ];
        description = ''
          Hosts that run the exporter, for a scrape job of Prometheus; there is none without any.
          A port can follow where it is another; IPv6 addresses stand in brackets then.
        '';
      };

      port = mkOption {
        type = types.port;
        default = 10686;
        description = "Port of the exporter on hosts that come without one.";
      };

      interval = mkOption {
        type = types.str;
        default = "15s";
        description = "How often the hosts are scraped.";
      };

      labels = mkOption {
        type = types.attrsOf types.str;
        default = { };
        example = {
          cluster = "home";
        };
        description = "Labels for all series of these hosts. The rules and dashboards tell clusters apart by `cluster`.";
      };
    };
  };

  config = {
    assertions = [
      {
        assertion = cfg.rules.enable -> config.services.prometheus.enable;
        message = "services.microvm-monitoring.rules.enable needs services.prometheus.enable on the same host.";
      }
      {
        assertion = cfg.dashboards.enable -> config.services.grafana.enable;
        message = "services.microvm-monitoring.dashboards.enable needs services.grafana.enable on the same host.";
      }
      {
        assertion = cfg.scrape.hosts != [ ] -> config.services.prometheus.enable;
        message = "services.microvm-monitoring.scrape.hosts needs services.prometheus.enable on the same host.";
      }
    ];

    services.prometheus = {
      ruleFiles = lib.mkIf cfg.rules.enable [ rules ];

      scrapeConfigs = lib.mkIf (cfg.scrape.hosts != [ ]) [
        {
          job_name = "microvm"; # the rules select it by this name
          scrape_interval = cfg.scrape.interval;
          static_configs = [
            {
              targets = map target cfg.scrape.hosts;
              inherit (cfg.scrape) labels;
            }
          ];
        }
      ];
    };

    services.grafana.provision = lib.mkIf cfg.dashboards.enable {
      enable = true;
      dashboards.settings.providers = [
        {
          name = "microvm";
          inherit (cfg.dashboards) folder;
          options.path = dashboards;
        }
      ];
    };
  };
}
