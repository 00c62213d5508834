/* dump_html.c - a plan as one page that opens from disk: kernels by layer, equal layers once, each with
 * its members, traffic, lifetime in the activation buffer, forecast and the reasons for its shape. */
#include "graph/graph.h"
#include <string.h>

struct page {
	const wf_plan *plan;
	const struct wf_device *device;       /* NULL: no forecast */
	FILE *f;
	double most;                          /* the dearest kernel: seconds, or bytes without a device */
	double total;                         /* of all */
};

static const char *const traffic_names[] = {"weights", "in", "out", "keys and values"};
static const char *const traffic_colours[] = {"dot", "row", "map", "attend"};

/* ---- words ---- */

static void text(FILE *f, const char *s)
{
	for (; s && *s; s++)
		switch (*s) {
		case '<': fputs("&lt;", f); break;
		case '>': fputs("&gt;", f); break;
		case '&': fputs("&amp;", f); break;
		case '"': fputs("&quot;", f); break;
		default: putc(*s, f);
		}
}

static const char *bytes(double n, char out[32])
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	int u = 0;

	for (; n >= 1000 && u < 4; u++)
		n /= 1024;
	snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", n, unit[u]);
	return out;
}

static const char *seconds(double s, char out[32])
{
	snprintf(out, 32, s >= 1 ? "%.2f s" : s >= 1e-3 ? "%.2f ms" : "%.2f µs", s * (s >= 1 ? 1 : s >= 1e-3 ? 1e3 : 1e6));
	return out;
}

/* "repack(cat(@blk.0.attn_q.weight, @blk.0.attn_k.weight))" */
static void constant(FILE *f, const wf_tensor *t)
{
	if (t->name) {
		fprintf(f, "@%s", t->name);
		return;
	}
	fputs(t->op->name, f);
	for (int k = 0; k < t->nin; k++) {
		fputs(k ? ", " : "(", f);
		constant(f, t->in[k]);
	}
	fputs(t->nin ? ")" : "", f);
}

static void attributes(FILE *f, const wf_tensor *t)
{
	struct wf_attr_info info;

	for (int k = 0; !wf_attr_info(t->op, k, &info); k++)
		if (!info.has_absent || t->attr[k] != info.absent)
			fprintf(f, " %.*s=%g", (int)info.len, info.name, t->attr[k]);
}

static void operand(FILE *f, const wf_tensor *t)
{
	if (t->constant)
		constant(f, t);
	else if (t->op == &wf_op_input)
		fprintf(f, "$%s", t->name);
	else
		fprintf(f, "%%%d", t->id);
}

static void traffic(const struct wf_cost *c, double out[4])
{
	out[0] = c->bytes_weight;
	out[1] = c->bytes_in;
	out[2] = c->bytes_out;
	out[3] = c->bytes_kv;
}

static double moved(const struct wf_cost *c)
{
	return c->bytes_weight + c->bytes_in + c->bytes_out + c->bytes_kv;
}

static double price(const struct page *p, const wf_kernel *kernel)
{
	return p->device ? cost_seconds(kernel->cost, p->device) : moved(&kernel->cost);
}

static const char *price_text(const struct page *p, double v, char out[32])
{
	return p->device ? seconds(v, out) : bytes(v, out);
}

/* ---- summary ---- */

static void card(FILE *f, const char *value, const char *what)
{
	fprintf(f, "<div class=card><b>%s</b><span>%s</span></div>\n", value, what);
}

static void cards(const struct page *p)
{
	const wf_plan *plan = p->plan;
	char value[64], what[96], size[32];
	double saved = 0, weights = 0;
	int distinct = 0;

	for (int k = 0; k < plan->nkernel; k++) {
		saved += (double)plan->kernel[k].saved;
		weights += plan->kernel[k].cost.bytes_weight;
		distinct += plan->kernel[k].twin == k;
	}
	fputs("<div class=cards>\n", p->f);
	snprintf(value, sizeof value, "%d", plan->nkernel);
	snprintf(what, sizeof what, "kernels from %d nodes, %d distinct", plan->g->nnode, distinct);
	card(p->f, value, what);
	if (plan->stage >= PLAN_PLACE) {
		snprintf(what, sizeof what, "activations, %.2f %% over the lower bound", plan->live_bytes ?
			100. * (double)(plan->arena_bytes - plan->live_bytes) / (double)plan->live_bytes : 0);
		card(p->f, bytes((double)plan->arena_bytes, size), what);
	}
	card(p->f, bytes(weights, size), "weights read in a step");
	card(p->f, bytes(saved, size), "traffic that fusion saves in a step");
	if (p->device) {
		snprintf(what, sizeof what, "forecast of a full step on %s", p->device->name);
		card(p->f, seconds(p->total, size), what);
	}
	fputs("</div>\n", p->f);
}

