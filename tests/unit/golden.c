/* golden.c - checkpoints of every family against reference logits and greedy tokens, by definition and
 * on the CPU: prompts whole, in chunks of 7 and token by token, on one thread and two.
 *
 * Without arguments: every folder of tests/golden and $WEFT_SHARED/golden.  Else each argument is a
 * model, or MODEL=REFERENCE.safetensors. */
#include "harness.h"
#include <dirent.h>
#include <limits.h>
#include <setjmp.h>
#include <sys/stat.h>
#include <cmocka.h>

enum { PAGE = 16, NPAGE = 64, MAXTOKENS = 512 };

struct reference {
	wf_arena *arena;
	struct file_map map;
	safetensors *file;
};

struct expected {                     /* one case of a reference file */
	const int32_t *prompt, *greedy;
	const float *logits, *margin;
	int64_t nprompt, ngreedy, nlogits, vocab;
};

static bool find(const struct reference *r, char name, const char *what, wf_dtype dtype, struct wf_blob *b)
{
	char key[32];

	snprintf(key, sizeof key, "%c.%s", name, what);
	return safetensors_find(r->file, key, b) && b->dtype == dtype;
}

static bool find_case(const struct reference *r, char name, struct expected *e)
{
	struct wf_blob ids, logits, greedy, margin;

	if (!find(r, name, "input_ids", WF_I32, &ids) || !find(r, name, "logits", WF_F32, &logits) ||
	    !find(r, name, "greedy", WF_I32, &greedy) || !find(r, name, "margin", WF_F32, &margin))
		return false;
	*e = (struct expected){ids.data, greedy.data, logits.data, margin.data, ids.dim[0], greedy.dim[0], logits.dim[0],
		logits.dim[1]};
	return true;
}

/* ---- the two ways of running ---- */

struct run {
	struct side side;
	wf_seq *seq;
	int64_t vocab;
	float *row;                   /* [nrow, vocab] of the last step */
	int nrow;
	bool define;
};

static int step(struct run *r, const int32_t *token, int n)
{
	struct wf_piece piece = {.seq = r->seq, .token = token, .n = n, .all_rows = true};
	const float *logits = NULL;
	int64_t count;

	free(r->row);
	r->row = NULL;
	if (r->define) {
		int result = define_step(&r->side, &piece, 1, &r->row, &count);
		r->nrow = (int)(count / r->vocab);
		return result;
	}
	int result = wf_runner_step(r->side.runner, &piece, 1, &logits, &r->nrow);
	if (result)
		return result;
	r->row = malloc(sizeof *r->row * (size_t)r->nrow * (size_t)r->vocab);
	memcpy(r->row, logits, sizeof *r->row * (size_t)r->nrow * (size_t)r->vocab);
	return 0;
}

/* opened: tokens the reference saw when it chose its frequencies. */
static bool open_run(struct run *r, const wf_model *model, int64_t opened, bool define, int threads)
{
	struct side *a = &r->side;
	wf_model as_opened = *model, *m = &as_opened;

	*r = (struct run){.define = define, .vocab = m->config.vocab};
	a->arena = wf_arena_new();
	m->config.opened = opened;
	a->g = wf_model_graph(m, a->arena, &a->err);
	if (!a->g)
		return false;
	if (define) {
		if (define_open(a, PAGE, NPAGE))
			return false;
		return (r->seq = wf_seq_new(a->slab));
	}
	a->plan = wf_plan_build(a->g, wf_rules, &wf_backend_cpu, &(struct wf_plan_opt){.max_tokens = 256, .max_seqs = 1,
		.max_rows = 256, .verify = true});
	if (!a->plan)
		return false;
	a->runner = wf_runner_new(&a->err, a->plan, &(struct wf_runner_opt){.ctx = NPAGE * PAGE, .page_tokens = PAGE,
		.exec = {.threads = threads, .compute = WF_F32}});
	return a->runner && (r->seq = wf_seq_new(wf_runner_slab(a->runner)));
}

static wf_slab *slab_of(struct run *r)
{
	return r->define ? r->side.slab : wf_runner_slab(r->side.runner);
}

static void close_run(struct run *r)
{
	if (r->seq)
		wf_seq_free(slab_of(r), r->seq);
	free(r->row);
	side_close(&r->side);
}

/* ---- one case ---- */

static int best(const float *row, int64_t n)
{
	int64_t top = 0;

	for (int64_t i = 1; i < n; i++)
		if (row[i] > row[top])
			top = i;
	return (int)top;
}

/* Rows of the prompt's chunks, side by side with the reference's last ones. */
static bool feed(struct run *r, const struct expected *e, int chunk, double *error)
{
	float *all = malloc(sizeof *all * (size_t)e->nprompt * (size_t)e->vocab);
	int64_t at = 0;
	bool good = true;

	while (good && at < e->nprompt) {
		int n = (int)(chunk && e->nprompt - at > chunk ? chunk : e->nprompt - at);
		good = !step(r, e->prompt + at, n) && r->nrow == n;
		if (good)
			memcpy(all + at * e->vocab, r->row, sizeof *all * (size_t)n * (size_t)e->vocab);
		at += n;
	}
	if (good)
		*error = nmse(all + (e->nprompt - e->nlogits) * e->vocab, e->logits, e->nlogits * e->vocab);
	free(all);
	return good;
}

