/* order.c - kernels to a list: topological, and among what is ready, what keeps least memory live.
 *
 * needs: fuse.  keeps: membership.  breaks: ids, kernel numbers. */
#include "graph/graph.h"
#include <string.h>

struct orderer {
	wf_plan *plan;
	int *waits;               /* kernels that kernel k still waits for */
	int *readers;             /* kernels that still have to read value i */
	bool *done;
};

static bool from_kernel(const wf_plan *plan, const wf_tensor *t)
{
	return plan->value[t->id].kernel >= 0;
}

static int start(struct orderer *o)
{
	wf_plan *plan = o->plan;

	o->waits = wf_alloc_n(plan->arena, plan->nkernel + 1, sizeof *o->waits);
	o->readers = wf_alloc_n(plan->arena, plan->g->nnode + 1, sizeof *o->readers);
	o->done = wf_alloc_n(plan->arena, plan->nkernel + 1, sizeof *o->done);
	if (!o->waits || !o->readers || !o->done)
		return wf_fail(plan->err, "order: out of memory");
	for (int k = 0; k < plan->nkernel; k++)
		for (int i = 0; i < plan->kernel[k].nin; i++)
			if (from_kernel(plan, plan->kernel[k].in[i])) {
				o->waits[k]++;
				o->readers[plan->kernel[k].in[i]->id]++;
			}
	return 0;
}

/* Bytes that become live less those that die when kernel k runs next. */
static int64_t growth(const struct orderer *o, const wf_kernel *kernel)
{
	int64_t bytes = 0;

	for (int i = 0; i < kernel->nout; i++)
		bytes += o->plan->value[kernel->out[i]->id].bytes;
	for (int i = 0; i < kernel->nin; i++)
		if (from_kernel(o->plan, kernel->in[i]) && o->readers[kernel->in[i]->id] == 1)
			bytes -= o->plan->value[kernel->in[i]->id].bytes;
	return bytes;
}

static int pick(const struct orderer *o)
{
	int best = -1;
	int64_t least = 0;

	for (int k = 0; k < o->plan->nkernel; k++) {
		if (o->done[k] || o->waits[k])
			continue;
		int64_t bytes = growth(o, &o->plan->kernel[k]);
		if (best < 0 || bytes < least) {
			best = k;
			least = bytes;
		}
	}
	return best;
}

static bool makes(const wf_plan *plan, int k, const wf_tensor *t)
{
	return plan->value[t->id].kernel == k;
}

static void finish(struct orderer *o, int k)
{
	wf_plan *plan = o->plan;

	o->done[k] = true;
	for (int i = 0; i < plan->kernel[k].nin; i++)
		if (from_kernel(plan, plan->kernel[k].in[i]))
			o->readers[plan->kernel[k].in[i]->id]--;
	for (int j = 0; j < plan->nkernel; j++)
		for (int i = 0; !o->done[j] && i < plan->kernel[j].nin; i++)
			if (makes(plan, k, plan->kernel[j].in[i]))
				o->waits[j]--;
}

int order_run(wf_plan *plan)
{
	struct orderer o = {.plan = plan};
	wf_kernel *list = wf_alloc_n(plan->arena, plan->nkernel + 1, sizeof *list);

	if (!list || start(&o))
		return wf_fail(plan->err, "order: out of memory");
	for (int n = 0; n < plan->nkernel; n++) {
		int k = pick(&o);
		if (k < 0)
			wf_die("order: kernels form a cycle");
		finish(&o, k);
		list[n] = plan->kernel[k];
		for (int i = 0; i < plan->nnote; i++)
			if (plan->note[i].kernel == k)
				plan->note[i].kernel = -2 - n;      /* so that no note moves twice */
	}
	for (int i = 0; i < plan->nnote; i++)
		if (plan->note[i].kernel <= -2)
			plan->note[i].kernel = -2 - plan->note[i].kernel;
	memcpy(plan->kernel, list, sizeof *list * plan->nkernel);
	return plan_renumber(plan) || plan_derive(plan) ? -1 : 0;
}
