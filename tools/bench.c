/* bench.c - tokens per second of prompts and of generation, and where a step's time goes.
 *
 * ppN: N prompt tokens of each sequence, in steps of --ubatch-size.  tgN: N steps of one token each;
 * behind a prompt N - 1, whose last step chose the first token.  Both begin at an empty context or,
 * @ dN, behind N tokens that are not counted.  Nor is a warm-up run.  Each kernel's bytes and
 * operations are those of the steps that ran, context included; equal kernels share a row. */
#include "tools/weft.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

enum { MAXLIST = 16, MAXREPS = 10000, PRESET_STEP = 8192 };

struct test { int64_t depth, pp, tg, seqs; double mean, deviation; };

struct spent { double seconds, bytes, flops; };

struct bench {
	struct session *s;
	const struct options *o;
	struct test test[2 * MAXLIST * MAXLIST * MAXLIST];
	int ntest;
	wf_seq **seq;
	struct wf_piece *piece;
	int32_t *token;                       /* [seqs * tokens of a step] */
	int32_t *first;                       /* [seqs] chosen by the prompts' steps; how many so far */
	int64_t nfirst;
	int64_t most_seqs, most_tokens, ctx;
	uint64_t random;
	/* profile of one test */
	struct spent *spent;                  /* [nkernel]; NULL: not profiling */
	double *before;                       /* [nkernel] */
	bool counting;                        /* past the depth */
	int64_t steps;
	struct wf_device device;
	bool has_device;
};

static int32_t some_token(struct bench *b)
{
	b->random = b->random * 6364136223846793005ull + 1442695040888963407ull;
	return (int32_t)((b->random >> 33) % (uint64_t)session_vocab(b->s));
}

/* ---- steps ---- */

/* What the kernels took and did in the step just run. */
static void charge(struct bench *b, int n)
{
	const double *now = wf_runner_exec(b->s->runner)->kernel_s;
	wf_plan *plan = b->s->plan;
	struct wf_sizes at = {.seqs = n};

	for (int i = 0; i < n; i++) {
		at.tokens += b->piece[i].n;
		at.rows += !b->piece[i].no_rows;
		at.ctx += wf_seq_len(b->piece[i].seq);
	}
	at.ctx /= n;
	plan_cost_at(plan, &at);
	for (int k = 0; k < plan->nkernel; k++) {
		const struct wf_cost *c = &plan->kernel[k].cost;
		double seconds = now[k] - b->before[k];
		b->before[k] = now[k];
		if (!b->counting)
			continue;
		b->spent[k].seconds += seconds;
		b->spent[k].bytes += c->bytes_weight + c->bytes_in + c->bytes_out + c->bytes_kv;
		b->spent[k].flops += c->flops;
	}
	b->steps += b->counting;
}

static int step(struct bench *b, int n)
{
	const float *logits;
	int nrow, result = wf_runner_step(b->s->runner, b->piece, n, &logits, &nrow);

	if (result > 0)
		return wf_fail(&b->s->err, "the KV pages are too few");
	if (!result && b->spent)
		charge(b, n);
	return result;
}

/* Prompts that end choose their first new token; they end in order. */
static int step_and_choose(struct bench *b, int n, const struct wf_pick *pick)
{
	int nrow = 0;

	for (int i = 0; i < n; i++)
		nrow += !b->piece[i].no_rows;
	for (int i = 0; i < n && nrow; i++)
		b->piece[i].pick = pick;
	if (step(b, n))
		return -1;
	const int32_t *chosen = pick && nrow ? wf_runner_picked(b->s->runner) : NULL;
	for (int i = 0; i < nrow && chosen; i++)
		b->first[b->nfirst++] = chosen[i];
	return pick && nrow && !chosen ? -1 : 0;
}

/* Prompts of every sequence: a step takes as many tokens as it may, from as few sequences as it can.  All are
 * different: equal sequences would choose equal experts. */
static int prompts(struct bench *b, int64_t len, int64_t seqs, const struct wf_pick *pick)
{
	for (int64_t left = len * seqs; left && !interrupted; ) {
		int64_t room = b->most_tokens;
		int n = 0;
		while (room && left) {
			int64_t done = len * seqs - left, at = done % len;
			int64_t take = len - at < room ? len - at : room;
			int32_t *token = b->token + (b->most_tokens - room);
			for (int64_t i = 0; i < take; i++)
				token[i] = some_token(b);
			b->piece[n++] = (struct wf_piece){.seq = b->seq[done / len], .token = token, .n = (int)take,
				.no_rows = at + take < len};
			room -= take;
			left -= take;
		}
		if (step_and_choose(b, n, pick))
			return -1;
	}
	return 0;
}