/* Distinct kernels with what all of their kind take. */
static void shares(const struct page *p)
{
	const wf_plan *plan = p->plan;
	char label[256], size[32], cost[32];

	fprintf(p->f, "<h2>Where a step goes</h2>\n<div class=panel><table><tr><th>kernel<th>times<th>moves<th>%s<th>share<th>\n",
		p->device ? "forecast" : "in all");
	for (int k = 0; k < plan->nkernel; k++) {
		double sum = 0, amount = 0;
		int n = 0;
		if (plan->kernel[k].twin != k)
			continue;
		for (int i = k; i < plan->nkernel; i++)
			if (plan->kernel[i].twin == k) {
				n++;
				sum += price(p, &plan->kernel[i]);
				amount += moved(&plan->kernel[i].cost);
			}
		fprintf(p->f, "<tr><td><a href=#k%d>%s</a><td>%d<td>%s<td>%s<td>%.1f %%<td class=share><div class=bar>"
			"<i style=\"width:%.2f%%;background:var(--%s)\"></i></div>\n", k, kernel_label(&plan->kernel[k], label, sizeof label),
			n, bytes(amount, size), price_text(p, sum, cost), 100 * sum / p->total, 100 * sum / p->total,
			wf_kind_names[plan->kernel[k].kind]);
	}
	fputs("</table></div>\n", p->f);
}

/* ---- the activation buffer ---- */

static void buffer(const struct page *p)
{
	enum { WIDE = 1120, HIGH = 260 };
	const wf_plan *plan = p->plan;
	double x = (double)WIDE / plan->nkernel, y = (double)HIGH / (plan->arena_bytes ? (double)plan->arena_bytes : 1);
	char size[32];

	fprintf(p->f, "<h2>Activation buffer</h2>\n<div class=panel><svg viewBox=\"0 0 %d %d\" preserveAspectRatio=none "
		"style=\"height:%dpx\">\n", WIDE, HIGH, HIGH);
	for (int i = 0; i < plan->g->nnode; i++) {
		const struct wf_value *v = &plan->value[i];
		const wf_tensor *t = plan->g->node[i];
		if (!v->stored || v->alias)
			continue;
		fprintf(p->f, "<a href=#k%d><rect x=%.2f y=%.2f width=%.2f height=%.2f style=\"fill:var(--%s)\"><title>%%%d %s ",
			plan->kernel[v->kernel].twin, x * v->first, y * (double)v->offset, x * (v->last - v->first + 1), y * (double)v->bytes,
			wf_kind_names[plan->kernel[v->kernel].kind], i, t->op->name);
		text_type(p->f, t);
		fprintf(p->f, ", %s at %lld, kernels %d to %d</title></rect></a>\n", bytes((double)v->bytes, size),
			(long long)v->offset, v->first, v->last);
	}
	fprintf(p->f, "</svg><div class=key><span>across: kernels 0 to %d in the order they run</span><span>down: offset, 0 to %s"
		"</span><span>colour: the kernel that writes</span></div></div>\n", plan->nkernel - 1,
		bytes((double)plan->arena_bytes, size));
}

/* ---- a kernel ---- */

