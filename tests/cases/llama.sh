#!/bin/sh
# llama.sh - golden Llamas: threads, chunks, passes left out, edited dumps; a trained model's exact text.
. tests/cases/case.sh.inc

# Every case's NMSE in the report is at most 1e-9.
tight() {
	"$@" --json > "$tmp/json" && python3 - "$tmp/json" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
cases = report["cases"]
assert cases and all(c["nmse"] <= 1e-9 for c in cases), cases
PY
}

for m in llama llama2-gqa llama3-rope; do
	dir=tests/golden/$m
	for threads in 1 2; do
		for chunk in "" "--chunk 7" "--chunk 1"; do
			check "$m -t $threads $chunk" tight $weft verify -m $dir -t $threads $chunk
		done
	done
	check "$m unfused" tight $weft verify -m $dir --skip fuse
	check "$m unfolded" tight $weft verify -m $dir --skip rewrite,fold,fuse
	for isa in avx2 plain; do
		check "$m $isa" tight $weft verify -m $dir --isa $isa
	done
	for stage in build rewrite fold shard fuse order place; do
		$weft dump -m $dir --stage $stage -o "$tmp/a" 2>/dev/null
		check "$m dump $stage" test -s "$tmp/a"
		$weft dump --graph "$tmp/a" --stage $stage -o "$tmp/b" 2>/dev/null
		check "$m dump $stage parses back" cmp "$tmp/a" "$tmp/b"
		for format in dot json html; do
			check "$m dump $stage $format" $weft dump -m $dir --stage $stage --format $format -o "$tmp/c"
		done
		python3 -c "import json; json.load(open('$tmp/c'))" 2>/dev/null
	done
	$weft dump -m $dir --stage build -o "$tmp/a"
	sed 's/eps=1e-06/eps=1e-02/' "$tmp/a" > "$tmp/edited"
	check "$m edited dump runs" $weft verify -m $dir --graph "$tmp/a"
	if $weft verify -m $dir --graph "$tmp/edited" > /dev/null 2>&1; then
		check "$m the edit was felt" false
	else
		check "$m the edit was felt" true
	fi
	$weft plan -m $dir > "$tmp/plan" 2>&1
	check "$m plan" grep -q -i activation "$tmp/plan"
	check "$m plan from config.json alone" $weft plan -m $dir/config.json
	check "$m explain" $weft explain -m $dir
done

story=$shared/models/stories260K
if [ -r "$story.gguf" ]; then
	for o in "" "-t 1" "--skip fuse"; do
		$weft run -m "$story.gguf" -p "" -n 200 --temp 0 --ignore-eos $o > "$tmp/story" 2>/dev/null
		check "stories260K $o" cmp "$tmp/story" "$story.greedy200.txt"
	done
fi
finish
