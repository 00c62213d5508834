#!/bin/sh
# emulated.sh - CUDA kernels run without a GPU: the stand-in driver calls pages compiled as C++
# (tests/emulate.h).  Random graphs and a golden model with it; EMULATED: per cent of what runs on a GPU.
. tests/cases/case.sh.inc

if [ -n "$SAN" ] || ! command -v g++ > /dev/null || ! sh tests/fakecuda.sh "$tmp/fake" 2> /dev/null; then
	echo "skipped: needs g++ and the CUDA toolkit's headers, and no sanitizer"
	echo "0 passed, 0 failed"
	exit 0
fi
FAKENVRTC=g++ FAKECUDA_ARCH=80 FAKECUDA_SMS=3 LD_LIBRARY_PATH=$tmp/fake WEFT_CACHE=$tmp/kernels WEFT_TRIALS=${EMULATED:-1}
export FAKENVRTC FAKECUDA_ARCH FAKECUDA_SMS LD_LIBRARY_PATH WEFT_CACHE WEFT_TRIALS

cases() {
	"$B/tests/cuda_ops" > "$tmp/out" 2>&1
	code=$?
	cat "$tmp/out"
	return $code
}
check "random graphs" cases
sed -n 's/^\([0-9]* cases, 0 bad\)/measured: emulated, \1/p' "$tmp/out" | tail -n 1
[ ! -d "$shared/golden/llama2-gqa" ] || check "a golden model, five sequences at a time" "$weft" verify --backend cuda \
	-m "$shared/golden/llama2-gqa" --batch 5 --no-graph --tolerance 1e-7
finish
