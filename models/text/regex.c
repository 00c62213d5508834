/* regex.c - patterns in the syntax of tokenizer.json, run by PCRE2.
 *
 * Those patterns were written for Oniguruma (Ruby syntax) and Rust's regex.  They are translated, not
 * passed through, because the same letters mean other things to PCRE2:
 *   \s   White_Space; PCRE2 adds U+180E          \w   also marks and connectors
 *   \v   one character; PCRE2: a class           \h   a hexadecimal digit; PCRE2: a blank
 *   X{n,m}+   one or more times; PCRE2: possessive     [a[bc]]   a nested class
 *   \p{Han}   the script; PCRE2: its extensions  ^ $  at line ends, always
 * What has no safe translation (back references, recursion, intersections) is an error that names it. */
#include "models/text/text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define SPACE     "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACE "\\x{0}-\\x{8}\\x{e}-\\x{1f}!-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}" \
	"\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORD      "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define HEX       "0-9a-fA-F"

enum { MAXPATTERN = 32 << 10, MAXNEST = 60, STACK = 1 << 20, MOST_STACK = 1 << 30 };

struct regex { pcre2_code *code; bool jit; };

/* ---- translation ---- */

struct trans {
	wf_error *err;
	const char *in;
	size_t n, at;
	struct bytes out;
	size_t atom, open[MAXNEST];      /* where in out the last atom, each open group starts */
	int depth, nest;                 /* open groups; classes within classes */
};

static int put(struct trans *t, const char *s)
{
	return bytes_add(t->err, &t->out, s, strlen(s));
}

static int refuse(struct trans *t, size_t at, const char *what)
{
	size_t len = t->n - at < 12 ? t->n - at : 12;

	return wf_fail(t->err, "tokenizer: %s is not supported in a pattern (\"%.*s\" at byte %zu of \"%.*s\")",
		what, (int)len, t->in + at, at, (int)(t->n < 200 ? t->n : 200), t->in);
}

static char peek(const struct trans *t, size_t ahead)
{
	return ahead < t->n - t->at ? t->in[t->at + ahead] : 0;
}

static bool starts(const struct trans *t, const char *s)
{
	size_t n = strlen(s);

	return n <= t->n - t->at && memcmp(t->in + t->at, s, n) == 0;
}

/* \p{Name}: PCRE2 knows one- and two-letter categories; all else is taken as a script. */
static int property(struct trans *t)
{
	static const struct { const char *name, *to; } longer[] = {
		{"Letter", "L"}, {"Mark", "M"}, {"Number", "N"}, {"Punctuation", "P"}, {"Symbol", "S"},
		{"Separator", "Z"}, {"Alphabetic", "Alphabetic"}, {"Any", "Any"}, {"White_Space", "White_Space"},
	};
	const char *open = t->in + t->at, *close = peek(t, 2) == '{' ? memchr(open, '}', t->n - t->at) : NULL;
	char name[32], text[48];
	bool negate = open[1] == 'P';
	size_t len;

	if (!close)
		return refuse(t, t->at, "\\p without braces");
	const char *from = open + 3;
	if (*from == '^') {
		negate = !negate;
		from++;
	}
	len = (size_t)(close - from);
	if (len == 0 || len >= sizeof name)
		return refuse(t, t->at, "this property");
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)from[i]) && from[i] != '_' && from[i] != '&')
			return refuse(t, t->at, "this property");
		name[i] = from[i];
	}
	name[len] = 0;
	const char *to = NULL;
	for (size_t i = 0; i < sizeof longer / sizeof *longer; i++)
		if (strcmp(name, longer[i].name) == 0)
			to = longer[i].to;
	snprintf(text, sizeof text, "\\%c{%s%s}", negate ? 'P' : 'p', to || len <= 2 ? "" : "sc:", to ? to : name);
	t->at += (size_t)(close - open) + 1;
	return put(t, text);
}

/* \xHH, \x{H...}, \uHHHH */
static int code_point(struct trans *t)
{
	char text[24];
	size_t want = t->in[t->at + 1] == 'u' ? 4 : 2, from = t->at + 2, at = from;
	bool brace = peek(t, 2) == '{';
	uint32_t code = 0;

	if (brace) {
		from = ++at;
		want = 6;
	}
	for (; at < t->n && at - from < want && isxdigit((unsigned char)t->in[at]); at++)
		code = code << 4 | (uint32_t)(t->in[at] <= '9' ? t->in[at] - '0' : (t->in[at] | 32) - 'a' + 10);
	if (at == from || (brace && (at == t->n || t->in[at++] != '}')) || code > 0x10FFFF || code >> 11 == 0x1B)
		return refuse(t, t->at, "this code point");
	t->at = at;
	snprintf(text, sizeof text, "\\x{%x}", code);
	return put(t, text);
}

