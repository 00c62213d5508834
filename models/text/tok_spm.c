/* tok_spm.c - a tokenizer from SentencePiece's tokenizer.model.
 *
 * The file is a protocol buffer (sentencepiece_model.proto): pieces with score and type, how the model was
 * trained, how text is normalized.  Its reader knows only what is read here; every length is checked
 * against the message it lies in.  Special tokens that were added later stand in
 * tokenizer_config.json and get the ids after the pieces. */
#include "models/text/text.h"

#include <stdlib.h>
#include <string.h>
#include <jansson.h>

struct message { const uint8_t *at, *end; };

struct field {
	uint32_t number, wire;
	uint64_t value;              /* wire 0, 1 and 5 */
	struct message bytes;        /* wire 2 */
};

enum { VARINT, FIXED64, BYTES, FIXED32 = 5 };
enum { UNIGRAM = 1, BPE = 2 };

struct model {
	wf_error *err;
	wf_tokenizer *tok;
	size_t npiece, n;
	int64_t type, bos, eos, unk;
	bool prefix, collapse, escape, suffix;
	struct message charsmap;
	json_t *config;
};

static int varint(struct message *m, uint64_t *value)
{
	*value = 0;
	for (int shift = 0; shift < 64 && m->at < m->end; shift += 7) {
		uint8_t byte = *m->at++;
		*value |= (uint64_t)(byte & 0x7F) << shift;
		if (!(byte & 0x80))
			return 0;
	}
	return -1;
}

static int fixed(struct message *m, size_t n, uint64_t *value)
{
	*value = 0;
	if ((size_t)(m->end - m->at) < n)
		return -1;
	for (size_t i = 0; i < n; i++)
		*value |= (uint64_t)*m->at++ << 8 * i;
	return 0;
}

/* The next field: 1, 0 at the end, -1 after wf_fail. */
static int next(wf_error *err, struct message *m, struct field *f)
{
	uint64_t tag, len;
	int rc = -1;

	if (m->at == m->end)
		return 0;
	if (varint(m, &tag) < 0 || tag >> 3 == 0 || tag >> 3 > UINT32_MAX >> 3)
		return wf_fail(err, "tokenizer.model: a broken field");
	*f = (struct field){.number = (uint32_t)(tag >> 3), .wire = tag & 7};
	if (f->wire == VARINT) {
		rc = varint(m, &f->value);
	} else if (f->wire == FIXED64 || f->wire == FIXED32) {
		rc = fixed(m, f->wire == FIXED64 ? 8 : 4, &f->value);
	} else if (f->wire == BYTES && varint(m, &len) == 0 && len <= (size_t)(m->end - m->at)) {
		f->bytes = (struct message){m->at, m->at + len};
		m->at += len;
		rc = 0;
	}
	return rc < 0 ? wf_fail(err, "tokenizer.model: field %u is cut short or of an unknown kind", f->number) : 1;
}

/* ---- the parts ---- */

static int read_trainer(struct model *m, struct message in)
{
	struct field f;
	int rc;

	while ((rc = next(m->err, &in, &f)) > 0) {
		int64_t value = (int32_t)(uint32_t)f.value;
		if (f.wire != VARINT)
			continue;
		if (f.number == 3)
			m->type = value;
		else if (f.number == 24)
			m->suffix = f.value != 0;
		else if (f.number == 41)
			m->bos = value;
		else if (f.number == 42)
			m->eos = value;
	}
	return rc;
}

static int read_normalizer(struct model *m, struct message in)
{
	struct field f;
	int rc;

	while ((rc = next(m->err, &in, &f)) > 0) {
		if (f.number == 2 && f.wire == BYTES)
			m->charsmap = f.bytes;
		else if (f.number == 3 && f.wire == VARINT)
			m->prefix = f.value != 0;
		else if (f.number == 4 && f.wire == VARINT)
			m->collapse = f.value != 0;
		else if (f.number == 5 && f.wire == VARINT)
			m->escape = f.value != 0;
	}
	return rc;
}

/* Everything but the pieces, which are counted. */
static int read_frame(struct model *m, struct message in)
{
	struct field f;
	int rc;

	while ((rc = next(m->err, &in, &f)) > 0) {
		if (f.number == 1 && f.wire == BYTES)
			m->npiece++;
		else if (f.number == 2 && f.wire == BYTES && read_trainer(m, f.bytes) < 0)
			return -1;
		else if (f.number == 3 && f.wire == BYTES && read_normalizer(m, f.bytes) < 0)
			return -1;
	}
	return rc;
}

