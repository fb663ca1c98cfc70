#!/bin/sh
# Builds the programs for one platform into dist/, called by platforms.sh:
#
#	build/cross.sh NAME PROGRAM...
#
# LDFLAGS and AGENT_GCFLAGS come from the Makefile.
set -eu
name=$1
shift
suffix=
[ "$GOOS" != windows ] || suffix=.exe
for p in "$@"; do
	out=dist/swarming-$p-$name$suffix
	gcflags=
	[ "$p" != agent ] || gcflags=$AGENT_GCFLAGS
	go build -trimpath -buildvcs=false -gcflags "$gcflags" -ldflags "$LDFLAGS" -o "$out" "./$p/cmd/swarming-$p"
	printf '%10d  %s\n' "$(wc -c <"$out")" "$out"
done
