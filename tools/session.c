/* session.c - from options to a model, a plan and a runner: the same steps for every command. */
#include "tools/weft.h"
#include "ops/ops.h"

#include <string.h>

#ifdef NDEBUG
enum { VERIFY = false };
#else
enum { VERIFY = true };
#endif

void session_start(struct session *s, const struct options *o)
{
	*s = (struct session){.o = o};
}

void session_release(struct session *s)
{
	wf_runner_free(s->runner);
	wf_arena_free(s->arena);
	s->runner = NULL;
	s->plan = NULL;
	s->arena = NULL;
}

void session_close(struct session *s)
{
	session_release(s);
	wf_model_close(s->model);
	*s = (struct session){.o = s->o};
}

int session_failed(struct session *s)
{
	int code = failed(s->o, "%s", s->err.set ? s->err.text : "failed");

	session_close(s);
	return code;
}

/* ---- the model ---- */

static const char *model_path(const struct options *o)
{
	return o->model ? o->model : o->narg ? o->arg[0] : NULL;
}

static bool ends_in(const char *s, const char *end)
{
	size_t len = strlen(s), n = strlen(end);

	return len >= n && !strcmp(s + len - n, end);
}

/* A type option's value; `absent` when it was not given. */
static int type_option(struct session *s, const char *option, const char *name, wf_dtype absent, wf_dtype *out)
{
	int found = name ? wf_dtype_find(name) : (int)absent;

	if (found < 0)
		return wf_fail(&s->err, "%s: unknown type '%s'", option, name);
	*out = (wf_dtype)found;
	return 0;
}

/* --act: a type, q8 for what the CPU makes of q8_0, or auto. */
static int act_option(struct session *s, wf_dtype absent, wf_dtype *out)
{
	const char *name = s->o->act;

	if (name && !strcmp(name, "auto"))
		name = NULL;
	return type_option(s, "--act", name && !strcmp(name, "q8") ? "q8_0" : name, absent, out);
}

static int open_backend(struct session *s)
{
	const char *name = s->o->backend ? s->o->backend : s->o->gpu ? "cuda" : "cpu";

	s->backend = wf_backend_find(name);
	if (!s->backend && s->o->backend)
		return wf_fail(&s->err, "backend %s is not part of this build", name);
	return 0;
}

static int set_types(struct session *s)
{
	bool exact = s->o->command == COMMAND_verify;
	wf_dtype act = s->backend ? s->backend->act : WF_F16;
	wf_model *m = s->model;

	/* a backend that prefers f32 keeps activations as nothing else; --act then chooses what products read */
	if (act != WF_F32 && act_option(s, exact ? WF_F32 : act, &act))
		return -1;
	s->act = act;
	if (type_option(s, "--cache-type", s->o->kvtype, exact ? WF_F32 : WF_F16, &s->kvtype))
		return -1;
	if (!m)
		return 0;
	m->act = s->act;
	m->kvtype = s->kvtype;
	return m->weights ? 0 : type_option(s, "--wtype", s->o->wtype, m->config.dtype, &m->config.dtype);
}

/* A dump says all there is to say, unless it is to run. */
static bool needs_model(const struct options *o)
{
	return !o->graph || (o->command != COMMAND_dump && o->command != COMMAND_explain && o->command != COMMAND_plan);
}

const char *session_gpu_arch(const struct options *o)
{
	const char *comma = o->arch ? strrchr(o->arch, ',') : NULL;

	return comma ? comma + 1 : !o->arch || strncmp(o->arch, "sm_", 3) ? "sm_90a" : o->arch;
}