/* A backslash and what follows; `inside` a class. */
static int escape(struct trans *t, bool inside)
{
	static const struct { char letter; const char *outside, *inside; } classes[] = {
		{'s', "[" SPACE "]", SPACE}, {'S', "[^" SPACE "]", NOT_SPACE},
		{'w', "[" WORD "]", WORD}, {'W', "[^" WORD "]", NULL},
		{'h', "[" HEX "]", HEX}, {'H', "[^" HEX "]", NULL},
		{'d', "\\p{Nd}", "\\p{Nd}"}, {'D', "\\P{Nd}", "\\P{Nd}"},
		{'v', "\\x{b}", "\\x{b}"}, {'f', "\\f", "\\f"}, {'n', "\\n", "\\n"}, {'r', "\\r", "\\r"},
		{'t', "\\t", "\\t"}, {'a', "\\a", "\\a"}, {'e', "\\e", "\\e"}, {'0', "\\x{0}", "\\x{0}"},
		{'b', "\\b", "\\x{8}"}, {'B', "\\B", NULL},
		{'A', "\\A", NULL}, {'z', "\\z", NULL}, {'Z', "\\Z", NULL},
	};
	char c = peek(t, 1);

	if (c == 'p' || c == 'P')
		return property(t);
	if (c == 'x' || c == 'u')
		return code_point(t);
	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
		const char *to = inside ? classes[i].inside : classes[i].outside;
		if (c != classes[i].letter)
			continue;
		if (!to)
			break;
		t->at += 2;
		return put(t, to);
	}
	if (c == 0 || isalnum((unsigned char)c))
		return refuse(t, t->at, "this escape");
	size_t len = (c & 0x80) ? 1 : 2;     /* a character beyond ASCII needs no backslash */
	t->at += 2;
	return bytes_add(t->err, &t->out, t->in + t->at - len, len);
}

static int class_item(struct trans *t)
{
	size_t at = t->at++;

	if (t->in[at] == '\\') {
		t->at = at;
		return escape(t, true);
	}
	if (t->in[at] == '[' || t->in[at] == ']')
		return put(t, t->in[at] == '[' ? "\\[" : "\\]");
	return bytes_add(t->err, &t->out, t->in + at, 1);
}

static int class(struct trans *t, int depth);

/* [A&&B]: after A, which starts at `from` in out.  A character of A with B looked for in the same place. */
static int intersect(struct trans *t, size_t at, size_t from)
{
	struct bytes first = {0}, *out = &t->out;
	bool negated = out->n > from + 1 && out->s[from + 1] == '^';
	int rc = -1;

	t->at += 2;
	if (negated || peek(t, 0) != '[')
		return refuse(t, at, "this intersection");
	if (bytes_add(t->err, &first, out->s + from, out->n - from) == 0) {
		out->n = from;
		rc = put(t, "(?:(?=") < 0 || class(t, 0) < 0 || put(t, ")") < 0 ||
			bytes_add(t->err, out, first.s, first.n) < 0 || put(t, "])") < 0 ? -1 : 0;
	}
	free(first.s);
	if (rc == 0 && peek(t, 0) != ']')
		return refuse(t, at, "this intersection");
	t->at++;
	t->nest--;
	return rc;
}

/* The length of [:alpha:] and the like at this place. */
static size_t posix(const struct trans *t)
{
	const char *end = starts(t, "[:") ? memchr(t->in + t->at + 2, ']', t->n - t->at - 2) : NULL;

	return end && end[-1] == ':' ? (size_t)(end + 1 - t->in) - t->at : 0;
}

