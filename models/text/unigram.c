/* unigram.c - the most probable way to cut a text into pieces: Viterbi over a trie of the vocabulary.
 *
 * Scores are log probabilities; user tokens have none, so they win.  A character that no piece covers
 * costs ten more than the worst piece and is unknown.  Of equal paths the one found first stays, as
 * in SentencePiece's optimised encoder.  Kudo 2018. */
#include "models/text/text.h"

#include <float.h>
#include <stdlib.h>

static const double PENALTY = 10;

struct node { double score; uint32_t from; int32_t id; };    /* the best path to here, its last piece */
enum { UNREACHED = -2, UNKNOWN = -1 };

struct unigram { struct node *node; size_t cap; uint32_t *path; size_t path_cap; };

int unigram_setup(wf_tokenizer *tok, wf_error *err)
{
	double worst = DBL_MAX;

	for (int32_t id = 0; id < tok->n; id++) {
		const struct token *t = &tok->token[id];
		bool normal = t->type == TOKEN_NORMAL;
		if (normal && t->score < worst)
			worst = t->score;
		if ((normal || t->type == TOKEN_USER) && t->len && trie_add(err, &tok->pieces, t->text, t->len, id) < 0)
			return -1;
	}
	if (worst == DBL_MAX)
		return wf_fail(err, "tokenizer: a unigram vocabulary without an ordinary token");
	tok->unknown_score = tok->sentencepiece ? (float)(worst - PENALTY) : worst - PENALTY;
	return 0;
}

static void offer(const wf_tokenizer *tok, struct node *node, uint32_t from, uint32_t to, double score, int32_t id)
{
	score += node[from].score;
	if (tok->sentencepiece)
		score = (float)score;
	if (node[to].id == UNREACHED || score > node[to].score)
		node[to] = (struct node){score, from, id};
}

/* Every piece that starts at `at`, and the bare character when none is just that. */
static void extend(const wf_tokenizer *tok, struct node *node, const char *s, uint32_t n, uint32_t at)
{
	uint32_t step = (uint32_t)utf8_step(s + at, n - at), where = 0;
	bool single = false;

	for (uint32_t i = at; i < n && (where = trie_next(&tok->pieces, where, (uint8_t)s[i])); i++) {
		int32_t id = tok->pieces.value[where];
		if (id < 0)
			continue;
		const struct token *t = &tok->token[id];
		offer(tok, node, at, i + 1, t->score, id);
		single |= i + 1 - at == step;
	}
	if (!single)
		offer(tok, node, at, at + step, tok->unknown_score, UNKNOWN);
}

static int emit_path(struct work *w, const struct node *node, const char *s, uint32_t n, uint32_t *path)
{
	size_t count = 0;

	for (uint32_t at = n; at; at = node[at].from)
		path[count++] = at;
	w->unknown = false;
	while (count--) {
		const struct node *end = &node[path[count]];
		if (end->id == UNKNOWN) {
			if (emit_unknown(w, s + end->from, path[count] - end->from) < 0)
				return -1;
			continue;
		}
		w->unknown = false;
		if (ids_add(w->err, w->out, end->id) < 0)
			return -1;
	}
	return 0;
}

int unigram_encode(struct work *w, struct span piece)
{
	struct unigram *u = w->unigram;
	uint32_t n = piece.end - piece.start;
	const char *s = w->text.s + piece.start;

	if (!u && !(u = w->unigram = calloc(1, sizeof *u)))
		return wf_fail(w->err, "tokenizer: out of memory");
	if (array_grow(w->err, &u->node, &u->cap, (size_t)n + 1, sizeof *u->node) < 0 ||
			array_grow(w->err, &u->path, &u->path_cap, (size_t)n + 1, sizeof *u->path) < 0)
		return -1;
	for (uint32_t i = 0; i <= n; i++)
		u->node[i] = (struct node){.id = UNREACHED};
	u->node[0].id = UNKNOWN;
	for (uint32_t at = 0; at < n; at += (uint32_t)utf8_step(s + at, n - at))
		extend(w->tok, u->node, s, n, at);
	return emit_path(w, u->node, s, n, u->path);
}

void unigram_free(struct unigram *u)
{
	if (!u)
		return;
	free(u->node);
	free(u->path);
	free(u);
}
