#!/bin/sh
# custom.sh - an architecture in a shared object, built as its guide says against the installed library:
# the native family's answers on the native family's checkpoints; what is wrong with others is said.
. tests/cases/case.sh.inc

[ -z "$SAN" ] || { echo "0 passed, 0 failed"; exit 0; }
check "make install" make -s B="$B" BIN="$weft" install DESTDIR="$tmp/dest" PREFIX=/usr
root=$tmp/dest/usr weft=$tmp/dest/usr/bin/weft golden=tests/golden/llama2-gqa
PKG_CONFIG_PATH=$root/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tmp/dest
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
source=$root/share/weft/my_arch.c so=$tmp/my_arch.so

# object OUT SOURCE: as the guide's first lines say
object() {
	cc -std=c11 -O3 -fno-math-errno -Wall -Wextra -Werror -shared -fPIC -o "$1" "$2" $(pkg-config --cflags weft) -lm
}
check "the guide compiles" object "$so" "$source"
for m in tests/golden/llama* "$shared"/golden/llama*; do
	[ -r "$m/golden.safetensors" ] || continue
	for o in "-t 1" "-t 2 --chunk 7" "--skip fuse" "--isa plain"; do
		check "$(basename "$m") $o" $weft verify -m "$m" --arch "$so" --tolerance 1e-9 $o
	done
done
if [ -r "$shared/models/stories260K.gguf" ]; then
	tell() { $weft run -q -m "$shared/models/stories260K.gguf" --temp 0 -n 40 -p Once "$@" 2> /dev/null; }
	check "the same text from GGUF" test "$(tell --arch "$so")" = "$(tell)"
fi
check "a plan of as many kernels" sh -c "$weft explain -m $golden --arch $so | grep -q 'in 12 kernels' &&
	$weft explain -m $golden | grep -q 'in 12 kernels'"
check "its norm goes into the product" sh -c "$weft explain -m $golden --arch $so | grep -q '+ row into dot.load .*row_norm'"
check "its gate follows the product" sh -c "$weft explain -m $golden --arch $so | grep -q '+ map after dot.store .*swish_gate'"
$weft dump -m $golden --arch "$so" --stage place -o "$tmp/plan"
check "printed, parsed, printed" sh -c "$weft dump --graph $tmp/plan --arch $so --stage place | cmp - $tmp/plan"
$weft dump -m $golden --arch "$so" --stage build --cache-type f32 -o "$tmp/graph"
check "from its text form" $weft verify -m $golden --arch "$so" --graph "$tmp/graph" --tolerance 1e-9
for gpu in sm_90a sm_80; do
	check "sources for $gpu" $weft dump -m $golden --arch "$so,$gpu" --stage emit --backend cuda --act f16 -o "$tmp/$gpu"
	check "its text is in them" sh -c "cat $tmp/$gpu/*.cu | grep -q 'swish_gate(float x, float y)'"
done
sed 's|"num_hidden_layers"|"gate_slope": 3, &|' $golden/config.json > "$tmp/config.json"
check "its own key" sh -c "$weft dump -m $tmp/config.json --arch $so --stage build | grep -q 'swish_gate .*slope=3 '"
sed 's|"num_hidden_layers"|"gate_slope": 300, &|' $golden/config.json > "$tmp/config.json"

# says TEXT COMMAND...: fails with that on stderr
says() {
	text=$1
	shift
	"$@" > /dev/null 2> "$tmp/err" && return 1
	grep -qF -- "$text" "$tmp/err" || { echo "expected '$text'"; cat "$tmp/err"; return 1; }
}
# refuses TEXT NAME SED: the guide as NAME.c, changed, is refused with TEXT
refuses() {
	sed "$3" "$source" > "$tmp/$2.c" && object "$tmp/$2.so" "$tmp/$2.c" || return 1
	says "$1" $weft plan -m $golden --arch "$tmp/$2.so"
}
check "its key has a range" says "gate_slope is 300, expected a number from -100 to 100" $weft plan -m "$tmp/config.json" --arch "$so"
check "another name than the file's" refuses "expected it to export \`const wf_arch wf_arch_mine\`" mine ""
check "made for other headers" refuses "wf_arch_abi.abi is 7, expected WF_ABI" abi "s/wf_arch_my_arch/wf_arch_abi/; s/= WF_ABI/= 7/"
check "no build function" refuses "wf_arch_bare has no build function" bare \
	"s/wf_arch_my_arch/wf_arch_bare/; s/\.build .*/.build = 0 ? build : NULL,/"
check "an op's name is taken" refuses "op silu: there is one of that name already" taken \
	"s/wf_arch_my_arch/wf_arch_taken/; s/swish_gate/silu/"
check "an op is incomplete" refuses "op row_norm: expected a shape rule, eval, span and cost" part \
	"s/wf_arch_my_arch/wf_arch_part/; s/\.cost  = wf_map_cost,/.cost = NULL,/"
check "a function nobody has" refuses "undefined symbol: nobody_has" lost \
	"s/wf_arch_my_arch/wf_arch_lost/; s/^static void build(.*/int nobody_has(void);\n&/; s/wf_scope(g, \"head\");/nobody_has();/"
echo "no object" > "$tmp/text.so"
check "no object" says "text.so: file too short" $weft plan -m $golden --arch "$tmp/text.so"
check "no file" says "nowhere.so: cannot open" $weft plan -m $golden --arch nowhere.so
check "a family by name" $weft verify -m $golden --arch llama --tolerance 1e-9
check "no family of that name" says '"lama" is not a known architecture; the nearest are: llama' $weft plan -m $golden --arch lama
mkdir "$tmp/new"
echo '{"model_type": "quen3"}' > "$tmp/new/config.json"
check "a model of an unknown family" says 'model_type "quen3" is not a known architecture; the nearest are: qwen3' $weft plan -m "$tmp/new"
check "and how to write one" says "models/example/my_arch.c (share/weft where installed) is the guide, --arch FILE.so loads it" \
	$weft plan -m "$tmp/new"

# A program of one's own, with the shared library
cat > "$tmp/host.c" <<'C'
#include <models/model.h>

int main(int argc, char **argv)
{
	wf_error err = {0};
	const wf_arch *arch = argc > 2 ? wf_arch_load(&err, argv[1]) : NULL;
	wf_model *m = arch ? wf_model_open(&err, argv[2], arch, 0) : NULL;
	wf_arena *arena = wf_arena_new();
	wf_graph *g = m ? wf_model_graph(m, arena, &err) : NULL;

	puts(g ? g->name : err.text);
	wf_arena_free(arena);
	wf_model_close(m);
	return g == NULL;
}
C
check "a program compiles" sh -c "cc -std=c11 -o $tmp/host $tmp/host.c \$(pkg-config --cflags --libs weft)"
check "and loads it" sh -c "LD_LIBRARY_PATH=$root/lib $tmp/host $so $golden | grep -qx my_arch"
finish
