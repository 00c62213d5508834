#!/bin/sh
# fakecuda.sh FOLDER - build the stand-in driver as FOLDER/libcuda.so.1; exit 1 without the toolkit's headers.
set -e
out=$1
src=$(dirname "$0")
cuda=${CUDA:-${CUDA_HOME:-/usr/local/cuda}}
[ -f "$cuda/include/cuda.h" ] || exit 1
[ "$out/libcuda.so.1" -nt "$src/fakecuda.c" ] && [ "$out/libcuda.so.1" -nt "$src/fakecuda.h" ] && exit 0
mkdir -p "$out"
${CC:-cc} -std=c11 -D_GNU_SOURCE -O1 -g -Wall -Wextra -Wshadow -fPIC -shared -pthread -I"$cuda/include" \
	-Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1.$$" "$src/fakecuda.c"
mv "$out/libcuda.so.1.$$" "$out/libcuda.so.1"
