/* mul.c - elementwise product. */
#include "ops/ops.h"

MAP2(mul, x * y)

const wf_op wf_op_mul = {
	MAP_FIELDS(mul),
	.doc  = "y[i] = a[i] * b[i]; b may repeat over leading dimensions",
	.nin  = 2,
	.tol  = 1e-12f,
	.test = TESTS(
		"(mul [1 2] [10 20])", "[10 40]",
		"(mul [[1 2][3 4]] [10 20])", "[[10 40][30 80]]"),
};

wf_tensor *wf_mul(wf_graph *g, wf_tensor *a, wf_tensor *b)
{
	return wf_node(g, &wf_op_mul, (wf_tensor *[]){a, b}, 2, NULL);
}
