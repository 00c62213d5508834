#!/bin/sh
# run.sh - run what is built: unit programs, then the scripts; count cases, print the failures.
B=build
[ -z "${SAN:-}" ] || B=build-san
weft=./weft
[ -z "${SAN:-}" ] || weft=./$B/weft
export weft B
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# A program prints "[  PASSED  ] N test(s)" as cmocka does, or ends with "N passed, N failed".
count() {
	ok=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
	bad=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
	if [ -z "$ok$bad" ]; then
		ok=$(sed -n 's/^\([0-9]*\) passed, [0-9]* failed$/\1/p' "$log" | tail -n 1)
		bad=$(sed -n 's/^[0-9]* passed, \([0-9]*\) failed$/\1/p' "$log" | tail -n 1)
	fi
	[ -n "$ok$bad" ] || { ok=0; bad=1; }
	[ "$1" = 0 ] || [ "${bad:-0}" -gt 0 ] || bad=1
	passed=$((passed + ${ok:-0}))
	failed=$((failed + ${bad:-0}))
	skip=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
	skipped=$((skipped + ${skip:-0}))
	printf '%-28s %5s passed %3s failed %4d s%s\n' "$2" "${ok:-0}" "${bad:-0}" $(($(date +%s) - started)) "${skip:+ $skip skipped}"
	[ "${bad:-0}" = 0 ] || cat "$log"
	grep -h '^measured:' "$log"
}

one() {
	name=$1 started=$(date +%s)
	shift
	timeout 1800 "$@" > "$log" 2>&1
	count $? "$name"
}

for t in "$B"/tests/*; do
	case $t in *.d) continue ;; esac
	[ -f "$t" ] && [ -x "$t" ] && one "$(basename "$t")" "$t"
done
for t in tests/cases/*.sh; do
	[ -f "$t" ] && one "$(basename "$t")" sh "$t"
done
[ "$skipped" = 0 ] || echo "skipped, for want of a GPU, a network or shared files: $skipped"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
