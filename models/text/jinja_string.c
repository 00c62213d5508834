/* jinja_string.c - Unicode and Python's string functions over UTF-8.
 *
 * Characters are code points.  Bytes that are no UTF-8 pass through unchanged, each one a character
 * that is neither letter nor space. */
#include "models/text/jinja.h"

#include <utf8proc.h>

enum { INVALID = 0xdc00, SHARP_S = 0xdf };

int32_t string_get(const char *s, const char *end, size_t *bytes)
{
	utf8proc_int32_t c = (unsigned char)*s;

	*bytes = 1;
	if (c < 0x80)
		return c;
	utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s, end - s < 4 ? end - s : 4,
			&c);
	if (n < 1)
		return INVALID + (unsigned char)*s;
	*bytes = (size_t)n;
	return c;
}

int32_t string_back(const char *start, const char *end, size_t *bytes)
{
	for (size_t n = 2; n <= 4 && n <= (size_t)(end - start) && (end[-1] & 0x80); n++) {
		int32_t c = string_get(end - n, end, bytes);
		if (*bytes == n)
			return c;
	}
	*bytes = 1;
	return end[-1] & 0x80 ? INVALID + (unsigned char)end[-1] : end[-1];
}

size_t string_put(char *out, int32_t c)
{
	return (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)out);
}

size_t string_offset(const char *s, size_t len, size_t chars)
{
	size_t at = 0, n;

	for (; chars && at < len; chars--, at += n)
		string_get(s + at, s + len, &n);
	return at;
}

size_t string_count(const char *s, size_t len)
{
	size_t count = 0, n;

	for (size_t at = 0; at < len; at += n, count++)
		string_get(s + at, s + len, &n);
	return count;
}

bool string_is_space(int32_t c)
{
	if (c < 0x80)
		return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
	return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
			c == 0x2029 ||
		c == 0x202f || c == 0x205f || c == 0x3000;
}

bool string_is_printable(int32_t c)
{
	switch (utf8proc_category(c)) {
	case UTF8PROC_CATEGORY_CC: case UTF8PROC_CATEGORY_CF: case UTF8PROC_CATEGORY_CS: case UTF8PROC_CATEGORY_CO:
	case UTF8PROC_CATEGORY_CN: case UTF8PROC_CATEGORY_ZL: case UTF8PROC_CATEGORY_ZP:
		return false;
	case UTF8PROC_CATEGORY_ZS:
		return c == ' ';
	default:
		return true;
	}
}

bool string_is_digits(const char *s, size_t len)
{
	size_t n = 0;

	while (n < len && s[n] >= '0' && s[n] <= '9')
		n++;
	return len && n == len;
}

/* ---- case ---- */

static bool is_cased(int32_t c)
{
	utf8proc_category_t category = utf8proc_category(c);

	return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
			category == UTF8PROC_CATEGORY_LT;
}

static void put_cased(struct vm *vm, struct text *t, const char *s, size_t n, int32_t c,
		enum letter_case how)
{
	char out[4];

	if (c >= INVALID && c < INVALID + 256) {
		text_put(vm, t, s, n);
	} else if (c == SHARP_S && how != LOWER) {
		text_puts(vm, t, how == UPPER ? "SS" : "Ss");
	} else {
		c = how == UPPER ? utf8proc_toupper(c) : how == LOWER ? utf8proc_tolower(c) :
				utf8proc_totitle(c);
		text_put(vm, t, out, string_put(out, c));
	}
}

/* Jinja's title filter starts a word behind these, Python's str.title behind all that is no letter. */
static bool starts_word(int32_t before, enum letter_case how)
{
	if (how == TITLE_WORDS)
		return before < 0 || string_is_space(before) ||
				(before < 128 && before && strchr("-({[<", (int)before));
	return before < 0 || !is_cased(before);
}

static enum letter_case case_at(int32_t before, enum letter_case how)
{
	if (how == UPPER || how == LOWER)
		return how;
	if (how == CAPITALIZE)
		return before < 0 ? TITLE : LOWER;
	if (!starts_word(before, how))
		return LOWER;
	return how == TITLE_WORDS ? UPPER : TITLE;
}