/* FILE.so, with a GPU after a comma where sources are written, or a family by name. */
static int open_arch(struct session *s, const wf_arch **arch)
{
	const char *given = s->o->arch;
	char path[512];

	*arch = NULL;
	if (!given || (s->o->command == COMMAND_dump && !strncmp(given, "sm_", 3)))
		return 0;
	snprintf(path, sizeof path, "%.*s", (int)strcspn(given, s->o->command == COMMAND_dump ? "," : ""), given);
	*arch = ends_in(path, ".so") ? wf_arch_load(&s->err, path) : wf_arch_find(path);
	if (!*arch && !s->err.set)
		arch_unknown(&s->err, "--arch", path);
	return *arch ? 0 : -1;
}

int session_model(struct session *s, int flags)
{
	const struct options *o = s->o;
	const char *path = model_path(o);
	const wf_arch *arch;
	double start = seconds_now();

	if (o->narg > (o->model ? 0 : 1)) {
		wf_fail(&s->err, "unexpected argument '%s'", o->arg[o->model ? 0 : 1]);
		return -1;
	}
	if (open_arch(s, &arch))
		return -1;
	if (!path && !needs_model(o))
		return open_backend(s) || set_types(s) ? -1 : 0;
	if (!path)
		return wf_fail(&s->err, "expected a model: -m PATH, or WEFT_MODEL in the environment");
	if (o->no_mmap)
		flags |= WF_OPEN_NO_MMAP;
	s->model = wf_model_open(&s->err, path, arch, flags);
	if (!s->model || open_backend(s))
		return -1;
	s->open_s = seconds_now() - start;
	return flags & WF_OPEN_VOCAB_ONLY ? 0 : set_types(s);
}

/* ---- the plan ---- */

static const wf_weights *made_weights(struct session *s, wf_graph *g)
{
	return wf_random_weights(g, s->arena, s->o->seed < 0 ? 0 : (uint64_t)s->o->seed);
}

static wf_graph *build_graph(struct session *s)
{
	wf_graph *g = wf_model_graph(s->model, s->arena, &s->err);

	if (g && s->o->random_weights && s->backend == &wf_backend_cpu)
		g->weights = made_weights(s, g);
	return g && !wf_failed(g) ? g : NULL;
}

static bool executes(const struct options *o)
{
	return o->command != COMMAND_dump && o->command != COMMAND_explain;
}

static bool holds(const struct wf_plan_opt *made, const struct wf_plan_opt *asked)
{
	return made->max_tokens >= asked->max_tokens && made->max_seqs >= asked->max_seqs && made->max_rows >= asked->max_rows;
}

/* What passes are left run on a dump.  Its bounds hold, unless it is to run: then those asked for do, and
 * what was placed for less is placed anew. */
static int go_on(struct session *s, wf_plan *plan, const struct wf_plan_opt *opt)
{
	struct wf_plan_opt was = plan->opt;

	plan->rules = wf_rules;
	plan->backend = s->backend;
	plan->opt = *opt;
	if (!executes(s->o) || (plan->stage == PLAN_PLACE && holds(&was, opt))) {
		plan->opt.max_tokens = was.max_tokens;
		plan->opt.max_seqs = was.max_seqs;
		plan->opt.max_rows = was.max_rows;
	} else if (plan->stage >= PLAN_FUSE) {
		plan->stage = plan->stage == PLAN_PLACE ? PLAN_ORDER : plan->stage;
		if (plan_derive(plan))
			return -1;
	}
	for (int stage = 0; opt->stop_after && stage < plan->stage; stage++)
		if (!strcmp(opt->stop_after, plan_stage_names[stage]))
			return wf_fail(&s->err, "%s: the plan is past %s, it stands after %s", s->o->graph, opt->stop_after,
				plan_stage_names[plan->stage]);
	s->plan = plan;
	return graph_verify(plan->g) || plan_verify(plan) || wf_plan_continue(plan) ? -1 : 0;
}