static int read_piece(struct model *m, struct message in, size_t id)
{
	struct message text = {0};
	float score = 0;
	int64_t type = TOKEN_NORMAL;
	struct field f;
	int rc;

	while ((rc = next(m->err, &in, &f)) > 0) {
		uint32_t bits = (uint32_t)f.value;
		if (f.number == 1 && f.wire == BYTES)
			text = f.bytes;
		else if (f.number == 2 && f.wire == FIXED32)
			memcpy(&score, &bits, sizeof score);
		else if (f.number == 3 && f.wire == VARINT)
			type = f.value <= TOKEN_BYTE ? (int64_t)f.value : 0;
	}
	if (rc < 0)
		return -1;
	if (text.at == text.end)
		return wf_fail(m->err, "tokenizer.model: piece %zu is empty", id);
	if (type == TOKEN_UNKNOWN && m->unk >= 0)
		return wf_fail(m->err, "tokenizer.model: pieces %lld and %zu are both unknown", (long long)m->unk, id);
	if (type == TOKEN_UNKNOWN)
		m->unk = (int64_t)id;
	return vocab_set(m->tok, m->err, id, (const char *)text.at, (size_t)(text.end - text.at), (int)type, score);
}

static int read_pieces(struct model *m, struct message in)
{
	struct field f;
	size_t id = 0;
	int rc;

	while ((rc = next(m->err, &in, &f)) > 0)
		if (f.number == 1 && f.wire == BYTES && read_piece(m, f.bytes, id++) < 0)
			return -1;
	return rc;
}

/* ---- tokens that were added to the pieces ---- */

/* What ChatGLM2 and 3 put behind their pieces, in this order; their code says so, no file does. */
static const char *const chatglm[] = {
	"[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"
};

static bool is_chatglm(const struct model *m)
{
	const char *class = json_string_value(json_object_get(m->config, "tokenizer_class"));

	return class && strcmp(class, "ChatGLMTokenizer") == 0;
}

static int count_added(struct model *m)
{
	const json_t *added = json_object_get(m->config, "added_tokens_decoder"), *v;
	const char *key;
	char *end;

	m->n = m->npiece;
	if (is_chatglm(m))
		m->n += sizeof chatglm / sizeof *chatglm;
	if (json_is_object(added))
		json_object_foreach((json_t *)added, key, v) {
			unsigned long id = strtoul(key, &end, 10);
			if (*key < '0' || *key > '9' || *end || id > m->npiece + 4 * json_object_size(added) + 65536)
				return wf_fail(m->err, "tokenizer_config.json: added token \"%.20s\": expected an id near %zu", key, m->npiece);
			if (id >= m->n)
				m->n = id + 1;
		}
	return 0;
}

static int add_token(struct model *m, size_t id, const char *text, const json_t *v)
{
	struct token *t = &m->tok->token[id];
	bool special = !v || json_is_true(json_object_get(v, "special"));

	if (!text || !*text)
		return wf_fail(m->err, "tokenizer_config.json: added token %zu has no content", id);
	if (t->flags & TOKEN_GIVEN) {
		if (strcmp(t->text, text) != 0)
			return wf_fail(m->err, "tokenizer_config.json: token %zu is \"%.60s\", in tokenizer.model \"%s\"", id, text, t->text);
		if (t->type != TOKEN_UNKNOWN)
			t->type = special ? TOKEN_CONTROL : TOKEN_USER;
	} else if (vocab_set(m->tok, m->err, id, text, strlen(text), special ? TOKEN_CONTROL : TOKEN_USER, 0) < 0) {
		return -1;
	}
	if (json_is_true(json_object_get(v, "lstrip")))
		t->flags |= TOKEN_LSTRIP;
	if (json_is_true(json_object_get(v, "rstrip")))
		t->flags |= TOKEN_RSTRIP;
	return 0;
}

