#!/usr/bin/env bash
# Runs upstream's own tests on the cluster that stands, and says which passed, which failed and which were not run, and why.
#
# usage: e2e.sh [FOCUS]       FOCUS: a regular expression of names; default: the Conformance specs of sig-network.
#                             Its words may be in any order: 'sig-network Conformance dns' is all names that have the three
# What cannot pass here is left out: not-run.txt. Logs and the whole report stay in $VSWITCH_E2E_DIR (default: a new folder in /tmp).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

[ $# -le 1 ] || fail "e2e.sh takes one argument, what names of tests have in them"
need_root
[ -e "$state/admin.conf" ] || fail "no cluster stands here: up.sh starts one"
install_packages jq
"$here/build.sh" --only e2e.test
kind=$(cat "$state/cni")
out=${VSWITCH_E2E_DIR:-$(mktemp -d -t vsw-e2e.XXXX)}
mkdir -p "$out"

# Ginkgo's flag is one expression; each order of several words would be one, so that names are chosen here and named to it.
list=$out/all.json chosen=$out/chosen.txt
"$cache/bin/e2e.test" --provider=skeleton --kubeconfig="$state/admin.conf" --ginkgo.dry-run --ginkgo.no-color \
  --ginkgo.json-report="$list" >"$out/dry-run.log" 2>&1 || fail "the list of tests: $(tail -n 20 "$out/dry-run.log")"
names() { jq -r '.[0].SpecReports[] | select(.LeafNodeType == "It") | [.ContainerHierarchyTexts[], .LeafNodeText | select(. != "")] | join(" ")' "$list"; }
read -r -a words <<<"${1:-\\[sig-network\\] \\[Conformance\\]}"
names | sort -u >"$chosen"
for word in "${words[@]}"; do
  { grep -E -- "$word" "$chosen" || true; } >"$chosen.new"
  mv "$chosen.new" "$chosen"
done

# Of those, what is known not to be possible, with the reason.
: >"$out/not-run.txt"
while IFS=$'\t' read -r of expression reason; do
  case $of in \#* | '') continue ;; all | "$kind") ;; *) continue ;; esac
  { grep -E -- "$expression" "$chosen" || true; } | sed "s|\$|\n    $reason|" >>"$out/not-run.txt"
  { grep -vE -- "$expression" "$chosen" || true; } >"$chosen.new"
  mv "$chosen.new" "$chosen"
done <"$here/not-run.txt"
[ -s "$chosen" ] || fail "nothing is left to run of what '${words[*]}' names; how many are not run, and why: $(grep '^    ' "$out/not-run.txt" | sort | uniq -c)"
say "$(wc -l <"$chosen") specs; log: $out/log"

# The names as expressions of Go's: whole (Ginkgo puts the name of the suite before), and with nothing in them that means something else.
focus=$(sed 's/[][\.*^$+?(){}|/]/\\&/g; s/^/^Kubernetes e2e suite /; s/$/$/' "$chosen" | paste -sd'|')
started=$SECONDS outcome=0
in_control env "PATH=$cache/bin:$PATH" "$cache/bin/e2e.test" --provider=skeleton --kubeconfig="$state/admin.conf" --kubectl-path="$cache/bin/kubectl" \
  --ginkgo.focus="$focus" --ginkgo.no-color --ginkgo.timeout=4h --ginkgo.json-report="$out/report.json" \
  --delete-namespace-on-failure=true --report-dir="$out" >"$out/log" 2>&1 || outcome=$?
[ -s "$out/report.json" ] || fail "no report; the end of $out/log: $(tail -n 20 "$out/log")"
ran=$(jq '[.[0].SpecReports[] | select(.LeafNodeType == "It" and .NumAttempts > 0)] | length' "$out/report.json")
[ "$ran" -gt 0 ] || fail "none was run; the end of $out/log: $(tail -n 20 "$out/log")"

# specs STATE: name, and below it the first line of why
specs() {
  jq -r --arg state "$1" '.[0].SpecReports[] | select(.LeafNodeType == "It") | select(.NumAttempts > 0 or (.Failure.Message // "") != "")
    | select(if $state == "failed" then (.State | IN("passed", "skipped", "pending") | not) else .State == $state end)
    | ([.ContainerHierarchyTexts[], .LeafNodeText | select(. != "")] | join(" ")),
      ((.Failure.Message // "") | split("\n") | map(select(. != "")) | if length > 0 then "    " + .[0] else empty end)' "$out/report.json"
}
for state_of in passed failed skipped; do
  printf '%s: %s\n' "$state_of" "$(specs $state_of | grep -vc '^    ' || true)"
  specs $state_of | sed 's/^/  /'
done
printf 'not run: %s\n' "$(grep -vc '^    ' "$out/not-run.txt" || true)"
sed 's/^/  /' "$out/not-run.txt"
echo "$((SECONDS - started)) s; report: $out/report.json"
exit "$outcome"
