#!/bin/sh
# demo.sh - from a bare Debian machine to an answer: packages, build, a real model, a question.
set -eu
cd "$(dirname "$0")/.."
sh tests/packages.sh gcc make libc6-dev libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libedit-dev \
	python3 python3-pip unzip ca-certificates
make -s -j"$(nproc)" weft
model=$(sh tests/model.sh)
./weft run -m "$model" -p "What is the capital of France?" --temp 0 -n 64
