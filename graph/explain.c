/* explain.c - why each group was fused: the rules that joined it, what that saves, what it costs; and
 * every edge that was tried and left, with what stood in the way.  Equal kernels are shown once. */
#include "graph/graph.h"
#include <string.h>

/* ---- labels ---- */

static bool is_silent(const wf_kernel *kernel, const wf_tensor *t)
{
	return t != kernel->anchor && t->op->kind == WF_MOVE && !t->op->state;
}

const char *kernel_label(const wf_kernel *kernel, char *out, size_t cap)
{
	size_t len = 0;

	out[0] = 0;
	for (int i = 0; i < kernel->nnode; i++) {
		const wf_tensor *t = kernel->node[i];
		bool again = is_silent(kernel, t);
		for (int k = 0; k < i && !again; k++)
			again = kernel->node[k]->op == t->op && !is_silent(kernel, kernel->node[k]);
		if (!again && len < cap)
			len += (size_t)snprintf(out + len, cap - len, "%s%s", len ? "+" : "", t->op->name);
	}
	return out;
}

static const char *node_label(const wf_tensor *t, char *out, size_t cap)
{
	const wf_tensor *w = t->nin ? t->in[0] : t;

	while (w->nin && !w->name)
		w = w->in[0];
	if (t->op->kind == WF_DOT && w->name)
		snprintf(out, cap, "%s @%s", t->op->name, w->name);
	else
		snprintf(out, cap, "%s%s%s", t->op->name, t->scope && *t->scope ? " " : "", t->scope ? t->scope : "");
	return out;
}

static const char *size_label(double bytes, char *out, size_t cap)
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB"};
	int u = 0;

	for (; bytes >= 1000 && u < 3; u++)
		bytes /= 1024;
	snprintf(out, cap, u ? "%.1f %s" : "%.0f %s", bytes, unit[u]);
	return out;
}

static double bytes_moved(const struct wf_cost *c)
{
	return c->bytes_weight + c->bytes_in + c->bytes_out + c->bytes_kv;
}

static bool has_speed(const struct wf_device *device)
{
	return device && device->read_bytes_s > 0;
}

static int twins(const wf_plan *plan, int k)
{
	int n = 0;

	for (int i = k; i < plan->nkernel; i++)
		n += plan->kernel[i].twin == k;
	return n;
}

/* ---- text ---- */

static void print_notes(const wf_plan *plan, int kernel, FILE *f)
{
	char from[160], to[160], bytes[32];

	for (int i = 0; i < plan->nnote; i++) {
		const struct wf_note *note = &plan->note[i];
		if (note->kernel != kernel || !note->from || !note->to)
			continue;
		fprintf(f, "    %c %-24s %s -> %s", note->text ? '-' : '+', note->rule, node_label(note->from, from, sizeof from),
			node_label(note->to, to, sizeof to));
		if (note->text)
			fprintf(f, ": %s\n", note->text);
		else
			fprintf(f, ", saves %s\n", size_label((double)note->bytes, bytes, sizeof bytes));
	}
}

static void print_kernel(const wf_plan *plan, const wf_kernel *kernel, const struct wf_device *device, FILE *f)
{
	char label[256], moved[32], saved[32];
	int alike = twins(plan, kernel->id);

	fprintf(f, "kernel %d  %s  (%s", kernel->id, kernel_label(kernel, label, sizeof label), wf_kind_names[kernel->kind]);
	fprintf(f, alike > 1 ? ", %d alike)\n   " : ")\n   ", alike);
	for (int i = 0; i < kernel->nnode; i++)
		fprintf(f, " %s%%%d %s", kernel->node[i] == kernel->anchor ? "*" : "", kernel->node[i]->id,
			kernel->node[i]->op->name);
	fprintf(f, "\n    moves %s, saves %s", size_label(bytes_moved(&kernel->cost), moved, sizeof moved),
		size_label((double)kernel->saved, saved, sizeof saved));
	if (has_speed(device))
		fprintf(f, ", forecast %.2f us on %s", cost_seconds(kernel->cost, device) * 1e6, device->name);
	putc('\n', f);
	print_notes(plan, kernel->id, f);
	putc('\n', f);
}

static bool same_note(const struct wf_note *a, const struct wf_note *b)
{
	const char *x = a->text ? a->text : "", *y = b->text ? b->text : "";

	return !strcmp(a->pass, b->pass) && !strcmp(a->rule, b->rule) && !strcmp(x, y);
}

/* Notes of passes before fusion, equal ones counted. */
static void print_passes(const wf_plan *plan, FILE *f)
{
	char bytes[32], from[160], to[160];

	for (int i = 0; i < plan->nnote; i++) {
		const struct wf_note *note = &plan->note[i];
		int count = 0, before = 0;
		int64_t sum = 0;
		if (note->kernel >= 0)
			continue;
		for (int k = 0; k < plan->nnote; k++)
			if (plan->note[k].kernel < 0 && same_note(note, &plan->note[k])) {
				before += k < i;
				count++;
				sum += plan->note[k].bytes;
			}
		if (before)
			continue;
		fprintf(f, "%-8s %c %s", note->pass, note->text ? '-' : '+', note->rule);
		if (count > 1)
			fprintf(f, ", %d times", count);
		if (note->from && note->to)
			fprintf(f, ": %s, %s", node_label(note->from, from, sizeof from), node_label(note->to, to, sizeof to));
		if (note->text)
			fprintf(f, ": %s", note->text);
		else if (sum)
			fprintf(f, ", saves %s", size_label((double)sum, bytes, sizeof bytes));
		putc('\n', f);
	}
}