/* Where the device chooses, as in a real run: the best token, read when the next step is queued. */
static int generate(struct bench *b, const struct test *t)
{
	const struct wf_pick best = {.temp = 0};
	bool ahead = wf_runner_can_pick(b->s->runner);
	int64_t from = t->pp > 0;
	int unread = 0;

	for (int64_t i = from; i < t->tg && !interrupted; i++) {
		for (int64_t k = 0; k < t->seqs; k++) {
			b->token[k] = ahead && i > from ? (int32_t)~k : from && ahead ? b->first[k] : some_token(b);
			b->piece[k] = (struct wf_piece){.seq = b->seq[k], .token = &b->token[k], .n = 1, .pick = ahead ? &best : NULL};
		}
		if (step(b, (int)t->seqs))
			return -1;
		unread += ahead;
		if (unread > 1 && !wf_runner_picked(b->s->runner))
			return -1;
		unread -= unread > 1;
	}
	return unread && !wf_runner_picked(b->s->runner) ? -1 : 0;
}

static int run_once(struct bench *b, const struct test *t, double *seconds)
{
	const struct wf_pick best = {.temp = 0}, *pick = t->tg && wf_runner_can_pick(b->s->runner) ? &best : NULL;
	wf_slab *slab = wf_runner_slab(b->s->runner);
	int result = 0;

	for (int64_t i = 0; i < b->most_tokens; i++)
		b->token[i] = some_token(b);
	for (int64_t i = 0; i < t->seqs && !result; i++)
		if (!(b->seq[i] = wf_seq_new(slab)) || wf_seq_reserve(slab, b->seq[i], t->depth + t->pp + t->tg))
			result = wf_fail(&b->s->err, "out of memory");
	b->counting = false;
	result = result || prompts(b, t->depth, t->seqs, NULL) ? -1 : 0;
	b->counting = true;
	b->nfirst = 0;
	double start = seconds_now();
	if (!result)
		result = prompts(b, t->pp, t->seqs, pick) || generate(b, t) ? -1 : 0;
	*seconds = seconds_now() - start;
	for (int64_t i = 0; i < t->seqs; i++) {
		if (b->seq[i])
			wf_seq_free(slab, b->seq[i]);
		b->seq[i] = NULL;
	}
	return result;
}

/* Tokens that count: those a user waits for when both are measured at once. */
static double tokens_of(const struct test *t)
{
	return (double)t->seqs * (double)(t->tg ? t->tg : t->pp);
}

static int measure(struct bench *b, struct test *t)
{
	double sum = 0, square = 0, seconds;

	if (run_once(b, t, &seconds))
		return -1;
	for (int64_t i = 0; i < b->o->reps && !interrupted; i++) {
		if (run_once(b, t, &seconds))
			return -1;
		double rate = tokens_of(t) / seconds;
		sum += rate;
		square += rate * rate;
	}
	double n = (double)b->o->reps;
	t->mean = sum / n;
	t->deviation = n > 1 ? sqrt(fmax(0, (square - sum * sum / n) / (n - 1))) : 0;
	return 0;
}

/* ---- the rows ---- */

static const char *test_name(const struct test *t, char out[64])
{
	size_t n = 0;

	if (t->pp)
		n += (size_t)snprintf(out, 64, "pp%lld", (long long)t->pp);
	if (t->tg)
		n += (size_t)snprintf(out + n, 64 - n, "%stg%lld", n ? "+" : "", (long long)t->tg);
	if (t->seqs > 1)
		n += (size_t)snprintf(out + n, 64 - n, " x%lld", (long long)t->seqs);
	if (t->depth)
		snprintf(out + n, 64 - n, " @ d%lld", (long long)t->depth);
	return out;
}

static const char *format_of(const struct options *o)
{
	return o->json ? "json" : o->format;
}

static const char *model_name(const struct session *s)
{
	const char *slash = strrchr(s->model->path, '/');

	return s->model->config.name ? s->model->config.name : slash && slash[1] ? slash + 1 : s->model->path;
}

static long long threads_of(const struct options *o)
{
	return o->threads ? o->threads : cpu_count();
}

/* Of the files, or of the shapes where there is none. */
static double weight_bytes(const struct session *s)
{
	const wf_graph *g = s->plan->g;
	double bytes = (double)s->model->weight_bytes;

	for (int i = 0; i < g->nnode && !s->model->weight_bytes; i++)
		if (g->node[i]->op == &wf_op_weight)
			bytes += wf_bytes(g->node[i]);
	return bytes;
}

