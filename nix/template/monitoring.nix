# Prometheus with the rules, Grafana with the dashboards. For more hosts, name them in scrape.hosts;
# on those the exporter's module is enough.
{ config, lib, ... }:
let
  secretKey = "${config.services.grafana.dataDir}/secret_key";
in
{
  services.microvm-monitoring = {
    rules.enable = true;
    dashboards.enable = true;
    scrape.hosts = [ config.networking.hostName ];
  };

  services.prometheus = {
    enable = true;
    listenAddress = "127.0.0.1";
  };

  services.grafana = {
    enable = true; # on http://localhost:3000, where admin's first password is admin
    settings.security.secret_key = "$__file{${secretKey}}";
    provision.datasources.settings.datasources = [
      {
        name = "Prometheus";
        type = "prometheus";
        url = "http://localhost:${toString config.services.prometheus.port}";
        isDefault = true;
      }
    ];
  };

  # Made once, on the host: what is in the configuration is in the Nix store, for all to read.
  systemd.services.grafana.preStart = lib.mkBefore ''
    if [ ! -e ${secretKey} ]; then
      (umask 077; head -c 32 /dev/urandom | base64 > ${secretKey})
    fi
  '';
}
