#!/bin/sh
# Runs every fuzz target of the module, each for FUZZTIME (default 60s).
set -eu
found=0
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' agent collector shared build | xargs -n 1 dirname | sort -u); do
	listed=$(go test -list '^Fuzz' "./$dir")
	for target in $listed; do
		case $target in Fuzz*) ;; *) continue ;; esac
		found=1
		echo "== $dir $target"
		# Without a bound, minimizing one large input takes most of the time (measured: 15 times fewer inputs tried).
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-60s}" -fuzzminimizetime 10x "./$dir"
	done
done
[ $found = 1 ] || { echo "fuzz: no target found" >&2; exit 1; }