static void print_head(const struct bench *b)
{
	char size[32], opened[160];
	const struct session *s = b->s;

	if (!strcmp(format_of(b->o), "csv"))
		puts("model,type,backend,threads,test,mean_tok_s,deviation");
	if (strcmp(format_of(b->o), "md"))
		return;
	printf("%s, %s, %s, %s, load %.2f s%s\n\n", model_name(s), s->plan->g->name, bytes_text(weight_bytes(s), size),
		wf_dtypes[s->model->config.dtype].name, s->open_s + s->load_s,
		opened_text(wf_runner_exec(s->runner)->opened, opened));
	puts("| backend | threads | test           |            t/s |");
	puts("|---------|--------:|----------------|---------------:|");
}

/* A name with a comma or a quote stands in quotes, as RFC 4180 has it. */
static void print_field(const char *name)
{
	bool quoted = strpbrk(name, ",\"\n");

	if (quoted)
		putchar('"');
	for (; *name; name++) {
		if (*name == '"')
			putchar('"');
		putchar(*name);
	}
	fputs(quoted ? "\"," : ",", stdout);
}

static void print_test(const struct bench *b, const struct test *t)
{
	char name[64];

	test_name(t, name);
	if (!strcmp(format_of(b->o), "csv")) {
		print_field(model_name(b->s));
		printf("%s,%s,%lld,%s,%.2f,%.2f\n", wf_dtypes[b->s->model->config.dtype].name,
			b->s->backend->name, threads_of(b->o), name, t->mean, t->deviation);
	} else if (!strcmp(format_of(b->o), "md"))
		printf("| %-7s | %7lld | %-14s | %8.2f ± %.2f |\n", b->s->backend->name, threads_of(b->o), name, t->mean,
			t->deviation);
	fflush(stdout);
}

/* ---- the kernels ---- */

struct line { char name[128]; int n; struct spent sum; double forecast_s; };

static int by_time(const void *a, const void *b)
{
	double x = ((const struct line *)a)->sum.seconds, y = ((const struct line *)b)->sum.seconds;

	return (x < y) - (x > y);
}

/* Kernels that do equal work in one line. */
static int make_lines(const struct bench *b, struct line *line)
{
	const wf_plan *plan = b->s->plan;
	int n = 0;

	for (int k = 0; k < plan->nkernel; k++) {
		const wf_kernel *kernel = &plan->kernel[k];
		struct line *l = &line[n];
		if (kernel->twin != k)
			continue;
		*l = (struct line){0};
		n++;
		kernel_label(kernel, l->name, sizeof l->name);
		for (int i = k; i < plan->nkernel; i++) {
			if (plan->kernel[i].twin != k)
				continue;
			l->n++;
			l->sum.seconds += b->spent[i].seconds;
			l->sum.bytes += b->spent[i].bytes;
			l->sum.flops += b->spent[i].flops;
		}
		if (b->has_device)
			l->forecast_s = fmax(l->sum.bytes / b->device.read_bytes_s, l->sum.flops / b->device.flops_s) +
				b->device.launch_s * l->n * (double)b->steps;
	}
	qsort(line, n, sizeof *line, by_time);
	return n;
}

static void print_line(const struct bench *b, const struct line *l, double total)
{
	double steps = (double)b->steps, seconds = l->sum.seconds > 0 ? l->sum.seconds : 1e-12;

	printf("| %-36.36s | %3d | %9.1f | %7.2f | %8.1f | %5.1f %% |", l->name, l->n, l->sum.seconds / steps * 1e6,
		l->sum.bytes / seconds / 1e9, l->sum.flops / seconds / 1e9, 100 * l->sum.seconds / total);
	if (b->has_device)
		printf(" %9.1f | %5.1f %% |", l->forecast_s / steps * 1e6, 100 * l->forecast_s / seconds);
	putchar('\n');
}

static void print_kernels(const struct bench *b, const struct test *t, const struct line *line, int n)
{
	struct spent sum = {0};
	char name[64];

	for (int i = 0; i < n; i++) {
		sum.seconds += line[i].sum.seconds;
		sum.bytes += line[i].sum.bytes;
		sum.flops += line[i].sum.flops;
	}
	printf("\n%s, a step of %.3f ms: %.2f GB/s, %.1f GFLOP/s\n\n", test_name(t, name), sum.seconds / (double)b->steps * 1e3,
		sum.bytes / sum.seconds / 1e9, sum.flops / sum.seconds / 1e9);
	printf("| %-36s |   n |   us/step |    GB/s |  GFLOP/s |   share |%s\n", "kernel", b->has_device ? "  forecast |   limit |" : "");
	printf("|--------------------------------------|----:|----------:|--------:|---------:|--------:|%s\n",
		b->has_device ? "----------:|--------:|" : "");
	for (int i = 0; i < n; i++)
		print_line(b, &line[i], sum.seconds);
}

