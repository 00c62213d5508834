/* half.c - a bf16 weight as f16, so that what it multiplies has three bits more.  Exact but for values under 6e-5, which
 * have fewer bits, and over 65504, which whoever loads the weight refuses. */
#include "ops/ops.h"

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *x = y->in[0];

	if (!x->constant || x->dtype > WF_BF16)
		return wf_fail(g->err, "half: expected a weight of type f32, f16 or bf16 (%s)", x->name ? x->name : g->scope);
	y->dtype = WF_F16;
	return 0;
}

static void eval(wf_tensor *y)
{
	const float *x = y->in[0]->data;
	float *o = y->data;

	for (int64_t i = 0; i < wf_nelem(y); i++)
		o[i] = wf_f16_to_f32(wf_f32_to_f16(x[i]));
}

const wf_op wf_op_half = {
	.name  = "half",
	.doc   = "y = x, a weight, rounded to f16",
	.kind  = WF_MOVE,
	.nin   = 1,
	.shape = shape,
	.eval  = eval,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS("(half [1.0004 -65510 3e-8])", "[1 -65504 5.9604645e-8]"),
};

wf_tensor *wf_half(wf_graph *g, wf_tensor *w)
{
	return wf_node(g, &wf_op_half, &w, 1, NULL);
}
