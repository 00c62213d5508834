/* names.c - a hash set of the names in a file, and what a message may show of them.
 *
 * Names are the attacker's: the set is seeded, sized before it is filled and never grows, so a file
 * with a million keys costs a million steps.  Messages end on a terminal, so only printable ASCII of
 * a name is shown. */
#include "models/model.h"

#include <string.h>
#include <utf8proc.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

int names_new(wf_arena *arena, struct names *set, size_t max)
{
	size_t nslot = 16;

	if (max > UINT32_MAX / 4)
		return -1;
	while (nslot < 2 * max)
		nslot *= 2;
	*set = (struct names){
		.name = wf_alloc_n(arena, max, sizeof *set->name),
		.slot = wf_alloc_n(arena, nslot, sizeof *set->slot),
		.mask = nslot - 1,
		.seed = (uintptr_t)arena * 0x9e3779b97f4a7c15,   /* address randomisation: not guessable */
	};
	return set->name && set->slot ? 0 : -1;
}

/* The slot that holds s, or the empty one where it belongs. */
static uint32_t *slot_of(const struct names *set, const char *s, size_t len)
{
	size_t i = XXH3_64bits_withSeed(s, len, set->seed) & set->mask;

	for (; set->slot[i]; i = (i + 1) & set->mask) {
		const struct gguf_str *have = &set->name[set->slot[i] - 1];
		if (have->len == len && !memcmp(have->s, s, len))
			break;
	}
	return &set->slot[i];
}

int64_t names_add(struct names *set, const char *s, size_t len)
{
	uint32_t *slot = slot_of(set, s, len);

	if (*slot)
		return -1;
	set->name[set->n] = (struct gguf_str){s, len};
	*slot = (uint32_t)++set->n;
	return (int64_t)set->n - 1;
}

int64_t names_find(const struct names *set, const char *s, size_t len)
{
	return (int64_t)*slot_of(set, s, len) - 1;
}

bool names_utf8(const char *s, size_t len)
{
	while (len > 0) {
		utf8proc_int32_t code;
		utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s,
			len < 4 ? (utf8proc_ssize_t)len : 4, &code);
		if (n <= 0)
			return false;
		s += n;
		len -= (size_t)n;
	}
	return true;
}

bool names_plain(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return len > 0 && names_utf8(s, len);
}

const char *names_show(char out[NAMES_SHOW], const char *s, size_t len)
{
	size_t n = len < NAMES_SHOW - 4 ? len : NAMES_SHOW - 4;

	for (size_t i = 0; i < n; i++)
		out[i] = s[i] >= 0x20 && s[i] < 0x7f ? s[i] : '?';
	memcpy(out + n, n < len ? "..." : "", n < len ? 4 : 1);
	return out;
}