struct value string_case(struct vm *vm, struct value v, enum letter_case how)
{
	const char *p = v.s, *end = v.s + v.len;
	struct text t = {0};
	int32_t before = -1;
	size_t n;

	for (; p < end && !vm->failed; p += n) {
		int32_t c = string_get(p, end, &n);
		put_cased(vm, &t, p, n, c, case_at(before, how));
		before = c;
	}
	return text_value(&t);
}

/* ---- parts ---- */

static bool is_stripped(const char *s, size_t n, int32_t c, struct value chars)
{
	return chars.kind == J_STRING ? memmem(chars.s, chars.len, s, n) != NULL : string_is_space(c);
}

struct value string_strip(struct vm *vm, struct value v, struct value chars, int ends)
{
	const char *s = v.s, *end = v.s + v.len;
	size_t n;

	if (chars.kind != J_STRING && chars.kind != J_ABSENT && chars.kind != J_NONE)
		return vm_fail(vm, "strip arg must be None or str, not %s", value_type(chars));
	while ((ends & 1) && s < end) {
		int32_t c = string_get(s, end, &n);
		if (!vm_work(vm, 0) || !is_stripped(s, n, c, chars))
			break;
		s += n;
	}
	while ((ends & 2) && s < end) {
		int32_t c = string_back(s, end, &n);
		if (!vm_work(vm, 0) || !is_stripped(end - n, n, c, chars))
			break;
		end -= n;
	}
	return value_text(s, (size_t)(end - s));
}

/* An empty `old` stands before every character and at the end. */
static struct value replace_between(struct vm *vm, struct value v, struct value new, int64_t count)
{
	const char *p = v.s, *end = v.s + v.len;
	struct text t = {0};
	size_t n;

	for (; count != 0 && !vm->failed; count--, p += n) {
		text_put(vm, &t, new.s, new.len);
		n = 0;
		if (p == end)
			break;
		string_get(p, end, &n);
		text_put(vm, &t, p, n);
	}
	text_put(vm, &t, p, (size_t)(end - p));
	return text_value(&t);
}

struct value string_replace(struct vm *vm, struct value v, struct value old, struct value new,
		int64_t count)
{
	const char *p = v.s, *end = v.s + v.len, *at;
	struct text t = {0};

	if (!old.len)
		return replace_between(vm, v, new, count);
	for (; count != 0 && vm_work(vm, 0) &&
			(at = memmem(p, (size_t)(end - p), old.s, old.len)); count--) {
		text_put(vm, &t, p, (size_t)(at - p));
		text_put(vm, &t, new.s, new.len);
		p = at + old.len;
	}
	text_put(vm, &t, p, (size_t)(end - p));
	return text_value(&t);
}

struct value string_escape(struct vm *vm, struct value v)
{
	static const char from[] = "&<>'\"";
	static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
	struct text t = {0};

	if (v.safe)
		return v;
	for (const char *p = v.s, *end = v.s + v.len; p < end && !vm->failed; p++) {
		const char *at = memchr(from, *p, sizeof from - 1);
		if (at)
			text_puts(vm, &t, to[at - from]);
		else
			text_put(vm, &t, p, 1);
	}
	v = text_value(&t);
	v.safe = true;
	return v;
}

struct value string_join(struct vm *vm, struct value sep, struct value items)
{
	struct text t = {0};
	struct value item;
	struct iter it;
	bool first = true;

	if (!iter_open(vm, items, &it))
		return value_undefined(NULL);
	for (; iter_next(vm, &it, &item); first = false) {
		if (!first)
			text_put(vm, &t, sep.s, sep.len);
		print_value(vm, &t, item);
	}
	return text_value(&t);
}

static bool ends_line(int32_t c)
{
	return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
			c == 0x2029;
}

struct value string_lines(struct vm *vm, struct value v)
{
	const char *p = v.s, *end = v.s + v.len, *line = p;
	struct value out = value_list(vm, J_LIST);
	size_t n;

	for (; p < end && !vm->failed; p += n) {
		if (!ends_line(string_get(p, end, &n)))
			continue;
		list_push(vm, out, value_text(line, (size_t)(p - line)));
		n += *p == '\r' && p + 1 < end && p[1] == '\n';
		line = p + n;
	}
	if (line < end)
		list_push(vm, out, value_text(line, (size_t)(end - line)));
	return out;
}
