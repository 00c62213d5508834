/* hello.c - a graph by hand: look two tokens up, multiply, gate, print. */
#include <backends/backend.h>
#include <ops/ops.h>

int main(void)
{
	static const float table[] = {1, 0, 0, 1, 1, 1}, weight[] = {1, 2, 3, 4, 5, 6, 7, 8};
	const wf_backend *cpu = wf_backend_find("cpu");
	wf_error err = {0};
	wf_arena *arena = wf_arena_new();
	wf_graph *g = wf_graph_new(arena, &err, wf_ops);

	/* [3 tokens, 2] -> rows of 4, through silu; errors are sticky, so nothing is checked here */
	wf_tensor *x = wf_take(g, wf_const(g, WF_SHAPE(3, 2), table), wf_input(g, "tokens", WF_I32, WF_SHAPE(WF_T)));
	wf_tensor *y = wf_silu(g, wf_matmul(g, wf_const(g, WF_SHAPE(4, 2), weight), x));
	wf_output(g, "y", y);

	wf_plan *plan = wf_plan_build(g, wf_rules, cpu, &(struct wf_plan_opt){.max_tokens = 8, .max_seqs = 1, .max_rows = 1});
	wf_exec *exec = plan ? cpu->open(cpu, plan, &err, &(struct wf_exec_opt){.threads = 1}) : NULL;
	if (!exec) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	wf_batch batch = {.ntoken = 2, .nseq = 1, .token = (int32_t[]){2, 0}, .pos = (int32_t[]){0, 1},
		.row = (int32_t[]){0}, .seq_start = (int32_t[]){0, 2}, .seq_len = (int32_t[]){2}};
	if (exec->step(exec, &batch))
		return 1;
	for (int i = 0; i < 8; i++)
		printf("%.4f%c", (double)exec->output(exec, "y")[i], i % 4 == 3 ? '\n' : ' ');
	exec->close(exec);
	wf_arena_free(arena);
	return 0;
}