static int read_graph(struct session *s, const struct wf_plan_opt *opt)
{
	size_t len;
	wf_plan *plan = NULL;
	char *text = read_path(&s->err, s->o->graph, &len);
	wf_graph *g = text ? wf_graph_new(s->arena, &s->err, wf_ops) : NULL;

	if (g) {
		g->weights = s->model ? s->model->weights : NULL;
		g->act = s->act;
		g->kvtype = s->kvtype;
	}
	int result = g ? wf_graph_parse(g, text, len, &plan) : -1;
	free(text);
	if (result)
		return -1;
	if (s->o->random_weights && s->backend == &wf_backend_cpu && !(g->weights = made_weights(s, g)))
		return -1;
	if (plan)
		return go_on(s, plan, opt);
	s->plan = wf_plan_build(g, wf_rules, s->backend, opt);
	return s->plan ? 0 : -1;
}

/* A graph of one's own may name its outputs as it likes, but what runs here wants logits. */
static int has_logits(struct session *s)
{
	return !executes(s->o) || s->o->command == COMMAND_plan || session_vocab(s) > 0 ? 0 :
		wf_fail(&s->err, "the graph has no output 'logits', its first is '%s'", s->plan->g->out[0].name);
}

int session_plan(struct session *s, const struct wf_sizes *sizes, const char *stop_after)
{
	struct wf_plan_opt opt = {.max_tokens = sizes->tokens, .max_seqs = sizes->seqs, .max_rows = sizes->rows,
		.skip = s->o->skip, .stop_after = stop_after, .verify = VERIFY};

	s->arena = wf_arena_new();
	if (!s->arena)
		return wf_fail(&s->err, "out of memory");
	if (s->o->graph)
		return read_graph(s, &opt) || has_logits(s) ? -1 : 0;
	s->model->config.opened = s->opened ? s->opened : sizes->ctx / (sizes->seqs > 0 ? sizes->seqs : 1);
	wf_graph *g = build_graph(s);
	if (!g)
		return -1;
	s->plan = wf_plan_build(g, wf_rules, s->backend, &opt);
	return s->plan ? 0 : -1;
}

/* ---- the runner ---- */

static const char *cache_dir(const struct options *o, char *out, size_t cap)
{
	if (o->cache)
		return o->cache;
	return user_path(out, cap, "XDG_CACHE_HOME", ".cache", "weft") ? out : NULL;
}

int session_runner(struct session *s, const struct wf_sizes *sizes, bool profile)
{
	char dir[512];
	const struct options *o = s->o;
	double start = seconds_now();
	wf_dtype compute = WF_NDTYPE;

	if (!s->plan->g->weights && !o->random_weights)
		return wf_fail(&s->err, "%s holds no weights (--random-weights makes some)", s->model->path);
	if (act_option(s, o->command == COMMAND_verify ? WF_F32 : WF_NDTYPE, &compute))
		return -1;
	s->runner = wf_runner_new(&s->err, s->plan, &(struct wf_runner_opt){
		.ctx = sizes->ctx, .page_tokens = (int)o->page,
		.exec = {.threads = (int)o->threads, .isa = o->isa, .compute = compute, .profile = profile,
			.cache = cache_dir(o, dir, sizeof dir), .device = (int)o->device, .no_graph = o->no_graph, .sync = o->sync,
			 .random_weights = o->random_weights,
			.seed = o->seed < 0 ? 0 : (uint64_t)o->seed}});
	s->load_s = seconds_now() - start;
	return s->runner ? 0 : -1;
}

/* ---- sizes ---- */

int64_t session_ctx(const struct session *s)
{
	int64_t most = s->model ? s->model->config.ctx : 0, want = s->o->ctx;

	if (!want)
		return most > 0 ? most : 4096;
	return !option_given(s->o, "ctx-size") && most > 0 && most < want ? most : want;
}

int64_t session_step(const struct session *s)
{
	return s->o->batch && s->o->batch < s->o->ubatch ? s->o->batch : s->o->ubatch;
}

int64_t session_vocab(const struct session *s)
{
	const wf_graph *g = s->plan->g;

	for (int i = 0; i < g->nout; i++)
		if (!strcmp(g->out[i].name, "logits"))
			return wf_last(g->out[i].t);
	return 0;
}
