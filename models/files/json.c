/* json.c - JSON, token by token and as jansson's values.
 *
 * jansson holds documents, but its parser (2.14) writes past its buffer when an allocation fails and
 * refuses integers above 2^63, which tokenizer_config.json has.  So the text is read here: a scanner
 * that files of one known shape (safetensors) use directly, and a builder of json_t on top. */
#include "models/model.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAXDEPTH = 64, MAXNUMBER = 400 };

void json_open(struct json_scan *s, wf_error *err, const char *file, const char *text, size_t bytes)
{
	*s = (struct json_scan){.err = err, .file = file, .start = text, .at = text, .end = text + bytes};
}

void json_close(struct json_scan *s)
{
	free(s->text);
	s->text = NULL;
}

int json_fail(const struct json_scan *s, const char *expected)
{
	int line = 1, column = 1;

	for (const char *p = s->start; p < s->at && line < INT32_MAX; p++) {
		column = *p == '\n' ? 1 : column + 1;
		line += *p == '\n';
	}
	return wf_fail(s->err, "%s: line %d, column %d: %s", s->file, line, column, expected);
}

/* ---- strings ---- */

static int append(struct json_scan *s, const char *bytes, size_t n)
{
	if (n >= s->cap - s->len) {
		size_t cap = 2 * (s->len + n) + 64;
		char *more = realloc(s->text, cap);
		if (!more)
			return wf_fail(s->err, "%s: out of memory", s->file);
		s->text = more;
		s->cap = cap;
	}
	memcpy(s->text + s->len, bytes, n);
	s->len += n;
	return 0;
}

/* Four hex digits; -1 when they are not there. */
static int32_t hex4(struct json_scan *s)
{
	int32_t v = 0;

	if (s->end - s->at < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		char c = s->at[i];
		int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
		if (digit < 0)
			return -1;
		v = v << 4 | digit;
	}
	s->at += 4;
	return v;
}

/* \uXXXX, the backslash and u read; a pair of surrogates is one character. */
static int unicode(struct json_scan *s)
{
	int32_t c = hex4(s), low;
	char out[4];

	if (c < 0 || (c >= 0xdc00 && c < 0xe000))
		return json_fail(s, "expected four hex digits that are a character");
	if (c >= 0xd800 && c < 0xdc00) {
		if (s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u')
			return json_fail(s, "expected the second half of a surrogate pair");
		s->at += 2;
		low = hex4(s);
		if (low < 0xdc00 || low >= 0xe000)
			return json_fail(s, "expected the second half of a surrogate pair");
		c = 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00));
	}
	int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	static const unsigned char lead[] = {0, 0x00, 0xc0, 0xe0, 0xf0};
	for (int i = n - 1; i > 0; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(lead[n] | c);
	return append(s, out, (size_t)n);
}

static int escape(struct json_scan *s)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *which;

	if (s->at == s->end)
		return json_fail(s, "the text ends in a string");
	char c = *s->at++;
	if (c == 'u')
		return unicode(s);
	if (!c || !(which = strchr(from, c)))
		return json_fail(s, "unknown escape");
	return append(s, &to[which - from], 1);
}

/* The opening quote is read. */
static int string(struct json_scan *s)
{
	s->len = 0;
	for (;;) {
		const char *run = s->at;
		while (s->at < s->end && *s->at != '"' && *s->at != '\\' && (unsigned char)*s->at >= 0x20)
			s->at++;
		if (!names_utf8(run, (size_t)(s->at - run)))
			return json_fail(s, "a string is not UTF-8");
		if (append(s, run, (size_t)(s->at - run)) < 0)
			return -1;
		if (s->at == s->end)
			return json_fail(s, "the text ends in a string");
		char c = *s->at++;
		if (c == '"')
			break;
		if (c != '\\')
			return json_fail(s, "a control character in a string");
		if (escape(s) < 0)
			return -1;
	}
	s->text[s->len] = 0;
	return '"';
}

/* ---- numbers ---- */

static size_t digits(const char *p)
{
	return strspn(p, "0123456789");
}

/* The length of the number at p by JSON's grammar, 0 when there is none; *whole: an integer. */
static size_t number_length(const char *p, bool *whole)
{
	const char *start = p;

	p += *p == '-';
	size_t n = digits(p);
	if (n == 0 || (n > 1 && *p == '0'))
		return 0;
	p += n;
	*whole = true;
	if (*p == '.') {
		*whole = false;
		if (!(n = digits(p + 1)))
			return 0;
		p += 1 + n;
	}
	if (*p == 'e' || *p == 'E') {
		*whole = false;
		p++;
		p += *p == '+' || *p == '-';
		if (!(n = digits(p)))
			return 0;
		p += n;
	}
	return (size_t)(p - start);
}

