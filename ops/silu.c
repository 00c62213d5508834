/* silu.c - x * sigmoid(x), the gate of a LLaMA feed-forward block. */
#include "ops/ops.h"

MAP1(silu, x / (1 + expf(-x)))

const wf_op wf_op_silu = {
	MAP_FIELDS(silu),
	.doc    = "y[i] = x[i] / (1 + exp(-x[i]))",
	.source = "Elfwing et al. 2017, arXiv 1702.03118",
	.nin    = 1,
	.tol    = 1e-12f,
	.test   = TESTS(
		"(silu [0 1 -1])", "[0 0.731058579 -0.268941421]",
		"(silu [-100 100])", "[0 100]"),
};

wf_tensor *wf_silu(wf_graph *g, wf_tensor *x)
{
	return wf_node(g, &wf_op_silu, &x, 1, NULL);
}
