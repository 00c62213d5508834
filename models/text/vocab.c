/* vocab.c - the tokens: text to id and back, what each stands for, which end a generation.
 *
 * A loader sets every id it knows and finishes once.  Ids that no file defined stay empty and are never
 * found.  Two ids for one text would make encoding a matter of chance, so that is an error. */
#include "models/text/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static const char marker[] = "\xE2\x96\x81";         /* U+2581, a space inside the vocabulary */

wf_tokenizer *vocab_new(wf_arena *arena, wf_error *err, size_t n)
{
	wf_tokenizer *tok;

	if (n == 0 || n > MAXTOKENS) {
		wf_fail(err, "tokenizer: a vocabulary of %zu tokens, expected 1 to %d", n, MAXTOKENS);
		return NULL;
	}
	if (!(tok = wf_alloc(arena, sizeof *tok)) || !(tok->token = wf_alloc_n(arena, n, sizeof *tok->token))) {
		wf_fail(err, "tokenizer: out of memory for %zu tokens", n);
		return NULL;
	}
	tok->arena = arena;
	tok->n = (int32_t)n;
	tok->unk = tok->bos = tok->eos = -1;
	for (int32_t i = 0; i < tok->n; i++) {
		tok->token[i].text = tok->token[i].bytes = "";
		tok->token[i].type = TOKEN_UNUSED;
	}
	return tok;
}

char *vocab_string(wf_tokenizer *tok, wf_error *err, const char *s, size_t n)
{
	enum { CHUNK = 64 << 10 };
	size_t need = n + 1;

	if (need > tok->pool_left) {
		size_t take = need > CHUNK ? need : CHUNK;
		if (!(tok->pool = wf_alloc(tok->arena, take))) {
			tok->pool_left = 0;
			wf_fail(err, "tokenizer: out of memory for strings");
			return NULL;
		}
		tok->pool_left = take;
	}
	char *to = tok->pool;
	if (n)
		memcpy(to, s, n);
	to[n] = 0;
	tok->pool += need;
	tok->pool_left -= need;
	return to;
}

int vocab_set(wf_tokenizer *tok, wf_error *err, size_t id, const char *text, size_t len, int type, double score)
{
	if (id >= (size_t)tok->n)
		return wf_fail(err, "tokenizer: token id %zu in a vocabulary of %d", id, tok->n);
	if (len > MAXPIECE)
		return wf_fail(err, "tokenizer: token %zu is %zu bytes long, expected at most %d", id, len, MAXPIECE);
	if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
		return wf_fail(err, "tokenizer: token %zu has the unknown type %d", id, type);
	if (isnan(score))
		return wf_fail(err, "tokenizer: the score of token %zu is not a number", id);
	struct token *t = &tok->token[id];
	if (t->flags & TOKEN_GIVEN)
		return wf_fail(err, "tokenizer: token id %zu is defined twice (\"%s\", \"%.*s\")", id, t->text,
			(int)(len < 60 ? len : 60), text);
	if (!(t->text = vocab_string(tok, err, text, len)))
		return -1;
	t->len = (uint32_t)len;
	t->type = (uint8_t)type;
	t->score = score;
	t->flags = TOKEN_GIVEN;
	return 0;
}

/* ---- text to id ---- */

static uint64_t hash(const char *s, size_t n)
{
	return XXH3_64bits(s, n);
}

static struct slot *find_slot(const wf_tokenizer *tok, const char *s, size_t n)
{
	uint64_t h = hash(s, n);
	uint32_t tag = (uint32_t)(h >> 32), i = (uint32_t)h & tok->mask;

	for (;; i = (i + 1) & tok->mask) {
		struct slot *slot = &tok->slot[i];
		if (slot->id < 0)
			return slot;
		const struct token *t = &tok->token[slot->id];
		if (slot->tag == tag && t->len == n && memcmp(t->text, s, n) == 0)
			return slot;
	}
}

int32_t vocab_find(const wf_tokenizer *tok, const char *s, size_t n)
{
	return tok->slot && n ? find_slot(tok, s, n)->id : -1;
}

static bool is_piece(const struct token *t)
{
	return (t->flags & TOKEN_GIVEN) &&
		(t->type == TOKEN_NORMAL || t->type == TOKEN_USER || t->type == TOKEN_UNUSED);
}

int32_t vocab_piece(const wf_tokenizer *tok, const char *s, size_t n)
{
	int32_t id;
	uint32_t code;

	if (n <= 2 && n && utf8_read(s, n, &code) == n)       /* all codes under 512 take one or two bytes */
		if (code < sizeof tok->chr / sizeof *tok->chr)
			return tok->chr[code];
	if (n > tok->longest)
		return -1;
	id = vocab_find(tok, s, n);
	return id >= 0 && is_piece(&tok->token[id]) ? id : -1;
}

