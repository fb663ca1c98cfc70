#!/bin/sh
# Runs every fuzz target of the module, each for FUZZTIME (default 60s).
set -eu
found=0
for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		found=1
		echo "== $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-60s}" "$package"
	done
done
[ $found = 1 ] || { echo "fuzz: no target found" >&2; exit 1; }
