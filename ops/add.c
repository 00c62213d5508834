/* add.c - elementwise sum; a bias is a vector that repeats over the rows.
 *
 * With bf16 activations the sum of two computed values is f32: it is the residual, which gathers the
 * rounding of every layer.  Products read it through a norm and stay 16 bits wide.  (Llama-2-7B: error of
 * the logits 1.7e-3 instead of 2.5e-3, prompts 2.6 % slower; f16 rounds 64 times less.) */
#include "ops/ops.h"

MAP2(add, x + y)

static int shape(wf_graph *g, wf_tensor *y)
{
	if (wf_same_shape(g, y))
		return -1;
	if (g->act == WF_BF16 && !y->in[0]->constant && !y->in[1]->constant)
		y->dtype = WF_F32;
	return 0;
}

const wf_op wf_op_add = {
	.name  = "add",
	.doc   = "y[i] = a[i] + b[i]; b may repeat over leading dimensions",
	.kind  = WF_MAP,
	.nin   = 2,
	.shape = shape,
	.eval  = add_eval,
	.span  = add_span,
	.cuda  = add_cuda,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS(
		"(add [1 2] [10 20])", "[11 22]",
		"(add [[1 2][3 4]] [10 20])", "[[11 22][13 24]]"),
};

wf_tensor *wf_add(wf_graph *g, wf_tensor *a, wf_tensor *b)
{
	return wf_node(g, &wf_op_add, (wf_tensor *[]){a, b}, 2, NULL);
}
