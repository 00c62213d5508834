/* verify.c - logits and greedy tokens against reference outputs.
 *
 * A reference is a safetensors file with cases a, b, ...: X.input_ids, X.logits of every position or
 * of the last ones, X.greedy (the tokens that follow) and X.margin (how far the best logit was ahead
 * at each).  Where the margin is under --margin, another token is as good: comparison stops there.
 *
 * With --batch the cases run side by side, each beginning a step after the one before and fed in pieces
 * of its own length: prompts and single tokens share steps, and every sequence must be what it is alone. */
#include "tools/weft.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

enum { MAXCASE = 64, MAXTEXT = 512 };

struct case_ {
	char name[64];
	struct tokens input, greedy;
	float *logits, *margin;               /* [rows, vocab] of the last rows of input; [greedy.n] */
	int64_t rows, vocab, nmargin;
	bool copy;                            /* of one before: input and reference are that one's */
	/* found */
	double nmse, worst_nmse;
	int64_t worst;                        /* position of the worst row */
	int64_t worst_token;                  /* its furthest logit, with both values */
	double got, want;
	int64_t agreed;                       /* greedy tokens equal */
	bool miss, tie;
	int32_t other;                        /* the token chosen where it ended */
};

/* A case being run. */
struct lane {
	struct case_ *c;
	wf_seq *seq;
	float *rows;                          /* its logits, computed */
	int64_t fed, chunk;                   /* tokens so far; tokens of a piece */
	bool done;
};

struct verifier {
	struct session *s;
	struct file_map file;
	struct case_ list[MAXCASE];           /* as read, and after them their copies in a batch */
	int n;
	int64_t batch;                        /* sequences at once */
	struct lane lane[MAXCASE];
};

/* ---- reading the reference ---- */

/* Whole numbers of type I32 or I64. */
static int read_ids(struct verifier *v, const safetensors *t, const char *name, struct tokens *out)
{
	struct wf_blob blob;
	int64_t n = 1;

	if (!safetensors_find(t, name, &blob))
		return 0;
	for (int i = 0; i < blob.ndim; i++)
		n *= blob.dim[i];
	bool wide = blob.dtype == WF_NDTYPE && blob.type && !strcmp(blob.type, "I64");
	if (blob.dtype != WF_I32 && !wide)
		return wf_fail(&v->s->err, "%s: expected I32 or I64", name);
	for (int64_t i = 0; i < n; i++) {
		int32_t id;
		memcpy(&id, (const char *)blob.data + i * (wide ? 8 : 4), sizeof id);
		if (tokens_add(out, &v->s->err, &id, 1))
			return -1;
	}
	return 0;
}

static float *read_floats(struct verifier *v, const safetensors *t, const char *name, int64_t *rows, int64_t *cols)
{
	struct wf_blob blob;

	*rows = *cols = 0;
	if (!safetensors_find(t, name, &blob))
		return NULL;
	if (blob.dtype > WF_BF16 || blob.ndim < 1) {
		wf_fail(&v->s->err, "%s: expected numbers of type F32, F16 or BF16", name);
		return NULL;
	}
	*cols = blob.dim[blob.ndim - 1];
	*rows = 1;
	for (int i = 0; i + 1 < blob.ndim; i++)
		*rows *= blob.dim[i];
	float *out = calloc((size_t)(*rows * *cols) + 1, sizeof *out);
	if (!out)
		wf_fail(&v->s->err, "out of memory");
	else
		wf_decode(blob.dtype, out, blob.data, *rows * *cols);
	return out;
}

static int read_case(struct verifier *v, const safetensors *t, const char *name, size_t len)
{
	struct case_ *c = &v->list[v->n];
	char key[128];
	int64_t one;

	if (v->n == MAXCASE || len >= sizeof c->name)
		return wf_fail(&v->s->err, "reference: more than %d cases, or a name of more than %zu characters", MAXCASE,
			sizeof c->name - 1);
	*c = (struct case_){0};
	v->n++;
	snprintf(c->name, sizeof c->name, "%.*s", (int)len, name);
	snprintf(key, sizeof key, "%s.input_ids", c->name);
	if (read_ids(v, t, key, &c->input))
		return -1;
	snprintf(key, sizeof key, "%s.logits", c->name);
	c->logits = read_floats(v, t, key, &c->rows, &c->vocab);
	snprintf(key, sizeof key, "%s.greedy", c->name);
	if (read_ids(v, t, key, &c->greedy))
		return -1;
	snprintf(key, sizeof key, "%s.margin", c->name);
	c->margin = read_floats(v, t, key, &one, &c->nmargin);
	if (v->s->err.set)
		return -1;
	if (!c->input.n || !c->logits || c->rows > (int64_t)c->input.n)
		return wf_fail(&v->s->err, "case %s: expected input_ids and logits of at most as many positions, found %zu and %lld",
			c->name, c->input.n, (long long)c->rows);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct case_ *)a)->name, ((const struct case_ *)b)->name);
}

