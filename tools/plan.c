/* plan.c - the memory of a run, proven before a byte is loaded, and a forecast of its speed.
 *
 * Weights as the kernels read them (each layout counted once), the activation buffer, KV pages, and on
 * a GPU what its context and modules take.  --fit searches for the most that a device holds. */
#include "tools/weft.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

enum { PAGE_TOKENS = 64 };

/* A CUDA context, its libraries and the modules of the kernels: an allowance, not a reading. */
static const double RESERVE = 640. * 1024 * 1024;

struct kind { wf_dtype dtype; bool packed; int n; double bytes; };

struct account {
	struct kind kind[2 * WF_NDTYPE];
	int nkind;
	double weights, activations, kv, reserve, total;
	int64_t npage;
	int page_tokens;
	double token_bytes;                   /* of one token's keys and values */
	double prompt_s, decode_s;            /* of a step; 0 no forecast */
	double decode_bytes_s, prompt_flops;  /* the step's bytes and operations */
};

struct planner {
	struct session *s;
	const struct options *o;
	struct wf_device device;
	bool has_device;
	int64_t batch, ctx, step;
	struct account a;
};

/* ---- memory ---- */

static struct kind *find_kind(struct account *a, wf_dtype dtype, bool packed)
{
	for (int i = 0; i < a->nkind; i++)
		if (a->kind[i].dtype == dtype && a->kind[i].packed == packed)
			return &a->kind[i];
	a->kind[a->nkind] = (struct kind){.dtype = dtype, .packed = packed};
	return &a->kind[a->nkind++];
}

/* Every constant that a kernel reads, once. */
static int count_weights(struct planner *p)
{
	const wf_plan *plan = p->s->plan;
	bool *seen = calloc((size_t)plan->g->nnode + 1, sizeof *seen);

	if (!seen)
		return wf_fail(&p->s->err, "out of memory");
	for (int k = 0; k < plan->nkernel; k++)
		for (int i = 0; i < plan->kernel[k].nin; i++) {
			const wf_tensor *t = plan->kernel[k].in[i];
			if (!t->constant || seen[t->id])
				continue;
			seen[t->id] = true;
			struct kind *kind = find_kind(&p->a, t->dtype, t->nin > 0);
			kind->n++;
			kind->bytes += wf_bytes(t);
		}
	free(seen);
	for (int i = 0; i < p->a.nkind; i++)
		p->a.weights += p->a.kind[i].bytes;
	return 0;
}

/* As the runner makes its slab: pages for all tokens, and one part-filled page per sequence. */
static void count_pages(struct planner *p)
{
	const wf_plan *plan = p->s->plan;
	struct account *a = &p->a;

	a->page_tokens = p->o->page ? (int)p->o->page : PAGE_TOKENS;
	for (int c = 0; c < plan->nkvclass; c++) {
		const struct wf_kvclass *cls = &plan->kvclass[c];
		int64_t each = p->ctx;
		if (cls->window && cls->window + p->step < each)
			each = cls->window + p->step;
		int64_t npage = (each * p->batch + a->page_tokens - 1) / a->page_tokens + p->batch;
		double page = (double)slab_page_bytes(cls, a->page_tokens);
		a->npage += npage;
		a->kv += (double)npage * page;
		a->token_bytes += page / a->page_tokens;
	}
}

/* ---- speed ---- */

static double step_seconds(struct planner *p, const struct wf_sizes *at, double *bytes, double *flops)
{
	wf_plan *plan = p->s->plan;
	double seconds = 0;

	plan_cost_at(plan, at);
	*bytes = *flops = 0;
	for (int k = 0; k < plan->nkernel; k++) {
		const struct wf_cost *c = &plan->kernel[k].cost;
		seconds += cost_seconds(*c, &p->device);
		*bytes += c->bytes_weight + c->bytes_in + c->bytes_out + c->bytes_kv;
		*flops += c->flops;
	}
	return seconds;
}

static int64_t prompt_tokens(const struct planner *p)
{
	return p->step < p->ctx ? p->step : p->ctx;
}

static void forecast(struct planner *p)
{
	struct wf_sizes prompt = {prompt_tokens(p), 1, 1, prompt_tokens(p)}, decode = {p->batch, p->batch, p->batch, p->ctx};
	double other;

	if (!p->has_device || p->device.read_bytes_s <= 0)
		return;
	p->a.prompt_s = step_seconds(p, &prompt, &other, &p->a.prompt_flops);
	p->a.decode_s = step_seconds(p, &decode, &p->a.decode_bytes_s, &other);
}

/* ---- one plan ---- */

