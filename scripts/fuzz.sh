#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, each for the given time (30s).
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-30s}
found=0
while IFS=: read -r file name; do
  found=1
  echo "fuzz: $name in $(dirname "$file") for $time"
  go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$(dirname "$file")"
done < <(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's/:func /:/; s/^\.\///')
[ "$found" = 1 ] || { echo "fuzz: no fuzz target found" >&2; exit 1; }
