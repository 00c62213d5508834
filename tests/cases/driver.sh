#!/bin/sh
# driver.sh - the command line: exit codes, what goes where, the environment, help made from the table,
# plans and dumps, answers and conversations.
. tests/cases/case.sh.inc

golden=tests/golden/llama2-gqa
story=$shared/models/stories260K.gguf
unset WEFT_MODEL NO_COLOR

# code WANT COMMAND...: passes when it ends with that code.
code() {
	want=$1
	shift
	"$@" > "$tmp/out" 2> "$tmp/err"
	got=$?
	[ $got = "$want" ] || { echo "ended with $got, expected $want"; cat "$tmp/err"; return 1; }
}
# says TEXT CODE COMMAND...: and names the reason on stderr, nothing on stdout.
says() {
	text=$1
	shift
	code "$@" || return 1
	grep -qF -- "$text" "$tmp/err" || { echo "expected '$text'"; cat "$tmp/err"; return 1; }
	[ ! -s "$tmp/out" ] || { echo "standard output:"; cat "$tmp/out"; return 1; }
}

cp $golden/config.json "$tmp"

# usage
check "no command" says "Usage" 2 $weft
check "unknown command" says "unknown command 'walk'" 2 $weft walk
check "a command's nearest name" says "unknown command 'rnu'; the nearest is 'run'" 2 $weft rnu
check "help's nearest name" says "unknown command 'plann'; the nearest is 'plan'" 2 $weft help plann
check "unknown option" says "unknown option --wings" 2 $weft run --wings
check "an option first" says "expected a command before -m" 2 $weft -m x
check "an option's nearest name" says "unknown option --topk; the nearest is --top-k" 2 $weft run --topk 3
check "of this command alone" says "unknown option --gup=h200; the nearest is --gpu" 2 $weft plan --gup=h200
check "the beginning of several" says "--top could be --top-k, --top-p" 2 $weft run --top 3
check "another command's option" says "--temp is an option of run, not of dump" 2 $weft dump --temp 1
check "missing value" says "-m: expected a value" 2 $weft run -m
check "no number" says "--temp: expected a number from 0 to 100, found 'hot'" 2 $weft run --temp hot
check "out of range" says "--top-p: expected a number from 0 to 1, found '1.5'" 2 $weft run --top-p 1.5
check "half a number" says "--threads: expected a whole number" 2 $weft run -t 1.5
check "no choice" says "--stage: expected one of build" 2 $weft dump --stage never
check "no list" says "--n-prompt: expected up to 16 whole numbers" 2 $weft bench -p 1,x
check "no model" says "expected a model" 1 $weft run -p x
check "no file" says "/nowhere/model.gguf" 1 $weft run -m /nowhere/model.gguf -p x
check "a second model" says "unexpected argument 'b'" 1 $weft plan a b
check "no backend" says "backend" 2 $weft run --backend abacus
check "no GPU of that name" says "neither a GPU known here" 1 $weft plan $golden --gpu abacus
check "no pass to skip" says "no pass 'fusing'" 1 $weft dump -m $golden --skip fusing
check "no output folder" says "/nowhere/x" 1 $weft dump -m $golden -o /nowhere/x
check "a reference beside the file" says "$tmp/golden.safetensors" 1 $weft verify -m "$tmp/config.json"
check "no reference" says "/nowhere/reference" 1 $weft verify -m $golden --reference /nowhere/reference
check "no tokenizer" says "no tokenizer" 1 $weft run -m $golden -p x
check "full device" sh -c "! $weft dump -m $golden > /dev/full 2> $tmp/err && grep -q 'cannot write' $tmp/err"

# help, the page and completion say what the table says
for c in run chat bench verify perplexity tokenize plan dump explain devices completion man help; do
	check "$c --help" sh -c "$weft $c --help | grep -q 'Usage:.*weft $c'"
	check "help $c" sh -c "$weft help $c | grep -q 'Usage:.*weft $c'"
	check "man has $c" sh -c "$weft man | grep -q 'weft $c'"
