#!/bin/sh
# fakecuda.sh FOLDER - build the stand-in driver as FOLDER/libcuda.so.1, cuBLASLt and NVRTC beside
# it; exit 1 without the toolkit's headers.
set -e
out=$1
src=$(dirname "$0")
cuda=${CUDA:-${CUDA_HOME:-/usr/local/cuda}}
[ -f "$cuda/include/cuda.h" ] || exit 1
mkdir -p "$out"

# build SOURCE SONAME [LIBRARY]: when the source is newer
build()
{
	[ "$out/$2" -nt "$src/$1" ] && [ "$out/$2" -nt "$src/fakecuda.h" ] && return
	${CC:-cc} -std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Wshadow -fPIC -shared -pthread -I"$cuda/include" \
		-Wl,-soname,"$2" -o "$out/$2.$$" "$src/$1" $3
	mv "$out/$2.$$" "$out/$2"
}

build fakecuda.c libcuda.so.1
build fakeblas.c libcublasLt.so.13 "$out/libcuda.so.1"
build fakenvrtc.c libnvrtc.so.13
