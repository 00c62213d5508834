/* decode.c - ids back to text, one at a time, never half a character.
 *
 * A token may end inside a character.  Bytes that could still become one are held until the next token
 * completes them or shows that they never will; then each maximal broken part is one U+FFFD, as the
 * Unicode standard advises (3.9, best practice for U+FFFD substitution). */
#include "models/text/text.h"

#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD";

void wf_decoder_init(struct wf_decoder *d, const wf_tokenizer *tok, bool special)
{
	*d = (struct wf_decoder){.tok = tok, .special = special};
}

size_t wf_decoder_cap(const wf_tokenizer *tok)
{
	struct wf_decoder *d = NULL;

	return 3 * (tok->most_bytes + sizeof d->held);       /* when each byte is broken */
}

/* May the n bytes at s, which are no character, begin one? */
static bool unfinished(const uint8_t *s, size_t n)
{
	size_t len = s[0] < 0xC2 || s[0] > 0xF4 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;

	if (n >= len)
		return false;
	if (n >= 2) {                        /* the second byte rules out long forms, surrogates and more */
		uint8_t low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
		uint8_t high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
		if (s[1] < low || s[1] > high)
			return false;
	}
	return n < 3 || (s[2] & 0xC0) == 0x80;
}

/* The whole characters of what is held go to out; held is at most one unfinished character after. */
static size_t drain(struct wf_decoder *d, bool end, char *out)
{
	size_t at = 0, n = (size_t)d->nheld, wrote = 0, bad;
	uint32_t code;

	while (at < n) {
		size_t len = utf8_read(d->held + at, n - at, &code);
		if (len) {
			memcpy(out + wrote, d->held + at, len);
			wrote += len;
			at += len;
			continue;
		}
		const uint8_t *s = (const uint8_t *)d->held + at;
		if (!end && unfinished(s, n - at))
			break;
		for (bad = n - at; bad > 1 && !unfinished(s, bad); bad--)
			;
		memcpy(out + wrote, replacement, 3);
		wrote += 3;
		at += bad;
	}
	memmove(d->held, d->held + at, n - at);
	d->nheld = (int)(n - at);
	return wrote;
}

size_t wf_decoder_push(struct wf_decoder *d, int32_t id, char *buf)
{
	const wf_tokenizer *tok = d->tok;
	size_t wrote = 0;

	if (id < 0 || id >= tok->n)
		return 0;
	const struct token *t = &tok->token[id];
	bool hidden = t->type == TOKEN_CONTROL || t->type == TOKEN_UNKNOWN;
	if (hidden && !d->special)
		return 0;
	size_t skip = tok->drop_space && !d->started && !hidden && t->nbytes && t->bytes[0] == ' ';
	d->started = true;
	for (size_t i = skip; i < t->nbytes; i++) {
		d->held[d->nheld++] = t->bytes[i];
		wrote += drain(d, false, buf + wrote);
	}
	return wrote;
}

size_t wf_decoder_flush(struct wf_decoder *d, char *buf)
{
	return drain(d, true, buf);
}
