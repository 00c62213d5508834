#!/bin/sh
# packages.sh - install the Debian packages named as arguments that are missing.
set -eu
missing=
for p in "$@"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing" >&2
as=
[ "$(id -u)" = 0 ] || as=sudo
export DEBIAN_FRONTEND=noninteractive
{ $as apt-get -q update && $as apt-get install -q -y --no-install-recommends $missing; } >&2
