/* tok_gguf.c - a tokenizer from GGUF metadata (tokenizer.ggml.*).
 *
 * "llama" is SentencePiece with scores, "gpt2" byte-level BPE with merges, cut as tokenizer.ggml.pre says,
 * "gemma4" BPE over plain characters.  What a file leaves out is what llama.cpp takes it to be. */
#include "models/text/text.h"

#include <string.h>
#include <strings.h>

struct source {
	wf_arena *arena;
	wf_error *err;
	const gguf *g;
	wf_tokenizer *tok;
	struct gguf_str model;
};

static bool is(struct gguf_str s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.s, text, s.len) == 0;
}

/* ---- tokens ---- */

static int read_numbers(struct source *src, size_t n, struct gguf_array *scores, struct gguf_array *types)
{
	*scores = *types = (struct gguf_array){0};
	gguf_array(src->g, src->err, "tokenizer.ggml.scores", GGUF_F32, scores);
	if (!src->err->set)
		gguf_array(src->g, src->err, "tokenizer.ggml.token_type", GGUF_I32, types);
	if (src->err->set)
		return -1;
	if (scores->data && scores->n < n)
		return wf_fail(src->err, "tokenizer.ggml.scores: %zu values for %zu tokens", scores->n, n);
	if (types->data && types->n < n)
		return wf_fail(src->err, "tokenizer.ggml.token_type: %zu values for %zu tokens", types->n, n);
	return 0;
}

static int read_token(struct source *src, size_t id, struct gguf_str text, const struct gguf_array *scores,
		const struct gguf_array *types)
{
	char empty[32];
	float score = 0;
	int64_t type = TOKEN_NORMAL;

	if (scores->data)
		memcpy(&score, scores->data + id * sizeof score, sizeof score);
	if (!types->data && is(src->model, "llama") && vocab_byte(text.s, text.len) >= 0)
		type = TOKEN_BYTE;
	if (types->data && gguf_array_int(types, id, &type) < 0)
		return wf_fail(src->err, "tokenizer.ggml.token_type: entry %zu is no integer", id);
	if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
		return wf_fail(src->err, "tokenizer.ggml.token_type: expected 1 to 6, found %lld at %zu", (long long)type, id);
	if (!text.len) {
		text.s = empty;
		text.len = (size_t)snprintf(empty, sizeof empty, "[EMPTY_%zu]", id);
	}
	return vocab_set(src->tok, src->err, id, text.s, text.len, (int)type, score);
}

static int read_tokens(struct source *src)
{
	struct gguf_array tokens, scores, types;

	if (!gguf_array(src->g, src->err, "tokenizer.ggml.tokens", GGUF_STRING, &tokens))
		return wf_fail(src->err, "tokenizer.ggml.tokens: not in the file");
	if (!(src->tok = vocab_new(src->arena, src->err, tokens.n)) || read_numbers(src, tokens.n, &scores, &types) < 0)
		return -1;
	if (!scores.data && is(src->model, "llama"))
		return wf_fail(src->err, "tokenizer.ggml.scores: not in the file, and \"llama\" joins by score");
	for (size_t i = 0; i < tokens.n; i++)
		if (read_token(src, i, tokens.str[i], &scores, &types) < 0)
			return -1;
	return vocab_index(src->tok, src->err);
}

/* "left right"; a token may itself begin with the space.  Those without two parts join nothing. */
static int read_merges(struct source *src)
{
	struct gguf_array merges;

	if (!gguf_array(src->g, src->err, "tokenizer.ggml.merges", GGUF_STRING, &merges))
		return wf_fail(src->err, "tokenizer.ggml.merges: not in the file");
	if (bpe_merges(src->tok, src->err, merges.n) < 0)
		return -1;
	for (size_t i = 0; i < merges.n; i++) {
		struct gguf_str m = merges.str[i];
		const char *space = m.len > 1 ? memchr(m.s + 1, ' ', m.len - 1) : NULL;
		if (!space)
			continue;
		size_t left = (size_t)(space - m.s);
		if (bpe_merge(src->tok, src->err, m.s, left, space + 1, m.len - left - 1, (uint32_t)i) < 0)
			return -1;
	}
	return 0;
}

/* ---- ids and flags ---- */

/* A token id under `key`, `absent` when there is none; some writers store -1 in 32 bits. */
static int read_id(struct source *src, const char *key, int32_t absent, int32_t *id)
{
	char name[64];
	int64_t value;

	*id = absent < src->tok->n ? absent : -1;
	snprintf(name, sizeof name, "tokenizer.ggml.%s_token_id", key);
	if (!gguf_int(src->g, src->err, name, &value))
		return src->err->set ? -1 : 0;
	if (value == UINT32_MAX || value == -1)
		*id = -1;
	else if (value < 0 || value >= src->tok->n)
		return wf_fail(src->err, "%s: %lld in a vocabulary of %d", name, (long long)value, src->tok->n);
	else
		*id = (int32_t)value;
	return 0;
}

static int read_flag(struct source *src, const char *key, bool *flag)
{
	gguf_bool(src->g, src->err, key, flag);
	return src->err->set ? -1 : 0;
}