int vocab_index(wf_tokenizer *tok, wf_error *err)
{
	uint32_t nslot = 16;

	while (nslot < 2 * (uint32_t)tok->n)
		nslot *= 2;
	if (!(tok->slot = wf_alloc_n(tok->arena, nslot, sizeof *tok->slot)))
		return wf_fail(err, "tokenizer: out of memory for the index of %d tokens", tok->n);
	tok->mask = nslot - 1;
	for (uint32_t i = 0; i < nslot; i++)
		tok->slot[i].id = -1;
	for (int32_t id = 0; id < tok->n; id++) {
		const struct token *t = &tok->token[id];
		if (!(t->flags & TOKEN_GIVEN) || !t->len)
			continue;
		struct slot *slot = find_slot(tok, t->text, t->len);
		if (slot->id >= 0)
			return wf_fail(err, "tokenizer: tokens %d and %d are both \"%s\"", slot->id, id, t->text);
		*slot = (struct slot){(uint32_t)(hash(t->text, t->len) >> 32), id};
	}
	return 0;
}

static void index_pieces(wf_tokenizer *tok)
{
	uint32_t code;

	memset(tok->chr, -1, sizeof tok->chr);
	tok->cut_spaces = !tok->byte_level;
	for (int32_t id = 0; id < tok->n; id++) {
		const struct token *t = &tok->token[id];
		if (!is_piece(t) || !t->len)
			continue;
		if (t->len > tok->longest)
			tok->longest = t->len;
		tok->unused |= t->type == TOKEN_UNUSED;
		if (utf8_read(t->text, t->len, &code) == t->len && code < sizeof tok->chr / sizeof *tok->chr)
			tok->chr[code] = id;
		const char *at = t->text, *end = at + t->len;
		while (end - at >= 3 && memcmp(at, marker, 3) == 0)
			at += 3;
		if (bytes_find(at, (size_t)(end - at), marker, 3))
			tok->cut_spaces = false;
	}
}

/* ---- bytes ---- */

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 :
		c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "<0x0A>" to 10; -1 for anything else. */
int vocab_byte(const char *s, size_t n)
{
	if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || hex(s[3]) < 0 || hex(s[4]) < 0)
		return -1;
	return hex(s[3]) * 16 + hex(s[4]);
}

static int index_bytes(wf_tokenizer *tok, wf_error *err)
{
	memset(tok->byte, -1, sizeof tok->byte);
	for (int32_t id = 0; id < tok->n; id++) {
		const struct token *t = &tok->token[id];
		if (t->type != TOKEN_BYTE)
			continue;
		int byte = vocab_byte(t->text, t->len);
		if (byte < 0)
			return wf_fail(err, "tokenizer: byte token %d: expected \"<0x00>\" to \"<0xFF>\", found \"%s\"", id, t->text);
		if (tok->byte[byte] >= 0)
			return wf_fail(err, "tokenizer: tokens %d and %d are both byte %d", tok->byte[byte], id, byte);
		tok->byte[byte] = id;
		tok->byte_fallback = true;
	}
	return 0;
}

/* The text that a token of byte characters stands for; a character that is none stands for itself. */
static void from_characters(const struct token *t, struct bytes *out)
{
	uint32_t code;
	size_t len;

	for (size_t i = 0; i < t->len; i += len) {
		len = utf8_read(t->text + i, t->len - i, &code);
		int byte = len ? byte_of(code) : -1;
		if (!len)
			len = 1;
		if (byte >= 0) {
			out->s[out->n++] = (char)byte;
		} else {
			memcpy(out->s + out->n, t->text + i, len);
			out->n += len;
		}
	}
}

static void from_escaped(const struct token *t, struct bytes *out)
{
	for (size_t i = 0; i < t->len; ) {
		bool space = t->len - i >= 3 && memcmp(t->text + i, marker, 3) == 0;
		out->s[out->n++] = space ? ' ' : t->text[i];
		i += space ? 3 : 1;
	}
}

static int decode(wf_tokenizer *tok, wf_error *err, struct token *t)
{
	char room[MAXPIECE + 1];             /* decoding never lengthens */
	struct bytes out = {.s = room, .cap = sizeof room};

	t->bytes = t->text;
	t->nbytes = t->len;
	if (t->type == TOKEN_BYTE)
		out.s[out.n++] = (char)vocab_byte(t->text, t->len);
	else if (t->type != TOKEN_NORMAL && t->type != TOKEN_UNUSED && !(t->type == TOKEN_USER && tok->sentencepiece))
		return 0;
	else if (tok->byte_level)
		from_characters(t, &out);
	else if (tok->escaped)
		from_escaped(t, &out);
	else
		return 0;
	if (out.n == t->len && memcmp(out.s, t->text, out.n) == 0)
		return 0;
	if (!(t->bytes = vocab_string(tok, err, out.s, out.n)))
		return -1;
	t->nbytes = (uint32_t)out.n;
	return 0;
}