static int account(struct planner *p)
{
	struct session *s = p->s;
	struct wf_sizes sizes = {.tokens = p->step > p->batch ? p->step : p->batch, .seqs = p->batch, .rows = p->batch,
		.ctx = p->ctx * p->batch};

	p->a = (struct account){0};
	wf_arena_free(s->arena);
	s->arena = NULL;
	if (session_plan(s, &sizes, NULL) || count_weights(p))
		return -1;
	p->a.activations = (double)s->plan->arena_bytes;
	count_pages(p);
	p->a.reserve = p->o->gpu || (s->backend && !strcmp(s->backend->name, "cuda")) ? RESERVE : 0;
	p->a.total = p->a.weights + p->a.activations + p->a.kv + p->a.reserve;
	forecast(p);
	return 0;
}

/* 1 it fits, 0 not, -1 failed. */
static int fits(struct planner *p, int64_t *what, int64_t value)
{
	*what = value;
	return account(p) ? -1 : p->a.total <= (double)p->device.memory;
}

/* The largest value of the batch, or of the context, that fits. */
static int fit(struct planner *p)
{
	bool batch = option_given(p->o, "ctx-size") && !option_given(p->o, "batch");
	int64_t *what = batch ? &p->batch : &p->ctx, good = 0, most = batch ? 65536 : 1 << 28;
	int ok;

	if (p->device.memory <= 0)
		return wf_fail(&p->s->err, "--fit: expected a device with --gpu NAME or a size like --gpu 24GB");
	for (int64_t bad = most + 1; bad - good > 1; ) {
		int64_t mid = good == 0 && bad > most ? 1 : bad > most ? good * 2 : good + (bad - good) / 2;
		if (mid > most)
			break;
		if ((ok = fits(p, what, mid)) < 0)
			return -1;
		if (ok)
			good = mid;
		else
			bad = mid;
	}
	if (!good)
		return wf_fail(&p->s->err, "--fit: the weights alone do not fit %s", p->device.name);
	*what = good;
	return account(p);
}

/* ---- the report ---- */

static void row(const char *name, const char *what, double bytes)
{
	char size[32];

	printf("  %-22s %-30s %12s\n", name, what, bytes_text(bytes, size));
}

static void print_memory(const struct planner *p)
{
	const struct account *a = &p->a;
	const wf_plan *plan = p->s->plan;
	char name[64], what[96], bytes[32];

	printf("\n%smemory%s\n", style(stdout, "1"), style(stdout, "0"));
	for (int i = 0; i < a->nkind; i++) {
		snprintf(name, sizeof name, "weights %s", wf_dtypes[a->kind[i].dtype].name);
		snprintf(what, sizeof what, "%d %s", a->kind[i].n, a->kind[i].packed ? "laid out for the kernels" : "as in the file");
		row(name, what, a->kind[i].bytes);
	}
	snprintf(what, sizeof what, "lower bound %+.2f %%", plan->live_bytes ?
		100. * (double)(plan->arena_bytes - plan->live_bytes) / (double)plan->live_bytes : 0);
	row("activations", what, a->activations);
	snprintf(name, sizeof name, "keys and values %s", wf_dtypes[plan->g->kvtype].name);
	snprintf(what, sizeof what, "%lld pages, %s a token", (long long)a->npage, bytes_text(a->token_bytes, bytes));
	row(name, what, a->kv);
	if (a->reserve > 0)
		row("context and modules", "reserve", a->reserve);
	printf("%s", style(stdout, "1"));
	row("total", "", a->total);
	printf("%s", style(stdout, "0"));
	if (p->has_device && p->device.memory > 0) {
		double left = (double)p->device.memory - a->total;
		printf("  %-22s %s%s %s%s", p->device.name, style(stdout, left >= 0 ? "32" : "31"), left >= 0 ? "fits" : "does not fit",
			bytes_text((double)p->device.memory, bytes), style(stdout, "0"));
		printf(left >= 0 ? ", %.1f %% free\n" : ", %.1f %% too much\n", 100 * fabs(left) / (double)p->device.memory);
	}
}

static void print_speed(const struct planner *p)
{
	const struct account *a = &p->a;
	char time[32], amount[32];

	if (a->decode_s <= 0) {
		puts("\nNo forecast: --gpu NAME chooses a device whose speed is known.");
		return;
	}
	printf("\n%sforecast%s, roofline on %s\n", style(stdout, "1"), style(stdout, "0"), p->device.name);
	printf("  prompt, %lld tokens      %12s   %10.0f tok/s   %sFLOP, %.0f %% of the rate\n", (long long)prompt_tokens(p),
		seconds_text(a->prompt_s, time), (double)prompt_tokens(p) / a->prompt_s, count_text(a->prompt_flops, amount),
		100 * a->prompt_flops / p->device.flops_s / a->prompt_s);
	printf("  decode, batch %-4lld     %12s   %10.0f tok/s   %s, %.0f %% of the read rate\n", (long long)p->batch,
		seconds_text(a->decode_s, time), (double)p->batch / a->decode_s, bytes_text(a->decode_bytes_s, amount),
		100 * a->decode_bytes_s / p->device.read_bytes_s / a->decode_s);
}

