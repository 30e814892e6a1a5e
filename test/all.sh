#!/usr/bin/env bash
# Runs the tests of every package, and those packages that failed once more, alone.
#
# usage: test/all.sh
#
# Many tests here are about real processes, kernels and clocks, on machines that others
# use too. A fault that is in the code fails twice. A test that fails once is unsteady,
# which is a defect too, but not a reason to refuse somebody's change: it is named at
# the end (docs/decisions/0021-a-second-try.md). More than $most failing packages are
# not bad luck, and what does not compile needs no second try.
set -uo pipefail
cd "$(dirname "$0")/.."

most=3
go=${GO:-go}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

"$go" test -p 2 -timeout 20m ./... | tee "$log" && exit 0

grep -q 'build failed\]\|setup failed\]' "$log" && exit 1
mapfile -t failed < <(awk '$1 == "FAIL" && NF > 1 { print $2 }' "$log" | sort -u)
[ ${#failed[@]} -gt 0 ] && [ ${#failed[@]} -le $most ] || exit 1

echo "=== once more, alone: ${failed[*]}"
"$go" test -count=1 -p 1 -timeout 20m "${failed[@]}" || exit 1

echo "=== unsteady: failed once and passed alone"
printf '%s\n' "${failed[@]}"
grep -E '^[[:space:]]*--- FAIL' "$log"
exit 0
