/* trie.c - which of many strings starts here.
 *
 * A byte trie whose edges are one hash table from (node, byte) to node: no node has an array of its
 * own, so a vocabulary of any shape costs two slots of 16 bytes per distinct prefix.  Node 0 is the root. */
#include "models/text/text.h"

#include <stdlib.h>
#include <string.h>

static uint32_t place(const struct trie *t, uint64_t key)
{
	uint32_t i = (uint32_t)(key * 0x9E3779B97F4A7C15u >> 32) & t->mask;

	while (t->edge[i].node && t->edge[i].key != key)
		i = (i + 1) & t->mask;
	return i;
}

uint32_t trie_next(const struct trie *t, uint32_t node, uint8_t byte)
{
	return t->n ? t->edge[place(t, (uint64_t)node << 8 | byte)].node : 0;
}

/* Twice the nodes, four times as many slots as nodes, so that searches end. */
static int grow(wf_error *err, struct trie *t)
{
	uint32_t cap = t->cap ? 2 * t->cap : 64;
	struct trie wide = *t;
	int32_t *value = cap <= 1u << 29 ? realloc(t->value, cap * sizeof *value) : NULL;

	if (value)
		t->value = value;
	wide.edge = value ? calloc(2 * (size_t)cap, sizeof *wide.edge) : NULL;
	if (!wide.edge)
		return wf_fail(err, "tokenizer: out of memory for a trie of %u nodes", cap);
	wide.value = value;
	wide.mask = 2 * cap - 1;
	wide.cap = cap;
	for (uint32_t i = 0; t->cap && i <= t->mask; i++)
		if (t->edge[i].node)
			wide.edge[place(&wide, t->edge[i].key)] = t->edge[i];
	free(t->edge);
	*t = wide;
	if (!t->n)
		t->value[t->n++] = -1;
	return 0;
}

int trie_add(wf_error *err, struct trie *t, const char *s, size_t n, int32_t value)
{
	uint32_t node = 0;

	for (size_t i = 0; i < n; i++) {
		if (t->n == t->cap && grow(err, t) < 0)
			return -1;
		uint64_t key = (uint64_t)node << 8 | (uint8_t)s[i];
		struct edge *e = &t->edge[place(t, key)];
		if (!e->node) {
			*e = (struct edge){key, t->n};
			t->value[t->n++] = -1;
		}
		node = e->node;
	}
	if (n) {
		t->first[(uint8_t)s[0]] = true;
		t->value[node] = value;
	}
	return 0;
}

void trie_free(struct trie *t)
{
	free(t->edge);
	free(t->value);
	*t = (struct trie){0};
}
