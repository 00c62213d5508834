/* dump.c - a plan of any stage for other programs: DOT for Graphviz, JSON for scripts.
 *
 * DOT draws equal layers once: an operand from a later copy is drawn from the first. */
#include "graph/graph.h"
#include <string.h>

static const char *const kind_colour[WF_NKIND] = {
	"#e5e7eb", "#fde68a", "#bfdbfe", "#c7d2fe", "#fbcfe8", "#d1fae5", "#fed7aa", "#e9d5ff"
};

/* ---- DOT ---- */

struct drawer {
	const wf_plan *plan;
	FILE *f;
	struct layer *layer;
	int nlayer;
	int *unit, *member;       /* by node id: its unit and place in it; -1 a leaf or constant */
	bool *input;              /* inputs drawn already */
};

static int start(struct drawer *d)
{
	const wf_graph *g = d->plan->g;
	int n, nunit = 0;

	d->unit = wf_alloc_n(g->arena, g->nnode + 1, sizeof *d->unit);
	d->member = wf_alloc_n(g->arena, g->nnode + 1, sizeof *d->member);
	d->input = wf_alloc_n(g->arena, g->nnode + 1, sizeof *d->input);
	if (!d->unit || !d->member || !d->input || plan_layers(d->plan, &d->layer, &d->nlayer))
		return wf_fail(d->plan->err, "dump: out of memory");
	for (int i = 0; i < g->nnode; i++)
		d->unit[i] = -1;
	if (d->plan->stage < PLAN_FUSE) {
		for (int i = 0; i < g->nnode; i++)
			if (is_computed(g->node[i]))
				d->unit[i] = nunit++;
		return 0;
	}
	for (int u = 0; u < d->plan->nkernel; u++) {
		wf_tensor *const *node = plan_unit(d->plan, u, &n);
		for (int i = 0; i < n; i++) {
			d->unit[node[i]->id] = u;
			d->member[node[i]->id] = i;
		}
	}
	return 0;
}

/* The node drawn for t: itself, or its like in the first of equal layers. */
static const wf_tensor *drawn(const struct drawer *d, const wf_tensor *t)
{
	int u = d->unit[t->id], n;

	for (int i = 0; i < d->nlayer; i++) {
		const struct layer *l = &d->layer[i];
		if (u >= l->first && u < l->first + l->n * l->repeat)
			return plan_unit(d->plan, l->first + (u - l->first) % l->n, &n)[d->member[t->id]];
	}
	return t;
}

static void weight_names(const wf_tensor *t, FILE *f)
{
	if (t->name)
		fprintf(f, "\\n@%s", t->name);
	else if (t->literal)
		fputs("\\nconst", f);
	for (int k = 0; k < t->nin; k++)
		weight_names(t->in[k], f);
}

static void draw_node(const struct drawer *d, const wf_tensor *t)
{
	const wf_plan *plan = d->plan;
	bool fused = plan->stage >= PLAN_FUSE;
	bool anchor = fused && plan->kernel[plan->value[t->id].kernel].anchor == t;

	fprintf(d->f, "      n%d [label=\"%s%s\\n", t->id, t->op->name, anchor ? " *" : "");
	text_type(d->f, t);
	for (int k = 0; k < t->nin; k++)
		if (t->in[k]->constant)
			weight_names(t->in[k], d->f);
	if (plan->stage >= PLAN_PLACE && plan->value[t->id].stored)
		fprintf(d->f, "\\nat %lld", (long long)plan->value[t->id].offset);
	fprintf(d->f, "\", fillcolor=\"%s\"%s];\n", kind_colour[t->op->kind], anchor ? ", penwidth=2" : "");
}

static void draw_edges(const struct drawer *d, const wf_tensor *t)
{
	for (int k = 0; k < t->nin; k++) {
		const wf_tensor *from = t->in[k];
		if (from->constant)
			continue;
		if (from->op == &wf_op_input) {
			if (!d->input[from->id]) {
				fprintf(d->f, "  n%d [label=\"$%s\\n", from->id, from->name);
				text_type(d->f, from);
				fputs("\", shape=ellipse, fillcolor=\"#f9fafb\"];\n", d->f);
			}
			d->input[from->id] = true;
		} else {
			from = drawn(d, from);
		}
		fprintf(d->f, "  n%d -> n%d;\n", from->id, t->id);
	}
}