static void chips(const struct page *p, const wf_kernel *kernel)
{
	fputs("<div class=flow>", p->f);
	for (int i = 0; i < kernel->nnode; i++) {
		const wf_tensor *t = kernel->node[i];
		fprintf(p->f, "<span class=\"chip%s\" style=\"--k:var(--%s)\" title=\"", t == kernel->anchor ? " anchor" : "",
			wf_kind_names[t->op->kind]);
		text(p->f, t->op->doc);
		if (t->op->doc)
			putc(' ', p->f);
		attributes(p->f, t);
		fprintf(p->f, "\">%s<small>%%%d ", t->op->name, t->id);
		text_type(p->f, t);
		fputs("</small></span>", p->f);
	}
	fputs("</div>\n", p->f);
}

static void reads(const struct page *p, const wf_kernel *kernel)
{
	fputs("<dl>", p->f);
	for (int i = 0; i < kernel->nin; i++) {
		fprintf(p->f, "<dt>%s<dd class=mono>", i ? "" : "reads");
		operand(p->f, kernel->in[i]);
		putc(' ', p->f);
		text_type(p->f, kernel->in[i]);
	}
	fputs("</dl>\n", p->f);
}

/* Its life as a bar over all kernels. */
static void written(const struct page *p, const wf_tensor *t, bool first)
{
	const wf_plan *plan = p->plan;
	const struct wf_value *v = &plan->value[t->id];
	char size[32];

	fprintf(p->f, "<dt>%s<dd><span class=mono>%%%d ", first ? "writes" : "", t->id);
	text_type(p->f, t);
	fprintf(p->f, "</span> %s", bytes((double)v->bytes, size));
	if (plan->stage >= PLAN_PLACE)
		fprintf(p->f, v->alias ? ", a view" : " at %lld", (long long)v->offset);
	fprintf(p->f, ", read until kernel %d<div class=life><svg viewBox=\"0 0 %d 14\" preserveAspectRatio=none style=\"height:14px\">"
		"<rect x=%d y=3 width=%d height=8 rx=1 style=\"fill:var(--%s)\"/></svg></div>", v->last, plan->nkernel, v->first,
		v->last - v->first + 1, wf_kind_names[plan->kernel[v->kernel].kind]);
}

static void writes(const struct page *p, const wf_kernel *kernel)
{
	bool first = true;

	fputs("<dl>", p->f);
	for (int i = 0; i < kernel->nout; i++, first = false)
		written(p, kernel->out[i], first);
	for (int i = 0; i < kernel->nnode; i++)
		if (kernel->node[i]->op->state) {
			fprintf(p->f, "<dt>%s<dd>the KV cache, <span class=mono>", first ? "writes" : "");
			text_type(p->f, kernel->node[i]);
			fputs("</span>", p->f);
			first = false;
		}
	fputs("</dl>\n", p->f);
}

static void traffic_bar(const struct page *p, const wf_kernel *kernel)
{
	double part[4], all = moved(&kernel->cost);
	char size[32];

	traffic(&kernel->cost, part);
	fprintf(p->f, "<div class=bar style=\"width:%.1f%%;margin-top:10px\">", p->most > 0 ? 100 * price(p, kernel) / p->most : 0);
	for (int i = 0; i < 4; i++)
		if (part[i] > 0)
			fprintf(p->f, "<i style=\"width:%.2f%%;background:var(--%s)\"></i>", 100 * part[i] / all, traffic_colours[i]);
	fputs("</div><div class=key>", p->f);
	for (int i = 0; i < 4; i++)
		if (part[i] > 0)
			fprintf(p->f, "<span><i style=\"background:var(--%s)\"></i>%s %s</span>", traffic_colours[i], traffic_names[i],
				bytes(part[i], size));
	fprintf(p->f, "<span>fusion saves %s</span><span>%.3g MFLOP</span></div>\n", bytes((double)kernel->saved, size),
		kernel->cost.flops / 1e6);
}

static void place_of(FILE *f, const wf_tensor *t)
{
	const wf_tensor *w = t->op->kind == WF_DOT && t->nin ? t->in[0] : NULL;

	while (w && w->nin && !w->name)
		w = w->in[0];
	text(f, t->op->name);
	if (w && w->name)
		fprintf(f, " <code>@%s</code>", w->name);
	else if (t->id >= 0)
		fprintf(f, " <code>%%%d</code>", t->id);
}