/* From the opening bracket past the closing one; a nested class joins the one around it. */
static int class(struct trans *t, int depth)
{
	size_t at = t->at++, from = t->out.n, len;

	if (++t->nest > MAXNEST)
		return refuse(t, at, "deeper nesting");
	if (depth == 0 && put(t, "[") < 0)
		return -1;
	if (peek(t, 0) == '^') {
		if (depth > 0)
			return refuse(t, at, "a negated class in a class");
		t->at++;
		if (put(t, "^") < 0)
			return -1;
	}
	for (size_t first = t->at; t->at < t->n && (peek(t, 0) != ']' || t->at == first); ) {
		if (starts(t, "&&"))
			return depth ? refuse(t, at, "an intersection in a class") : intersect(t, at, from);
		if ((len = posix(t))) {
			if (bytes_add(t->err, &t->out, t->in + t->at, len) < 0)
				return -1;
			t->at += len;
		} else if (peek(t, 0) == '[' ? class(t, depth + 1) < 0 : class_item(t) < 0) {
			return -1;
		}
	}
	if (t->at >= t->n)
		return refuse(t, t->n, "a class without an end");
	t->at++;
	t->nest--;
	return depth == 0 ? put(t, "]") : 0;
}

static int group(struct trans *t)
{
	static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:", "(?i)"};

	if (t->depth == MAXNEST)
		return refuse(t, t->at, "deeper nesting");
	if (peek(t, 1) != '?') {             /* nobody asks what a group held */
		t->open[t->depth++] = t->out.n;
		t->at++;
		return put(t, "(?:");
	}
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		if (!starts(t, kinds[i]))
			continue;
		t->at += strlen(kinds[i]);
		if (strcmp(kinds[i], "(?i)") != 0)
			t->open[t->depth++] = t->out.n;
		return put(t, kinds[i]);
	}
	return refuse(t, t->at, "this group");
}

/* {n}, {n,}, {n,m}, {,m}: its length, 0 when the brace is an ordinary character. */
static size_t braces(const struct trans *t)
{
	size_t i = 1, digits = 0;
	bool comma = false;

	for (; isdigit((unsigned char)peek(t, i)) || (peek(t, i) == ',' && !comma); i++) {
		comma |= peek(t, i) == ',';
		digits += peek(t, i) != ',';
	}
	return peek(t, i) == '}' && digits ? i + 1 : 0;
}

static int quantify(struct trans *t, size_t len)
{
	bool again = peek(t, len) == '+', lead = peek(t, 1) == ',';
	struct bytes *out = &t->out;

	if (again) {                         /* the atom goes into a group of its own */
		if (put(t, "(?:") < 0)
			return -1;
		memmove(out->s + t->atom + 3, out->s + t->atom, out->n - 3 - t->atom);
		memcpy(out->s + t->atom, "(?:", 3);
	}
	if (put(t, lead ? "{0" : "{") < 0 || bytes_add(t->err, out, t->in + t->at + 1, len - 1) < 0)
		return -1;
	t->at += len;
	return again ? put(t, ")") : 0;
}

static int item(struct trans *t)
{
	char c = peek(t, 0);
	size_t len, here = t->out.n;

	if (c == '{' && here && (len = braces(t)))
		return quantify(t, len);
	if (c == '*' || c == '+' || c == '?') {
		t->at++;
		return bytes_add(t->err, &t->out, &c, 1);
	}
	if (c == ')') {
		if (t->depth == 0)
			return refuse(t, t->at, "a bracket that closes nothing");
		t->atom = t->open[--t->depth];
		t->at++;
		return put(t, ")");
	}
	t->atom = here;
	if (c == '\\')
		return escape(t, false);
	if (c == '[')
		return class(t, 0);
	if (c == '(')
		return group(t);
	if (c == '{' || c == '}' || c == ']') {
		t->at++;
		return put(t, c == '{' ? "\\{" : c == '}' ? "\\}" : "\\]");
	}
	len = utf8_step(t->in + t->at, t->n - t->at);
	t->at += len;
	return bytes_add(t->err, &t->out, t->in + t->at - len, len);
}

static int translate(struct trans *t)
{
	if (t->n > MAXPATTERN)
		return wf_fail(t->err, "tokenizer: a pattern of %zu bytes, expected at most %d", t->n, MAXPATTERN);
	if (utf8_valid(t->in, t->n) != t->n || memchr(t->in, 0, t->n))
		return wf_fail(t->err, "tokenizer: a pattern that is not text");
	while (t->at < t->n)
		if (item(t) < 0)
			return -1;
	return t->depth ? refuse(t, t->n, "a group without an end") : 0;
}

/* ---- compiling and matching ---- */

