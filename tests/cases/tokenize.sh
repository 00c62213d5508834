#!/bin/sh
# tokenize.sh - vocabularies with inputs and the ids they must give, to the last one.
. tests/cases/case.sh.inc

for vocab in "$shared"/vocab/*.gguf; do
	[ -r "$vocab" ] || continue
	check "$(basename "$vocab")" python3 - "$weft" "$vocab" <<'PY'
import subprocess, sys
weft, vocab = sys.argv[1:]
cases = open(vocab + ".inp", "rb").read().decode("utf-8").split("\n__ggml_vocab_test__\n")
want = open(vocab + ".out").read().split("\n")
for text, ids in zip(cases, want):
    got = subprocess.run([weft, "tokenize", "-m", vocab], input=text.encode(), capture_output=True, check=True)
    assert got.stdout.decode().split() == ids.split(), (text, got.stdout, ids)
PY
done
finish