static json_t *json_kernels(const struct bench *b, const struct line *line, int n)
{
	json_t *list = json_array();

	for (int i = 0; i < n; i++) {
		const struct line *l = &line[i];
		json_array_append_new(list, json_pack("{s:s, s:i, s:f, s:f, s:f, s:f}", "kernel", l->name, "n", l->n,
			"seconds", l->sum.seconds / (double)b->steps, "bytes", l->sum.bytes / (double)b->steps,
			"flops", l->sum.flops / (double)b->steps, "forecast_s", l->forecast_s / (double)b->steps));
	}
	return list;
}

/* Kernels end to end as they ran, each as long as its mean. */
static int write_trace(const struct bench *b, const struct test *t)
{
	const wf_plan *plan = b->s->plan;
	FILE *f = fopen(b->o->trace, "w");
	char name[256];
	double at = 0;

	if (!f)
		return wf_fail(&b->s->err, "%s: cannot write", b->o->trace);
	fprintf(f, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n{\"ph\":\"M\",\"pid\":0,\"tid\":0,\"name\":\"thread_name\","
		"\"args\":{\"name\":\"mean step of %s\"}}", test_name(t, name));
	for (int k = 0; k < plan->nkernel; k++) {
		double us = b->spent[k].seconds / (double)b->steps * 1e6;
		fputs(",\n{\"ph\":\"X\",\"pid\":0,\"tid\":0,\"cat\":\"kernel\",\"name\":", f);
		dump_string(f, kernel_label(&plan->kernel[k], name, sizeof name));
		fprintf(f, ",\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"kernel\":%d,\"scope\":", at, us, k);
		dump_string(f, plan->kernel[k].anchor->scope);
		fprintf(f, ",\"bytes\":%.0f,\"flops\":%.0f}}", b->spent[k].bytes / (double)b->steps, b->spent[k].flops / (double)b->steps);
		at += us;
	}
	fputs("\n]}\n", f);
	return fclose(f) ? wf_fail(&b->s->err, "%s: cannot write", b->o->trace) : 0;
}

static int profile(struct bench *b, const struct test *t, json_t *out)
{
	int nkernel = b->s->plan->nkernel, result = -1;
	const double *now = wf_runner_exec(b->s->runner)->kernel_s;
	struct line *line = calloc((size_t)nkernel + 1, sizeof *line);
	double seconds;

	b->steps = 0;
	b->before = calloc((size_t)nkernel + 1, sizeof *b->before);
	b->spent = calloc((size_t)nkernel + 1, sizeof *b->spent);
	if (!line || !b->before || !b->spent || !now) {
		wf_fail(&b->s->err, now ? "out of memory" : "the %s backend measures no kernels", b->s->backend->name);
		goto out;
	}
	memcpy(b->before, now, nkernel * sizeof *now);
	if (run_once(b, t, &seconds) || (b->o->trace && write_trace(b, t)))
		goto out;
	result = 0;
	int n = b->steps ? make_lines(b, line) : 0;
	if (out)
		json_object_set_new(out, "kernels", json_kernels(b, line, n));
	else if (n)
		print_kernels(b, t, line, n);
out:
	free(line);
	free(b->before);
	free(b->spent);
	b->before = NULL;
	b->spent = NULL;
	return result;
}

/* ---- tests ---- */

static void add_test(struct bench *b, struct test t)
{
	int64_t longest = t.depth > t.pp ? t.depth : t.pp, ctx = (t.depth + t.pp + t.tg) * t.seqs;

	b->test[b->ntest++] = t;
	b->most_seqs = t.seqs > b->most_seqs ? t.seqs : b->most_seqs;
	if (longest * t.seqs > b->most_tokens)
		b->most_tokens = longest * t.seqs;
	if (ctx > b->ctx)
		b->ctx = ctx;
}

static int choose_tests(struct bench *b)
{
	int64_t pp[MAXLIST], tg[MAXLIST], seqs[MAXLIST], depth[MAXLIST];
	int npp = options_list(b->o, "n-prompt", b->o->npp, pp, MAXLIST), ntg = options_list(b->o, "n-gen", b->o->ntg, tg, MAXLIST);
	int nseq = options_list(b->o, "batch", b->o->seqs, seqs, MAXLIST);
	int ndepth = options_list(b->o, "n-depth", b->o->depth, depth, MAXLIST);

	if (npp < 0 || ntg < 0 || nseq < 0 || ndepth < 0)
		return WEFT_USAGE;
	if (b->o->preset) {
		for (int i = 8; i <= 32; i *= 2)
			add_test(b, (struct test){.pp = 1024, .tg = 128, .seqs = i});
		return 0;
	}
	for (int n = 0; n < nseq * ndepth; n++) {
		struct test t = {.seqs = seqs[n / ndepth], .depth = depth[n % ndepth]};
		for (int i = 0; i < npp && t.seqs; i++)
			if (pp[i])
				add_test(b, (struct test){.pp = pp[i], .seqs = t.seqs, .depth = t.depth});
		for (int i = 0; i < ntg && t.seqs; i++)
			if (tg[i])
				add_test(b, (struct test){.tg = tg[i], .seqs = t.seqs, .depth = t.depth});
	}
	return b->ntest ? 0 : misused(b->o, "nothing to measure");
}

static int open_bench(struct bench *b)
{
	struct session *s = b->s;
	int64_t most = b->o->preset && !option_given(b->o, "ubatch-size") ? PRESET_STEP : b->o->ubatch;

	if (b->most_tokens > most)
		b->most_tokens = most;
	if (b->most_tokens < b->most_seqs)
		b->most_tokens = b->most_seqs;
	if (b->o->ctx * b->most_seqs > b->ctx)
		b->ctx = b->o->ctx * b->most_seqs;
	b->seq = calloc((size_t)b->most_seqs, sizeof *b->seq);
	b->piece = calloc((size_t)b->most_seqs, sizeof *b->piece);
	b->token = calloc((size_t)b->most_tokens, sizeof *b->token);
	b->first = calloc((size_t)b->most_seqs, sizeof *b->first);
	if (!b->seq || !b->piece || !b->token || !b->first)
		return wf_fail(&s->err, "out of memory");
	if (session_model(s, 0))
		return -1;
	int found = session_device(s, &b->device);
	b->has_device = found > 0 && b->device.read_bytes_s > 0 && b->device.flops_s > 0;
	return found < 0 ? -1 : 0;
}

static int open_runner(struct bench *b, bool profiled)
{
	struct session *s = b->s;
	struct wf_sizes sizes = {.tokens = b->most_tokens, .seqs = b->most_seqs, .rows = b->most_seqs, .ctx = b->ctx};

	wf_runner_free(s->runner);
	s->runner = NULL;
	wf_arena_free(s->arena);
	s->arena = NULL;
	return session_plan(s, &sizes, NULL) || session_runner(s, &sizes, profiled) ? -1 : 0;
}

static json_t *json_test(const struct test *t)
{
	char name[64];

	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:f}", "test", test_name(t, name), "depth", (json_int_t)t->depth,
		"prompt", (json_int_t)t->pp, "generated", (json_int_t)t->tg, "batch", (json_int_t)t->seqs, "tok_s", t->mean, "deviation", t->deviation);
}

