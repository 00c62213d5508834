#!/bin/sh
# packages.sh - install the Debian packages named as arguments that are missing; without the right to,
# say which they are and how to install them.
set -eu
missing=
for p in "$@"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
as=
[ "$(id -u)" = 0 ] || as=sudo
if ! command -v apt-get > /dev/null || { [ -n "$as" ] && ! command -v sudo > /dev/null; }; then
	echo "missing packages:$missing" >&2
	echo "install them as root and run this again:  apt-get install$missing" >&2
	exit 1
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
{ $as apt-get -q update && $as apt-get install -q -y --no-install-recommends $missing; } >&2