/* In the model's folder, or beside its file. */
static void golden_path(const char *model, char path[MAXTEXT])
{
	const char *slash = strrchr(model, '/');
	struct stat st;

	if (!stat(model, &st) && S_ISDIR(st.st_mode))
		snprintf(path, MAXTEXT, "%s/golden.safetensors", model);
	else
		snprintf(path, MAXTEXT, "%.*sgolden.safetensors", slash ? (int)(slash - model) + 1 : 0, model);
}

static int read_reference(struct verifier *v)
{
	char path[MAXTEXT];
	const char *name = v->s->o->reference, *suffix = ".input_ids";

	if (!name) {
		golden_path(v->s->model->path, path);
		name = path;
	}
	if (file_map(&v->s->err, name, &v->file))
		return -1;
	safetensors *t = safetensors_parse(v->s->model->arena, &v->s->err, v->file.data, v->file.bytes);
	if (!t)
		return -1;
	for (size_t i = 0; i < safetensors_ntensor(t); i++) {
		struct wf_blob blob;
		const char *tensor = safetensors_tensor(t, i, &blob);
		size_t len = strlen(tensor), tail = strlen(suffix);
		if (len > tail && !strcmp(tensor + len - tail, suffix) && read_case(v, t, tensor, len - tail))
			return -1;
	}
	qsort(v->list, v->n, sizeof *v->list, by_name);
	return v->n ? 0 : wf_fail(&v->s->err, "%s: no case (a tensor X.input_ids)", name);
}

static void close_reference(struct verifier *v)
{
	for (int i = 0; i < v->n; i++) {
		if (v->list[i].copy)
			continue;
		tokens_free(&v->list[i].input);
		tokens_free(&v->list[i].greedy);
		free(v->list[i].logits);
		free(v->list[i].margin);
	}
	if (v->file.data)
		file_unmap(&v->file);
}

/* ---- comparing ---- */

static int32_t best(const float *logits, int64_t n)
{
	int32_t at = 0;

	for (int64_t i = 1; i < n; i++)
		if (logits[i] > logits[at])
			at = (int32_t)i;
	return at;
}

static void find_furthest(struct case_ *c, const float *got, const float *want)
{
	c->worst_token = 0;
	for (int64_t i = 1; i < c->vocab; i++)
		if (fabs((double)got[i] - want[i]) > fabs((double)got[c->worst_token] - want[c->worst_token]))
			c->worst_token = i;
	c->got = got[c->worst_token];
	c->want = want[c->worst_token];
}

/* A logit that is no number makes the error infinite. */
static void compare(struct case_ *c, const float *rows)
{
	double error = 0, power = 0;

	c->worst_nmse = -1;
	for (int64_t r = 0; r < c->rows; r++) {
		const float *got = rows + r * c->vocab, *want = c->logits + r * c->vocab;
		double e = 0, p = 0;
		for (int64_t i = 0; i < c->vocab; i++) {
			e += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
			p += (double)want[i] * want[i];
		}
		if (isnan(e))
			e = INFINITY;
		error += e;
		power += p;
		double nmse = p > 0 ? e / p : e > 0 ? INFINITY : 0;
		if (nmse > c->worst_nmse) {
			c->worst_nmse = nmse;
			c->worst = (int64_t)c->input.n - c->rows + r;
			find_furthest(c, got, want);
		}
	}
	c->nmse = power > 0 ? error / power : error > 0 ? INFINITY : 0;
}

/* The next of the reference's tokens against this row of logits; false when there is no more to compare. */
static bool follow(struct case_ *c, const float *logits, double margin)
{
	int64_t i = c->agreed;

	if (i == (int64_t)c->greedy.n)
		return false;
	c->other = best(logits, c->vocab);
	if (c->other != c->greedy.id[i]) {
		c->tie = i < c->nmargin && c->margin[i] < margin;
		c->miss = !c->tie;
		return false;
	}
	return ++c->agreed < (int64_t)c->greedy.n;
}

/* ---- running ---- */

/* What a sequence feeds next: its prompt piece by piece, then the reference's tokens. */
static struct wf_piece next_piece(const struct lane *l)
{
	const struct case_ *c = l->c;
	int64_t left = (int64_t)c->input.n - l->fed, n = left < l->chunk ? left : l->chunk;

	if (left <= 0)
		return (struct wf_piece){.seq = l->seq, .token = &c->greedy.id[-left], .n = 1};
	return (struct wf_piece){.seq = l->seq, .token = c->input.id + l->fed, .n = (int)n,
		.all_rows = l->fed + n > (int64_t)c->input.n - c->rows};
}

