/* pretok.c - pre-tokenizer steps: text to pieces.
 *
 * A step cuts every piece that the step before left; what a pattern does not match is a piece too.
 * Broken UTF-8 is a piece of its own: patterns see only valid text. */
#include "models/text/text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- working text ---- */

int work_span(struct work *w, size_t start, size_t end)
{
	if (start == end)
		return 0;
	if (w->ncut == w->cut_cap && array_grow(w->err, &w->cut, &w->cut_cap, w->ncut + 1, sizeof *w->cut) < 0)
		return -1;
	w->cut[w->ncut++] = (struct span){(uint32_t)start, (uint32_t)end};
	return 0;
}

void work_cut(struct work *w)
{
	struct span *span = w->span;
	size_t cap = w->span_cap;

	w->span = w->cut;
	w->span_cap = w->cut_cap;
	w->nspan = w->ncut;
	w->cut = span;
	w->cut_cap = cap;
	w->ncut = 0;
}

void work_free(struct work *w)
{
	free(w->text.s);
	free(w->spare.s);
	free(w->span);
	free(w->cut);
	matcher_free(&w->matcher);
	bpe_free(w->merger);
	unigram_free(w->unigram);
}

struct step *steps_add(wf_error *err, struct steps *s, int (*run)(struct work *, const struct step *))
{
	if (s->n == MAXSTEPS) {
		wf_fail(err, "tokenizer: more than %d normalizers or pre-tokenizers", MAXSTEPS);
		return NULL;
	}
	s->step[s->n] = (struct step){.run = run};
	return &s->step[s->n++];
}

void steps_free(struct steps *s)
{
	while (s->n > 0)
		regex_free(s->step[--s->n].regex);
}

int steps_run(struct work *w, const struct steps *s)
{
	for (int i = 0; i < s->n; i++)
		if (s->step[i].run(w, &s->step[i]) < 0)
			return -1;
	return 0;
}

/* ---- cutting ---- */

struct cutter {
	struct work *w;
	const struct step *step;
	size_t base;                 /* pieces before this stretch: not ours to extend */
	bool was_match;
};

static int part(struct cutter *c, size_t start, size_t end, bool match)
{
	struct work *w = c->w;
	bool join = false, was = c->was_match;

	match ^= c->step->invert;
	c->was_match = match;
	switch (c->step->behavior) {
	case SPLIT_ISOLATED: break;
	case SPLIT_REMOVED: if (match) return 0; break;
	case SPLIT_PREVIOUS: join = match && !was; break;
	case SPLIT_NEXT: join = !match && was; break;
	case SPLIT_CONTIGUOUS: join = match == was; break;
	}
	if (join && w->ncut > c->base && w->cut[w->ncut - 1].end == start) {
		w->cut[w->ncut - 1].end = (uint32_t)end;
		return 0;
	}
	return work_span(w, start, end);
}

/* The next match of a step in the n bytes at s, from `from` on: as regex_match. */
typedef int matches(struct work *, const struct step *, const char *s, size_t n, size_t from, size_t *start, size_t *end);

static int by_regex(struct work *w, const struct step *step, const char *s, size_t n, size_t from,
		size_t *start, size_t *end)
{
	return regex_match(step->regex, w->err, &w->matcher, s, n, from, start, end);
}

static int by_text(struct work *w, const struct step *step, const char *s, size_t n, size_t from,
		size_t *start, size_t *end)
{
	const char *hit = bytes_find(s + from, n - from, step->from, step->nfrom);

	(void)w;
	if (!hit)
		return 0;
	*start = (size_t)(hit - s);
	*end = *start + step->nfrom;
	return 1;
}