static void draw_unit(const struct drawer *d, int u)
{
	char label[256];
	int n;
	wf_tensor *const *node = plan_unit(d->plan, u, &n);

	if (d->plan->stage >= PLAN_FUSE)
		fprintf(d->f, "    subgraph cluster_k%d {\n      label=\"kernel %d  %s\"; style=\"rounded,filled\"; "
			"color=\"#9ca3af\"; fillcolor=\"#ffffff\";\n", u, u, kernel_label(&d->plan->kernel[u], label, sizeof label));
	for (int i = 0; i < n; i++)
		draw_node(d, node[i]);
	if (d->plan->stage >= PLAN_FUSE)
		fputs("    }\n", d->f);
}

static void draw_layer(const struct drawer *d, const struct layer *l)
{
	fprintf(d->f, "  subgraph cluster_u%d {\n    label=\"%.*s", l->first, l->len, l->name);
	if (l->repeat > 1)
		fprintf(d->f, " ... %.*s, all %d alike", l->last_len, l->last, l->repeat);
	fputs("\"; style=\"rounded,filled\"; color=\"#d1d5db\"; fillcolor=\"#f3f4f6\";\n", d->f);
	for (int u = l->first; u < l->first + l->n; u++)
		draw_unit(d, u);
	fputs("  }\n", d->f);
}

int wf_plan_dot(const wf_plan *plan, FILE *f)
{
	struct drawer d = {.plan = plan, .f = f};
	int n;

	if (start(&d))
		return -1;
	fprintf(f, "digraph \"%s\" {\n  graph [fontname=\"Helvetica\", fontsize=11, rankdir=TB];\n"
		"  node [fontname=\"Helvetica\", fontsize=10, shape=box, style=\"rounded,filled\"];\n"
		"  edge [color=\"#6b7280\", arrowsize=0.6];\n", plan->g->name);
	for (int i = 0; i < d.nlayer; i++)
		draw_layer(&d, &d.layer[i]);
	for (int i = 0; i < d.nlayer; i++)
		for (int u = d.layer[i].first; u < d.layer[i].first + d.layer[i].n; u++) {
			wf_tensor *const *node = plan_unit(plan, u, &n);
			for (int k = 0; k < n; k++)
				draw_edges(&d, node[k]);
		}
	for (int i = 0; i < plan->g->nout; i++) {
		const wf_tensor *t = plan->g->out[i].t;
		fprintf(f, "  out%d [label=\"%s\", shape=ellipse, fillcolor=\"#d1fae5\"];\n  n%d -> out%d;\n", i,
			plan->g->out[i].name, d.unit[t->id] < 0 ? t->id : drawn(&d, t)->id, i);
	}
	fputs("}\n", f);
	return ferror(f) ? wf_fail(plan->err, "dump: cannot write") : 0;
}

/* ---- JSON ---- */

void dump_string(FILE *f, const char *s)
{
	if (!s) {
		fputs("null", f);
		return;
	}
	putc('"', f);
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if ((unsigned char)*s < 32)
			fprintf(f, "\\u%04x", *s);
		else
			putc(*s, f);
	putc('"', f);
}