static int number(struct json_scan *s)
{
	char copy[MAXNUMBER + 1];
	size_t left = (size_t)(s->end - s->at), n = left < MAXNUMBER ? left : MAXNUMBER;

	memcpy(copy, s->at, n);
	copy[n] = 0;
	n = number_length(copy, &s->whole);
	if (n == 0 || n == MAXNUMBER)
		return json_fail(s, "expected a value");
	copy[n] = 0;
	errno = 0;
	s->integer = s->whole ? strtoll(copy, NULL, 10) : 0;
	s->whole = s->whole && errno == 0;
	s->number = number_read(copy, NULL);
	if (!isfinite(s->number))
		return json_fail(s, "a number out of range");
	s->at += n;
	return '0';
}

/* ---- tokens ---- */

static int word(struct json_scan *s, const char *w, int token)
{
	size_t n = strlen(w);

	if ((size_t)(s->end - s->at) < n || memcmp(s->at, w, n))
		return json_fail(s, "expected a value");
	s->at += n;
	return token;
}

int json_next(struct json_scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
		s->at++;
	if (s->at == s->end)
		return 'E';
	switch (*s->at) {
	case '{': case '}': case '[': case ']': case ':': case ',':
		return *s->at++;
	case '"':
		s->at++;
		return string(s);
	case 't': return word(s, "true", 't');
	case 'f': return word(s, "false", 'f');
	case 'n': return word(s, "null", 'n');
	default:  return number(s);
	}
}

int json_expect(struct json_scan *s, int want, const char *expected)
{
	int token = json_next(s);

	return token == want ? 0 : token < 0 ? -1 : json_fail(s, expected);
}

int json_element(struct json_scan *s, int close, bool *first)
{
	int token = json_next(s);

	if (token <= 0 || token == close)
		return token == close ? 0 : -1;
	if (!*first) {
		if (token != ',')
			return json_fail(s, close == '}' ? "expected , or }" : "expected , or ]");
		token = json_next(s);
		if (token == close)
			return json_fail(s, "expected a value");
	}
	*first = false;
	return token;
}

/* ---- documents ---- */

static json_t *build(struct json_scan *s, int token, int depth);

static int no_memory(const struct json_scan *s)
{
	return wf_fail(s->err, "%s: out of memory", s->file);
}

static int build_items(struct json_scan *s, json_t *array, int depth)
{
	bool first = true;
	int token;

	while ((token = json_element(s, ']', &first)) > 0) {
		json_t *item = build(s, token, depth);
		if (!item)
			return -1;
		if (json_array_append_new(array, item) < 0)
			return no_memory(s);
	}
	return token;
}

static int build_member(struct json_scan *s, json_t *object, const char *key, int depth)
{
	char show[NAMES_SHOW];

	if (json_expect(s, ':', "expected :") < 0)
		return -1;
	if (json_object_get(object, key))
		return wf_fail(s->err, "%s: key \"%s\" appears twice", s->file, names_show(show, key, strlen(key)));
	json_t *item = build(s, json_next(s), depth);
	if (!item)
		return -1;
	return json_object_set_new_nocheck(object, key, item) < 0 ? no_memory(s) : 0;
}

static int build_members(struct json_scan *s, json_t *object, int depth)
{
	bool first = true;
	int token;

	while ((token = json_element(s, '}', &first)) > 0) {
		if (token != '"')
			return json_fail(s, "expected a key");
		if (strlen(s->text) != s->len)
			return json_fail(s, "a key holds NUL");
		char *key = strdup(s->text);
		if (!key)
			return no_memory(s);
		int rc = build_member(s, object, key, depth);
		free(key);
		if (rc < 0)
			return -1;
	}
	return token;
}

static json_t *build_whole(struct json_scan *s, json_t *v, int token, int depth)
{
	if (!v || depth == MAXDEPTH) {
		if (v)
			json_fail(s, "nested too deeply");
		else
			no_memory(s);
	} else if ((token == '{' ? build_members : build_items)(s, v, depth + 1) == 0) {
		return v;
	}
	json_decref(v);
	return NULL;
}

static json_t *build(struct json_scan *s, int token, int depth)
{
	json_t *v = NULL;

	switch (token) {
	case '{': return build_whole(s, json_object(), token, depth);
	case '[': return build_whole(s, json_array(), token, depth);
	case '"': v = json_stringn_nocheck(s->text, s->len); break;
	case '0': v = s->whole ? json_integer(s->integer) : json_real(s->number); break;
	case 't': return json_true();
	case 'f': return json_false();
	case 'n': return json_null();
	case -1:  return NULL;
	default:
		json_fail(s, "expected a value");
		return NULL;
	}
	if (!v)
		no_memory(s);
	return v;
}

json_t *json_read(wf_error *err, const char *file, const char *text, size_t bytes)
{
	struct json_scan s;

	json_open(&s, err, file, text, bytes);
	json_t *doc = build(&s, json_next(&s), 0);
	if (doc && json_expect(&s, 'E', "expected the end of the text") < 0) {
		json_decref(doc);
		doc = NULL;
	}
	json_close(&s);
	return doc;
}