/* The rows a piece has given; how many. */
static int take_rows(struct lane *l, const struct wf_piece *p, const float *logits, double margin)
{
	struct case_ *c = l->c;
	int64_t first = (int64_t)c->input.n - c->rows;
	int rows = p->all_rows ? p->n : 1;

	for (int k = 0; p->all_rows && k < p->n; k++)
		if (l->fed + k >= first)
			memcpy(l->rows + (l->fed + k - first) * c->vocab, logits + k * c->vocab, sizeof(float) * c->vocab);
	l->fed += p->n;
	if (l->fed == (int64_t)c->input.n)
		compare(c, l->rows);
	if (l->fed >= (int64_t)c->input.n)
		l->done = !follow(c, logits + (rows - 1) * c->vocab, margin);
	return rows;
}

static int step(struct verifier *v, const struct wf_piece *piece, struct lane *const *of, int n)
{
	const float *logits;
	int nrow, result = wf_runner_step(v->s->runner, piece, n, &logits, &nrow);

	if (result)
		return result > 0 ? wf_fail(&v->s->err, "the KV pages are too few") : -1;
	for (int i = 0; i < n; i++)
		logits += take_rows(of[i], &piece[i], logits, v->s->o->margin) * of[i]->c->vocab;
	return 0;
}

/* All lanes to their end, one more of them in each step. */
static int run_lanes(struct verifier *v, int n)
{
	struct wf_piece piece[MAXCASE];
	struct lane *of[MAXCASE];

	for (int begun = 1;; begun++) {
		int live = 0;
		for (int i = 0; i < n && i < begun; i++)
			if (!v->lane[i].done) {
				of[live] = &v->lane[i];
				piece[live++] = next_piece(&v->lane[i]);
			}
		if (!live && begun > n)
			return 0;
		if (live && step(v, piece, of, live))
			return -1;
	}
}

static int64_t chunk_of(const struct verifier *v, int i, const struct case_ *c)
{
	int64_t most = (int64_t)c->input.n, chunk = v->s->o->chunk ? v->s->o->chunk : most;

	if (v->batch > 1 && i % 2)            /* beside whole prompts, some in pieces */
		chunk = 3 + i;
	return chunk < most ? chunk : most;
}

static int open_lane(struct verifier *v, int i, struct case_ *c)
{
	struct lane *l = &v->lane[i];

	*l = (struct lane){.c = c, .chunk = chunk_of(v, i, c), .seq = wf_seq_new(wf_runner_slab(v->s->runner)),
		.rows = calloc((size_t)(c->rows * c->vocab) + 1, sizeof *l->rows)};
	if (!l->seq || !l->rows)
		return wf_fail(&v->s->err, "out of memory");
	return c->vocab == session_vocab(v->s) ? 0 : wf_fail(&v->s->err, "case %s: logits of %lld tokens, the model has %lld",
		c->name, (long long)c->vocab, (long long)session_vocab(v->s));
}

static int run_cases(struct verifier *v, int first, int n)
{
	int result = 0;

	for (int i = 0; i < n && !result; i++)
		result = open_lane(v, i, &v->list[first + i]);
	result = result || run_lanes(v, n) ? -1 : 0;
	for (int i = 0; i < n; i++) {
		free(v->lane[i].rows);
		if (v->lane[i].seq)
			wf_seq_free(wf_runner_slab(v->s->runner), v->lane[i].seq);
		v->lane[i] = (struct lane){0};
	}
	return result;
}

/* ---- the report ---- */

static bool passes(const struct verifier *v, const struct case_ *c)
{
	return c->nmse <= v->s->o->tolerance && !c->miss;
}

static void greedy_text(const struct case_ *c, char *out, size_t cap)
{
	if (c->miss || c->tie)
		snprintf(out, cap, "%lld/%zu, then %d for %d (margin %.1e%s)", (long long)c->agreed, c->greedy.n, c->other,
			c->greedy.id[c->agreed], c->agreed < c->nmargin ? c->margin[c->agreed] : 0, c->tie ? ": a tie" : "");
	else
		snprintf(out, cap, "%lld/%zu", (long long)c->agreed, c->greedy.n);
}

static void print_case(const struct verifier *v, const struct case_ *c)
{
	char greedy[128];
	bool ok = passes(v, c);

	greedy_text(c, greedy, sizeof greedy);
	printf("%s%s%s  %-8s %4zu tokens, %3lld rows  NMSE %.2e  worst %.2e at position %lld (token %lld: %.6g, expected %.6g)"
		"  greedy %s\n", style(stdout, ok ? "32" : "31"), ok ? "pass" : "FAIL", style(stdout, "0"), c->name,
		c->input.n, (long long)c->rows, c->nmse, c->worst_nmse, (long long)c->worst, (long long)c->worst_token,
		c->got, c->want, greedy);
}