static void note_line(const struct page *p, const struct wf_note *note, int times)
{
	char size[32];

	fprintf(p->f, "<li class=%s><b>", note->text ? "no" : "yes");
	text(p->f, note->rule);
	fputs("</b>", p->f);
	if (times > 1)
		fprintf(p->f, ", %d times", times);
	if (note->from && note->to) {
		fputs(": ", p->f);
		place_of(p->f, note->from);
		fputs(" → ", p->f);
		place_of(p->f, note->to);
	}
	if (note->text) {
		fputs(", <em>", p->f);
		text(p->f, note->text);
		fputs("</em>", p->f);
	} else if (note->bytes) {
		fprintf(p->f, ", saves %s", bytes((double)note->bytes, size));
	}
	fputs("</li>\n", p->f);
}

static void notes(const struct page *p, int kernel)
{
	const wf_plan *plan = p->plan;
	bool any = false;

	for (int i = 0; i < plan->nnote; i++) {
		if (plan->note[i].kernel != kernel)
			continue;
		if (!any)
			fputs("<ul class=notes>\n", p->f);
		any = true;
		note_line(p, &plan->note[i], 1);
	}
	if (any)
		fputs("</ul>\n", p->f);
}

static void kernel_card(const struct page *p, const wf_kernel *kernel)
{
	char label[256], cost[32];
	const char *kind = wf_kind_names[kernel->kind];

	fprintf(p->f, "<article class=kernel id=k%d style=\"--k:var(--%s)\"><div class=head><a class=num href=#k%d>%d</a><b>%s</b>"
		"<span class=kind>%s</span><span class=mono>", kernel->id, kind, kernel->id, kernel->id,
		kernel_label(kernel, label, sizeof label), kind);
	text(p->f, kernel->anchor->scope);
	fprintf(p->f, "</span><span class=right><b>%s</b>%s", price_text(p, price(p, kernel), cost), p->device ? "" : " moved");
	if (p->device)
		fprintf(p->f, " %s", kernel->cost.flops / p->device->flops_s > moved(&kernel->cost) / p->device->read_bytes_s ?
			"bound by arithmetic" : "bound by memory");
	fputs("</span></div>\n", p->f);
	chips(p, kernel);
	fputs("<div class=grid>", p->f);
	reads(p, kernel);
	writes(p, kernel);
	fputs("</div>", p->f);
	traffic_bar(p, kernel);
	notes(p, kernel->id);
	fputs("</article>\n", p->f);
}

/* Before fusion a unit is one node. */
static void node_card(const struct page *p, int u)
{
	int n;
	const wf_tensor *t = plan_unit(p->plan, u, &n)[0];

	fprintf(p->f, "<article class=\"kernel node\" id=k%d style=\"--k:var(--%s)\"><div class=head><a class=num href=#k%d>%%%d</a><b>%s</b>"
		"<span class=kind>%s</span><span class=mono>", u, wf_kind_names[t->op->kind], u, t->id, t->op->name,
		wf_kind_names[t->op->kind]);
	for (int k = 0; k < t->nin; k++) {
		fputs(k ? ", " : "", p->f);
		operand(p->f, t->in[k]);
	}
	attributes(p->f, t);
	fputs("</span><span class=\"right mono\">", p->f);
	text_type(p->f, t);
	fputs("</span></div></article>\n", p->f);
}

/* ---- layers ---- */

static void layer(const struct page *p, const struct layer *l)
{
	const wf_plan *plan = p->plan;
	bool fused = plan->stage >= PLAN_FUSE;
	double sum = 0, weights = 0;
	char cost[32], size[32];

	for (int u = l->first; fused && u < l->first + l->n; u++) {
		sum += price(p, &plan->kernel[u]);
		weights += plan->kernel[u].cost.bytes_weight;
	}
	fprintf(p->f, "<details class=layer open><summary><b>%.*s", l->len ? l->len : 5, l->len ? l->name : "start");
	if (l->repeat > 1)
		fprintf(p->f, " … %.*s</b><span class=times>× %d</span><span>all alike:", l->last_len, l->last, l->repeat);
	else
		fputs("</b><span>", p->f);
	fprintf(p->f, " %d %s</span>", l->n, fused ? l->n > 1 ? "kernels" : "kernel" : l->n > 1 ? "nodes" : "node");
	if (fused)
		fprintf(p->f, "<span>%s weights</span><span>%s%s</span>", bytes(weights, size), price_text(p, sum, cost),
			p->device ? " forecast" : " moved");
	fputs("</summary>\n", p->f);
	for (int u = l->first; u < l->first + l->n; u++)
		if (fused)
			kernel_card(p, &plan->kernel[u]);
		else
			node_card(p, u);
	fputs("</details>\n", p->f);
}

