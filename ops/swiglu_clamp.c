/* swiglu_clamp.c - GPT-OSS's gate: both halves clamped, a steeper sigmoid, one added to the value. */
#include "ops/ops.h"

MAP2_ATTR(swiglu_clamp, const float ALPHA = (float)attr[0]; const float LIMIT = (float)attr[1],
	((y < -LIMIT ? -LIMIT : y > LIMIT ? LIMIT : y) + 1) * (x > LIMIT ? LIMIT : x) /
	(1 + expf(-ALPHA * (x > LIMIT ? LIMIT : x))))

const wf_op wf_op_swiglu_clamp = {
	MAP_FIELDS(swiglu_clamp),
	.doc    = "y[i] = (clamp(b[i], -limit, limit) + 1) * g / (1 + exp(-alpha g)), g = min(a[i], limit)",
	.source = "gpt-oss model card, arXiv 2508.10925",
	.nin    = 2,
	.attr   = "alpha=1.702 limit=7",
	.tol    = 1e-11f,
	.test   = TESTS("(swiglu_clamp [1 0 100] [1 5 -100])", "[1.69159072 0 -41.9997199]"),
};

wf_tensor *wf_swiglu_clamp(wf_graph *g, wf_tensor *gate, wf_tensor *up, double alpha, double limit)
{
	return wf_node(g, &wf_op_swiglu_clamp, (wf_tensor *[]){gate, up}, 2, (double[WF_MAXATTR]){alpha, limit});
}
