/* gelu.c - x times the normal distribution function of x, exact form. */
#include "ops/ops.h"

MAP1(gelu, 0.5f * x * (1 + erff(x * 0.70710678f)))

const wf_op wf_op_gelu = {
	MAP_FIELDS(gelu),
	.doc    = "y[i] = x[i] / 2 * (1 + erf(x[i] / sqrt(2)))",
	.source = "Hendrycks and Gimpel 2016, arXiv 1606.08415",
	.nin    = 1,
	.tol    = 1e-11f,
	.test   = TESTS("(gelu [0 1 -1])", "[0 0.841344746 -0.158655254]"),
};

wf_tensor *wf_gelu(wf_graph *g, wf_tensor *x)
{
	return wf_node(g, &wf_op_gelu, &x, 1, NULL);
}
