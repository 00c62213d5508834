/* normal.c - normalizer steps: text to text.
 *
 * A step writes what each piece becomes to the spare room, which then takes the text's place.  Steps that
 * need characters (Unicode forms, patterns) work on the valid stretches; broken bytes pass through,
 * so that the model still sees every byte that was given. */
#include "models/text/text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static const char marker[] = "\xE2\x96\x81";         /* U+2581, a space inside the vocabulary */

int work_map(struct work *w, const struct step *step,
		int (*map)(struct work *, const struct step *, struct span))
{
	w->spare.n = w->ncut = 0;
	for (size_t i = 0; i < w->nspan; i++) {
		size_t start = w->spare.n;
		if (map(w, step, w->span[i]) < 0 || work_span(w, start, w->spare.n) < 0)
			return -1;
	}
	struct bytes text = w->text;
	w->text = w->spare;
	w->spare = text;
	work_cut(w);
	return 0;
}

static int copy(struct work *w, size_t start, size_t end)
{
	return bytes_add(w->err, &w->spare, w->text.s + start, end - start);
}

static int prefix(struct work *w, const struct step *step, struct span piece)
{
	return bytes_add(w->err, &w->spare, step->to, step->nto) < 0 ? -1 : copy(w, piece.start, piece.end);
}

int normal_prefix(struct work *w, const struct step *step)
{
	return work_map(w, step, prefix);
}

static int replace_text(struct work *w, const struct step *step, struct span piece)
{
	size_t at = piece.start;

	while (at < piece.end) {
		const char *hit = bytes_find(w->text.s + at, piece.end - at, step->from, step->nfrom);
		size_t to = hit ? (size_t)(hit - w->text.s) : piece.end;
		if (copy(w, at, to) < 0)
			return -1;
		if (hit && bytes_add(w->err, &w->spare, step->to, step->nto) < 0)
			return -1;
		at = to + (hit ? step->nfrom : 0);
	}
	return 0;
}

static int replace_valid(struct work *w, const struct step *step, size_t start, size_t end)
{
	size_t n = end - start, at = 0, done = 0, from, to;
	int rc = 0;

	while (at <= n && (rc = regex_match(step->regex, w->err, &w->matcher, w->text.s + start, n, at, &from, &to)) > 0) {
		if (copy(w, start + done, start + from) < 0 || bytes_add(w->err, &w->spare, step->to, step->nto) < 0)
			return -1;
		done = to;
		at = to > from ? to : to < n ? to + utf8_step(w->text.s + start + to, n - to) : n + 1;
	}
	return rc < 0 ? -1 : copy(w, start + done, end);
}

typedef int on_valid(struct work *, const struct step *, size_t start, size_t end);

/* The valid stretches of a piece through `valid`; broken bytes as they are. */
static int over_valid(struct work *w, const struct step *step, struct span piece, on_valid *valid)
{
	for (size_t at = piece.start; at < piece.end; at++) {
		size_t n = utf8_valid(w->text.s + at, piece.end - at);
		if (n && valid(w, step, at, at + n) < 0)
			return -1;
		at += n;
		if (at < piece.end && copy(w, at, at + 1) < 0)
			return -1;
	}
	return 0;
}

static int replace_pattern(struct work *w, const struct step *step, struct span piece)
{
	return over_valid(w, step, piece, replace_valid);
}

int normal_replace(struct work *w, const struct step *step)
{
	return work_map(w, step, step->regex ? replace_pattern : replace_text);
}

static int form_valid(struct work *w, const struct step *step, size_t start, size_t end)
{
	utf8proc_uint8_t *formed = NULL;
	utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)w->text.s + start, (utf8proc_ssize_t)(end - start),
		&formed, (utf8proc_option_t)step->form);

	if (n < 0)
		return wf_fail(w->err, "tokenizer: Unicode normalization: %s", utf8proc_errmsg(n));
	int rc = bytes_add(w->err, &w->spare, (char *)formed, (size_t)n);
	free(formed);
	return rc;
}

static int form(struct work *w, const struct step *step, struct span piece)
{
	return over_valid(w, step, piece, form_valid);
}

int normal_form(struct work *w, const struct step *step)
{
	for (size_t i = 0; i < w->text.n; i++)
		if (w->text.s[i] & 0x80)
			return work_map(w, step, form);
	return 0;                            /* ASCII is every form of itself */
}

static int strip(struct work *w, const struct step *step, struct span piece)
{
	const char *s = w->text.s;
	size_t start = piece.start, end = piece.end, len, at;
	uint32_t code;

	while ((step->form & 1) && start < end && (len = utf8_read(s + start, end - start, &code)) && code_is_space(code))
		start += len;
	while ((step->form & 2) && start < end) {
		for (at = end - 1; at > start && (s[at] & 0xC0) == 0x80 && end - at < 4; )
			at--;
		if (utf8_read(s + at, end - at, &code) != end - at || !code_is_space(code))
			break;
		end = at;
	}
	return copy(w, start, end);
}

int normal_strip(struct work *w, const struct step *step)
{
	return work_map(w, step, strip);
}

