#!/bin/sh
# gguf_families.sh - golden checkpoints written as GGUF by the gguf package's tables of names, each with
# its family's conversions: the same logits; quantised, those of the same values in f32.  Needs the network once.
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
# quantised MODEL.gguf REFERENCE TYPE: errs as the same values in f32 do
quantised() {
	n=$(PYTHONPATH=$packages python3 tests/requantise.py "$1" "$3" "$tmp/q.gguf" "$tmp/f.gguf") || return 1
	for f in q f; do
		$weft verify -m "$tmp/$f.gguf" --reference "$2" --tolerance 1 --json > "$tmp/$f.json"
		[ $? -le 1 ] || return 1
	done
	python3 - "$tmp/q.json" "$tmp/f.json" "$n" <<'PY'
import json, sys
q, f = ([c["nmse"] for c in json.load(open(path))["cases"]] for path in sys.argv[1:3])
assert all(abs(a - b) <= 1e-3 * b + 1e-9 for a, b in zip(q, f)), (q, f)
assert int(sys.argv[3]) == 0 or min(q) > 1e-6, (q, "as if nothing were quantised")
PY
}
for dir in tests/golden/* "$shared"/golden/*; do
	m=$(basename "$dir")
	case $m in opt*) continue ;; esac       # a family GGUF has no name for
	[ -r "$dir/golden.safetensors" ] || continue
	for layout in "" old; do
		case $m$layout in *old) case $m in mixtral | deepseek*) ;; *) continue ;; esac ;; esac
		convert "$dir" "$tmp/$m.gguf" $layout > "$tmp/said"
		case $? in 3) continue ;; esac          # the format has no key for what this model has
		check "$m as GGUF $layout" test -s "$tmp/$m.gguf"
		check "$m from GGUF $layout" $weft verify -m "$tmp/$m.gguf" --reference "$dir/golden.safetensors" --tolerance 1e-8
		check "$m from GGUF $layout, chunks" $weft verify -m "$tmp/$m.gguf" --reference "$dir/golden.safetensors" \
			--tolerance 1e-8 --chunk 7 -t 1
		for type in Q8_0 Q4_0; do
			check "$m in $type $layout" quantised "$tmp/$m.gguf" "$dir/golden.safetensors" $type
		done
		rm -f "$tmp/$m.gguf"
	done
done
finish
