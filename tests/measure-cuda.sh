#!/bin/sh
# measure-cuda.sh [PART...] - the README's figures of a GPU: decoding, kernels compiled cold, and prompts of Llama-2-7B
# (decode), its weights from a file and from the hash (file), its kernels (kernels), the seed workload beside transformers
# and the floor (peers), of every other config beside the floor (seed).  Figures of one run may be compared with each other.
#   BACKEND=cuda  CONFIG=tests/configs/llama-2-7b.json  PEERS="CONFIG..."  SEED="CONFIG..."  FILES=/dev/shm
set -u
cd "$(dirname "$0")/.."
weft=${WEFT:-./weft} backend=${BACKEND:-cuda} config=${CONFIG:-tests/configs/llama-2-7b.json} python=${PYTHON:-python3}
peers=${PEERS-tests/configs/llama-2-7b.json tests/configs/bloom-7b1.json}
seed=${SEED-tests/configs/chatglm2-6b.json tests/configs/mistral-7b.json tests/configs/qwen3-8b.json
	tests/configs/gemma-3-4b.json tests/configs/mixtral-8x7b.json}
tmp=$(mktemp -d "${FILES:-/dev/shm}/weft.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

bench() { "$weft" bench --backend "$backend" --cache "$tmp/kernels" "$@" 2>&1 | grep -v '^$'; }
shape() { bench -m "$config" --random-weights --wtype f16 --act f16 "$@"; }

decode() {
	echo "== decoding, kernels compiled now"
	shape --no-profile -p 0 -n 128 -d 0,1024 -r 3
	echo "== batches behind 1024 tokens, kernels from the cache"
	shape --no-profile -p 0 -n 128 -d 1024 -b 8,16,32 -r 3
	for step in 8192 32768; do
		echo "== prompts of 32 x 1024 in steps of $step"
		shape --no-profile -p 1024 -n 0 -b 32 -ub $step -r 3
	done
}

file() {
	echo "== from a file"
	"$python" tests/blank_checkpoint.py "$config" "$tmp/model" || return
	bench --no-profile -m "$tmp/model" -p 0 -n 1 -r 1
	bench --no-profile -m "$tmp/model" -p 0 -n 1 -r 1
	rm -rf "$tmp/model"
}

kernels() {
	echo "== kernels of one step"
	shape -p 0 -n 32 -d 1024 -r 1
}

# shellcheck disable=SC2086
peers() {
	echo "== the seed workload beside transformers"
	"$python" tests/bench_peers.py --weft "$weft" --device "$backend" --reps ${REPS:-3} $peers
}

# shellcheck disable=SC2086
seed() {
	echo "== the seed workload"
	"$python" tests/bench_peers.py --weft "$weft" --device "$backend" --reps ${REPS:-3} --alone $seed
}

"$weft" devices
for part in ${*:-decode file kernels peers seed}; do
	case $part in
	decode | file | kernels | peers | seed) $part ;;
	*) echo "no part called $part: decode, file, kernels, peers or seed" ; exit 1 ;;
	esac
done
