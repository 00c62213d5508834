#!/bin/sh
# gguf_families.sh - golden checkpoints written as GGUF by the gguf package's tables of names, each with
# its family's conversions: the same logits.  Needs the network once.
. tests/cases/case.sh.inc

[ -z "$SAN" ] || { echo "0 passed, 0 failed"; exit 0; }
packages=build/gguf
[ -d $packages/gguf ] || python3 -m pip install -q --disable-pip-version-check --target $packages gguf==0.19.0 > "$tmp/log" 2>&1 || {
	rm -rf $packages
	echo "no gguf package and no network: not run"
	echo "0 passed, 0 failed"
	exit 0
}
convert() {
	PYTHONPATH=$packages python3 tests/gguf_families.py "$@"
}
for dir in tests/golden/* "$shared"/golden/*; do
	m=$(basename "$dir")
	case $m in opt*) continue ;; esac       # a family GGUF has no name for
	[ -r "$dir/golden.safetensors" ] || continue
	for layout in "" old; do
		case $m$layout in *old) case $m in mixtral | deepseek*) ;; *) continue ;; esac ;; esac
		check "$m as GGUF $layout" convert "$dir" "$tmp/$m.gguf" $layout
		check "$m from GGUF $layout" $weft verify -m "$tmp/$m.gguf" --reference "$dir/golden.safetensors" --tolerance 1e-8
		check "$m from GGUF $layout, chunks" $weft verify -m "$tmp/$m.gguf" --reference "$dir/golden.safetensors" \
			--tolerance 1e-8 --chunk 7 -t 1
		rm -f "$tmp/$m.gguf"
	done
done
finish