static int add_tokens(struct model *m)
{
	const json_t *added = json_object_get(m->config, "added_tokens_decoder"), *v;
	const char *key;

	for (size_t i = 0; is_chatglm(m) && i < sizeof chatglm / sizeof *chatglm; i++)
		if (add_token(m, m->npiece + i, chatglm[i], NULL) < 0)
			return -1;
	if (json_is_object(added))
		json_object_foreach((json_t *)added, key, v)
			if (add_token(m, strtoul(key, NULL, 10), json_string_value(json_object_get(v, "content")), v) < 0)
				return -1;
	return 0;
}

/* ---- together ---- */

/* The pieces come first, in every file that SentencePiece writes. */
static int check_start(const struct model *m, struct message in)
{
	if (in.at != in.end && *in.at == (1 << 3 | BYTES))
		return 0;
	return wf_fail(m->err, "tokenizer.model: not a SentencePiece model (a tiktoken file needs its tokenizer.json)");
}

static int check(const struct model *m)
{
	if (m->type != UNIGRAM && m->type != BPE)
		return wf_fail(m->err, "tokenizer.model: model type %lld, expected 1 (unigram) or 2 (BPE)", (long long)m->type);
	if (m->suffix)
		return wf_fail(m->err, "tokenizer.model: treat_whitespace_as_suffix is not supported");
	return 0;
}

static int add_steps(struct model *m)
{
	struct step *step = steps_add(m->err, &m->tok->normalize, normal_spaces);

	if (!step)
		return -1;
	step->form = (m->prefix ? SPACES_PREFIX : 0) | (m->collapse ? SPACES_COLLAPSE : 0) | (m->escape ? SPACES_ESCAPE : 0);
	if (m->charsmap.at == m->charsmap.end)
		return 0;
	step->charsmap = charsmap_new(m->tok->arena, m->err, m->charsmap.at, (size_t)(m->charsmap.end - m->charsmap.at));
	return step->charsmap ? 0 : -1;
}

static void set_ends(struct model *m)
{
	wf_tokenizer *tok = m->tok;

	tok->unk = (int32_t)m->unk;
	tok->bos = m->bos >= 0 && (size_t)m->bos < m->npiece ? (int32_t)m->bos : -1;
	tok->eos = m->eos >= 0 && (size_t)m->eos < m->npiece ? (int32_t)m->eos : -1;
	if (is_chatglm(m)) {
		tok->before[tok->nbefore++] = wf_token_find(tok, "[gMASK]");
		tok->before[tok->nbefore++] = wf_token_find(tok, "sop");
	} else if (m->type == BPE && tok->bos >= 0) {
		tok->before[tok->nbefore++] = tok->bos;
	}
}

static int load(struct model *m, wf_arena *arena, struct message in, const char *config, size_t config_len)
{
	if (check_start(m, in) < 0 || read_frame(m, in) < 0 || check(m) < 0 || count_added(m) < 0 || !(m->tok = vocab_new(arena, m->err, m->n)) ||
			read_pieces(m, in) < 0 || add_tokens(m) < 0 || vocab_index(m->tok, m->err) < 0 || add_steps(m) < 0)
		return -1;
	wf_tokenizer *tok = m->tok;
	tok->sentencepiece = tok->fuse_unknown = true;
	tok->escaped = m->escape;
	tok->drop_space = m->prefix;
	tok->encode = m->type == BPE ? bpe_encode : unigram_encode;
	set_ends(m);
	if (config && tokenizer_config(tok, m->err, config, config_len) < 0)
		return -1;
	if (vocab_finish(tok, m->err) < 0 || (m->type == UNIGRAM && unigram_setup(tok, m->err) < 0))
		return -1;
	return vocab_special(tok, m->err);
}

wf_tokenizer *tokenizer_spm(wf_arena *arena, wf_error *err, const uint8_t *data, size_t len,
		const char *config, size_t config_len)
{
	struct model m = {.err = err, .type = UNIGRAM, .bos = 1, .eos = 2, .unk = -1, .prefix = true,
		.collapse = true, .escape = true};

	if (config && !(m.config = json_read(err, "tokenizer_config.json", config, config_len)))
		return NULL;
	int rc = load(&m, arena, (struct message){data, data + len}, config, config_len);
	json_decref(m.config);
	if (rc == 0)
		return m.tok;
	tokenizer_close(m.tok);
	return NULL;
}

wf_tokenizer *tokenizer_from_spm(wf_arena *arena, wf_error *err, const uint8_t *data, size_t len)
{
	return tokenizer_spm(arena, err, data, len, NULL, 0);
}
