/* text.c - a graph or plan as text: dump format, test format and input format at once.
 *
 *   graph llama act=f32 kv=f16
 *   @token_embd.weight : bf16[256,64]
 *   $tokens : i32[T]
 *   %2 = take @token_embd.weight $tokens : f32[T,64]
 *   %9 = rmsnorm %2 @blk.0.attn_norm.weight eps=1e-05 : f32[T,64] !blk.0
 *   out logits = %57
 *
 * A plan has the nodes of a kernel between braces, its anchor marked, stored values with their
 * place.  parse.c reads what this writes, and print, parse, print again is the identity. */
#include "graph/graph.h"
#include <math.h>
#include <stdlib.h>

static void print_number(FILE *f, double v)
{
	char s[NUMBER_TEXT];

	/* the fewest digits that say it; 10240 rather than 1.024e+04 */
	for (int digits = fabs(v) < 1e15 && v == trunc(v) ? 17 : 1; digits <= 17; digits++) {
		number_write(s, digits, v);
		if (number_read(s, NULL) == v)
			break;
	}
	fputs(s, f);
}

const char *text_dims(char *s, size_t cap, int ndim, const int64_t *dim)
{
	size_t len = 0;

	for (int i = 0; i < ndim && len < cap; i++)
		len += (size_t)(dim[i] < 0 ? snprintf(s + len, cap - len, "%s%c", i ? "," : "", "TSR"[-1 - dim[i]]) :
			snprintf(s + len, cap - len, "%s%lld", i ? "," : "", (long long)dim[i]));
	return s;
}

void text_type(FILE *f, const wf_tensor *t)
{
	char dims[96];

	fprintf(f, "%s[%s]", wf_dtypes[t->dtype].name, text_dims(dims, sizeof dims, t->ndim, t->dim));
}

static const float *print_literal(FILE *f, const wf_tensor *t, int axis, const float *v)
{
	putc('[', f);
	for (int64_t i = 0; i < t->dim[axis]; i++) {
		if (i)
			putc(' ', f);
		if (axis + 1 < t->ndim)
			v = print_literal(f, t, axis + 1, v);
		else
			print_number(f, *v++);
	}
	putc(']', f);
	return v;
}

static void print_operand(FILE *f, const wf_tensor *t)
{
	if (t->op == &wf_op_weight)
		fprintf(f, " @%s", t->name);
	else if (t->op == &wf_op_input)
		fprintf(f, " $%s", t->name);
	else
		fprintf(f, " %%%d", t->id);
}

static void print_attributes(FILE *f, const wf_tensor *t)
{
	struct wf_attr_info info;

	for (int k = 0; !wf_attr_info(t->op, k, &info); k++) {
		if (info.has_absent && t->attr[k] == info.absent)
			continue;
		fprintf(f, " %.*s=", (int)info.len, info.name);
		print_number(f, t->attr[k]);
	}
}

static void print_node(FILE *f, const wf_tensor *t)
{
	if (t->op == &wf_op_weight || t->op == &wf_op_input) {
		fprintf(f, "%c%s : ", t->op == &wf_op_weight ? '@' : '$', t->name);
		text_type(f, t);
		return;
	}
	fprintf(f, "%%%d = %s", t->id, t->op->name);
	if (t->literal) {
		putc(' ', f);
		print_literal(f, t, 0, t->literal);
	}
	for (int k = 0; k < t->nin; k++)
		print_operand(f, t->in[k]);
	print_attributes(f, t);
	fputs(" : ", f);
	text_type(f, t);
	if (*t->scope)
		fprintf(f, " !%s", t->scope);
}

static void print_outputs(const wf_graph *g, FILE *f)
{
	for (int i = 0; i < g->nout; i++) {
		fprintf(f, "out %s =", g->out[i].name);
		print_operand(f, g->out[i].t);
		putc('\n', f);
	}
}

static void print_head(const wf_graph *g, FILE *f)
{
	fprintf(f, "graph %s act=%s kv=%s", g->name, wf_dtypes[g->act].name, wf_dtypes[g->kvtype].name);
	fprintf(f, g->sum == WF_F32 ? "\n" : " sum=%s\n", wf_dtypes[g->sum].name);
}

int wf_graph_print(const wf_graph *g, FILE *f)
{
	print_head(g, f);
	for (int i = 0; i < g->nnode; i++) {
		print_node(f, g->node[i]);
		putc('\n', f);
	}
	print_outputs(g, f);
	return ferror(f) ? -1 : 0;
}

static void print_kernel(const wf_plan *plan, const wf_kernel *kernel, FILE *f)
{
	fprintf(f, "kernel %d %s {\n", kernel->id, wf_kind_names[kernel->kind]);
	for (int i = 0; i < kernel->nnode; i++) {
		const wf_tensor *t = kernel->node[i];
		const struct wf_value *value = &plan->value[t->id];
		fputs("  ", f);
		print_node(f, t);
		if (t == kernel->anchor)
			fputs(" anchor", f);
		if (value->stored && plan->stage >= PLAN_PLACE)
			fprintf(f, value->alias ? " alias" : " at %lld", (long long)value->offset);
		putc('\n', f);
	}
	fputs("}\n", f);
}

int wf_plan_print(const wf_plan *plan, FILE *f)
{
	const wf_graph *g = plan->g;

	if (plan->stage < PLAN_FUSE) {
		fprintf(f, "plan %s tokens=%lld seqs=%lld rows=%lld\n", plan_stage_names[plan->stage],
			(long long)plan->opt.max_tokens, (long long)plan->opt.max_seqs, (long long)plan->opt.max_rows);
		return wf_graph_print(g, f);
	}
	fprintf(f, "plan %s tokens=%lld seqs=%lld rows=%lld arena=%lld live=%lld\n", plan_stage_names[plan->stage],
		(long long)plan->opt.max_tokens, (long long)plan->opt.max_seqs, (long long)plan->opt.max_rows,
		(long long)plan->arena_bytes, (long long)plan->live_bytes);
	print_head(g, f);
	for (int i = 0; i < g->nnode; i++)
		if (plan->value[i].kernel < 0) {
			print_node(f, g->node[i]);
			putc('\n', f);
		}
	for (int k = 0; k < plan->nkernel; k++)
		print_kernel(plan, &plan->kernel[k], f);
	print_outputs(g, f);
	return ferror(f) ? -1 : 0;
}
