/* inspect.c - a plan as text, changed and planned again: what `weft dump` and `weft run --graph` do, by the library. */
#include <ops/ops.h>
#include <string.h>

static wf_plan *planned(wf_arena *arena, wf_error *err, const char *text)
{
	wf_graph *g = wf_graph_new(arena, err, wf_ops);
	wf_plan *plan = NULL;

	if (!text) {
		wf_tensor *x = wf_input(g, "x", WF_F32, WF_SHAPE(WF_T, 64));
		wf_output(g, "y", wf_mul(g, wf_silu(g, x), x));
		return wf_plan_build(g, wf_rules, NULL, &(struct wf_plan_opt){.max_tokens = 4, .max_seqs = 1, .max_rows = 1});
	}
	return wf_graph_parse(g, text, strlen(text), &plan) || wf_plan_continue(plan) ? NULL : plan;
}

int main(void)
{
	wf_error err = {0};
	wf_arena *arena = wf_arena_new();
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);
	wf_plan *plan = planned(arena, &err, NULL);

	if (!plan || wf_plan_print(plan, f) || fclose(f))
		return 1;
	memcpy(strstr(text, "silu"), "relu", 4);
	plan = planned(arena, &err, text);
	if (!plan || wf_plan_print(plan, stdout) || wf_plan_explain(plan, NULL, stdout, false))
		fprintf(stderr, "%s\n", err.text);
	free(text);
	wf_arena_free(arena);
	return err.set;
}
