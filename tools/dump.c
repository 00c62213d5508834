/* dump.c - the graph or plan after any pass, as text, DOT, JSON or a page; kernel sources. */
#include "tools/weft.h"

#include <errno.h>
#include <string.h>

struct wf_sizes plan_sizes(const struct session *s)
{
	int64_t ctx = session_ctx(s), most = session_step(s) < ctx ? session_step(s) : ctx;

	if (s->model && s->model->config.ctx > 0 && ctx > s->model->config.ctx)
		say(s->o, "the model was trained for a context of %lld tokens\n", (long long)s->model->config.ctx);
	return (struct wf_sizes){.tokens = most, .seqs = 1, .rows = 1, .ctx = ctx};
}

static int write_plan(struct session *s, FILE *f)
{
	const char *format = s->o->format;
	struct wf_device device;
	int found = session_device(s, &device);

	if (found < 0)
		return -1;
	if (!strcmp(format, "dot"))
		return wf_plan_dot(s->plan, f);
	if (!strcmp(format, "json"))
		return wf_plan_json(s->plan, f);
	if (!strcmp(format, "html"))
		return wf_plan_html(s->plan, found ? &device : NULL, f);
	return wf_plan_print(s->plan, f) ? wf_fail(&s->err, "cannot write") : 0;
}

static int emit(struct session *s)
{
	const char *arch = session_gpu_arch(s->o), *dir = s->o->output ? s->o->output : "kernels";

	if (!s->backend || !s->backend->emit)
		return wf_fail(&s->err, "--stage emit: the %s backend runs plans without sources of their own (--backend cuda)",
			s->backend ? s->backend->name : "chosen");
	if (s->backend->emit(s->backend, s->plan, &s->err, arch, dir))
		return -1;
	say(s->o, "%d kernels in %s\n", s->plan->nkernel, dir);
	return 0;
}

int write_output(struct session *s, int (*write)(struct session *, FILE *))
{
	const char *path = s->o->output;
	FILE *f = path && strcmp(path, "-") ? fopen(path, "w") : stdout;

	if (!f)
		return wf_fail(&s->err, "%s: %s", path, strerror(errno));
	int result = write(s, f);
	if ((f == stdout ? fflush(f) : fclose(f)) && !result)
		return wf_fail(&s->err, "%s: %s", path ? path : "standard output", strerror(errno));
	return result;
}

int dump_main(const struct options *o)
{
	struct session s;
	bool sources = !strcmp(o->stage, "emit");

	session_start(&s, o);
	if (session_model(&s, 0))
		return session_failed(&s);
	struct wf_sizes sizes = plan_sizes(&s);
	if (session_plan(&s, &sizes, sources ? NULL : o->stage) || (sources ? emit(&s) : write_output(&s, write_plan)))
		return session_failed(&s);
	session_close(&s);
	return WEFT_OK;
}