done
check "bash completion" sh -c "$weft completion bash > $tmp/c && bash -n $tmp/c && grep -q -- --top-k $tmp/c"
check "bash completes" bash -c "source <($weft completion bash); COMP_WORDS=(weft dump --stage f); COMP_CWORD=3; _weft
	[ \"\${COMPREPLY[*]}\" = 'fold fuse' ]"
check "zsh completion" sh -c "$weft completion zsh > $tmp/c && grep -q _arguments $tmp/c && grep -q 'compdef _weft weft' $tmp/c"
check "fish completion" sh -c "$weft completion fish | grep -q -- '-l top-k'"
check "completion of no shell" code 2 $weft completion tcsh
check "version" sh -c "$weft --version | grep -q '^weft [0-9]'"
check "no colours in a pipe" sh -c "! $weft help run | grep -q \"\$(printf '\\033')\""

# the environment
check "a variable is an option" sh -c "WEFT_MODEL=$golden $weft dump --stage build | grep -q '^plan build'"
check "the option wins" sh -c "WEFT_STAGE=fold $weft dump -m $golden --stage build | grep -q '^plan build'"
check "a bad variable is named" env WEFT_STAGE=never sh -c "$weft dump -m $golden 2>&1 | grep -q 'WEFT_STAGE: expected one of'"
check "letters, names and single dashes" sh -c "$weft dump -m $golden -ub 7 -ctk f32 | head -2 | tr '\n' ' ' | grep -q 'tokens=7.*kv=f32'"

# plans
plan() {
	$weft plan "$@" --json > "$tmp/plan" && shift $# && python3 - "$tmp/plan" "$check" <<'PY'
import json, sys
plan = json.load(open(sys.argv[1]))
memory = plan["memory"]
parts = sum(w["bytes"] for w in memory["weights"]) + memory["activations"] + memory["kv"] + memory["reserve"]
assert abs(parts - memory["total"]) < 1, memory
assert memory["activations"] <= 1.05 * memory["activations_lower_bound"], memory
assert eval(sys.argv[2], plan), plan
PY
}
check='kernels == 12' check "plan of a model" plan $golden
check='"forecast" in globals() and forecast["decode_tok_s"] > 1000' check "forecast" plan $golden --gpu h200
check='device["fits"] and ctx > 100000' check "longest context" plan $golden --gpu rtx4090 --fit
check='device["fits"] and batch > 1000 and ctx == 512' check "largest batch" plan $golden --gpu 24GB -c 512 --fit
check "does not fit" sh -c "$weft plan $golden --gpu 1M | grep -q 'does not fit'"
check='device["name"] == "cpu" and device["fits"] and forecast["decode_tok_s"] > 1' check "this machine" plan $golden
check "weights that do not fit" says "the weights alone do not fit" 1 $weft plan $golden --gpu 0.1M --fit

# dumps
check "explain" sh -c "$weft explain -m $golden --gpu h200 | grep -q '+ row into dot.load .*saves'"
check "explain names blockers" sh -c "$weft explain -m $golden | grep -q -- '- move into dot.load .*2 readers'"
check "explain as JSON" sh -c "$weft explain -m $golden --json | python3 -c 'import json,sys; assert len(json.load(sys.stdin)[\"kernels\"]) == 12'"
check "JSON holds the graph" sh -c "$weft dump -m $golden --format json | python3 -c '
import json, sys
d = json.load(sys.stdin)
assert d[\"stage\"] == \"place\" and len(d[\"kernels\"]) == 12
assert all(n[\"id\"] == i for i, n in enumerate(d[\"nodes\"]))
assert all(k < n[\"id\"] for n in d[\"nodes\"] for k in n[\"in\"])'"
check "the page stands alone" sh -c "$weft dump -m $golden --format html > $tmp/p.html && ! grep -qE '(src|href)=\"?(http|//)' $tmp/p.html"
check "the page closes its tags" python3 - "$tmp/p.html" <<'PY'
import sys
from html.parser import HTMLParser
class Check(HTMLParser):
    stack = []
    keep = {"article", "details", "svg", "table", "main", "header", "script", "style", "ul", "div", "a", "span"}
    def handle_starttag(self, tag, attrs):
        if tag in self.keep: self.stack.append(tag)
    def handle_endtag(self, tag):
        if tag in self.keep: assert self.stack.pop() == tag, (tag, self.getpos())
check = Check()
check.feed(open(sys.argv[1]).read())
assert not check.stack, check.stack
PY
if command -v dot > /dev/null; then
	check "Graphviz reads DOT" sh -c "$weft dump -m $golden --format dot | dot -Tsvg | grep -q '</svg>'"
fi
$weft dump -m $golden --stage fuse -o "$tmp/fused"
check "a dump is not taken back" says "past build" 1 $weft dump --graph "$tmp/fused" --stage build
echo "%0 = nonsense" > "$tmp/bad"
check "a bad dump has a place" says "line 1, column" 1 $weft dump --graph "$tmp/bad"
# refused TEXT MESSAGE: a graph whose one output is TEXT, of x and of a choice among its eight values
refused() {
	printf 'graph g act=f32\n$x : f32[T,8]\n@w : f32[6,4]\n%%1 = route $x k=2\nout y = (%s)\n' "$1" > "$tmp/refused"
	check "refused: $1" says "$2" 1 $weft dump --graph "$tmp/refused"
}
refused 'mix (heads $x n=2) %1' "mix: operand 1 is of whole numbers"
refused 'experts @w (cols $x start=0 n=4) %1 n=3' "experts: chosen among 8 experts, of which there are 3"
refused 'gates (cols $x start=0 n=4) %1' "gates: chosen among 8 experts, of which there are 4"
refused 'heads $x n=2.5' "heads: n is 2.5, expected a whole number"
refused 'cols $x start=1e300 n=4' "cols: start is 1e+300, expected a whole number"
check "emit needs sources" says "--backend cuda" 1 $weft dump -m $golden --backend cpu --stage emit

# a dump that runs: for as many rows as it takes, a kernel taken apart, values that have no place yet
for stage in fold fuse place; do
	$weft dump -m $golden --stage $stage -ctk f32 -o "$tmp/g"
	check "verify a dump after $stage" code 0 $weft verify -m $golden --graph "$tmp/g"
done
sed '/= mul/{s/ at [0-9]*$/ anchor/
	s/^/}\
kernel 99 map {\
/
}' "$tmp/g" > "$tmp/apart"
check "a kernel taken apart" code 0 $weft verify -m $golden --graph "$tmp/apart"
sed 's/^out logits/out scores/' "$tmp/g" > "$tmp/scores"
$weft dump -m $golden --stage build | sed 's/act=f32/act=f16/; s/^\(%[^:]*\) : [^ ]*/\1/' > "$tmp/narrow"
check "a graph of another backend" says "keeps activations in f16, expected f32" 1 $weft verify -m $golden --graph "$tmp/narrow"
check "a graph without logits" says "no output 'logits', its first is 'scores'" 1 $weft bench -m $golden --graph "$tmp/scores"

# verify
check "a difference fails" code 1 $weft verify -m $golden --reference tests/golden/llama/golden.safetensors
check "bf16 products differ by so much" code 0 $weft verify -m $golden --act bf16 --tolerance 1e-2

# devices
check "devices" sh -c "$weft devices | grep -q cores"
check "devices as JSON" sh -c "$weft devices --json | python3 -c 'import json,sys; assert json.load(sys.stdin)[\"cpu\"][\"cores\"] > 0'"

# bench
check "bench as JSON" sh -c "$weft bench -m $golden -p 8 -n 4 -r 2 -b 1,2 --json | python3 -c '
import json, sys
tests = json.load(sys.stdin)[\"tests\"]
assert [t[\"test\"] for t in tests] == [\"pp8\", \"tg4\", \"pp8 x2\", \"tg4 x2\"]
assert all(t[\"tok_s\"] > 0 and sum(k[\"n\"] for k in t[\"kernels\"]) == 12 for t in tests)'"
check "bench as a table" sh -c "$weft bench -m $golden -p 8 -n 0 -r 1 | grep -q 'rmsnorm+matmul+rope+cache'"
ln -s "$(realpath $golden)" "$tmp/a,\"b"
check "bench as CSV" sh -c "$weft bench -m '$tmp/a,\"b' -p 8 -n 0 -r 1 --format csv | python3 -c '
import csv, sys
head, row = csv.reader(sys.stdin)
assert len(head) == len(row) and row[0].endswith(\"a,\" + chr(34) + \"b\")'"
check "bench without a file" sh -c "$weft bench -m $golden/config.json --random-weights -p 8 -n 4 -r 1 --no-profile | grep -q tg4"
check "and says what it weighs" sh -c "$weft bench -m $golden/config.json --random-weights -p 8 -n 0 -r 1 --no-profile | grep -q '504.62 KiB'"
check "vectors of quantised shapes stay f32" sh -c "$weft dump -m tests/configs/llama-3-8b.json --wtype q4_k --stage build |
	grep -q '@blk.0.attn_norm.weight : f32\\['"
check "trace" sh -c "$weft bench -m $golden -p 8 -n 0 -r 1 --trace $tmp/t.json > /dev/null && python3 -c '
import json
assert len(json.load(open(\"$tmp/t.json\"))[\"traceEvents\"]) == 13'"

if [ -r "$story" ]; then
	run="$weft run -m $story --temp 0"
	check "text alone" sh -c "[ \"\$($run -p 'Once upon a time' -n 3 2> /dev/null)\" = ', there was' ]"
	check "quiet" code 0 sh -c "$run -q -p Once -n 2 > /dev/null"
	check "quiet says nothing" test ! -s "$tmp/err"
	check "timings on stderr" sh -c "$run -p Once -n 2 2>&1 > /dev/null | grep -q 'tok/s'"
	check "from standard input" sh -c "printf 'Once upon a time' | $run -n 3 2> /dev/null | grep -qx ', there was'"
	printf 'Once upon a time' > "$tmp/prompt"
	check "from a file" sh -c "$run -f $tmp/prompt -n 3 2> /dev/null | grep -qx ', there was'"
	check "-p and -f" says "expected one of them" 1 $run -p x -f "$tmp/prompt"
	check "seeds repeat" sh -c "a=\$($weft run -q -m $story -p Once -n 20 -s 5); [ \"\$a\" = \"\$($weft run -q -m $story -p Once -n 20 -s 5)\" ]"
	check "seeds differ" sh -c "a=\$($weft run -q -m $story -p Once -n 20 -s 5); [ \"\$a\" != \"\$($weft run -q -m $story -p Once -n 20 -s 6)\" ]"
	greedy=$($run -q -p Once -n 24)
	for o in "--top-k 1" "--top-p 0" "--min-p 1" "--temp 0 --top-k 5" "--temp 0 --repeat-penalty 10 --repeat-last-n 0"; do
		check "greedy by $o" test "$($weft run -q -m "$story" -p Once -n 24 -s 3 $o)" = "$greedy"
	done
	for o in "--temp 2" "--temp 0 --repeat-penalty 10" "--temp 0 --presence-penalty 100" "--temp 0 --frequency-penalty 100"; do
		check "not greedy by $o" test "$($weft run -q -m "$story" -p Once -n 24 -s 3 $o)" != "$greedy"
	done
	check "no cut, any token" test "$($weft run -q -m "$story" -p Once -n 24 -s 3 --temp 2)" != \
		"$($weft run -q -m "$story" -p Once -n 24 -s 3 --temp 2 --top-k 0 --top-p 1 --min-p 0)"
	check "no tokens wanted" test -z "$($run -q -p Once -n 0)"
	check "the context ends" sh -c "$run -p Once -c 16 --ignore-eos 2>&1 > /dev/null | grep -q 'context of 16 tokens is full'"
	check "a prompt too long" says "the context 4" 1 $run -p "Once upon a time there was a little girl" -c 4
	check "small steps, same text" sh -c "[ \"\$($run -p 'Once upon a time' -n 30 -ub 1 2> /dev/null)\" = \"\$($run -p 'Once upon a time' -n 30 2> /dev/null)\" ]"
	for stage in build fold fuse place; do
		$weft dump -m "$story" --stage $stage -o "$tmp/g"
		check "run a dump after $stage" sh -c "$run --graph $tmp/g -p 'Once upon a time' -n 3 2> /dev/null | grep -qx ', there was'"
	done
	check "no template" says "no chat template" 1 $run -p x --conversation
	check "no template of that name" says "one of llama2, llama3, chatml" 1 $run -p x --chat-template llama4
	check "a template" sh -c "$run -p Once -n 2 --chat-template chatml -v 2>&1 > /dev/null | grep -q 'im_start'"
	check "perplexity" sh -c "$weft perplexity -m $story -f $shared/models/stories260K.greedy200.txt -c 32 --json | python3 -c '
import json, sys
assert 1 < json.load(sys.stdin)[\"perplexity\"] < 10'"
	check "tokenize" sh -c "[ \"\$(printf 'Once' | $weft tokenize -m $story --special | cut -d' ' -f1)\" = 1 ]"
	check "conversation" python3 tests/chat.py "$weft" "$story" "$tmp"
fi
finish