static void print_text(const wf_plan *plan, const struct wf_device *device, FILE *f)
{
	char arena[32], live[32], saved[32];
	int distinct = 0;
	int64_t sum = 0;

	for (int k = 0; k < plan->nkernel; k++) {
		distinct += plan->kernel[k].twin == k;
		sum += plan->kernel[k].saved;
	}
	fprintf(f, "%s after %s: %d nodes in %d kernel%s, %d distinct; a step of %lld tokens saves %s of traffic\n",
		plan->g->name, plan_stage_names[plan->stage], plan->g->nnode, plan->nkernel, plan->nkernel == 1 ? "" : "s", distinct,
		(long long)plan->opt.max_tokens, size_label((double)sum, saved, sizeof saved));
	if (plan->stage >= PLAN_PLACE)
		fprintf(f, "activations in %s, lower bound %s (%+.2f %%)\n", size_label((double)plan->arena_bytes, arena, sizeof arena),
			size_label((double)plan->live_bytes, live, sizeof live),
			plan->live_bytes ? 100. * (double)(plan->arena_bytes - plan->live_bytes) / (double)plan->live_bytes : 0);
	putc('\n', f);
	print_passes(plan, f);
	putc('\n', f);
	for (int k = 0; k < plan->nkernel; k++)
		if (plan->kernel[k].twin == k)
			print_kernel(plan, &plan->kernel[k], device, f);
}

/* ---- JSON ---- */

static void json_notes(const wf_plan *plan, int kernel, FILE *f)
{
	const char *comma = "";

	putc('[', f);
	for (int i = 0; i < plan->nnote; i++) {
		const struct wf_note *note = &plan->note[i];
		if (note->kernel != kernel)
			continue;
		fprintf(f, "%s\n      {\"pass\": ", comma);
		dump_string(f, note->pass);
		fputs(", \"rule\": ", f);
		dump_string(f, note->rule);
		fprintf(f, ", \"done\": %s, \"blocker\": ", note->text ? "false" : "true");
		dump_string(f, note->text);
		fprintf(f, ", \"from\": %d, \"to\": %d, \"bytes\": %lld}", note->from ? note->from->id : -1,
			note->to ? note->to->id : -1, (long long)note->bytes);
		comma = ",";
	}
	putc(']', f);
}

static void json_kernel(const wf_plan *plan, const wf_kernel *kernel, const struct wf_device *device, FILE *f)
{
	char label[256];

	fprintf(f, "    {\"id\": %d, \"twin\": %d, \"kind\": \"%s\", \"label\": ", kernel->id, kernel->twin,
		wf_kind_names[kernel->kind]);
	dump_string(f, kernel_label(kernel, label, sizeof label));
	fprintf(f, ", \"anchor\": %d, \"nodes\": [", kernel->anchor->id);
	for (int i = 0; i < kernel->nnode; i++)
		fprintf(f, i ? ", %d" : "%d", kernel->node[i]->id);
	fprintf(f, "], \"saved\": %lld, \"moved\": %.0f, \"flops\": %.0f", (long long)kernel->saved,
		bytes_moved(&kernel->cost), kernel->cost.flops);
	if (has_speed(device))
		fprintf(f, ", \"forecast_us\": %.3f", cost_seconds(kernel->cost, device) * 1e6);
	fputs(", \"notes\": ", f);
	json_notes(plan, kernel->id, f);
	putc('}', f);
}

static void print_json(const wf_plan *plan, const struct wf_device *device, FILE *f)
{
	fputs("{\n  \"model\": ", f);
	dump_string(f, plan->g->name);
	fprintf(f, ",\n  \"stage\": \"%s\",\n  \"arena\": %lld,\n  \"live\": %lld,\n  \"device\": ", plan_stage_names[plan->stage],
		(long long)plan->arena_bytes, (long long)plan->live_bytes);
	dump_string(f, has_speed(device) ? device->name : NULL);
	fputs(",\n  \"notes\": ", f);
	json_notes(plan, -1, f);
	fputs(",\n  \"kernels\": [\n", f);
	for (int k = 0; k < plan->nkernel; k++) {
		json_kernel(plan, &plan->kernel[k], device, f);
		fputs(k + 1 < plan->nkernel ? ",\n" : "\n", f);
	}
	fputs("  ]\n}\n", f);
}

int wf_plan_explain(const wf_plan *plan, const struct wf_device *device, FILE *f, bool json)
{
	if (plan->stage < PLAN_FUSE)
		return wf_fail(plan->err, "explain: the plan stops after %s, before nodes are fused", plan_stage_names[plan->stage]);
	(json ? print_json : print_text)(plan, device, f);
	return ferror(f) ? wf_fail(plan->err, "explain: cannot write") : 0;
}
