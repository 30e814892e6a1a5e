#!/bin/sh
# Fuzzes every decoder that an outsider can reach, one after the other:
#
#	test/fuzz.sh [TIME [FOLDER…]]
#
# TIME is how long each is fuzzed, its seeds included. Each package is built once.
# A failing input is kept in the package's testdata/fuzz; commit it with the repair.
# FUZZFLAGS may hold more flags of the test binary, such as "-test.parallel 1".
set -u
time=${1:-20s}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- .
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
binary=$(mktemp -t fuzz.XXXXXX)
trap 'rm -f "$binary"' EXIT
corpus=$(go env GOCACHE)/fuzz
failed="" count=0
for dir in $(grep -rl --exclude-dir=.git --include='*_test.go' '^func Fuzz' "$@" | xargs -n1 dirname | sort -u); do
	if ! go test -c -fuzz=Fuzz -o "$binary" "./$dir"; then
		failed="$failed $dir"
		continue
	fi
	for target in $(grep -ho '^func Fuzz[A-Za-z0-9]*(f \*testing\.F)' "$dir"/*_test.go | sed 's/^func \(.*\)(f .*/\1/'); do
		count=$((count + 1))
		echo "== $dir $target"
		# shellcheck disable=SC2086 # several flags
		(cd "$dir" && "$binary" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$time" -test.fuzzminimizetime 10x \
			-test.fuzzcachedir "$corpus/$dir/$target" ${FUZZFLAGS:-}) || failed="$failed $dir:$target"
	done
done
if [ -n "$failed" ]; then
	echo "failed:$failed"
	exit 1
fi
echo "$count targets, $time each: none failed"
