#!/bin/sh
# Runs a command for every line of platforms.txt, with GOOS, GOARCH, GOARM and
# GOMIPS in its environment and the arguments NAME (linux-arm6, windows-amd64)
# and the programs after its own. Goes on after a failure, and ends with 1 then.
#
#	build/platforms.sh COMMAND [ARGUMENT]...
set -eu
here=$(dirname "$0")
failed=0
# Not standard input: the command may read that.
while read -r os arch variant programs <&3; do
	case $os in '' | '#'*) continue ;; esac
	name=$os-$arch
	arm= mips=
	case $arch in
	arm) arm=$variant name=$os-arm$variant ;;
	mips*) mips=$variant ;;
	esac
	env CGO_ENABLED=0 GOOS="$os" GOARCH="$arch" ${arm:+GOARM=$arm} ${mips:+GOMIPS=$mips} \
		"$@" "$name" $programs || { echo "$name: failed" >&2; failed=1; }
done 3<"$here/platforms.txt"
exit $failed
