/* graph.c - fuzz: the text form, and the passes over whatever it yields.  What is accepted prints, and
 * its print parses to the same print. */
#include "ops/ops.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char *print(const wf_graph *g, const wf_plan *plan, size_t *len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, len);

	if (!f || (plan ? wf_plan_print(plan, f) : wf_graph_print(g, f)))
		abort();
	fclose(f);
	return text;
}

static void reread(const char *text, size_t len)
{
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_graph *g = wf_graph_new(arena, &err, wf_ops);
	wf_plan *plan;
	size_t again_len;

	if (wf_graph_parse(g, text, len, &plan)) {
		fprintf(stderr, "%s\n%.*s", err.text, (int)len, text);
		abort();
	}
	char *again = print(g, plan, &again_len);
	if (len != again_len || memcmp(text, again, len)) {
		fprintf(stderr, "%.*s\n----\n%.*s", (int)len, text, (int)again_len, again);
		abort();
	}
	free(again);
	wf_arena_free(arena);
}

static void finish(wf_graph *g, wf_plan *plan)
{
	const struct wf_plan_opt opt = {.max_tokens = 16, .max_seqs = 2, .max_rows = 3, .verify = true};
	FILE *sink = fopen("/dev/null", "w");

	if (plan) {
		plan->rules = wf_rules;
		plan->opt.verify = true;
		if (wf_plan_continue(plan))
			plan = NULL;
	} else {
		plan = wf_plan_build(g, wf_rules, NULL, &opt);
	}
	if (!plan && !g->err->set)
		abort();
	if (plan && (wf_plan_dot(plan, sink) || wf_plan_json(plan, sink) || wf_plan_html(plan, NULL, sink) ||
	    wf_plan_explain(plan, NULL, sink, false)))
		abort();
	fclose(sink);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_graph *g = wf_graph_new(arena, &err, wf_ops);
	wf_plan *plan;
	size_t len;
	int result = wf_graph_parse(g, (const char *)data, bytes, &plan);

	if (!result && plan && plan_verify(plan))
		result = -1;
	if ((result != 0) != err.set)
		abort();
	if (!result) {
		char *text = print(g, plan, &len);
		reread(text, len);
		free(text);
		finish(g, plan);
	}
	wf_arena_free(arena);
	return 0;
}
