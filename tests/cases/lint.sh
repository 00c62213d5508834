#!/bin/sh
# lint.sh - what is surely wrong: warnings of gcc and clang, include direction, getenv outside tools, ops
# without doc or test, families of more than a file and a row, exported names without wf_.
. tests/cases/case.sh.inc

[ -z "$SAN" ] || { echo "0 passed, 0 failed"; exit 0; }
flags="-std=c11 -D_GNU_SOURCE -I. -Itests -O1 -fsyntax-only -Wall -Wextra -Wshadow -Wmissing-prototypes -Werror"
cuda=${CUDA_HOME:-/usr/local/cuda}/include
[ ! -r "$cuda/cuda.h" ] || flags="$flags -I$cuda -DWF_CUDA"
for cc in gcc clang; do
	command -v $cc > /dev/null || continue
	for f in graph/*.c ops/*.c backends/*.c backends/cpu/*.c backends/cuda/*.c models/*.c models/*/*.c tools/*.c \
			tests/*.c tests/*/*.c; do
		case $f in tests/fake*) [ -r "$cuda/cuda.h" ] || continue ;; esac
		check "$cc $f" $cc $flags "$f"
	done
done
none() {
	! grep -nE "$@" > "$tmp/found" || { cat "$tmp/found"; return 1; }
}
check "nothing else at the top" sh -c '! git ls-files 2> /dev/null | cut -d/ -f1 | sort -u |
	grep -vxE "graph|ops|backends|models|tools|tests|Makefile|README.md|LICENSE|\.ci|\.gitignore"'
check "graph/ includes only graph/" none '#include "(ops|models|backends|tools)/' graph/*.c graph/*.h
check "ops/ includes only graph/ and ops/" none '#include "(models|backends|tools)/' ops/*.c ops/*.h
check "backends/ includes only graph/ and backends/" none '#include "(models|ops|tools)/' backends/*.c backends/*/*.c backends/*.h backends/*/*.h
check "models/ includes no backend, no tool" none '#include "(backends|tools)/' models/*.c models/*/*.c models/*.h
check "getenv only in tools/" none '\bgetenv\(' graph/*.c ops/*.c backends/*.c backends/*/*.c models/*.c models/*/*.c
check "every op has doc and test" sh -c 'for f in ops/*.c; do grep -q "const wf_op wf_op_" $f || continue; grep -q "\.doc" $f && grep -q "\.test" $f || { echo $f; exit 1; }; done'
check "a family is short, or says why not" sh -c 'for f in models/arch/*.c; do
	[ "$(wc -l < $f)" -le 150 ] || head -n 1 $f | grep -q "(long" || { echo $f; exit 1; }; done'
check "a family is one file and one row" sh -c 'for a in $(sed -n "s/^const wf_arch wf_arch_\([a-z0-9_]*\) = .*/\1/p" models/arch/*.c); do
	grep -q "ROW($a)" models/model.h && ! grep -rlw "wf_arch_$a" graph ops backends models tools | grep -v "^models/arch/" || { echo $a; exit 1; }; done'
check "only wf_ names leave the shared library" sh -c "! nm -D --defined-only $B/libweft.so | grep -vE ' (wf_|_init|_fini)'"
finish
