/* arena.c - memory that is freed together.
 *
 * Growing blocks, handed out from the front.  What is handed out is zero: blocks come from calloc,
 * which leaves large ones untouched until used, and a reset clears only what was given out.  Under
 * the address sanitizer the bytes between two allocations are poisoned, so that running over the end
 * of one is found as it would be with malloc. */
#include "graph/graph.h"

#include <stdlib.h>
#include <string.h>

#if defined __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
enum { GAP = 64 };
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
enum { GAP = 0 };
#endif

enum { ALIGN = 64, FIRST = 64 << 10, LARGEST = 32 << 20 };

struct block {
	struct block *older;
	uint8_t *data;           /* aligned, behind this header */
	size_t used, cap;
};

struct wf_arena {
	struct block *last;      /* newest block, the only one with room */
	size_t bytes;
};

static struct block *block_new(size_t cap, struct block *older)
{
	struct block *b;
	size_t total;

	if (__builtin_add_overflow(cap, sizeof *b + ALIGN, &total) || !(b = calloc(1, total)))
		return NULL;
	uint8_t *data = (uint8_t *)(b + 1);
	*b = (struct block){older, data + (-(uintptr_t)data & (ALIGN - 1)), 0, cap};
	ASAN_POISON_MEMORY_REGION(b->data, cap);
	return b;
}

static void block_free(struct block *b)
{
	ASAN_UNPOISON_MEMORY_REGION(b->data, b->cap);
	free(b);
}

wf_arena *wf_arena_new(void)
{
	wf_arena *a = calloc(1, sizeof *a);

	if (a && !(a->last = block_new(FIRST, NULL))) {
		free(a);
		return NULL;
	}
	return a;
}

static void drop_all_but_first(wf_arena *a)
{
	while (a->last->older) {
		struct block *older = a->last->older;
		block_free(a->last);
		a->last = older;
	}
}

void wf_arena_free(wf_arena *a)
{
	if (!a)
		return;
	drop_all_but_first(a);
	block_free(a->last);
	free(a);
}

void wf_arena_reset(wf_arena *a)
{
	drop_all_but_first(a);
	ASAN_UNPOISON_MEMORY_REGION(a->last->data, a->last->cap);
	memset(a->last->data, 0, a->last->used);
	ASAN_POISON_MEMORY_REGION(a->last->data, a->last->cap);
	a->last->used = 0;
	a->bytes = 0;
}

static int grow(wf_arena *a, size_t need)
{
	size_t cap = a->last->cap < LARGEST ? 2 * a->last->cap : LARGEST;
	struct block *b = block_new(need > cap ? need : cap, a->last);

	if (!b)
		return -1;
	a->last = b;
	return 0;
}

void *wf_alloc(wf_arena *a, size_t bytes)
{
	size_t need;

	if (__builtin_add_overflow(bytes, ALIGN - 1 + GAP, &need))
		return NULL;
	need = need / ALIGN * ALIGN;
	if (need == 0)
		need = ALIGN;
	if (need > a->last->cap - a->last->used && grow(a, need) < 0)
		return NULL;
	void *p = a->last->data + a->last->used;
	ASAN_UNPOISON_MEMORY_REGION(p, bytes);
	a->last->used += need;
	a->bytes += need;
	return p;
}

void *wf_alloc_n(wf_arena *a, size_t n, size_t bytes)
{
	size_t total;

	return __builtin_mul_overflow(n, bytes, &total) ? NULL : wf_alloc(a, total);
}

char *wf_strdup(wf_arena *a, const char *s)
{
	size_t bytes = strlen(s) + 1;
	char *copy = wf_alloc(a, bytes);

	return copy ? memcpy(copy, s, bytes) : NULL;
}

char *wf_format(wf_arena *a, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	int len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	char *s = len < 0 ? NULL : wf_alloc(a, (size_t)len + 1);
	if (!s)
		return NULL;
	va_start(args, fmt);
	vsnprintf(s, (size_t)len + 1, fmt, args);
	va_end(args);
	return s;
}

size_t wf_arena_bytes(const wf_arena *a)
{
	return a->bytes;
}