/* ---- SentencePiece: a table of replacements, and what it does to spaces ----
 *
 * The table is a Darts double array of 32-bit units: bit 8 says that a value follows, bits 0-7 (and
 * the sign) are the byte that leads here, the rest is the offset of the children. */

struct charsmap { const uint8_t *unit; size_t nunit; const char *text; size_t ntext; };

static uint32_t little(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

struct charsmap *charsmap_new(wf_arena *arena, wf_error *err, const uint8_t *blob, size_t n)
{
	uint32_t bytes = n >= 4 ? little(blob) : 0;
	struct charsmap *map;

	if (n < 9 || bytes < 4 || bytes % 4 || bytes > n - 5 || blob[n - 1] != 0) {
		wf_fail(err, "tokenizer: precompiled_charsmap: expected a table and strings, found %zu bytes", n);
		return NULL;
	}
	uint8_t *copied = wf_alloc(arena, n);
	if (!copied || !(map = wf_alloc(arena, sizeof *map))) {
		wf_fail(err, "tokenizer: out of memory for precompiled_charsmap");
		return NULL;
	}
	memcpy(copied, blob, n);
	*map = (struct charsmap){copied + 4, bytes / 4, (char *)copied + 4 + bytes, n - 4 - bytes};
	return map;
}

static uint32_t children(uint32_t unit)
{
	return (unit >> 10) << ((unit & 512) >> 6);
}

/* The longest entry that s starts with: its length and what replaces it; 0 none. */
static size_t charsmap_find(const struct charsmap *map, const char *s, size_t n, const char **to, size_t *nto)
{
	size_t node = children(little(map->unit)), found = 0;

	for (size_t i = 0; i < n; i++) {
		node ^= (uint8_t)s[i];
		if (node >= map->nunit)
			break;
		uint32_t unit = little(map->unit + 4 * node);
		if ((unit & 0x800000FF) != (uint8_t)s[i])
			break;
		node ^= children(unit);
		if (!(unit & 256) || node >= map->nunit)
			continue;
		uint32_t value = little(map->unit + 4 * node) & 0x7FFFFFFF;
		if (value >= map->ntext)
			break;
		found = i + 1;
		*to = map->text + value;
		*nto = strlen(*to);          /* the strings end with a NUL, the last one too */
	}
	return found;
}

/* The longest of `keep` that s starts with, 0 none. */
static size_t kept(const struct trie *keep, const char *s, size_t n)
{
	size_t found = 0;
	uint32_t node = 0;

	for (size_t i = 0; i < n && (node = trie_next(keep, node, (uint8_t)s[i])); i++)
		if (keep->value[node] >= 0)
			found = i + 1;
	return found;
}

/* What the text at s becomes first: bytes of it read, and the replacement. */
static size_t next(const struct work *w, const struct charsmap *map, const char *s, size_t n, const char **to, size_t *nto)
{
	size_t len = w->tok->keep.first[(uint8_t)*s] ? kept(&w->tok->keep, s, n) : 0;

	if (!len && map && (len = charsmap_find(map, s, n, to, nto)))
		return len;
	if (!len)
		len = utf8_step(s, n);
	*nto = len;
	*to = s;
	return len;
}

static int charsmap_piece(struct work *w, const struct step *step, struct span piece)
{
	const char *to;
	size_t nto;

	for (size_t at = piece.start; at < piece.end; ) {
		at += next(w, step->charsmap, w->text.s + at, piece.end - at, &to, &nto);
		if (bytes_add(w->err, &w->spare, to, nto) < 0)
			return -1;
	}
	return 0;
}

int normal_charsmap(struct work *w, const struct step *step)
{
	return work_map(w, step, charsmap_piece);
}

static int put_spaced(struct work *w, const struct step *step, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool space = s[i] == ' ' && (step->form & SPACES_ESCAPE);
		if (bytes_add(w->err, &w->spare, space ? marker : s + i, space ? 3 : 1) < 0)
			return -1;
	}
	return 0;
}

static bool ends_with(const struct bytes *b, const char *s, size_t n)
{
	return b->n >= n && memcmp(b->s + b->n - n, s, n) == 0;
}

int normal_spaces(struct work *w, const struct step *step)
{
	bool collapse = step->form & SPACES_COLLAPSE, after_space = collapse && w->first;
	const char *space = step->form & SPACES_ESCAPE ? marker : " ", *to;
	size_t nto;

	w->spare.n = w->ncut = 0;
	if (w->first && (step->form & SPACES_PREFIX) && put_spaced(w, step, " ", 1) < 0)
		return -1;
	for (size_t at = 0; at < w->text.n; ) {
		at += next(w, step->charsmap, w->text.s + at, w->text.n - at, &to, &nto);
		while (after_space && nto && *to == ' ')
			to++, nto--;
		if (put_spaced(w, step, to, nto) < 0)
			return -1;
		if (nto)
			after_space = collapse && to[nto - 1] == ' ';
	}
	while (collapse && w->last && ends_with(&w->spare, space, strlen(space)))
		w->spare.n -= strlen(space);
	struct bytes text = w->text;
	w->text = w->spare;
	w->spare = text;
	if (work_span(w, 0, w->text.n) < 0)
		return -1;
	work_cut(w);
	return 0;
}
