#!/bin/sh
# measure-cuda.sh - the README's figures of a GPU in one run: kernels compiled cold and warm, weights from a
# file and from the hash, decoding and prompts of Llama-2-7B, then the seed workload of every config in
# tests/configs beside transformers and the floor.  Figures of one run may be compared with each other.
#   BACKEND=cuda  CONFIG=tests/configs/llama-2-7b.json  PEERS="tests/configs/*.json" ("": none)  FILES=/dev/shm
set -u
cd "$(dirname "$0")/.."
weft=${WEFT:-./weft} backend=${BACKEND:-cuda} config=${CONFIG:-tests/configs/llama-2-7b.json} python=${PYTHON:-python3}
peers=${PEERS-tests/configs/llama-2-7b.json tests/configs/bloom-7b1.json tests/configs/chatglm2-6b.json
	tests/configs/mistral-7b.json tests/configs/qwen3-8b.json tests/configs/gemma-3-4b.json tests/configs/mixtral-8x7b.json}
tmp=$(mktemp -d "${FILES:-/dev/shm}/weft.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

bench() { "$weft" bench --backend "$backend" --cache "$tmp/kernels" --no-profile "$@" 2>&1 | grep -v '^$'; }
shape() { bench -m "$config" --random-weights --wtype f16 --act f16 "$@"; }

"$weft" devices
echo "== decoding, kernels compiled now"
shape -p 0 -n 128 -d 0,1024 -r 3
echo "== batches behind 1024 tokens, kernels from the cache"
shape -p 0 -n 128 -d 1024 -b 8,16,32 -r 3
echo "== prompts of 32 x 1024 in steps of 8192"
shape -p 1024 -n 0 -b 32 -ub 8192 -r 3
echo "== from a file"
if "$python" tests/blank_checkpoint.py "$config" "$tmp/model"; then
	bench -m "$tmp/model" -p 0 -n 1 -r 1
	bench -m "$tmp/model" -p 0 -n 1 -r 1
	rm -rf "$tmp/model"
fi
echo "== kernels of one step"
"$weft" bench --backend "$backend" --cache "$tmp/kernels" -m "$config" --random-weights --wtype f16 --act f16 -p 0 -n 32 -d 1024 -r 1
[ -z "$peers" ] || echo "== the seed workload beside transformers"
# shellcheck disable=SC2086
[ -z "$peers" ] || "$python" tests/bench_peers.py --weft "$weft" --device "$backend" $peers
