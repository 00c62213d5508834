/* utf8.c - growing bytes and ids, and UTF-8 that may be broken.
 *
 * Text comes from anyone, so nothing here assumes valid UTF-8: a byte that starts no character counts
 * as a character of one byte, and who needs more asks utf8_valid() first. */
#include "models/text/text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static const unsigned MAXTEXT = 1u << 31;    /* bytes of a text at any stage: places are 32 bits wide */

int array_grow(wf_error *err, void *array, size_t *cap, size_t need, size_t each)
{
	void **a = array, *grown;
	size_t to = *cap + *cap / 2 + 16, bytes;

	if (need <= *cap)
		return 0;
	if (to < need)
		to = need;
	if (__builtin_mul_overflow(to, each, &bytes) || !(grown = realloc(*a, bytes)))
		return wf_fail(err, "tokenizer: out of memory for %zu items of %zu bytes", to, each);
	*a = grown;
	*cap = to;
	return 0;
}

int bytes_room(wf_error *err, struct bytes *b, size_t n)
{
	size_t most = b->most && b->most < MAXTEXT ? b->most : MAXTEXT;

	if (n > most - b->n)
		return wf_fail(err, "tokenizer: the text grows beyond %zu bytes", most);
	return b->n + n > b->cap ? array_grow(err, &b->s, &b->cap, b->n + n, 1) : 0;
}

int bytes_add(wf_error *err, struct bytes *b, const char *s, size_t n)
{
	if (bytes_room(err, b, n) < 0)
		return -1;
	if (n)
		memcpy(b->s + b->n, s, n);
	b->n += n;
	return 0;
}

/* memmem() is slow to start, and under the address sanitizer looks at all of s each time. */
const char *bytes_find(const char *s, size_t n, const char *what, size_t nwhat)
{
	const char *end = s + n;

	if (nwhat == 0 || nwhat > 16)
		return memmem(s, n, what, nwhat);
	while ((size_t)(end - s) >= nwhat && (s = memchr(s, what[0], (size_t)(end - s) - nwhat + 1))) {
		if (memcmp(s, what, nwhat) == 0)
			return s;
		s++;
	}
	return NULL;
}

int ids_add(wf_error *err, struct ids *ids, int32_t id)
{
	if (ids->n == ids->cap && array_grow(err, &ids->v, &ids->cap, ids->n + 1, sizeof *ids->v) < 0)
		return -1;
	ids->v[ids->n++] = id;
	return 0;
}

size_t utf8_write(uint32_t code, char out[4])
{
	static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
	size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;

	for (size_t i = n; i-- > 1; code >>= 6)
		out[i] = (char)(0x80 | (code & 0x3F));
	out[0] = (char)(lead[n] | code);
	return n;
}

size_t utf8_read(const char *s, size_t n, uint32_t *code)
{
	const uint8_t *p = (const uint8_t *)s;
	uint32_t c = p[0];
	size_t len;

	if (c < 0x80) {
		*code = c;
		return 1;
	}
	if (c < 0xC2 || c > 0xF4)
		return 0;
	len = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
	if (n < len)
		return 0;
	c &= 0x7Fu >> len;
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xC0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3F);
	}
	if ((len == 3 && c < 0x800) || (len == 4 && (c < 0x10000 || c > 0x10FFFF)) || c >> 11 == 0x1B)
		return 0;
	*code = c;
	return len;
}

size_t utf8_step(const char *s, size_t n)
{
	uint32_t code;
	size_t len = utf8_read(s, n, &code);

	return len ? len : 1;
}

size_t utf8_valid(const char *s, size_t n)
{
	size_t at = 0, len;
	uint64_t eight;
	uint32_t code;

	while (at < n) {
		if (n - at >= 8 && (memcpy(&eight, s + at, 8), !(eight & 0x8080808080808080))) {
			at += 8;
			continue;
		}
		if (!(len = utf8_read(s + at, n - at, &code)))
			break;
		at += len;
	}
	return at;
}

bool code_is_space(uint32_t code)
{
	return (code >= 9 && code <= 13) || code == ' ' || code == 0x85 || code == 0xA0 || code == 0x1680 ||
		(code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
		code == 0x205F || code == 0x3000;
}

bool code_is_word(uint32_t code)
{
	switch (utf8proc_category((utf8proc_int32_t)code)) {
	case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO: case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC: case UTF8PROC_CATEGORY_ME: case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_PC:
		return true;
	default:                             /* letters in circles and squares are symbols, yet alphabetic */
		return (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
			(code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
	}
}
