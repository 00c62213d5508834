#!/bin/sh
# library.sh - what `make install` leaves is enough: a program that builds a graph by hand compiles and
# runs with it, shared and static; headers stand alone; nothing but wf_ is exported.
. tests/cases/case.sh.inc

[ -z "$SAN" ] || { echo "0 passed, 0 failed"; exit 0; }
check "make install" make -s B="$B" BIN="$weft" install DESTDIR="$tmp/dest" PREFIX=/usr
root=$tmp/dest/usr
check "a prefix with a space" make -s B="$B" BIN="$weft" install PREFIX="$tmp/a prefix"
check "a program there" sh -c "'$tmp/a prefix/bin/weft' --version"
one="make -s B=$tmp/b $tmp/b/graph/near.o"
check "the same flags build nothing" sh -c "$one && touch $tmp/then && $one && ! [ $tmp/b/graph/near.o -nt $tmp/then ]"
check "other flags build anew" sh -c "$one RELEASE=1 && [ $tmp/b/graph/near.o -nt $tmp/then ]"
flags="-std=c11 -Wall -Wextra -Werror -I$root/include/weft"
PKG_CONFIG_PATH=$root/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tmp/dest LD_LIBRARY_PATH=$root/lib
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR LD_LIBRARY_PATH

# gives PROGRAM: prints silu(table[2] w^T) and silu(table[0] w^T)
gives() {
	"$@" > "$tmp/got" && printf '%s\n' "2.8577 6.9936 10.9998 15.0000" "0.7311 2.8577 4.9665 6.9936" | diff - "$tmp/got"
}
check "at most 40 lines" test "$(wc -l < tests/data/hello.c)" -le 40
check "compiles, shared" sh -c "gcc $flags -o $tmp/shared tests/data/hello.c \$(pkg-config --libs weft)"
check "runs, shared" gives "$tmp/shared"
check "needs the shared library" sh -c "ldd $tmp/shared | grep -q 'libweft.so.0 => $root'"
check "compiles, static" sh -c "gcc $flags -o $tmp/static tests/data/hello.c $root/lib/libweft.a \$(pkg-config --static --libs-only-l weft | sed s/-lweft//)"
check "runs, static" env -u LD_LIBRARY_PATH sh -c "$tmp/static | cmp - $tmp/got"
check "inspects, changes, plans again" sh -c "gcc $flags -D_GNU_SOURCE -o $tmp/inspect tests/data/inspect.c \$(pkg-config --libs weft) &&
	$tmp/inspect > $tmp/got && grep -q '= relu ' $tmp/got && ! grep -q '= silu ' $tmp/got && grep -q 'relu+mul  (map)' $tmp/got"
check "pkg-config has the folder of the headers" test "$(pkg-config --cflags weft)" = "-I$root/include/weft "
for h in graph/graph.h ops/ops.h models/model.h backends/backend.h; do
	echo "#include <$h>" > "$tmp/one.c"
	check "$h in C" gcc $flags -Wno-unused -fsyntax-only "$tmp/one.c"
	check "$h in C++" clang -x c++ -std=c++17 "-I$root/include/weft" -fsyntax-only "$tmp/one.c"
done
check "only wf_ names leave it" sh -c "! nm -D --defined-only $root/lib/libweft.so.0 | grep -v ' wf_'"
check "the installed program runs" sh -c "$root/bin/weft --version | grep -q '^weft $(pkg-config --modversion weft)'"
check "the manual page" sh -c "head -n 1 $root/share/man/man1/weft.1 | grep -q '^.TH'"
finish
