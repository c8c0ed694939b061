# A host that removes MicroVMs, and the Prometheus that hears of it, each a machine of its own:
#   nix build .#checks.x86_64-linux.vm-test -L
{ lib, ... }:
let
  mail = "mail.internal"; # switch-to-configuration takes the dot for a suffix, and stops no such unit
in
{
  name = "microvm-exporter";

  nodes.host = {
    imports = [
      ./module.nix
      ./vm-test/microvm-host.nix
    ];

    system.switch.enable = true; # nodes of tests have no switch-to-configuration by themselves

    microvm.vms = lib.mkDefault {
      db.taps = [ "vm-db" ];
      web.taps = [ "vm-web" ];
      ${mail}.taps = [ "vm-mail" ];
    };

    specialisation.smaller.configuration.microvm.vms = {
      db.taps = [ "vm-db" ];
    };

    services.prometheus.exporters.microvm = {
      enable = true;
      openFirewall = true;
    };
  };

  nodes.monitor = {
    imports = [ ./monitoring.nix ];

    services.prometheus = {
      enable = true;
      globalConfig.evaluation_interval = "1s";
    };
    services.microvm-monitoring = {
      rules.enable = true;
      rules.settings.time_scale = 0.02; # a quarter of an hour is 18 s
      scrape.hosts = [ "host" ];
      scrape.interval = "1s";
    };
  };

  testScript =
    { nodes, ... }:
    ''
      import json
      from urllib.parse import quote

      UNIT = "prometheus-microvm-exporter.service"
      HOST = "host:10686"
      MAIL = "${mail}"


      def report():
          status, out = host.execute("microvm-exporter check --format json 2>/dev/null")
          found = json.loads(out)
          assert status == {"clean": 0, "drift": 1, "unknown": 2}[found["status"]], out
          return found


      def findings():
          return {(finding["kind"], finding["vm"]) for finding in report()["findings"]}


      def shows(sample):
          scrape = "curl -sf http://localhost:10686/metrics > /tmp/metrics"  # a pipe would break
          host.wait_until_succeeds(f"{scrape} && grep -qxF '{sample}' /tmp/metrics", timeout=60)


      def query(expression):
          url = f"http://localhost:9090/api/v1/query?query={quote(expression)}"
          return json.loads(monitor.succeed(f"curl -sf '{url}'"))["data"]["result"]


      def prometheus_has(expression, wanted=True):
          retry(lambda _: bool(query(expression)) == wanted, 120)


      def mend(*vms):
          """Pastes what the report says to do about VMs, or about the host, until it says nothing."""
          for _ in range(3):
              remedies = [found["remedy"] for found in report()["findings"] if found["vm"] in vms]
              for remedy in dict.fromkeys(remedies):
                  host.execute(f"set +e\n{remedy}")  # as a shell that one types at
          assert not remedies, remedies


      start_all()
      host.wait_for_unit("multi-user.target")
      host.wait_for_unit(UNIT)
      monitor.wait_for_unit("prometheus.service")

      with subtest("a healthy host has no finding"):
          for vm in ["db", "web", MAIL]:
              host.wait_for_unit(f"microvm@{vm}.service")
              shows(f'microvm_vm_running{{vm="{vm}"}} 1.0')
          shows("microvm_declared_vms 3.0")
          assert findings() == set(), report()
          prometheus_has(f'up{{job="microvm", instance="{HOST}"}} == 1')
          prometheus_has(f'microvm_declared_vms{{instance="{HOST}"}} == 3')

      with subtest("all collectors work in the hardened unit"):
          for collector in ["declaration", "systemd", "links", "state"]:
              shows(f'microvm_exporter_collector_success{{collector="{collector}"}} 1.0')
          print(host.succeed(f"systemd-analyze security --no-pager --threshold=20 {UNIT}"))
          assert host.succeed(f"systemctl show -P User {UNIT}").strip() == "microvm-exporter"

      with subtest("a switch undeclares two running MicroVMs"):
          pid = host.succeed(f"systemctl show -P MainPID {UNIT}")
          host.succeed("${nodes.host.system.build.toplevel}/specialisation/smaller/bin/switch-to-configuration test >&2")
          shows("microvm_declared_vms 1.0")
          print(host.execute("microvm-exporter check")[1])
          host.succeed(f"systemctl is-active microvm@{MAIL}.service")
          found = findings()
          assert ("undeclared_running", MAIL) in found, found
          # Since 2026-04 a switch stops those without a dot; their state stays.
          assert ("undeclared_running", "web") in found or ("undeclared_state", "web") in found, found
          assert not {kind for kind, vm in found if vm == "db"}, found
          assert host.succeed(f"systemctl show -P MainPID {UNIT}") == pid, "the switch restarted the exporter"

      with subtest("an alert fires"):
          prometheus_has(
              f'ALERTS{{alertname="MicrovmUndeclaredRunning", alertstate="firing", instance="{HOST}", vm="{MAIL}"}}'
          )

      with subtest("the removal that microvm.nix documents leaves failed units, and TAPs with some luck"):
          host.succeed("systemctl start microvm@web.service")
          host.succeed("systemctl stop microvm@web.service && rm -rf /var/lib/microvms/web")
          host.wait_until_fails("systemctl list-jobs | grep -F web", timeout=30)
          assert ("unit_failed", "web") in findings(), report()
          mend("web", "")  # "": a TAP that is left belongs to no MicroVM any more

      with subtest("the removal that the report recommends leaves nothing"):
          mend(MAIL)
          host.fail(f"test -e /var/lib/microvms/{MAIL}")
          host.fail("ip link show dev vm-mail")
          assert findings() == set(), report()
          prometheus_has(f'ALERTS{{alertname="MicrovmUndeclaredRunning", vm="{MAIL}"}}', wanted=False)

      with subtest("a restart of the bus is survived"):
          host.succeed("systemctl restart dbus.service")
          shows('microvm_exporter_collector_success{collector="systemd"} 1.0')
          host.succeed("systemctl stop microvm@db.service")
          prometheus_has(f'microvm_drift_finding{{kind="not_running", vm="db", instance="{HOST}"}}')
          host.succeed("systemctl start microvm@db.service")
          prometheus_has('microvm_drift_finding{vm="db"}', wanted=False)
          assert host.succeed(f"systemctl show -P MainPID {UNIT}") == pid, "the exporter died with the bus"
    '';
}
