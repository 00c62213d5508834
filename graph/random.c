/* random.c - weights from an integer hash of (name, seed, index): no file, any shape, every machine
 * the same bits.  The hash is one text, compiled here and handed to the GPU's compiler. */
#include "graph/graph.h"

#include <math.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define BOTH(...) \
	static __VA_ARGS__ \
	const char wf_random_cuda[] = "__device__ " #__VA_ARGS__ "\n";

/* 24 bits fit a float exactly, so nothing here rounds. */
BOTH(float wf_random_unit(unsigned long long key, unsigned long long index)
{
	unsigned long long h = key + (index + 1) * 0x9E3779B97F4A7C15ull;
	h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9ull;
	h = (h ^ (h >> 27)) * 0x94D049BB133111EBull;
	h ^= h >> 31;
	return (float)(int)(h >> 40) * (1.0f / 8388608) - 1;
})

struct wf_random wf_random_of(const wf_tensor *weight, uint64_t seed)
{
	static const char norm[] = "norm.weight";
	size_t n = strlen(weight->name), m = sizeof norm - 1;
	bool is_norm = weight->ndim == 1 && n >= m && !strcmp(weight->name + n - m, norm);

	return (struct wf_random){
		.key = XXH64(weight->name, n, seed),
		.scale = is_norm ? 1.0f / 16 : 0.02f * 1.7320508f,
		.shift = is_norm ? 1 : 0,
	};
}

void wf_random_fill(struct wf_random r, int64_t first, int64_t n, wf_dtype dtype, void *out)
{
	for (int64_t i = 0; i < n; i++) {
		float v = wf_random_unit(r.key, (uint64_t)(first + i)) * r.scale + r.shift;
		wf_encode(dtype, (char *)out + i * wf_dtypes[dtype].bytes, &v, 1);
	}
}

int random_check(const wf_tensor *t)
{
	return t->dtype == WF_F32 || t->dtype == WF_F16 || t->dtype == WF_BF16 ? 0 :
		wf_fail(t->g->err, "%s: random weights are f32, f16 or bf16, not %s", t->name, wf_dtypes[t->dtype].name);
}

int random_blob(const wf_tensor *t, wf_arena *arena, uint64_t seed, struct wf_blob *out)
{
	void *data;

	if (random_check(t))
		return -1;
	if (!(data = wf_alloc_n(arena, (size_t)wf_nelem(t), (size_t)wf_dtypes[t->dtype].bytes)))
		return wf_fail(t->g->err, "%s: no memory for random weights", t->name);
	wf_random_fill(wf_random_of(t, seed), 0, wf_nelem(t), t->dtype, data);
	*out = (struct wf_blob){.dtype = t->dtype, .ndim = t->ndim, .data = data,
		.bytes = (size_t)wf_nelem(t) * (size_t)wf_dtypes[t->dtype].bytes};
	memcpy(out->dim, t->dim, sizeof out->dim);
	return 0;
}

struct made {
	wf_weights weights;
	int n;
	struct one { const char *name; struct wf_blob blob; } *one;
};

static int find(const wf_weights *w, const char *name, struct wf_blob *out)
{
	const struct made *made = (const struct made *)w;

	for (int i = 0; i < made->n; i++)
		if (!strcmp(made->one[i].name, name)) {
			*out = made->one[i].blob;
			return 0;
		}
	return -1;
}

const wf_weights *wf_random_weights(wf_graph *g, wf_arena *arena, uint64_t seed)
{
	struct made *made = wf_alloc(arena, sizeof *made);

	if (made)
		made->one = wf_alloc_n(arena, (size_t)g->nnode + 1, sizeof *made->one);
	if (!made || !made->one) {
		wf_fail(g->err, "no memory for random weights");
		return NULL;
	}
	made->weights.find = find;
	for (int i = 0; i < g->nnode; i++) {
		struct one *one = &made->one[made->n];
		if (g->node[i]->op != &wf_op_weight)
			continue;
		if (random_blob(g->node[i], arena, seed, &one->blob))
			return NULL;
		one->name = g->node[i]->name;
		made->n++;
	}
	return &made->weights;
}