static int compile(struct regex *re, wf_error *err, const struct bytes *pattern, const char *source, size_t len)
{
	pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
	int code = PCRE2_ERROR_NOMEMORY;
	PCRE2_SIZE at = 0;
	unsigned char why[128] = "";

	if (ctx) {
		pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
		pcre2_set_parens_nest_limit(ctx, 2 * MAXNEST);
		re->code = pcre2_compile((PCRE2_SPTR)pattern->s, pattern->n, PCRE2_UTF | PCRE2_UCP |
			PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE, &code, &at, ctx);
		pcre2_compile_context_free(ctx);
	}
	if (!re->code) {
		pcre2_get_error_message(code, why, sizeof why);
		return wf_fail(err, "tokenizer: pattern \"%.*s\": %s", (int)(len < 300 ? len : 300), source, (char *)why);
	}
	re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0;   /* without it, matching only takes longer */
	return 0;
}

struct regex *regex_new(wf_error *err, const char *pattern, size_t len)
{
	struct trans t = {.err = err, .in = pattern, .n = len};
	struct regex *re = calloc(1, sizeof *re);

	if (!re)
		wf_fail(err, "tokenizer: out of memory for a pattern");
	else if (translate(&t) < 0 || compile(re, err, &t.out, pattern, len) < 0) {
		regex_free(re);
		re = NULL;
	}
	free(t.out.s);
	return re;
}

void regex_free(struct regex *re)
{
	if (re)
		pcre2_code_free(re->code);
	free(re);
}

struct room { pcre2_match_data *data; pcre2_match_context *ctx; pcre2_jit_stack *stack; size_t bytes; };

/* A stack of that size for compiled patterns; address space until it is used. */
static int set_stack(struct room *r, size_t bytes)
{
	pcre2_jit_stack_free(r->stack);
	r->stack = pcre2_jit_stack_create(32 << 10, bytes, NULL);
	r->bytes = bytes;
	if (!r->stack)
		return -1;
	pcre2_jit_stack_assign(r->ctx, NULL, r->stack);
	return 0;
}

static struct room *room_of(struct matcher *m, wf_error *err)
{
	struct room *r = m->room;

	if (r)
		return r;
	if ((r = m->room = calloc(1, sizeof *r))) {
		r->data = pcre2_match_data_create(1, NULL);
		r->ctx = pcre2_match_context_create(NULL);
		if (r->data && r->ctx && set_stack(r, STACK) == 0)
			return r;
	}
	matcher_free(m);
	wf_fail(err, "tokenizer: out of memory to match a pattern");
	return NULL;
}

static int match(const struct regex *re, struct room *r, const char *text, size_t n, size_t from)
{
	int rc;

	do {
		rc = re->jit ? pcre2_jit_match(re->code, (PCRE2_SPTR)text, n, from, 0, r->data, r->ctx) :
			pcre2_match(re->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, r->data, r->ctx);
		/* a group that repeats through a text of millions needs a frame for each */
	} while (rc == PCRE2_ERROR_JIT_STACKLIMIT && r->bytes < MOST_STACK && set_stack(r, 8 * r->bytes) == 0);
	return rc;
}

int regex_match(const struct regex *re, wf_error *err, struct matcher *m, const char *text, size_t n,
		size_t from, size_t *start, size_t *end)
{
	struct room *r = room_of(m, err);
	unsigned char why[128] = "";

	if (!r)
		return -1;
	/* far more than any sound pattern needs: a bound for those that try everything */
	pcre2_set_match_limit(r->ctx, n < 1u << 24 ? (uint32_t)n * 64 + (1u << 20) : 1u << 30);
	int rc = match(re, r, text, n, from);
	if (rc == PCRE2_ERROR_NOMATCH)
		return 0;
	if (rc < 0) {
		pcre2_get_error_message(rc, why, sizeof why);
		return wf_fail(err, "tokenizer: the pre-tokenizer's pattern on a text of %zu bytes: %s", n, (char *)why);
	}
	const PCRE2_SIZE *place = pcre2_get_ovector_pointer(r->data);
	*start = place[0];
	*end = place[1];
	return 1;
}

void matcher_free(struct matcher *m)
{
	struct room *r = m->room;

	if (!r)
		return;
	pcre2_match_data_free(r->data);
	pcre2_match_context_free(r->ctx);
	pcre2_jit_stack_free(r->stack);
	free(r);
	m->room = NULL;
}
