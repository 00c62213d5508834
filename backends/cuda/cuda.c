/* cuda.c - the backend as the planner sees it: what fuses with what, and what it refuses. */
#include "backends/cuda/cuda.h"

/* Row by row everything elementwise joins; a product takes in its norm and its epilogue. */
static const char *const fusions[] = {
	"row into dot.load", "map into dot.load", "move into dot.load",
	"map after dot.store", "row after dot.store", "move after dot.store",
	"map into row.load", "move into row.load", "map after row.store", "move after row.store",
	"map after map", "move after map", "map after move.store", "move after move.store",
	"dot beside routed dot", "map after routed dot.store", "route after routed dot.store", "route after route.store",
	NULL
};

enum { DUMP_PAGE_TOKENS = 64 };

/* With the limits of a Hopper: what it cannot run, no other chip of the list can. */
static int check(const wf_backend *backend, const wf_plan *plan)
{
	struct emit_opt opt = {.gpu = emit_known_gpu("sm_90a"), .page_tokens = DUMP_PAGE_TOKENS};
	wf_arena *arena = wf_arena_new();
	struct pages pages;

	(void)backend;
	if (!arena)
		return wf_fail(plan->err, "cuda: out of memory");
	int failed = pages_make(plan->err, arena, &opt, plan, &pages);
	wf_arena_free(arena);
	return failed;
}

static int emit(const wf_backend *backend, wf_plan *plan, wf_error *err, const char *arch, const char *dir)
{
	struct emit_opt opt = {.gpu = emit_known_gpu(arch), .page_tokens = DUMP_PAGE_TOKENS};
	wf_arena *arena = wf_arena_new();
	struct pages pages;

	(void)backend;
	if (!arena)
		return wf_fail(err, "cuda: out of memory");
	int failed = opt.gpu ? pages_make(err, arena, &opt, plan, &pages) || pages_write(err, plan, &pages, dir) :
		wf_fail(err, "cuda: unknown architecture '%.20s' (sm_80, sm_89, sm_90a, sm_100, sm_120)", arch);
	wf_arena_free(arena);
	return failed ? -1 : 0;
}

#ifndef WF_CUDA
int cuda_device(const wf_backend *backend, struct wf_device *out)
{
	(void)backend, (void)out;
	return -1;
}

wf_exec *cuda_open(const wf_backend *backend, wf_plan *plan, wf_error *err, const struct wf_exec_opt *opt)
{
	(void)backend, (void)plan, (void)opt;
	wf_fail(err, "cuda: built without the CUDA toolkit");
	return NULL;
}
#endif

const wf_backend wf_backend_cuda = {
	.name    = "cuda",
	.act     = WF_F16,
	.fusions = fusions,
	.check   = check,
	.device  = cuda_device,
	.open    = cuda_open,
	.emit    = emit,
};
