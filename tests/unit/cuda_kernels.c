/* cuda_kernels.c - the kernels of every golden model compile for five chips, without one, and none spills.
 *
 * Layers and models share pages: each text is compiled once per chip.  With 16-bit activations, for one row
 * and for the most; on the first chip also for eight rows, and for one in f32.  WEFT_KERNELS=all: every class
 * of rows and every type of activations, on every chip. */
#include "backends/cuda/cuda.h"
#include "models/model.h"
#include "ops/ops.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

enum { ONE = 1, MOST = 2, EIGHT = 4 };          /* classes of rows, besides all */
enum { MAXMODEL = 64, MAXPROGRAM = 8192, MAXGROUP = 32, MOST_ROWS = 200, MOST_SEQS = 16 };

static char model[MAXMODEL][512];
static int nmodel;
static const char *all;

struct kernels {
	wf_arena *arena;
	const char *arch;
	wf_dtype act;
	int rows;                             /* ONE, MOST, EIGHT */
	struct cuda_program program[MAXPROGRAM];
	int n, asked, models;
};

static bool has_nvrtc(void)
{
	struct cuda_key key;
	wf_error err = {0};

	return !nvrtc_key(&err, &(struct cuda_build_opt){.arch = "sm_80"}, "", &key);
}

static void find_models(const char *root)
{
	DIR *d = opendir(root);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && nmodel < MAXMODEL)
			snprintf(model[nmodel++], sizeof *model, "%.240s/%.240s", root, e->d_name);
	if (d)
		closedir(d);
}

/* ---- pages ---- */

static void add_program(struct kernels *k, const struct cuda_program *p)
{
	k->asked++;
	for (int i = 0; i < k->n; i++)
		if (!strcmp(k->program[i].source, p->source))
			return;
	if (k->n == MAXPROGRAM)
		fail_msg("more than %d pages", MAXPROGRAM);
	k->program[k->n++] = *p;
}

static void add_variants(struct kernels *k, const struct pages *pages, const struct kernel_pages *of)
{
	int64_t most = 0;

	for (int i = 0; i < of->nvariant; i++)
		most = of->variant[i].rows > most ? of->variant[i].rows : most;
	for (int i = 0; i < of->nvariant; i++) {
		const struct variant *v = &of->variant[i];
		for (int j = 0; j < v->work.n; j++)
			if (v->program[j] >= 0 && (all || v->rows == 1 || (v->rows == most && k->rows & MOST) ||
			    (v->rows == 8 && k->rows & EIGHT)))
				add_program(k, &pages->program[v->program[j]]);
	}
}

/* Only heads of an odd size have no kernels. */
static void add_model(struct kernels *k, const char *path)
{
	struct emit_opt emit = {.gpu = emit_known_gpu(k->arch), .page_tokens = 64};
	wf_error err = {0};
	wf_model *m = wf_model_open(&err, path, NULL, 0);
	wf_graph *g = NULL;
	struct pages pages = {0};

	if (m) {
		m->act = m->kvtype = k->act;
		g = wf_model_graph(m, k->arena, &err);
	}
	wf_plan *plan = g ? wf_plan_build(g, wf_rules, &wf_backend_cuda, &(struct wf_plan_opt){.max_tokens = MOST_ROWS,
		.max_seqs = MOST_SEQS, .max_rows = MOST_SEQS}) : NULL;
	if ((!plan || pages_make(&err, k->arena, &emit, plan, &pages)) && !strstr(err.text, "multiples of 8"))
		fail_msg("%s: %s", path, err.text);
	for (int i = 0; plan && i < plan->nkernel; i++)
		if (plan->kernel[i].twin == i)
			add_variants(k, &pages, &pages.kernel[i]);
	if (plan && pages.head >= 0)
		add_program(k, &pages.program[pages.pick_program]);
	k->models += plan != NULL;
	wf_model_close(m);
}

#ifdef WF_SANITIZE
static int compile(struct kernels *k)
{
	print_message("measured: %s, %s: %d texts of %d models written, not compiled\n", k->arch, wf_dtypes[k->act].name, k->n,
		k->models);
	return 0;
}
#else
/* ---- what became of them ---- */

