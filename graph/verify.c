/* verify.c - what must hold after every pass. */
#include "graph/graph.h"
#include <string.h>

int graph_verify(const wf_graph *g)
{
	for (int i = 0; i < g->nnode; i++) {
		const wf_tensor *t = g->node[i];
		if (t->id != i || t->g != g)
			return wf_fail(g->err, "verify: node %d carries number %d", i, t->id);
		for (int k = 0; k < t->nin; k++)
			if (t->in[k]->id >= i || t->in[k]->id < 0 || g->node[t->in[k]->id] != t->in[k])
				return wf_fail(g->err, "verify: %s %%%d reads operand %d, which does not come before it",
					t->op->name, i, k);
	}
	for (int i = 0; i < g->nout; i++)
		if (g->out[i].t->id < 0 || g->out[i].t->id >= g->nnode || g->node[g->out[i].t->id] != g->out[i].t)
			return wf_fail(g->err, "verify: output %s is not a node of the graph", g->out[i].name);
	return 0;
}

static int verify_membership(wf_plan *plan)
{
	const wf_graph *g = plan->g;

	for (int i = 0; i < g->nnode; i++) {
		const wf_tensor *t = g->node[i];
		bool computed = !t->constant && t->op != &wf_op_input;
		int k = plan->value[i].kernel;
		if (computed != (k >= 0))
			return wf_fail(plan->err, "verify: %s %%%d is in %s kernel", t->op->name, i, computed ? "no" : "a");
		for (int j = 0; computed && j < t->nin; j++) {
			int from = plan->value[t->in[j]->id].kernel;
			if (from > k)
				return wf_fail(plan->err, "verify: kernel %d reads %%%d, which kernel %d makes later",
					k, t->in[j]->id, from);
		}
	}
	for (int k = 0; k < plan->nkernel; k++) {
		const wf_kernel *kernel = &plan->kernel[k];
		bool has_anchor = false;
		for (int i = 0; i < kernel->nnode; i++) {
			has_anchor |= kernel->node[i] == kernel->anchor;
			if (plan->value[kernel->node[i]->id].kernel != k)
				return wf_fail(plan->err, "verify: %%%d stands in two kernels", kernel->node[i]->id);
		}
		if (!has_anchor)
			return wf_fail(plan->err, "verify: kernel %d's anchor is not among its nodes", k);
	}
	return 0;
}

static bool overlap(const struct wf_value *a, const struct wf_value *b)
{
	return a->first <= b->last && b->first <= a->last &&
		a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

static int verify_places(wf_plan *plan)
{
	for (int i = 0; i < plan->g->nnode; i++) {
		const struct wf_value *a = &plan->value[i];
		if (!a->stored)
			continue;
		if (a->alias && a->offset != plan->value[plan->g->node[i]->in[0]->id].offset)
			return wf_fail(plan->err, "verify: %%%d is a view but lies elsewhere", i);
		if (a->offset % 64 || a->offset < 0 || a->offset + a->bytes > plan->arena_bytes)
			return wf_fail(plan->err, "verify: %%%d at %lld, %lld bytes, in a buffer of %lld", i,
				(long long)a->offset, (long long)a->bytes, (long long)plan->arena_bytes);
		for (int j = 0; j < i; j++) {
			const struct wf_value *b = &plan->value[j];
			if (b->stored && !a->alias && !b->alias && overlap(a, b))
				return wf_fail(plan->err, "verify: %%%d and %%%d overlap while both are live", j, i);
		}
	}
	return 0;
}

int plan_verify(wf_plan *plan)
{
	if (plan->stage >= PLAN_FUSE && verify_membership(plan))
		return -1;
	return plan->stage >= PLAN_PLACE ? verify_places(plan) : 0;
}
