/* gelu_tanh.c - the tanh approximation of GELU that GPT-2, Bloom and Gemma use. */
#include "ops/ops.h"

MAP1(gelu_tanh, 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x))))

const wf_op wf_op_gelu_tanh = {
	MAP_FIELDS(gelu_tanh),
	.doc    = "y[i] = x[i] / 2 * (1 + tanh(sqrt(2 / pi) * (x[i] + 0.044715 x[i]^3)))",
	.source = "Hendrycks and Gimpel 2016, arXiv 1606.08415",
	.nin    = 1,
	.tol    = 1e-11f,
	.test   = TESTS("(gelu_tanh [0 1 -1])", "[0 0.841191991 -0.158808009]"),
};

wf_tensor *wf_gelu_tanh(wf_graph *g, wf_tensor *x)
{
	return wf_node(g, &wf_op_gelu_tanh, &x, 1, NULL);
}
