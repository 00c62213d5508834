#!/bin/sh
# gemma3.sh - a second real model, of another family and with other quantised types: what it answers.
# Needs the network once.
. tests/cases/case.sh.inc

[ -z "$SAN" ] || { echo "0 passed, 0 failed"; exit 0; }
model=$(sh tests/model.sh gemma3) || { echo "no model and no network: not run"; echo "0 passed, 0 failed"; exit 0; }
answer() {
	$weft run -m "$model" -p "$1" --temp 0 -n 8 > "$tmp/answer" 2> /dev/null
	check "$1" grep -q "$2" "$tmp/answer"
}
answer "Question: What is the capital of France? Answer:" Paris
answer "The Eiffel Tower is located in the city of" Paris
answer "Two plus two equals" four
answer "The opposite of hot is" cold
$weft perplexity -m "$model" -f tests/data/text.txt > "$tmp/ppl" 2>&1
check "perplexity below 30" sh -c "awk '\$1 == \"perplexity\" { low = \$2 < 30 } END { exit !low }' '$tmp/ppl'"
echo "measured: gemma3 $(grep perplexity "$tmp/ppl" | tail -n 1)"
finish
