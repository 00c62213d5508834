/* tokenizer.c - text to ids, and what callers may ask of a vocabulary.
 *
 * Special tokens are cut out of the text first: those that users may write always, control tokens only
 * when the caller says so, or a prompt could forge a turn.  What lies between goes through the steps. */
#include "models/text/text.h"

#include <stdlib.h>
#include <string.h>

static bool allowed(const wf_tokenizer *tok, int32_t id, int flags)
{
	return tok->token[id].type == TOKEN_USER || (flags & WF_TOK_SPECIAL);
}

/* A token that stands alone has no letter or digit at either side. */
static bool is_alone(const char *s, size_t n, size_t start, size_t end)
{
	uint32_t code;
	size_t at = start;

	while (at && start - at < 4 && (s[--at] & 0xC0) == 0x80)
		;
	if (start && utf8_read(s + at, start - at, &code) && code_is_word(code))
		return false;
	return end == n || !utf8_read(s + end, n - end, &code) || !code_is_word(code);
}

/* The longest special token that starts at `at`: its length, 0 when there is none. */
static size_t special_at(const wf_tokenizer *tok, const struct trie *trie, const char *s, size_t n, size_t at,
		int flags, int32_t *id)
{
	uint32_t node = 0;
	size_t found = 0;

	for (size_t i = at; i < n && (node = trie_next(trie, node, (uint8_t)s[i])); i++) {
		int32_t v = trie->value[node];
		if (v < 0 || !allowed(tok, v, flags))
			continue;
		if ((tok->token[v].flags & TOKEN_ALONE) && !is_alone(s, n, at, i + 1))
			continue;
		*id = v;
		found = i + 1 - at;
	}
	return found;
}

static size_t spaces_after(const char *s, size_t n, size_t at)
{
	uint32_t code;
	size_t len, from = at;

	while (at < n && (len = utf8_read(s + at, n - at, &code)) && code_is_space(code))
		at += len;
	return at - from;
}

static size_t spaces_before(const char *s, size_t from, size_t end)
{
	size_t at = end, start;
	uint32_t code;

	while (at > from) {
		for (start = at - 1; start > from && (s[start] & 0xC0) == 0x80 && at - start < 4; )
			start--;
		if (utf8_read(s + start, at - start, &code) != at - start || !code_is_space(code))
			break;
		at = start;
	}
	return end - at;
}

/* What to do with a stretch of text between special tokens. */
typedef int on_text(struct work *, const char *s, size_t n, int flags);

static int cut_special(struct work *w, const struct trie *trie, const char *s, size_t n, int flags, on_text *text)
{
	const wf_tokenizer *tok = w->tok;
	bool first = w->first, last = w->last, starts = first;
	size_t from = 0, len;
	int32_t id = -1;

	for (size_t at = 0; at < n; ) {
		if (!trie->first[(uint8_t)s[at]] || !(len = special_at(tok, trie, s, n, at, flags, &id))) {
			at++;
			continue;
		}
		const struct token *t = &tok->token[id];
		size_t stop = at - (t->flags & TOKEN_LSTRIP ? spaces_before(s, from, at) : 0);
		w->first = starts;
		w->last = false;
		size_t before = stop > from ? stop - from : 0;
		if (before && text(w, s + from, before, flags) < 0)
			return -1;
		if (ids_add(w->err, w->out, id) < 0)
			return -1;
		starts = tok->sentencepiece && t->type != TOKEN_USER;
		at += len;                   /* the spaces it takes may still begin the next special token */
		from = at + (t->flags & TOKEN_RSTRIP ? spaces_after(s, n, at) : 0);
	}
	w->first = starts;
	w->last = last;
	return from < n ? text(w, s + from, n - from, flags) : 0;
}

/* w->text is normal: cut it and hand the pieces to the model. */
static int encode_pieces(struct work *w)
{
	if (steps_run(w, &w->tok->pretok) < 0)
		return -1;
	for (size_t i = 0; i < w->nspan; i++)
		if (w->tok->encode(w, w->span[i]) < 0)
			return -1;
	return 0;
}