/* Greedy tokens that differ where the reference had a clear winner. */
static int generate(struct run *r, const struct expected *e)
{
	int wrong = 0;

	for (int64_t i = 0; i < e->ngreedy; i++) {
		wrong += best(r->row + (r->nrow - 1) * r->vocab, r->vocab) != e->greedy[i] && e->margin[i] >= 1e-3f;
		if (step(r, &e->greedy[i], 1))
			return -1;
	}
	return wrong;
}

/* What a window has left behind is given back. */
static bool pages_given_back(struct run *r)
{
	const struct wf_slab_copy *copy;
	int ncopy;

	if (wf_seq_extend(slab_of(r), r->seq, 0, &copy, &ncopy))
		return false;
	for (int c = 0; c < wf_slab_nclass(slab_of(r)); c++) {
		int window = wf_slab_class(slab_of(r), c)->window;
		struct wf_slab_stats stats;
		wf_slab_stats(slab_of(r), c, &stats);
		if (window && stats.held > (window + PAGE - 1) / PAGE + 1)
			return false;
	}
	return true;
}

static int run_case(const wf_model *m, const char *what, char name, const struct expected *e, bool define, int chunk, int threads)
{
	struct run r;
	double error = INFINITY;
	int wrong = -1;

	bool good = open_run(&r, m, e->nprompt, define, threads) && feed(&r, e, chunk, &error);
	if (good)
		wrong = generate(&r, e);
	bool back = !good || pages_given_back(&r);
	good = good && error <= 1e-8 && wrong == 0 && back;
	if (!good || getenv("WEFT_GOLDEN_VERBOSE"))
		print_message("%-14s %c %s chunk %d threads %d: NMSE %.2e, %d greedy tokens differ%s %s\n", what, name,
			define ? "definition" : "cpu", chunk, threads, error, wrong, back ? "" : ", window pages are kept",
			r.side.err.text);
	close_run(&r);
	return !good;
}

/* ---- one checkpoint ---- */

static int run_reference(const wf_model *m, const char *what, const struct reference *ref)
{
	static const int chunks[] = {0, 7, 1};
	struct expected e;
	int bad = 0, cases = 0;

	for (char name = 'a'; name <= 'z' && find_case(ref, name, &e); name++, cases++) {
		if (e.vocab != m->config.vocab || e.nprompt + e.ngreedy > MAXTOKENS)
			return 1;
		bad += run_case(m, what, name, &e, true, 0, 0);
		for (int i = 0; i < 3; i++)
			for (int threads = 1; threads <= 2; threads++)
				bad += run_case(m, what, name, &e, false, chunks[i], threads);
	}
	return bad + !cases;
}

static int run_model(const char *path, const char *reference)
{
	struct reference ref = {.arena = wf_arena_new()};
	wf_error err = {0};
	const char *what = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	int bad = 1;

	wf_model *m = wf_model_open(&err, path, NULL, 0);
	if (m && !file_map(&err, reference, &ref.map) &&
	    (ref.file = safetensors_parse(ref.arena, &err, ref.map.data, ref.map.bytes)))
		bad = run_reference(m, what, &ref);
	if (err.set)
		print_message("%s: %s\n", what, err.text);
	wf_model_close(m);
	file_unmap(&ref.map);
	wf_arena_free(ref.arena);
	return bad;
}

static int run_named(const char *arg)
{
	char path[PATH_MAX], reference[PATH_MAX + 32];
	const char *equal = strchr(arg, '=');

	snprintf(path, sizeof path, "%.*s", equal ? (int)(equal - arg) : (int)strlen(arg), arg);
	snprintf(reference, sizeof reference, equal ? "%s" : "%s/golden.safetensors", equal ? equal + 1 : path);
	return run_model(path, reference);
}

static const char **named;
static int nnamed;

static int not_hidden(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

/* How many models of a folder failed; -1 when it is not there. */
static int run_folder(const char *folder)
{
	struct dirent **entry = NULL;
	char path[PATH_MAX];
	int n = scandir(folder, &entry, not_hidden, alphasort), bad = 0;

	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof path, "%s/%s", folder, entry[i]->d_name);
		bad += run_named(path) != 0;
		free(entry[i]);
	}
	free(entry);
	return n <= 0 ? -1 : bad;
}

static void own_checkpoints(void **unused)
{
	int bad = 0;

	(void)unused;
	for (int i = 0; i < nnamed; i++)
		bad += run_named(named[i]) != 0;
	assert_int_equal(nnamed ? bad : run_folder("tests/golden"), 0);
}

static void shared_checkpoints(void **unused)
{
	const char *shared = getenv("WEFT_SHARED");
	char path[PATH_MAX];

	(void)unused;
	snprintf(path, sizeof path, "%s/golden", shared ? shared : "../shared");
	int bad = nnamed ? -1 : run_folder(path);
	if (bad < 0) {
		print_message("%s is not there\n", path);
		skip();
	}
	assert_int_equal(bad, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(own_checkpoints),
		cmocka_unit_test(shared_checkpoints),
	};

	named = (const char **)argv + 1;
	nnamed = argc - 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
