#!/bin/sh
# check.sh - every test that needs no GPU, from a bare Debian machine.  SAN=address,undefined runs
# them with the sanitizers, FUZZ=60 sets the seconds of each fuzz target (0: none), JUNIT is not needed:
# the last line is "N passed, N failed".
set -eu
cd "$(dirname "$0")/.."
sh tests/packages.sh gcc g++ make libc6-dev libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libedit-dev \
	libcmocka-dev pkgconf python3 python3-jinja2 python3-pip unzip ca-certificates clang libclang-rt-14-dev
jobs=$(nproc)
make -s -j"$jobs" SAN="${SAN:-}" all tests
exec sh tests/run.sh
