#!/bin/sh
# check-cuda.sh [PART...] - everything that needs a GPU: plans against the definition (units), golden models
# in every way of feeding them, replayed graphs against single launches (golden), a trained model's text
# (text), processes that start together (cold), seven billion weights (7b), sanitizers (sanitize).
# Runs what is built (./weft, build/tests/cuda_*), or what WEFT and TESTS name; WEFT_SHARED says where
# the golden models are; JOBS (4) of them go at once.  The last line is "N passed, N failed".
set -u
cd "$(dirname "$0")/.."
weft=${WEFT:-./weft} tests=${TESTS:-build/tests} shared=${WEFT_SHARED:-../shared} cache=${WEFT_CACHE:-build/kernels}
export WEFT_SHARED="$shared"
parts=${*:-units golden text cold 7b sanitize}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
log=$tmp/log
mkdir -p build

# check NAME COMMAND...: passes when the command does
check() {
	what=$1
	shift
	if "$@" > "$log" 2>&1; then
		echo "pass $what $(sed -n 's/.*\(NMSE [^ ]*\).*/\1/p' "$log" | tr '\n' ' ')"
	else
		echo "FAIL $what: $*"
		tail -n 60 "$log"
	fi
}

cuda() {
	command=$1
	shift
	timeout 300 "$weft" "$command" --backend cuda --cache "$cache" "$@"
}

verify() { cuda verify "$@"; }
# In 16 bits a small margin may fall the other way: the error of the logits counts, not the greedy text.
close_to() {
	most=$1
	shift
	cuda verify --tolerance "$most" --margin 1e9 "$@"
}
same_text() { "$@" > "$log.text" 2>/dev/null && cmp "$log.text" "$shared/models/stories260K.greedy200.txt"; }
story() { cuda run -m "$shared/models/stories260K.gguf" -p "" -n 200 --temp 0 --ignore-eos "$@"; }
# Whether the sanitizer is content; whether the answers are right is checked without it.
sanitize() {
	timeout 300 compute-sanitizer --tool "$1" --error-exitcode 9 "$weft" verify --backend cuda --cache "$cache" \
		-m "$shared/golden/$2" --chunk 7 --act "$3"
	[ $? -le 1 ]
}

units() { at_once unit cuda_ops cuda_attend cuda_device cuda_experts; }
unit() {
	[ -x "$tests/$1" ] || return
	check "$1" "$tests/$1"
	sed -n 's/^\([0-9]* cases, [0-9]* bad\).*/     \1/p' "$log"
}

# Near ties between experts fall otherwise in bf16: there the bound is what transformers itself loses in it
# (reference_error.py).
golden_model() {
	m=$1 name=$(basename "$1") f32=1e-7 f16=2e-5 bf16=1e-3
	case $name in llama*) f32=1e-8 bf16=5e-4 ;; gpt-oss) bf16=2.3e-2 ;; deepseek-v3) bf16=1.5e-2 ;; esac
	for chunk in 0 7 1; do
		check "$name f32 chunk $chunk" verify -m "$m" --chunk $chunk --tolerance $f32
		check "$name f16 chunk $chunk" close_to $f16 -m "$m" --act f16 --cache-type f16 --chunk $chunk
		check "$name bf16 chunk $chunk" close_to $bf16 -m "$m" --act bf16 --cache-type bf16 --chunk $chunk
	done
	check "$name f32 single launches" verify -m "$m" --no-graph --tolerance $f32
	check "$name batch of 5" verify -m "$m" --batch 5 --tolerance $f32
	check "$name batch of 5, single launches" verify -m "$m" --batch 5 --no-graph --tolerance $f32
	[ "$name" != llama2-gqa ] || check "$name unfused" verify -m "$m" --skip fuse --tolerance $f32
}