static double parameters(const wf_plan *plan)
{
	double n = 0;

	for (int i = 0; i < plan->g->nnode; i++)
		if (plan->g->node[i]->op == &wf_op_weight)
			n += (double)wf_nelem(plan->g->node[i]);
	return n;
}

static const char *name_of(const struct planner *p)
{
	return p->s->model ? p->s->model->path : p->o->graph;
}

static void print_text(const struct planner *p)
{
	const wf_model *m = p->s->model;
	const wf_plan *plan = p->s->plan;
	char n[32];

	printf("%s%s%s  %s", style(stdout, "1"), m && m->config.name ? m->config.name : name_of(p), style(stdout, "0"), plan->g->name);
	if (m)
		printf(", %lld layers of %lld", (long long)m->config.nlayer, (long long)m->config.dim);
	printf(", %s parameters\n%d kernels; batch %lld, context %lld each", count_text(parameters(plan), n), plan->nkernel,
		(long long)p->batch, (long long)p->ctx);
	if (m && m->config.ctx > 0 && p->ctx > m->config.ctx)
		printf(" (trained for %lld)", (long long)m->config.ctx);
	printf(", steps of %lld tokens, activations %s\n", (long long)p->step, wf_dtypes[plan->g->act].name);
	print_memory(p);
	print_speed(p);
}

static json_t *json_weights(const struct account *a)
{
	json_t *list = json_array();

	for (int i = 0; i < a->nkind; i++)
		json_array_append_new(list, json_pack("{s:s, s:b, s:i, s:f}", "type", wf_dtypes[a->kind[i].dtype].name,
			"packed", a->kind[i].packed, "tensors", a->kind[i].n, "bytes", a->kind[i].bytes));
	return list;
}

static void print_json(const struct planner *p)
{
	const struct account *a = &p->a;
	json_t *doc = json_pack("{s:s, s:f, s:I, s:I, s:I, s:i, s:{s:o, s:f, s:I, s:f, s:I, s:f, s:f, s:f}}",
		"model", name_of(p), "parameters", parameters(p->s->plan), "batch", (json_int_t)p->batch,
		"ctx", (json_int_t)p->ctx, "step", (json_int_t)p->step, "kernels", p->s->plan->nkernel,
		"memory", "weights", json_weights(a), "activations", a->activations,
		"activations_lower_bound", (json_int_t)p->s->plan->live_bytes, "kv", a->kv, "kv_pages", (json_int_t)a->npage,
		"kv_token", a->token_bytes, "reserve", a->reserve, "total", a->total);

	if (p->has_device)
		json_object_set_new(doc, "device", json_pack("{s:s, s:I, s:b}", "name", p->device.name, "memory",
			(json_int_t)p->device.memory, "fits", a->total <= (double)p->device.memory));
	if (a->decode_s > 0)
		json_object_set_new(doc, "forecast", json_pack("{s:f, s:f, s:f, s:f}", "prompt_s", a->prompt_s,
			"prompt_tok_s", (double)prompt_tokens(p) / a->prompt_s, "decode_s", a->decode_s,
			"decode_tok_s", (double)p->batch / a->decode_s));
	json_dumpf(doc, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(doc);
}

static int open_planner(struct planner *p)
{
	int64_t batch;

	if (session_model(p->s, 0))
		return -1;
	if (options_list(p->o, "batch", p->o->seqs, &batch, 1) != 1 || batch < 1)
		return wf_fail(&p->s->err, "--batch: expected one number of sequences, found '%s'", p->o->seqs);
	int found = session_device(p->s, &p->device);
	if (found < 0)
		return -1;
	p->has_device = found;
	p->batch = batch;
	p->ctx = session_ctx(p->s);
	p->step = session_step(p->s);
	return p->o->fit ? fit(p) : account(p);
}

int plan_main(const struct options *o)
{
	struct session s;
	struct planner p = {.s = &s, .o = o};

	session_start(&s, o);
	if (open_planner(&p))
		return session_failed(&s);
	if (o->json)
		print_json(&p);
	else
		print_text(&p);
	session_close(&s);
	return close_stdout(o, WEFT_OK);
}