static bool same_note(const struct wf_note *a, const struct wf_note *b)
{
	const char *x = a->text ? a->text : "", *y = b->text ? b->text : "";

	return a->kernel < 0 && b->kernel < 0 && !strcmp(a->pass, b->pass) && !strcmp(a->rule, b->rule) && !strcmp(x, y);
}

/* What earlier passes did to the graph, equal notes once. */
static void passes(const struct page *p)
{
	const wf_plan *plan = p->plan;

	fputs("<h2>Passes</h2>\n<div class=panel><ul class=notes style=\"border:0;margin:0;padding:0\">\n", p->f);
	for (int i = 0; i < plan->nnote; i++) {
		int times = 0, first = i;
		if (plan->note[i].kernel >= 0)
			continue;
		for (int k = plan->nnote - 1; k >= 0; k--)
			if (same_note(&plan->note[i], &plan->note[k])) {
				times++;
				first = k;
			}
		if (first == i)
			note_line(p, &plan->note[i], times);
	}
	fputs("</ul></div>\n", p->f);
}

/* ---- the page ---- */

static void head(const struct page *p)
{
	const wf_plan *plan = p->plan;
	const wf_graph *g = plan->g;

	fputs("<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">"
		"<title>", p->f);
	text(p->f, g->name);
	fprintf(p->f, " after %s</title>\n<style>\n%s</style></head><body>\n<header><h1>", plan_stage_names[plan->stage], dump_style);
	text(p->f, g->name);
	fprintf(p->f, "</h1><p>after <b>%s</b> · activations %s · cache %s · steps of up to %lld tokens, %lld sequence%s, %lld row%s"
		"</p><span id=count></span><input id=q type=search placeholder=\"Find kernels  ( / )\" aria-label=Find>"
		"<button id=theme title=\"light or dark ( t )\">◐</button></header>\n<main>\n", plan_stage_names[plan->stage],
		wf_dtypes[g->act].name, wf_dtypes[g->kvtype].name, (long long)plan->opt.max_tokens,
		(long long)plan->opt.max_seqs, plan->opt.max_seqs > 1 ? "s" : "", (long long)plan->opt.max_rows,
		plan->opt.max_rows > 1 ? "s" : "");
}

int wf_plan_html(const wf_plan *plan, const struct wf_device *device, FILE *f)
{
	struct page p = {.plan = plan, .device = device && device->read_bytes_s > 0 ? device : NULL, .f = f};
	struct layer *list;
	int n;

	if (plan_layers(plan, &list, &n))
		return -1;
	for (int k = 0; k < plan->nkernel; k++) {
		double v = price(&p, &plan->kernel[k]);
		p.total += v;
		p.most = v > p.most ? v : p.most;
	}
	head(&p);
	if (plan->stage >= PLAN_FUSE) {
		cards(&p);
		shares(&p);
	}
	if (plan->stage >= PLAN_PLACE && plan->nkernel)
		buffer(&p);
	fprintf(f, "<h2>%s</h2>\n", plan->stage >= PLAN_FUSE ? "Kernels, in the order they run" : "Graph");
	for (int i = 0; i < n; i++)
		layer(&p, &list[i]);
	if (plan->nnote)
		passes(&p);
	fprintf(f, "<footer><kbd>/</kbd> find · <kbd>Enter</kbd> next · <kbd>j</kbd> <kbd>k</kbd> step · <kbd>o</kbd> fold · "
		"<kbd>t</kbd> light or dark</footer></main>\n<script>\n%s</script></body></html>\n", dump_script);
	return ferror(f) ? wf_fail(plan->err, "dump: cannot write") : 0;
}
