#!/bin/sh
# fuzz.sh - each fuzz target for FUZZ seconds (default 60, 0: none) from its seed corpus, under
# address and undefined-behaviour sanitizers.
. tests/cases/case.sh.inc

seconds=${FUZZ:-60}
[ -z "$SAN" ] && [ "$seconds" -gt 0 ] || { echo "0 passed, 0 failed"; exit 0; }
make -s -j"$(nproc)" fuzz > "$tmp/build" 2>&1 || { cat "$tmp/build"; echo "0 passed, 1 failed"; exit 1; }
run() {
	t=$1
	mkdir -p "$tmp/$t"
	dict=
	[ -r "tests/fuzz/$t.dict" ] && dict=-dict=tests/fuzz/$t.dict
	"$B/fuzz/$t" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=1024 -timeout=10 -print_final_stats=1 \
		-artifact_prefix="$B/fuzz/$t-" $dict "$tmp/$t" "tests/fuzz/corpus/$t" > "$tmp/$t.log" 2>&1
	echo $? > "$tmp/$t.rc"
}
set --
for src in tests/fuzz/*.c; do
	set -- "$@" "$(basename "$src" .c)"
done
# two at a time
while [ $# -gt 0 ]; do
	run "$1" &
	[ $# -gt 1 ] && run "$2"
	wait
	shift
	[ $# -gt 0 ] && shift
done
for src in tests/fuzz/*.c; do
	t=$(basename "$src" .c)
	check "fuzz $t" test "$(cat "$tmp/$t.rc")" = 0
	[ "$(cat "$tmp/$t.rc")" = 0 ] || tail -n 30 "$tmp/$t.log"
	echo "measured: fuzz $t $(grep -h number_of_executed_units "$tmp/$t.log" | tr -s ' ')"
done
finish
