/* cuda_kernels.c - every page of the golden models compiles, without a GPU, and none spills registers.
 *
 * By default each model for sm_90a and one of them for all chips; WEFT_KERNELS=all: each for all, and
 * for eight rows, prompts among them, as well as one. */
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

static const char *const archs[] = {"sm_90a", "sm_80", "sm_89", "sm_100", "sm_120"};
static const char *all;

struct tally { int programs, registers, spills; };

static bool has_nvrtc(void)
{
	struct cuda_key key;
	wf_error err = {0};

	return !nvrtc_key(&err, &(struct cuda_build_opt){.arch = "sm_80"}, "", &key);
}

static int build(wf_error *err, const wf_plan *plan, const char *arch, struct tally *t)
{
	struct emit_opt emit = {.gpu = emit_known_gpu(arch), .page_tokens = 64};
	struct cuda_build_opt opt = {.arch = arch, .cache = cache_open(err, "build/kernels")};
	wf_arena *arena = wf_arena_new();
	struct pages pages = {0};
	int failed = !opt.cache || !arena || pages_make(err, arena, &emit, plan, &pages) ||
		nvrtc_build(err, &opt, pages.program, pages.nprogram, NULL);

	for (int i = 0; i < pages.nprogram && !failed; i++) {
		const struct cuda_usage *u = &pages.program[i].usage;
		t->programs++;
		t->registers = u->registers > t->registers ? u->registers : t->registers;
		t->spills += u->spill_bytes > 0;
		if (u->spill_bytes)
			print_error("%s for %s: %d bytes spilled\n%s", pages.program[i].name, arch, u->spill_bytes, pages.program[i].log);
	}
	nvrtc_free(pages.program, pages.nprogram);
	cache_close(opt.cache);
	wf_arena_free(arena);
	return failed;
}

/* 0; 1 when the backend cannot run the model (it says so); -1 failed. */
static int compile(const char *path, const char *arch, int rows, struct tally *t)
{
	wf_error err = {0};
	wf_model *model = wf_model_open(&err, path, NULL, 0);
	wf_arena *arena = wf_arena_new();
	wf_graph *g = NULL;
	int result = -1;

	if (model) {
		model->act = model->kvtype = WF_F16;
		g = wf_model_graph(model, arena, &err);
	}
	wf_plan *plan = g ? wf_plan_build(g, wf_rules, &wf_backend_cuda, &(struct wf_plan_opt){.max_tokens = rows,
		.max_seqs = (rows + 1) / 2, .max_rows = rows}) : NULL;      /* single tokens, and prompts */
	if (plan)
		result = build(&err, plan, arch, t);
	else if (g)
		result = 1;
	if (result)
		print_message("%s: %s\n", path, err.text);
	wf_arena_free(arena);
	wf_model_close(model);
	return result;
}

static void golden_kernels_compile(void **state)
{
	const char *shared = getenv("WEFT_SHARED");
	char root[256], path[600];
	struct dirent *e;

	(void)state;
	all = getenv("WEFT_KERNELS");
	snprintf(root, sizeof root, "%s/golden", shared ? shared : "../shared");
	DIR *d = opendir(root);
	if (!d || !has_nvrtc()) {
		print_message("skipped: no %s, or no NVRTC\n", root);
		if (d)
			closedir(d);
		skip();
	}
	mkdir("build", 0777);
	while ((e = readdir(d))) {
		bool every = all || !strcmp(e->d_name, "llama2-gqa");
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", root, e->d_name);
		for (int i = 0; i < (every ? 5 : 1); i++) {
			struct tally t = {0};
			int result = compile(path, archs[i], 1, &t);
			if (!result && every)
				result = compile(path, archs[i], 8, &t);
			if (result < 0)
				fail_msg("%s for %s", e->d_name, archs[i]);
			print_message("%-14s %-7s %3d programs, at most %3d registers, %d spill\n", e->d_name, archs[i], t.programs,
				t.registers, t.spills);
			assert_int_equal(t.spills, 0);
			if (result)
				break;
		}
	}
	closedir(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_kernels_compile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
