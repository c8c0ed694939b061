# The unit `prometheus-microvm-exporter`, as an element of `systemd.services`.
#
# Nothing but builtins, so that what is run and rated by systemd in the tests is what hosts get.
{
  # the command, and what it is told
  exe,
  flags,
  user,
  group,
  stateDir ? "/var/lib/microvms",
}:
let
  # One word of a command line, as systemd.service(5) takes it apart again.
  quote = word: builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON word);
in
{
  description = "Prometheus exporter for MicroVM drift";
  wantedBy = [ "multi-user.target" ];
  after = [ "network.target" ];
  serviceConfig = {
    # Ready with the first snapshot. A look ends by itself when sources hang, after 40 s at most.
    Type = "notify";
    ExecStart = builtins.concatStringsSep " " ([ exe ] ++ map quote ([ "serve" ] ++ flags));
    WatchdogSec = "2min";
    Restart = "always";
    RestartSec = "5s"; # so seldom that systemd never gives up

    # Not DynamicUser: before NixOS 26.05 dbus-daemon does not get to know such users.
    User = user;
    Group = group;
    UMask = "0077";
    CapabilityBoundingSet = "";
    AmbientCapabilities = "";
    NoNewPrivileges = true;

    # The bus, rtnetlink, and HTTP.
    RestrictAddressFamilies = [
      "AF_UNIX"
      "AF_NETLINK"
      "AF_INET"
      "AF_INET6"
    ];
    SystemCallArchitectures = "native";
    SystemCallFilter = [
      "@system-service"
      "~@privileged @resources"
    ];
    SystemCallErrorNumber = "EPERM";

    ProtectSystem = "strict";
    # Closed, it could not tell whether a state directory in there is empty.
    ProtectHome =
      if builtins.match "/(home|root|run/user)(/.*)?" stateDir == null then true else "read-only";
    PrivateTmp = true;
    PrivateMounts = true;
    ProtectProc = "invisible";
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    DevicePolicy = "closed"; # a device is looked at, never opened
    LockPersonality = true;
    # Without writable code libffi, which PyGObject and ctypes call back through, maps a memfd twice.
    MemoryDenyWriteExecute = true;
    RemoveIPC = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;

    # Left out, with what `systemd-analyze security` would give for each:
    # - PrivateNetwork (0.5) and IPAddressDeny (0.2): it looks at the host's devices, and is scraped.
    # - PrivateUsers (0.2): in a user namespace the owner of every TAP is nobody.
    # - PrivateDevices (0.2): the owner of a macvtap is that of /dev/tapN.
    # - ProcSubset=pid (0.1): process_start_time_seconds needs /proc/stat.
    # - RootDirectory, RootImage (0.1): it looks at the host's files.
  };
}