static json_t *number(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static void print_json(const struct verifier *v, bool ok)
{
	json_t *list = json_array();

	for (int i = 0; i < v->n; i++) {
		const struct case_ *c = &v->list[i];
		json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:b, s:b, s:b}", "name", c->name,
			"tokens", (json_int_t)c->input.n, "rows", (json_int_t)c->rows, "nmse", number(c->nmse),
			"worst_nmse", number(c->worst_nmse), "worst_position", (json_int_t)c->worst,
			"greedy", (json_int_t)c->greedy.n, "greedy_agreed", (json_int_t)c->agreed,
			"miss", c->miss, "tie", c->tie, "pass", passes(v, c)));
	}
	json_t *doc = json_pack("{s:s, s:s, s:f, s:b, s:o}", "model", v->s->model->path, "backend",
		v->s->backend->name, "tolerance", v->s->o->tolerance, "pass", ok, "cases", list);
	json_dumpf(doc, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(doc);
}

/* ---- all cases ---- */

/* Of cases first .. last - 1. */
static int open_plan(struct verifier *v, int first, int n)
{
	struct session *s = v->s;
	struct wf_sizes sizes = {.seqs = v->batch};

	s->opened = 0;
	for (int i = 0; i < n; i++) {
		const struct case_ *c = &v->list[first + i];
		int64_t chunk = chunk_of(v, v->batch > 1 ? i : 0, c), length = (int64_t)(c->input.n + c->greedy.n);
		s->opened = (int64_t)c->input.n > s->opened ? (int64_t)c->input.n : s->opened;
		sizes.tokens = v->batch > 1 ? sizes.tokens + chunk : chunk > sizes.tokens ? chunk : sizes.tokens;
		sizes.ctx = v->batch > 1 ? sizes.ctx + length : length > sizes.ctx ? length : sizes.ctx;
	}
	sizes.rows = sizes.tokens;
	return session_plan(s, &sizes, NULL) || session_runner(s, &sizes, false) ? -1 : 0;
}

/* Frequencies that depend on how long a text is: the reference chose them for each case. */
static bool varies(const struct session *s)
{
	return !s->o->graph && (s->model->config.scaling == WF_ROPE_LONG || s->model->config.scaling == WF_ROPE_DYNAMIC);
}

/* A batch runs the cases over and over, or where each case has a plan of its own, that case. */
static int copy_cases(struct verifier *v, bool each)
{
	int64_t batch;

	if (options_list(v->s->o, "batch", v->s->o->seqs, &batch, 1) != 1 || batch < 1 || batch > MAXCASE)
		return wf_fail(&v->s->err, "--batch: expected 1 to %d sequences", MAXCASE);
	v->batch = batch;
	int64_t all = each ? v->n * batch : v->n > batch ? v->n : batch;
	if (all > MAXCASE)
		return wf_fail(&v->s->err, "--batch: %lld cases, room for %d", (long long)all, MAXCASE);
	struct case_ read[MAXCASE];
	memcpy(read, v->list, sizeof read);
	for (int i = 0; i < all; i++) {
		int from = each ? i / (int)batch : i % v->n, again = each ? i % (int)batch : i / v->n;
		v->list[i] = read[from];
		v->list[i].copy = again;
		if (again)
			snprintf(v->list[i].name, sizeof v->list[i].name, "%.50s.%d", read[from].name, again);
	}
	v->n = (int)all;
	return 0;
}

/* Cases first .. first + n, in batches. */
static int run_range(struct verifier *v, int first, int n)
{
	for (int i = 0; i < n; i += (int)v->batch)
		if (run_cases(v, first + i, n - i < v->batch ? n - i : (int)v->batch))
			return -1;
	return 0;
}

int verify_main(const struct options *o)
{
	struct session s;
	struct verifier v = {.s = &s};
	bool ok = true;

	session_start(&s, o);
	int result = session_model(&s, 0) || read_reference(&v) ? -1 : 0;
	bool each = !result && varies(&s);
	result = result || copy_cases(&v, each) ? -1 : 0;
	int range = each ? (int)v.batch : v.n;
	for (int i = 0; i < v.n && !result; i += range) {
		if (i)
			session_release(&s);
		result = open_plan(&v, i, range) || run_range(&v, i, range) ? -1 : 0;
	}
	for (int i = 0; i < v.n && !result; i++) {
		ok &= passes(&v, &v.list[i]);
		if (!o->json)
			print_case(&v, &v.list[i]);
	}
	if (!result && o->json)
		print_json(&v, ok);
	close_reference(&v);
	if (result)
		return session_failed(&s);
	session_close(&s);
	return close_stdout(o, ok ? WEFT_OK : WEFT_FAILED);
}
