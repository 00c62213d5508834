/* cost.c - bytes and operations, and the seconds a device needs for them at best (roofline). */
#include "graph/graph.h"

struct wf_cost wf_cost_of(const wf_tensor *t)
{
	return t->op->cost ? t->op->cost(t) : (struct wf_cost){0};
}

double cost_seconds(struct wf_cost cost, const struct wf_device *device)
{
	double bytes = cost.bytes_weight + cost.bytes_in + cost.bytes_out + cost.bytes_kv;
	double memory = device->read_bytes_s > 0 ? bytes / device->read_bytes_s : 0;
	double compute = device->flops_s > 0 ? cost.flops / device->flops_s : 0;

	return (memory > compute ? memory : compute) + device->launch_s;
}
