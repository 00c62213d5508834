#!/bin/sh
# smollm2.sh - a real model: its answer, its perplexity on a fixed text, its speed.  Needs the network once.
. tests/cases/case.sh.inc

[ -z "$SAN" ] || { echo "0 passed, 0 failed"; exit 0; }
model=$(sh tests/model.sh) || { echo "no model and no network: not run"; echo "0 passed, 0 failed"; exit 0; }
$weft run -m "$model" -p "What is the capital of France?" --temp 0 -n 32 > "$tmp/answer" 2>/dev/null
check "the capital of France" grep -q Paris "$tmp/answer"
$weft perplexity -m "$model" -f tests/data/text.txt > "$tmp/ppl" 2>&1
check "perplexity" grep -q perplexity "$tmp/ppl"
echo "measured: $(grep perplexity "$tmp/ppl" | tail -n 1)"
$weft bench -m "$model" -t 2 -r 2 > "$tmp/bench" 2>/dev/null
check "bench" test -s "$tmp/bench"
sed 's/^/measured: /' "$tmp/bench" | head -n 12
finish
