#!/bin/sh
# Installs on Debian and its relatives what the tests need and this machine
# lacks; does nothing where nothing is missing. Arguments name more, each as
# COMMAND=PACKAGE. Where it cannot install it says what is missing and goes on:
# tests that need it skip, saying so (with CI set they fail).
set -eu

wanted="mosquitto=mosquitto mosquitto_sub=mosquitto-clients javac=default-jdk-headless mvn=maven curl=curl openssl=openssl flock=util-linux setpriv=util-linux"
if [ "$(uname -s)" = Linux ]; then
	# Network namespaces of the tests' own, and packet loss in them.
	wanted="$wanted ip=iproute2 nft=nftables"
fi

# Debian keeps daemons where users do not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
packages=
for w in $wanted "$@"; do
	command -v "${w%%=*}" >/dev/null || packages="$packages ${w#*=}"
done
[ -n "$packages" ] || exit 0

as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
if ! command -v apt-get >/dev/null; then
	echo "needs: some tests will skip; install the equivalents of:$packages" >&2
elif [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
	echo "needs: some tests will skip; as root: apt-get install$packages" >&2
else
	echo "needs: installing$packages" >&2
	# A failing update may still leave lists that are good enough.
	$as_root apt-get update -qq || true
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages >&2 ||
		echo "needs: could not install$packages: some tests will skip" >&2
fi