struct group { char name[32]; int n, registers; };

/* By skeleton: a program's name up to the dash. */
static struct group *group_of(struct group *group, int *n, const char *program)
{
	size_t len = strcspn(program, "-");
	int i = 0;

	while (i < *n && (strlen(group[i].name) != len || memcmp(group[i].name, program, len)))
		i++;
	if (i == *n && *n < MAXGROUP)
		snprintf(group[(*n)++].name, sizeof group->name, "%.*s", (int)len, program);
	return &group[i < MAXGROUP ? i : MAXGROUP - 1];
}

/* Products, attention, experts and the choice must not spill: how many do.  What works row by row has time to spare. */
static int report(const struct kernels *k, double seconds)
{
	struct group group[MAXGROUP] = {0};
	int n = 0, spills = 0, cold = 0;

	for (int i = 0; i < k->n; i++) {
		const struct cuda_program *p = &k->program[i];
		struct group *g = group_of(group, &n, p->name);
		bool is_cold = !strncmp(p->name, "rows", 4);
		g->n++;
		g->registers = p->usage.registers > g->registers ? p->usage.registers : g->registers;
		spills += !is_cold && p->usage.spill_bytes > 0;
		cold += is_cold && p->usage.spill_bytes > 0;
		if (p->usage.spill_bytes)
			print_error("%s for %s: %d bytes spilled\n%.300s\n%s", p->name, k->arch, p->usage.spill_bytes, p->source, p->log);
	}
	print_message("measured: %s, %s: %d kernels of %d models, %d texts in %.0f s, %d spill, %d row by row; most registers:",
		k->arch, wf_dtypes[k->act].name, k->asked, k->models, k->n, seconds, spills, cold);
	for (int i = 0; i < n; i++)
		print_message(" %s (%d) %d%s", group[i].name, group[i].n, group[i].registers, i + 1 < n ? "," : "\n");
	return spills;
}

static int compile(struct kernels *k)
{
	struct cuda_build_stats stats;
	wf_error err = {0};
	struct cuda_build_opt opt = {.arch = k->arch, .cache = cache_open(&err, "build/kernels")};

	if (!opt.cache || nvrtc_build(&err, &opt, k->program, k->n, &stats))
		fail_msg("%s: %s", k->arch, err.text);
	int spills = report(k, stats.seconds);
	nvrtc_free(k->program, k->n);
	cache_close(opt.cache);
	return spills;
}
#endif

static void compile_all(const char *arch, wf_dtype act, int rows)
{
	struct kernels *k = calloc(1, sizeof *k);

	*k = (struct kernels){.arena = wf_arena_new(), .arch = arch, .act = act, .rows = rows};
	for (int i = 0; i < nmodel; i++)
		add_model(k, model[i]);
	int spills = compile(k);
	wf_arena_free(k->arena);
	free(k);
	assert_int_equal(spills, 0);
}

static void kernels_compile(void **state)
{
	const char *arch = *state;
	bool first = !strcmp(arch, "sm_90a");

	if (!nmodel || !has_nvrtc()) {
		print_message("skipped: no golden models, or no NVRTC\n");
		skip();
	}
	compile_all(arch, WF_F16, first ? ONE | MOST | EIGHT : ONE | MOST);
	if (all || first)
		compile_all(arch, WF_F32, ONE);
	if (all)
		compile_all(arch, WF_BF16, ONE | MOST | EIGHT);
}

int main(void)
{
	static char archs[][8] = {"sm_90a", "sm_80", "sm_89", "sm_100", "sm_120"};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(kernels_compile, archs[0]),
		cmocka_unit_test_prestate(kernels_compile, archs[1]),
		cmocka_unit_test_prestate(kernels_compile, archs[2]),
		cmocka_unit_test_prestate(kernels_compile, archs[3]),
		cmocka_unit_test_prestate(kernels_compile, archs[4]),
	};
	const char *shared = getenv("WEFT_SHARED");
	char root[256];

	all = getenv("WEFT_KERNELS");
	snprintf(root, sizeof root, "%.200s/golden", shared ? shared : "../shared");
	find_models(root);
	if (nmodel)
		find_models("tests/golden");
	mkdir("build", 0777);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