static void json_dims(const wf_tensor *t, FILE *f)
{
	putc('[', f);
	for (int i = 0; i < t->ndim; i++)
		if (t->dim[i] < 0)
			fprintf(f, "%s\"%c\"", i ? ", " : "", "TSR"[-1 - t->dim[i]]);
		else
			fprintf(f, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
	putc(']', f);
}

static void json_number(double v, FILE *f)
{
	if (v - v == 0)
		fprintf(f, "%.17g", v);
	else
		fputs("null", f);
}

static void json_attributes(const wf_tensor *t, FILE *f)
{
	struct wf_attr_info info;

	putc('{', f);
	for (int k = 0; !wf_attr_info(t->op, k, &info); k++) {
		fprintf(f, "%s\"%.*s\": ", k ? ", " : "", (int)info.len, info.name);
		json_number(t->attr[k], f);
	}
	putc('}', f);
}

static void json_place(const wf_plan *plan, const wf_tensor *t, FILE *f)
{
	const struct wf_value *v = &plan->value[t->id];

	fprintf(f, ", \"kernel\": %d, \"stored\": %s", v->kernel, v->stored ? "true" : "false");
	if (v->stored)
		fprintf(f, ", \"bytes\": %lld, \"first\": %d, \"last\": %d", (long long)v->bytes, v->first, v->last);
	if (v->stored && plan->stage >= PLAN_PLACE)
		fprintf(f, ", \"offset\": %lld, \"alias\": %s", (long long)v->offset, v->alias ? "true" : "false");
}

static void json_node(const wf_plan *plan, const wf_tensor *t, FILE *f)
{
	fprintf(f, "    {\"id\": %d, \"op\": \"%s\", \"kind\": \"%s\", \"type\": \"%s\", \"dims\": ", t->id, t->op->name,
		wf_kind_names[t->op->kind], wf_dtypes[t->dtype].name);
	json_dims(t, f);
	fputs(", \"in\": [", f);
	for (int k = 0; k < t->nin; k++)
		fprintf(f, k ? ", %d" : "%d", t->in[k]->id);
	fputs("], \"attributes\": ", f);
	json_attributes(t, f);
	fprintf(f, ", \"constant\": %s, \"name\": ", t->constant ? "true" : "false");
	dump_string(f, t->name);
	fputs(", \"scope\": ", f);
	dump_string(f, t->scope);
	if (plan->stage >= PLAN_FUSE)
		json_place(plan, t, f);
	putc('}', f);
}

static void json_list(wf_tensor *const *node, int n, FILE *f)
{
	putc('[', f);
	for (int i = 0; i < n; i++)
		fprintf(f, i ? ", %d" : "%d", node[i]->id);
	putc(']', f);
}

static void json_kernel(const wf_kernel *kernel, FILE *f)
{
	char label[256];

	fprintf(f, "    {\"id\": %d, \"kind\": \"%s\", \"label\": \"%s\", \"twin\": %d, \"hash\": \"%016llx%016llx\", "
		"\"anchor\": %d, \"nodes\": ", kernel->id, wf_kind_names[kernel->kind], kernel_label(kernel, label, sizeof label),
		kernel->twin, (unsigned long long)kernel->hash[1], (unsigned long long)kernel->hash[0], kernel->anchor->id);
	json_list(kernel->node, kernel->nnode, f);
	fputs(", \"reads\": ", f);
	json_list(kernel->in, kernel->nin, f);
	fputs(", \"writes\": ", f);
	json_list(kernel->out, kernel->nout, f);
	fprintf(f, ", \"flops\": %.0f, \"bytes_weight\": %.0f, \"bytes_in\": %.0f, \"bytes_out\": %.0f, \"bytes_kv\": %.0f, "
		"\"saved\": %lld}", kernel->cost.flops, kernel->cost.bytes_weight, kernel->cost.bytes_in, kernel->cost.bytes_out,
		kernel->cost.bytes_kv, (long long)kernel->saved);
}

static void json_note(const struct wf_note *note, FILE *f)
{
	fputs("    {\"pass\": ", f);
	dump_string(f, note->pass);
	fputs(", \"rule\": ", f);
	dump_string(f, note->rule);
	fputs(", \"blocker\": ", f);
	dump_string(f, note->text);
	fprintf(f, ", \"from\": %d, \"to\": %d, \"bytes\": %lld, \"kernel\": %d}", note->from ? note->from->id : -1,
		note->to ? note->to->id : -1, (long long)note->bytes, note->kernel);
}

int wf_plan_json(const wf_plan *plan, FILE *f)
{
	const wf_graph *g = plan->g;

	fputs("{\n  \"model\": ", f);
	dump_string(f, g->name);
	fprintf(f, ",\n  \"stage\": \"%s\",\n  \"activations\": \"%s\",\n  \"sums\": \"%s\",\n  \"cache\": \"%s\",\n"
		"  \"tokens\": %lld,\n  \"seqs\": %lld,\n  \"rows\": %lld,\n  \"arena\": %lld,\n  \"live\": %lld,\n  \"nodes\": [\n",
		plan_stage_names[plan->stage], wf_dtypes[g->act].name, wf_dtypes[g->sum].name, wf_dtypes[g->kvtype].name,
		(long long)plan->opt.max_tokens, (long long)plan->opt.max_seqs, (long long)plan->opt.max_rows,
		(long long)plan->arena_bytes, (long long)plan->live_bytes);
	for (int i = 0; i < g->nnode; i++) {
		json_node(plan, g->node[i], f);
		fputs(i + 1 < g->nnode ? ",\n" : "\n", f);
	}
	fputs("  ],\n  \"outputs\": {", f);
	for (int i = 0; i < g->nout; i++)
		fprintf(f, "%s\"%s\": %d", i ? ", " : "", g->out[i].name, g->out[i].t->id);
	fputs("},\n  \"kernels\": [\n", f);
	for (int k = 0; k < plan->nkernel; k++) {
		json_kernel(&plan->kernel[k], f);
		fputs(k + 1 < plan->nkernel ? ",\n" : "\n", f);
	}
	fputs("  ],\n  \"notes\": [\n", f);
	for (int i = 0; i < plan->nnote; i++) {
		json_note(&plan->note[i], f);
		fputs(i + 1 < plan->nnote ? ",\n" : "\n", f);
	}
	fputs("  ]\n}\n", f);
	return ferror(f) ? wf_fail(plan->err, "dump: cannot write") : 0;
}
