#!/bin/sh
# library.sh - the installed library: a program builds a graph by hand and runs it, static and shared.
. tests/cases/case.sh.inc

[ -z "$SAN" ] || { echo "0 passed, 0 failed"; exit 0; }
check "make install" make -s B="$B" BIN="$weft" install DESTDIR="$tmp/root" PREFIX=/usr
lib=$tmp/root/usr/lib include=$tmp/root/usr/include/weft
cat > "$tmp/want" <<'END'
2.8577 6.9936 10.9998 15.0000
0.7311 2.8577 4.9665 6.9936
END
say() { "$@" | sed 's/ $//' | diff - "$tmp/want"; }
check "compiles with the shared library" gcc -std=c11 -I"$include" -o "$tmp/shared" tests/data/hello.c -L"$lib" -lweft
check "runs with the shared library" env LD_LIBRARY_PATH="$lib" "$tmp/shared"
LD_LIBRARY_PATH=$lib
export LD_LIBRARY_PATH
check "gives the right numbers" say "$tmp/shared"
check "compiles with the static library" gcc -std=c11 -I"$include" -o "$tmp/static" tests/data/hello.c "$lib/libweft.a" \
	-ljansson -lpcre2-8 -lutf8proc -lm -ldl -lpthread
check "gives the right numbers, static" say "$tmp/static"
check "pkg-config file" grep -q 'Libs: -L' "$lib/pkgconfig/weft.pc"
check "only wf_ names leave it" sh -c "! nm -D --defined-only '$lib/libweft.so.0' | grep -vE ' (wf_|_init|_fini)'"
finish
