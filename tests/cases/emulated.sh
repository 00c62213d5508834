#!/bin/sh
# emulated.sh - CUDA kernels run without a GPU: the stand-in driver calls pages compiled as C++
# (tests/emulate.h).  Random graphs, attention, experts, whole models, weights as they are loaded, golden models and a
# text with it, some as an A100 would have them and some as an H100; EMULATED: per cent of what runs on a GPU, in place
# of each one's own.
. tests/cases/case.sh.inc

if [ -n "$SAN" ] || ! command -v g++ > /dev/null || ! sh tests/fakecuda.sh "$tmp/fake" 2> /dev/null; then
	echo "skipped: needs g++ and the CUDA toolkit's headers, and no sanitizer"
	echo "0 passed, 0 failed"
	exit 0
fi
FAKENVRTC=g++ FAKECUDA_SMS=3 LD_LIBRARY_PATH=$tmp/fake WEFT_CACHE=$tmp/kernels
export FAKENVRTC FAKECUDA_SMS LD_LIBRARY_PATH WEFT_CACHE

# unit ARCH PERCENT NAME
unit() {
	FAKECUDA_ARCH=$1 WEFT_TRIALS=${EMULATED:-$2} "$B/tests/$3" > "$tmp/out" 2>&1
	code=$?
	cat "$tmp/out"
	return $code
}

# golden ARCH MODEL OPTIONS: where the model is there
golden() {
	arch=$1 model=$2
	shift 2
	[ ! -d "$shared/golden/$model" ] || FAKECUDA_ARCH=$arch "$weft" verify --backend cuda -m "$shared/golden/$model" "$@"
}

story() {
	FAKECUDA_ARCH=80 "$weft" run --backend cuda -m "$shared/models/stories260K.gguf" -p "" -n 200 --temp 0 --ignore-eos > "$tmp/out" &&
		cmp "$tmp/out" "$shared/models/stories260K.greedy200.txt"
}

check "random graphs" unit 80 1 cuda_ops
sed -n 's/^\([0-9]* cases, 0 bad\)/measured: emulated, \1/p' "$tmp/out" | tail -n 1
check "attention" unit 90 23 cuda_attend
check "experts" unit 90 10 cuda_experts
check "weights from a hash, bf16 as f16" unit 90 100 cuda_load
check "whole models, a residual past f16" unit 90 10 cuda_device
check "five sequences at a time" golden 80 llama2-gqa --batch 5 --no-graph --tolerance 1e-7
check "products of four warps" golden 90 mixtral --act f16 --cache-type f16 --tolerance 5e-4 --margin 1e9
EMULATE_EAGER=1 check "copies that come at once" golden 90 mixtral --act f16 --cache-type f16 --tolerance 5e-4 --margin 1e9
FAKECUDA_FRONT=1 check "memory that begins where nothing is" golden 90 bloom --act bf16 --cache-type bf16 --chunk 7 --tolerance 1e-3 --margin 1e9
[ ! -f "$shared/models/stories260K.gguf" ] || check "a text" story
finish