/* ---- scores and ends ---- */

struct scored { double score; int32_t id; };

static int by_score(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;

	return x->score != y->score ? (x->score < y->score) - (x->score > y->score) : (x->id > y->id) - (x->id < y->id);
}

static int rank_scores(wf_tokenizer *tok, wf_error *err)
{
	struct scored *all = malloc((size_t)tok->n * sizeof *all);
	uint32_t rank = 0;

	if (!all)
		return wf_fail(err, "tokenizer: out of memory to rank %d tokens", tok->n);
	for (int32_t i = 0; i < tok->n; i++)
		all[i] = (struct scored){tok->token[i].score, i};
	qsort(all, (size_t)tok->n, sizeof *all, by_score);
	for (int32_t i = 0; i < tok->n; i++) {
		if (i && all[i].score != all[i - 1].score)
			rank++;
		tok->token[all[i].id].rank = rank;
	}
	tok->nrank = rank + 1;
	free(all);
	return 0;
}

void vocab_eog(wf_tokenizer *tok, int32_t id)
{
	if (id >= 0 && id < tok->n)
		tok->token[id].flags |= TOKEN_EOG;
}

/* Ends of a turn or a document by the names that models give them.  Files seldom mark more than one. */
static void mark_eog(wf_tokenizer *tok)
{
	static const char *const names[] = {
		"<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>",
		"<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
		"<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
		"<｜end▁of▁sentence｜>", "[e~[", "<|ifm|im_end|>",
		"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<|file_sep|>",
	};
	int32_t id, end = vocab_find(tok, "<|end|>", 7);

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		id = vocab_find(tok, names[i], strlen(names[i]));
		if (id >= 0 && (tok->token[id].type == TOKEN_CONTROL || tok->token[id].type == TOKEN_USER))
			vocab_eog(tok, id);
	}
	/* gpt-oss and kin end a message with <|end|> and go on; the turn ends with one of these */
	bool returns = vocab_find(tok, "<|return|>", 10) >= 0 || vocab_find(tok, "<|flush|>", 9) >= 0;
	bool calls = vocab_find(tok, "<|call|>", 8) >= 0 || vocab_find(tok, "<|calls|>", 9) >= 0;
	if (end >= 0 && returns && calls)
		tok->token[end].flags &= (uint8_t)~TOKEN_EOG;
}

int vocab_finish(wf_tokenizer *tok, wf_error *err)
{
	if (index_bytes(tok, err) < 0 || (!tok->merge && rank_scores(tok, err) < 0))
		return -1;
	index_pieces(tok);
	mark_eog(tok);
	vocab_eog(tok, tok->eos);
	for (int32_t i = 0; i < tok->n; i++) {
		if (decode(tok, err, &tok->token[i]) < 0)
			return -1;
		if (tok->token[i].nbytes > tok->most_bytes)
			tok->most_bytes = tok->token[i].nbytes;
	}
	return 0;
}

/* ---- special tokens ---- */

/* How a token's own text looks after the normalizer. */
static int add_normalized(wf_tokenizer *tok, wf_error *err, int32_t id)
{
	const struct token *t = &tok->token[id];
	struct work w = {.tok = tok, .err = err, .first = true, .last = true};
	int rc = bytes_add(err, &w.text, t->text, t->len);

	if (rc == 0 && (rc = work_span(&w, 0, w.text.n)) == 0) {
		work_cut(&w);
		rc = steps_run(&w, &tok->normalize);
	}
	if (rc == 0)
		rc = trie_add(err, &tok->normal, w.text.s, w.text.n, id);
	work_free(&w);
	return rc;
}

/* SentencePiece looks for user tokens in normal text, which leaves them as they are; its unigram model
 * takes them for pieces like others. */
static int add_user(wf_tokenizer *tok, wf_error *err, int32_t id)
{
	const struct token *t = &tok->token[id];

	if (trie_add(err, &tok->keep, t->text, t->len, id) < 0)
		return -1;
	return tok->encode == bpe_encode ? trie_add(err, &tok->normal, t->text, t->len, id) : 0;
}

int vocab_special(wf_tokenizer *tok, wf_error *err)
{
	for (int32_t id = 0; id < tok->n; id++) {
		const struct token *t = &tok->token[id];
		int rc = 0;
		if ((t->type != TOKEN_CONTROL && t->type != TOKEN_USER && t->type != TOKEN_UNKNOWN) || !t->len)
			continue;
		if (tok->sentencepiece && t->type == TOKEN_USER)
			rc = add_user(tok, err, id);
		else if (t->flags & TOKEN_NORMALIZED)
			rc = add_normalized(tok, err, id);
		else
			rc = trie_add(err, &tok->raw, t->text, t->len, id);
		if (rc < 0)
			return -1;
	}
	return 0;
}