static int run_tests(struct bench *b, json_t *list)
{
	if (open_runner(b, false))
		return -1;
	print_head(b);
	for (int i = 0; i < b->ntest && !interrupted; i++) {
		if (measure(b, &b->test[i]))
			return -1;
		print_test(b, &b->test[i]);
		json_array_append_new(list, json_test(&b->test[i]));
	}
	if (b->o->profile == 0 || interrupted || !strcmp(format_of(b->o), "csv"))
		return 0;
	if (open_runner(b, true))
		return -1;
	for (int i = 0; i < b->ntest && !interrupted; i++)
		if (profile(b, &b->test[i], strcmp(format_of(b->o), "md") ? json_array_get(list, i) : NULL))
			return -1;
	return 0;
}

int bench_main(const struct options *o)
{
	struct session s;
	struct bench b = {.s = &s, .o = o, .random = 1};

	session_start(&s, o);
	int code = choose_tests(&b);
	if (code)
		return code;
	catch_interrupt(false);
	json_t *list = json_array();
	int result = open_bench(&b) || run_tests(&b, list) ? -1 : 0;
	if (!result && !strcmp(format_of(o), "json")) {
		json_t *doc = json_pack("{s:s, s:s, s:I, s:O}", "model", model_name(&s), "backend", s.backend->name,
			"threads", (json_int_t)threads_of(o), "tests", list);
		json_dumpf(doc, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(doc);
	}
	json_decref(list);
	free(b.seq);
	free(b.piece);
	free(b.token);
	free(b.first);
	if (result)
		return session_failed(&s);
	session_close(&s);
	return interrupted ? WEFT_INTERRUPTED : close_stdout(o, WEFT_OK);
}
