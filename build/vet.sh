#!/bin/sh
# Type-checks and vets code and tests for one platform, called by platforms.sh:
#
#	build/vet.sh NAME PROGRAM...
#
# Where not both programs run, what belongs to the other is left out, and so is
# build/, whose tests need both.
set -eu
name=$1
shift
packages=./...
if [ "$*" != "agent collector" ]; then
	packages=./shared/...
	for p in "$@"; do packages="$packages ./$p/..."; done
fi
echo "$name"
go vet $packages
