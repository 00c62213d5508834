/* layers.c - kernels by layer, equal layers once: what makes a plan of a hundred kernels readable. */
#include "graph/graph.h"
#include <ctype.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

bool is_computed(const wf_tensor *t)
{
	return !t->constant && t->op != &wf_op_input;
}

int plan_units(const wf_plan *plan)
{
	int n = 0;

	if (plan->stage >= PLAN_FUSE)
		return plan->nkernel;
	for (int i = 0; i < plan->g->nnode; i++)
		n += is_computed(plan->g->node[i]);
	return n;
}

wf_tensor *const *plan_unit(const wf_plan *plan, int u, int *n)
{
	if (plan->stage >= PLAN_FUSE) {
		*n = plan->kernel[u].nnode;
		return plan->kernel[u].node;
	}
	*n = 1;
	for (int i = 0; i < plan->g->nnode; i++)
		if (is_computed(plan->g->node[i]) && !u--)
			return &plan->g->node[i];
	return NULL;
}

/* "blk.3" of "blk.3.attn"; a scope without a number is its own layer. */
static int layer_len(const char *scope)
{
	int n = (int)strcspn(scope, ".");

	if (!scope[n])
		return n;
	int digits = (int)strspn(scope + n + 1, "0123456789");
	return digits ? n + 1 + digits : (int)strlen(scope);
}

static uint64_t node_hash(const wf_tensor *t)
{
	XXH3_state_t state;
	struct wf_attr_info info;

	XXH3_64bits_reset(&state);
	XXH3_64bits_update(&state, t->op->name, strlen(t->op->name));
	XXH3_64bits_update(&state, t->dim, sizeof t->dim);
	XXH3_64bits_update(&state, &t->dtype, sizeof t->dtype);
	for (int k = 0; !wf_attr_info(t->op, k, &info); k++)
		if (!info.address)
			XXH3_64bits_update(&state, &t->attr[k], sizeof t->attr[k]);
	for (int k = 0; k < t->nin; k++) {
		XXH3_64bits_update(&state, t->in[k]->dim, sizeof t->in[k]->dim);
		XXH3_64bits_update(&state, &t->in[k]->dtype, sizeof t->in[k]->dtype);
	}
	return XXH3_64bits_digest(&state);
}

struct unit { uint64_t hash; const char *scope; };

static struct unit *list_units(const wf_plan *plan, int n)
{
	struct unit *unit = wf_alloc_n(plan->arena, n + 1, sizeof *unit);
	int u = 0;

	if (!unit)
		return NULL;
	if (plan->stage >= PLAN_FUSE) {
		for (int k = 0; k < n; k++)
			unit[k] = (struct unit){plan->kernel[k].hash[0], plan->kernel[k].anchor->scope};
		return unit;
	}
	for (int i = 0; i < plan->g->nnode; i++)
		if (is_computed(plan->g->node[i]))
			unit[u++] = (struct unit){node_hash(plan->g->node[i]), plan->g->node[i]->scope};
	return unit;
}

static bool same_layer(const struct unit *a, const struct unit *b)
{
	int n = layer_len(a->scope);

	return n == layer_len(b->scope) && !memcmp(a->scope, b->scope, n);
}

static bool alike(const struct unit *unit, const struct layer *a, const struct layer *b)
{
	if (a->n != b->n || !a->len || !b->len)
		return false;
	for (int i = 0; i < a->n; i++)
		if (unit[a->first + i].hash != unit[b->first + i].hash)
			return false;
	return true;
}

int plan_layers(const wf_plan *plan, struct layer **out, int *nlayer)
{
	int n = plan_units(plan), count = 0;
	struct unit *unit = list_units(plan, n);
	struct layer *layer = wf_alloc_n(plan->arena, n + 1, sizeof *layer);

	if (!unit || !layer)
		return wf_fail(plan->err, "dump: out of memory");
	for (int u = 0; u < n; ) {
		struct layer next = {.name = unit[u].scope, .len = layer_len(unit[u].scope), .first = u, .repeat = 1};
		while (u < n && same_layer(&unit[next.first], &unit[u]))
			u++;
		next.n = u - next.first;
		bool again = count && alike(unit, &layer[count - 1], &next);
		if (again)
			layer[count - 1].repeat++;
		else
			layer[count++] = next;
		layer[count - 1].last = next.name;
		layer[count - 1].last_len = next.len;
	}
	*out = layer;
	*nlayer = count;
	return 0;
}