static int read_ends(struct source *src, bool add_bos)
{
	wf_tokenizer *tok = src->tok;
	bool spm = is(src->model, "llama"), add_eos = false;
	int32_t eot, eom;

	if (read_id(src, "bos", spm ? 1 : -1, &tok->bos) < 0 || read_id(src, "eos", spm ? 2 : -1, &tok->eos) < 0 ||
			read_id(src, "unknown", spm ? 0 : -1, &tok->unk) < 0 ||
			read_id(src, "eot", -1, &eot) < 0 || read_id(src, "eom", -1, &eom) < 0 ||
			read_flag(src, "tokenizer.ggml.add_bos_token", &add_bos) < 0 ||
			read_flag(src, "tokenizer.ggml.add_eos_token", &add_eos) < 0)
		return -1;
	if (add_bos && tok->bos >= 0)
		tok->before[tok->nbefore++] = tok->bos;
	if (add_eos && tok->eos >= 0)
		tok->after[tok->nafter++] = tok->eos;
	vocab_eog(tok, eot);
	vocab_eog(tok, eom);
	return 0;
}

/* Phi-3's files do not carry that its special tokens take the white space after them. */
static int strip_phi3(struct source *src)
{
	static const char *const plain[] = {"<unk>", "<s>", "<|endoftext|>"};
	struct gguf_str name;
	wf_tokenizer *tok = src->tok;
	bool phi3 = false;

	if (!gguf_string(src->g, src->err, "general.name", &name))
		return src->err->set ? -1 : 0;
	for (size_t i = 0; i + 4 <= name.len; i++)
		phi3 |= strncasecmp(name.s + i, "phi3", 4) == 0 ||
			(i + 5 <= name.len && strncasecmp(name.s + i, "phi-3", 5) == 0);
	if (!phi3)
		return 0;
	for (int32_t i = 0; i < tok->n; i++)
		if (tok->token[i].type == TOKEN_CONTROL || tok->token[i].type == TOKEN_USER)
			tok->token[i].flags |= TOKEN_RSTRIP;
	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
		int32_t id = wf_token_find(tok, plain[i]);
		if (id >= 0)
			tok->token[id].flags &= (uint8_t)~TOKEN_RSTRIP;
	}
	return 0;
}

/* ---- pipelines ---- */

static int escape_spaces(struct source *src, bool lead)
{
	static const char marker[] = "\xE2\x96\x81";
	struct step *step;

	if (lead) {
		if (!(step = steps_add(src->err, &src->tok->normalize, normal_prefix)))
			return -1;
		step->to = " ";
		step->nto = 1;
	}
	if (!(step = steps_add(src->err, &src->tok->normalize, normal_replace)))
		return -1;
	step->from = " ";
	step->nfrom = 1;
	step->to = marker;
	step->nto = 3;
	src->tok->escaped = true;
	return 0;
}

static int setup_spm(struct source *src)
{
	bool lead = true;

	if (read_flag(src, "tokenizer.ggml.add_space_prefix", &lead) < 0 || escape_spaces(src, lead) < 0)
		return -1;
	src->tok->drop_space = lead;
	return read_ends(src, true);
}

static const struct pretok *find_pretok(struct source *src)
{
	struct gguf_str name, arch;
	const char *only;

	if (is(src->model, "gemma4"))
		return pretok_named(src->err, src->model);
	if (gguf_string(src->g, src->err, "tokenizer.ggml.pre", &name))
		return pretok_named(src->err, name);
	if (src->err->set)
		return NULL;
	if (gguf_string(src->g, src->err, "general.architecture", &arch) && (only = pretok_of_arch(arch)))
		return pretok_named(src->err, (struct gguf_str){only, strlen(only)});
	wf_fail(src->err, "tokenizer.ggml.pre: not in the file, and its architecture does not tell which pre-tokenizer "
		"it needs; convert the model anew");
	return NULL;
}

static int setup_bpe(struct source *src)
{
	const struct pretok *pre = find_pretok(src);
	wf_tokenizer *tok = src->tok;

	if (!pre)
		return -1;
	bool plain = pre->flags & PRE_PLAIN;
	if (read_merges(src) < 0 || pretok_steps(src->err, &tok->pretok, pre) < 0)
		return -1;
	tok->ignore_merges = pre->flags & PRE_WHOLE;
	tok->whole_lines = pre->flags & PRE_LINES;
	tok->byte_level = !plain;
	if (plain ? escape_spaces(src, false) < 0 : !steps_add(src->err, &tok->pretok, pretok_bytes))
		return -1;
	if (read_ends(src, pre->flags & PRE_BOS) < 0)
		return -1;
	if (tok->byte_level)
		tok->unk = -1;               /* a byte without a token is left out, as everyone does */
	return 0;
}

static int load(struct source *src)
{
	if (!gguf_string(src->g, src->err, "tokenizer.ggml.model", &src->model))
		return wf_fail(src->err, "tokenizer.ggml.model: not in the file");
	bool spm = is(src->model, "llama"), bpe = is(src->model, "gpt2") || is(src->model, "gemma4");
	if (!spm && !bpe)
		return wf_fail(src->err, "tokenizer.ggml.model: expected llama (SentencePiece), gpt2 (byte-level BPE) or "
			"gemma4, found \"%.*s\", which is not supported", (int)(src->model.len < 60 ? src->model.len : 60),
			src->model.s);
	if (read_tokens(src) < 0)
		return -1;
	src->tok->encode = bpe_encode;
	if (spm ? setup_spm(src) < 0 : setup_bpe(src) < 0)
		return -1;
	if (vocab_finish(src->tok, src->err) < 0 || strip_phi3(src) < 0)
		return -1;
	return vocab_special(src->tok, src->err);
}

wf_tokenizer *tokenizer_from_gguf(wf_arena *arena, wf_error *err, const gguf *g)
{
	struct source src = {arena, err, g, NULL, {0}};

	if (load(&src) == 0)
		return src.tok;
	tokenizer_close(src.tok);
	return NULL;
}
