/* softcap.c - smooth clamp of logits to (-cap, cap). */
#include "ops/ops.h"

MAP1_ATTR(softcap, const float CAP = (float)attr[0], CAP * tanhf(x / CAP))

const wf_op wf_op_softcap = {
	MAP_FIELDS(softcap),
	.doc    = "y[i] = cap * tanh(x[i] / cap)",
	.source = "Gemma 2, arXiv 2408.00118",
	.nin    = 1,
	.attr   = "cap",
	.tol    = 1e-11f,
	.test   = TESTS("(softcap [0 30 -1000] cap=30)", "[0 22.8478247 -30]"),
};

wf_tensor *wf_softcap(wf_graph *g, wf_tensor *x, double cap)
{
	return wf_node(g, &wf_op_softcap, &x, 1, (double[WF_MAXATTR]){cap});
}