static int cut_valid(struct work *w, const struct step *step, size_t from, size_t end, matches *find)
{
	struct cutter c = {w, step, w->ncut, false};
	const char *s = w->text.s + from;
	size_t n = end - from, at = 0, done = 0, start, stop;
	int rc = 0;

	while (at <= n && (rc = find(w, step, s, n, at, &start, &stop)) > 0) {
		if (start > done && part(&c, from + done, from + start, false) < 0)
			return -1;
		if (stop > start && part(&c, from + start, from + stop, true) < 0)
			return -1;
		done = stop;
		at = stop > start ? stop : stop < n ? stop + utf8_step(s + stop, n - stop) : n + 1;
	}
	return rc < 0 ? -1 : done < n ? part(&c, from + done, end, false) : 0;
}

typedef int on_valid(struct work *, const struct step *, size_t from, size_t end);

/* The valid stretches of every piece through `cut`; what is broken between them is one piece. */
static int cut_all(struct work *w, const struct step *step, on_valid *cut)
{
	w->ncut = 0;
	for (size_t i = 0; i < w->nspan; i++) {
		size_t at = w->span[i].start, end = w->span[i].end, broken;
		while (at < end) {
			size_t valid = utf8_valid(w->text.s + at, end - at);
			if (valid && cut(w, step, at, at + valid) < 0)
				return -1;
			for (broken = at += valid; at < end && !utf8_valid(w->text.s + at, end - at < 4 ? end - at : 4); )
				at++;
			if (work_span(w, broken, at) < 0)
				return -1;
		}
	}
	work_cut(w);
	return 0;
}

static int cut_regex(struct work *w, const struct step *step, size_t from, size_t end)
{
	return cut_valid(w, step, from, end, by_regex);
}

static int cut_text(struct work *w, const struct step *step, size_t from, size_t end)
{
	return cut_valid(w, step, from, end, by_text);
}

int pretok_split(struct work *w, const struct step *step)
{
	return cut_all(w, step, cut_regex);
}

int pretok_split_text(struct work *w, const struct step *step)
{
	return cut_all(w, step, cut_text);
}

/* ---- digits in threes from the right, as 1,234,567 ----
 *
 * As a pattern each match looks at all digits that follow: quadratic in their number. */

enum { THREES_WORD = 1, THREES_CUT = 2, THREES_NUMBER = 4 };

static bool is_digit(uint32_t code, bool number)
{
	if (code < 0x80)
		return code >= '0' && code <= '9';
	utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
	return c == UTF8PROC_CATEGORY_ND || (number && (c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO));
}

/* Digits at s: their count, and *bytes of them; *code is the character after, 0 at the end. */
static size_t count_digits(const char *s, size_t n, bool number, size_t *bytes, uint32_t *code)
{
	size_t at = 0, count = 0;

	for (*code = 0; at < n; count++) {
		size_t len = utf8_read(s + at, n - at, code);
		if (!is_digit(*code, number))
			break;
		at += len;
		*code = 0;
	}
	*bytes = at;
	return count;
}

static int cut_threes(struct cutter *c, const char *s, size_t from, size_t count, size_t bytes)
{
	size_t take = count % 3 ? count % 3 : 3, at = 0, start = 0;

	for (size_t i = 0; i < count; i++) {
		at += utf8_step(s + at, bytes - at);
		if (--take)
			continue;
		if (part(c, from + start, from + at, true) < 0)
			return -1;
		start = at;
		take = 3;
	}
	return 0;
}

static int cut_digits(struct work *w, const struct step *step, size_t from, size_t end)
{
	struct cutter c = {w, step, w->ncut, false};
	bool number = step->form & THREES_NUMBER;
	size_t done = from, bytes, at;
	uint32_t code;

	for (at = from; at < end; ) {
		size_t count = count_digits(w->text.s + at, end - at, number, &bytes, &code);
		if (!count) {
			at += utf8_step(w->text.s + at, end - at);
			continue;
		}
		bool whole = !(step->form & THREES_WORD) || !code || !code_is_word(code);
		size_t lead = step->form & THREES_CUT ? count % 3 : 0, skip = 0;
		while (lead--)               /* zero-width cuts: what precedes the first stays with the text */
			skip += utf8_step(w->text.s + at + skip, bytes - skip);
		if (step->form & THREES_CUT)
			count -= count % 3;
		if (whole && count) {
			if (done < at + skip && part(&c, done, at + skip, false) < 0)
				return -1;
			if (cut_threes(&c, w->text.s + at + skip, at + skip, count, bytes - skip) < 0)
				return -1;
			done = at + bytes;
		}
		at += bytes;
	}
	return done < end ? part(&c, done, end, false) : 0;
}