static int take_text(struct work *w, const char *s, size_t n)
{
	w->text.n = w->ncut = 0;
	if (bytes_add(w->err, &w->text, s, n) < 0 || work_span(w, 0, n) < 0)
		return -1;
	work_cut(w);
	return 0;
}

static int encode_normal(struct work *w, const char *s, size_t n, int flags)
{
	(void)flags;
	return take_text(w, s, n) < 0 ? -1 : encode_pieces(w);
}

/* What steps may make of a text: more than any Unicode form and escape together, less than a file's
 * normalizers could, each of them growing what the one before left. */
static size_t most_text(size_t len)
{
	return len < SIZE_MAX / 64 - (1 << 16) ? 64 * len + (1 << 16) : SIZE_MAX;
}

/* Text between special tokens. */
static int encode_text(struct work *w, const char *s, size_t n, int flags)
{
	if (take_text(w, s, n) < 0 || steps_run(w, &w->tok->normalize) < 0)
		return -1;
	if (!w->tok->normal.n)
		return encode_pieces(w);
	struct bytes text = w->text;         /* the parts are cut out of it while w->text holds one */
	bool first = w->first, last = w->last;
	w->text = (struct bytes){.most = text.most};
	int rc = cut_special(w, &w->tok->normal, text.s, text.n, flags, encode_normal);
	free(text.s);
	w->first = first;
	w->last = last;
	return rc;
}

static int add_all(wf_error *err, struct ids *out, const int32_t *id, int n)
{
	for (int i = 0; i < n; i++)
		if (ids_add(err, out, id[i]) < 0)
			return -1;
	return 0;
}

int wf_tokenize(const wf_tokenizer *tok, wf_error *err, const char *text, size_t len, int flags, int32_t **ids, size_t *n)
{
	struct ids out = {0};
	struct work w = {.tok = tok, .err = err, .out = &out, .first = true, .last = true};
	bool bos = flags & WF_TOK_BOS;

	w.text.most = w.spare.most = most_text(len);
	int rc = bos ? add_all(err, &out, tok->before, tok->nbefore) : 0;

	if (rc == 0 && len)
		rc = cut_special(&w, &tok->raw, text, len, flags, encode_text);
	if (rc == 0 && bos)
		rc = add_all(err, &out, tok->after, tok->nafter);
	if (rc == 0 && out.n > INT32_MAX)
		rc = wf_fail(err, "tokenizer: %zu tokens, expected at most %d", out.n, INT32_MAX);
	if (rc == 0 && !out.v && !(out.v = malloc(sizeof *out.v)))
		rc = wf_fail(err, "tokenizer: out of memory");
	work_free(&w);
	if (rc < 0) {
		free(out.v);
		return -1;
	}
	*ids = out.v;
	*n = out.n;
	return 0;
}

void tokenizer_close(wf_tokenizer *tok)
{
	if (!tok)
		return;
	steps_free(&tok->normalize);
	steps_free(&tok->pretok);
	trie_free(&tok->raw);
	trie_free(&tok->normal);
	trie_free(&tok->pieces);
	trie_free(&tok->keep);
}

/* ---- questions ---- */

int64_t wf_vocab_size(const wf_tokenizer *tok)
{
	return tok->n;
}

int32_t wf_token_bos(const wf_tokenizer *tok)
{
	return tok->bos;
}

static bool is_token(const wf_tokenizer *tok, int32_t id)
{
	return id >= 0 && id < tok->n;
}

bool wf_token_is_eog(const wf_tokenizer *tok, int32_t id)
{
	return is_token(tok, id) && (tok->token[id].flags & TOKEN_EOG);
}

int32_t wf_token_find(const wf_tokenizer *tok, const char *piece)
{
	return vocab_find(tok, piece, strlen(piece));
}

const char *wf_token_piece(const wf_tokenizer *tok, int32_t id, size_t *len)
{
	if (!is_token(tok, id))
		return NULL;
	if (len)
		*len = tok->token[id].len;
	return tok->token[id].text;
}
