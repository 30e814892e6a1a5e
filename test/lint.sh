#!/usr/bin/env bash
# Checks form and finds bugs without running anything: gofmt, go vet, and
# golangci-lint with the set of .golangci.yml. The first run builds golangci-lint
# into bin/, which takes some minutes of CPU time.
#
#   test/lint.sh                the whole module
#   test/lint.sh ./node/image   only these packages
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=v2.15.0
LINTER=bin/golangci-lint

export CGO_ENABLED=0
[ $# -gt 0 ] || set -- ./...

# cmd/sampan embeds what make puts into its assets; an empty folder is enough here.
mkdir -p bin cmd/sampan/assets

installed=$(go version -m "$LINTER" 2>/dev/null | awk '$1 == "mod" { print $3 }' || true)
if [ "$installed" != "$VERSION" ]; then
	echo "building golangci-lint $VERSION (once)"
	GOBIN="$PWD/bin" go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$VERSION"
fi

failed=0

echo "gofmt"
unformatted=$(git ls-files -z --cached --others --exclude-standard '*.go' |
	xargs -0 sh -c 'for f; do [ ! -f "$f" ] || printf "%s\0" "$f"; done' sh |
	xargs -0 gofmt -l)
if [ -n "$unformatted" ]; then
	echo "not formatted; run gofmt -w on:"
	echo "$unformatted"
	failed=1
fi

echo "go vet $*"
go vet "$@" || failed=1

echo "golangci-lint $*"
"$LINTER" run --allow-parallel-runners "$@" || failed=1

exit $failed