static int pretok_threes(struct work *w, const struct step *step)
{
	return cut_all(w, step, cut_digits);
}

/* Patterns that PCRE2 would run in quadratic time, and what does the same without. */
static const struct { const char *pattern; int threes; const char *instead; } known[] = {
	{"\\d{1,3}(?=(?:\\d{3})*\\b)", THREES_WORD, NULL},
	{"(?=(\\d{3})+(?!\\d))", THREES_CUT, NULL},
	{"\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))", THREES_NUMBER, NULL},
	{"\\s+$", 0, "(?<!\\s)\\s+$"},
};

int pretok_pattern(wf_error *err, struct steps *steps, const char *pattern, size_t len,
		enum behavior behavior, bool invert)
{
	struct step *step = steps_add(err, steps, pretok_split);

	if (!step)
		return -1;
	step->behavior = behavior;
	step->invert = invert;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (strlen(known[i].pattern) != len || memcmp(known[i].pattern, pattern, len) != 0)
			continue;
		if (known[i].instead) {
			pattern = known[i].instead;
			len = strlen(pattern);
			break;
		}
		step->form = known[i].threes;
		step->run = pretok_threes;
		return 0;
	}
	return (step->regex = regex_new(err, pattern, len)) ? 0 : -1;
}

/* ---- pieces to other text ---- */

static int lead(struct work *w, const struct step *step, struct span piece)
{
	const char *s = w->text.s + piece.start;
	size_t n = piece.end - piece.start;
	bool has = n >= step->nto && memcmp(s, step->to, step->nto) == 0;
	bool skip = has || (step->once && !(w->first && piece.start == 0));

	if (!skip && bytes_add(w->err, &w->spare, step->to, step->nto) < 0)
		return -1;
	return bytes_add(w->err, &w->spare, s, n);
}

int pretok_lead(struct work *w, const struct step *step)
{
	return work_map(w, step, lead);
}

/* GPT-2 writes a byte as itself where that is a visible Latin-1 character, else from U+0100 on. */
uint32_t byte_code(uint8_t byte)
{
	if ((byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE)
		return byte;
	return byte <= ' ' ? 256u + byte : byte <= 0xA0 ? 256u + 33 + byte - 0x7F : 256 + 67;
}

int byte_of(uint32_t code)
{
	if (code < 256)
		return byte_code((uint8_t)code) == code ? (int)code : -1;
	if (code <= 256 + 32)
		return (int)code - 256;
	return code < 256 + 67 ? (int)code - 256 - 33 + 0x7F : code == 256 + 67 ? 0xAD : -1;
}

static int to_characters(struct work *w, const struct step *step, struct span piece)
{
	struct bytes *out = &w->spare;
	size_t n = 2 * (size_t)(piece.end - piece.start);      /* every such character takes one or two bytes */

	(void)step;
	if (bytes_room(w->err, out, n) < 0)
		return -1;
	for (size_t i = piece.start; i < piece.end; i++) {
		uint32_t code = byte_code((uint8_t)w->text.s[i]);
		if (code < 0x80) {
			out->s[out->n++] = (char)code;
		} else {
			out->s[out->n++] = (char)(0xC0 | code >> 6);
			out->s[out->n++] = (char)(0x80 | (code & 0x3F));
		}
	}
	return 0;
}

int pretok_bytes(struct work *w, const struct step *step)
{
	return work_map(w, step, to_characters);
}
