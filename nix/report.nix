# A Bash script that prints which MicroVMs run although they are not declared. It changes nothing,
# takes 45 s at most, and succeeds whatever it finds, so that no switch fails by it.
#
# Nothing but builtins, so that what is run in the tests is what hosts get.
{
  # commands
  exe,
  jq,
  setpriv,
  timeout,
  # what `check` is told
  flags,
  user,
  group,
}:
let
  quote = word: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] word}'";

  # `undeclared_running` needs no links.
  print = ''
    [.collectors | to_entries[] | select(.key != "links" and (.value.success | not))] as $unread
    | [.findings[] | select(.kind == "undeclared_running")] as $running
    | if $unread != [] then
        "microvm-exporter: could not tell whether undeclared MicroVMs run:",
        ($unread[] | "  \(.key): \(.value.error)")
      elif $running != [] then
        "microvm-exporter: running, and not declared:",
        ($running[] | "  \(.vm)"),
        "microvm-exporter: `microvm-exporter check` tells what to do about each"
      else
        empty
      end
  '';
in
''
  # Not as root: it reads what guests may have planted. It waits up to 30 s for a host to settle.
  report=$(
    ${timeout} 45 ${setpriv} --reuid=${quote user} --regid=${quote group} --clear-groups \
      --no-new-privs --inh-caps=-all --bounding-set=-all \
      ${exe} check --format=json ${builtins.concatStringsSep " " (map quote flags)} 2>/dev/null
  )
  if [[ -n "$report" ]]; then
    ${jq} --raw-output ${quote print} <<< "$report"
  else
    echo "microvm-exporter: could not tell whether undeclared MicroVMs run: check did not end"
  fi
  exit 0
''
