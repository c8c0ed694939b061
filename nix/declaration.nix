# What the host declares, as the exporter's `--declaration.file` has it.
#
# Nothing but builtins, and of each MicroVM only what microvm.nix's host module evaluates too: its
# runner, which `install-microvm-NAME` links to, and the hypervisor and the interfaces, which the
# runner is made of.
{
  # `microvm.vms`, of microvm.nix from 2023-11 on
  vms,
  # `microvm.stateDir`
  stateDir ? "/var/lib/microvms",
  # `microvm.autostart`: the names that the host starts. It has those that say so themselves, unless
  # it was overridden.
  autostart ? builtins.filter (name: vms.${name}.autostart) (builtins.attrNames vms),
  # undeclared MicroVMs that are accepted
  imperative ? [ ],
}:
let
  # The precedence is that of the host module. `evaluatedConfig` is there since 2025-11.
  guestOf =
    name: vm:
    if vm.flake != null then
      vm.flake.nixosConfigurations.${name}.config
    else if vm.evaluatedConfig or null != null then
      vm.evaluatedConfig.config
    else
      vm.config.config;

  # Only that there is an `updateFlake` matters: a reference may hold a token.
  originOf =
    vm:
    if vm.flake == null then
      "declarative"
    else if vm.updateFlake == null then
      "flake"
    else
      "deployed";

  # The types that make a device on the host. Of the others the name may be none that a device can
  # have, and of no type more than these two fields is sure to be set.
  devicesOf =
    guest:
    map (interface: { inherit (interface) type id; }) (
      builtins.filter (
        interface: interface.type == "tap" || interface.type == "macvtap"
      ) guest.microvm.interfaces
    );

  declare =
    name: vm:
    let
      guest = guestOf name vm;
    in
    {
      origin = originOf vm;
      autostart = builtins.elem name autostart;
      inherit (guest.microvm) hypervisor;
      # A name to compare with: it must neither keep the runner nor have it built.
      runner = builtins.unsafeDiscardStringContext "${guest.microvm.declaredRunner}";
      interfaces = devicesOf guest;
    };
in
{
  version = 1;
  state_dir = toString stateDir;
  vms = builtins.mapAttrs declare vms;
  inherit imperative;
}