golden() {
	at_once golden_model "$shared"/golden/*
}

# at_once FUNCTION WORD...: calls of it, a few at a time; their lines come in order
at_once() {
	f=$1 n=0
	shift
	for word; do
		n=$((n + 1))
		(log=$tmp/$n.log; $f "$word") > "$tmp/$n.lines" 2>&1 &
		[ $((n % ${JOBS:-4})) -gt 0 ] || wait
	done
	wait
	for i in $(seq $n); do
		cat "$tmp/$i.lines"
	done
}

# Stories of a small trained model; then real ones where they have been fetched (sh tests/model.sh, sh tests/model.sh gemma3):
# the CPU's greedy text with f32 activations, for prompts whose answer never hangs on less than 0.07 between two logits.
# Gemma's residual passes 100,000.
text() {
	if [ -f "$shared/models/stories260K.gguf" ]; then
		check "story" same_text story
		check "story, single launches" same_text story --no-graph
		check "story, waiting" same_text story --sync
	fi
	models=${XDG_CACHE_HOME:-$HOME/.cache}/weft-models
	answers SmolLM2 "${SMOLLM2:-$models/SmolLM2-135M-Instruct.Q4_1.gguf}" 64 "What is the capital of France?" \
		"Name the planets of the solar system." "Count from one to ten."
	answers Gemma3 "${GEMMA3:-$models/gemma-3-270m-q4_k_m.gguf}" 32 "Question: What is the capital of France? Answer:" \
		"The opposite of hot is" "1, 2, 3, 4, 5, 6,"
}
answers() {
	name=$1 model=$2 length=$3
	shift 3
	[ -f "$model" ] || return 0
	for prompt; do
		answer --act f32 > "$log.cpu"
		for act in f32 f16 bf16; do
			check "$name $act: $prompt" same_answer --act $act
		done
	done
}
answer() { "$weft" run -m "$model" -p "$prompt" -n "$length" --temp 0 "$@" < /dev/null 2> /dev/null; }
same_answer() { answer --backend cuda --cache "$cache" "$@" > "$log.gpu" && [ -s "$log.gpu" ] && cmp "$log.gpu" "$log.cpu"; }

# Eight processes that start cold together share one cache; the next finds everything there.
cold() { check "eight cold starts at once" cold_starts; }
cold_starts() {
	for i in 1 2 3 4 5 6 7 8; do
		"$weft" verify --backend cuda --cache "$log.cold" -m "$shared/golden/llama2-gqa" --chunk 7 > "$log.cold.$i" 2>&1 || echo "$i" >> "$log.bad" &
	done
	wait
	[ ! -e "$log.bad" ] || { cat "$log.bad" "$log.cold."*; return 1; }
}

# Seven billion hash-made weights against PyTorch in f32; in bf16 transformers itself is 9e-3 away, so the bound
# there is what the rounding of bf16 operands alone makes.
billions() {
	python3 -c 'import torch, transformers, xxhash, sys; sys.exit(not torch.cuda.is_available())' 2> /dev/null || return 0
	mkdir -p "$tmp/7b"
	cp tests/configs/llama-2-7b.json "$tmp/7b/config.json"
	for type in f16 bf16; do
		check "7B reference $type" python3 tests/hash_reference.py "$tmp/7b" "$tmp/7b/$type.safetensors" --type $type --seed 1
		sed -n 's/.*transformers/transformers/p' "$log"
		set -- -m "$tmp/7b/config.json" --random-weights --seed 1 --wtype $type --reference "$tmp/7b/$type.safetensors"
		check "7B $type, f16 activations" close_to 5e-4 "$@" --act f16 --cache-type f16
		[ $type = f16 ] || check "7B bf16" close_to 2.5e-3 "$@" --act bf16 --cache-type bf16
	done
}

sanitizer() {
	set -- $1
	check "$1 $2 $3" sanitize "$1" "$2" "$3"
}
# The slowest first.
sanitizers() {
	for tool in racecheck memcheck synccheck; do
		for model in "llama2-gqa f32" "llama2-gqa bf16" "mixtral f16"; do
			set -- "$@" "$tool $model"
		done
	done
	at_once sanitizer "$@"
}

for part in $parts; do
	case $part in
	units | golden | text | cold) $part ;;
	7b) billions ;;
	sanitize) ! command -v compute-sanitizer > /dev/null || sanitizers ;;
	*) echo "FAIL no part called $part: units, golden, text, cold, 7b or sanitize" ;;
	esac
done | tee "$tmp/all"
failed=$(grep -c '^FAIL' "$tmp/all")
echo "$(grep -c '^pass' "$tmp/all") passed, $failed failed"
[ "$failed" = 0 ]
