#!/usr/bin/env bash
# Builds the linters in the versions that CI uses, from the Go module proxy, into a cache that is kept between runs. With
# --where it prints the folder they are in, and builds nothing.
set -euo pipefail

golangci_lint=v2.15.0
gofumpt=v0.12.0
govulncheck=v1.9.0

# A folder per set of versions: one that is there is right, and complete, since it is renamed into place.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/plyfs-tools
tools=$cache/$golangci_lint-$gofumpt-$govulncheck-$(go env GOVERSION)
if [ "${1:-}" = --where ]; then
  echo "$tools"
  exit 0
fi
[ -d "$tools" ] && exit 0

echo "install-tools: building the linters (a minute or two, once)" >&2
mkdir -p "$cache"
new=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
cd / # not as part of this module
export GOBIN=$new GOFLAGS=
go install "mvdan.cc/gofumpt@$gofumpt"
go install "golang.org/x/vuln/cmd/govulncheck@$govulncheck"
go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$golangci_lint"
mv -T "$new" "$tools"
trap - EXIT
