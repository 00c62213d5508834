/* families.c - what a family makes of a config: the parameters of known models, windows and experts by
 * layer, what a window gives back in a long run, and what is refused by name. */
#include "harness.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

struct made { wf_arena *arena; wf_error err; wf_config c; const wf_arch *arch; wf_graph *g; };

/* The graph of a config without files; NULL with the error set. */
static wf_graph *make(struct made *m, const char *json)
{
	*m = (struct made){.arena = wf_arena_new()};
	if (config_from_json(m->arena, &m->err, json, strlen(json), NULL, &m->c, &m->arch))
		return NULL;
	wf_graph *g = wf_graph_new(m->arena, &m->err, wf_ops);
	m->arch->build(g, &m->c);
	return m->g = wf_failed(g) ? NULL : g;
}

static void known_models_have_their_parameters(void **unused)
{
	static const struct { const char *file; int64_t count; } known[] = {
		{"llama-2-7b", 6738415616}, {"llama-3-8b", 8030261248}, {"llama-3.2-1b", 1235814400},
		{"bloom-7b1", 7069016064}, {"chatglm2-6b", 6243584000}, {"mistral-7b", 7241732096},
		{"mixtral-8x7b", 46702792704}, {"qwen3-8b", 8190735360}, {"gemma-3-4b", 3880263168},
	};
	(void)unused;

	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		wf_arena *file = wf_arena_new();
		wf_error err = {0};
		struct made m;
		char path[96];
		size_t bytes;
		int64_t sum = 0;
		snprintf(path, sizeof path, "tests/configs/%s.json", known[i].file);
		char *json = file_read(file, &err, path, 1 << 20, &bytes);
		if (!json || !make(&m, json))
			fail_msg("%s: %s%s", path, err.text, json ? m.err.text : "");
		for (int k = 0; k < m.g->nnode; k++)
			if (m.g->node[k]->op == &wf_op_weight)
				sum += wf_nelem(m.g->node[k]);
		if (sum != known[i].count)
			fail_msg("%s: %lld parameters, expected %lld", path, (long long)sum, (long long)known[i].count);
		wf_arena_free(m.arena);
		wf_arena_free(file);
	}
}

/* Windows of the cache nodes, layer by layer, as "5 5 0". */
static const char *windows(const wf_graph *g, char *out, size_t cap)
{
	size_t at = 0;

	*out = 0;
	for (int i = 0; i < g->nnode; i++)
		if (g->node[i]->op == &wf_op_cache)
			at += (size_t)snprintf(out + at, cap - at, at ? " %d" : "%d",
				(int)g->node[i]->attr[wf_attr_index(&wf_op_cache, "window")]);
	return out;
}

#define SMALL "\"vocab_size\":64,\"hidden_size\":32,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":8," \
	"\"intermediate_size\":48"

static void windows_follow_the_config(void **unused)
{
	static const struct { const char *json, *want; } cases[] = {
		{"{\"model_type\":\"mistral\"," SMALL ",\"num_hidden_layers\":2,\"sliding_window\":5}", "5 5"},
		{"{\"model_type\":\"mistral\"," SMALL ",\"num_hidden_layers\":2,\"sliding_window\":null}", "0 0"},
		{"{\"model_type\":\"gemma2\"," SMALL ",\"num_hidden_layers\":3,\"sliding_window\":5}", "5 0 5"},
		{"{\"model_type\":\"gemma2\"," SMALL ",\"num_hidden_layers\":2,\"sliding_window\":5,"
			"\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", "0 5"},
		{"{\"model_type\":\"gemma3_text\"," SMALL ",\"num_hidden_layers\":7,\"sliding_window\":5}", "5 5 5 5 5 0 5"},
		{"{\"model_type\":\"gemma3_text\"," SMALL ",\"num_hidden_layers\":4,\"sliding_window\":5,"
			"\"sliding_window_pattern\":2}", "5 0 5 0"},
		{"{\"model_type\":\"qwen2\"," SMALL ",\"num_hidden_layers\":3,\"sliding_window\":5,\"max_window_layers\":1,"
			"\"use_sliding_window\":true}", "0 5 5"},
		{"{\"model_type\":\"qwen2\"," SMALL ",\"num_hidden_layers\":2,\"sliding_window\":5,\"max_window_layers\":1,"
			"\"use_sliding_window\":false}", "0 0"},
		{"{\"model_type\":\"gpt_oss\"," SMALL ",\"num_hidden_layers\":3,\"sliding_window\":5,\"num_local_experts\":4,"
			"\"num_experts_per_tok\":2}", "5 0 5"},
		{"{\"model_type\":\"qwen3_moe\"," SMALL ",\"num_hidden_layers\":2,\"sliding_window\":5,\"max_window_layers\":1,"
			"\"use_sliding_window\":true,\"num_experts\":4,\"num_experts_per_tok\":2,\"moe_intermediate_size\":8}", "5 5"},
	};
	char text[64];
	(void)unused;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct made m;
		if (!make(&m, cases[i].json))
			fail_msg("%s: %s", cases[i].json, m.err.text);
		assert_string_equal(windows(m.g, text, sizeof text), cases[i].want);
		wf_arena_free(m.arena);
	}
}

/* Two thousand tokens through a pool that holds a few windows: pages come back at every step, and the
 * layers that see everything keep theirs. */
static void windows_give_pages_back(void **unused)
{
	enum { PAGE = 16, WINDOW = 40, STEPS = 2000 };
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_config c;
	const wf_arch *arch;
	struct side a;
	const float *logits;
	int nrow;
	static const char json[] = "{\"model_type\":\"gemma2\"," SMALL ",\"num_hidden_layers\":2,\"sliding_window\":40}";
	(void)unused;

	assert_int_equal(config_from_json(arena, &err, json, strlen(json), NULL, &c, &arch), 0);
	side_open(&a, arch, &c, WF_F32, WF_F16);
	a.plan = wf_plan_build(a.g, wf_rules, &wf_backend_cpu, &(struct wf_plan_opt){.max_tokens = 8, .max_seqs = 1, .max_rows = 1});
	assert_non_null(a.plan);
	a.runner = wf_runner_new(&a.err, a.plan, &(struct wf_runner_opt){.ctx = STEPS, .page_tokens = PAGE, .exec = {.threads = 1}});
	if (!a.runner)
		fail_msg("%s", a.err.text);
	wf_slab *slab = wf_runner_slab(a.runner);
	wf_seq *seq = wf_seq_new(slab);
	for (int t = 0; t < STEPS; t++) {
		if (wf_runner_step(a.runner, &(struct wf_piece){.seq = seq, .token = &(int32_t){t % 64}, .n = 1}, 1, &logits, &nrow))
			fail_msg("step %d: %s", t, a.err.text);
		for (int k = 0; k < wf_slab_nclass(slab); k++) {
			struct wf_slab_stats stats;
			int window = wf_slab_class(slab, k)->window, all = t / PAGE + 1, most = (WINDOW + PAGE - 1) / PAGE + 1;
			wf_slab_stats(slab, k, &stats);
			if (window ? stats.held > most : stats.held != all)
				fail_msg("token %d: %d pages held by the layers of window %d", t, (int)stats.held, window);
			if (window)
				assert_true(wf_slab_npage(slab, k) * PAGE < STEPS / 10);
		}
	}
	assert_int_equal(wf_slab_nclass(slab), 2);
	assert_int_equal(slab_verify(slab, &err), 0);
	wf_seq_free(slab, seq);
	side_close(&a);
	wf_arena_free(arena);
}

/* Layers with experts, as "0 1 1". */
static const char *sparse(const wf_graph *g, char *out, size_t cap)
{
	*out = 0;
	for (int i = 0; i < g->nnode; i++)
		if (g->node[i]->op == &wf_op_route) {
			size_t at = strlen(out);
			snprintf(out + at, cap - at, "%.*s ", (int)strcspn(g->node[i]->scope + 4, "."), g->node[i]->scope + 4);
		}
	return out;
}

static void experts_follow_the_config(void **unused)
{
#define EXPERTS SMALL ",\"num_hidden_layers\":4,\"num_experts_per_tok\":2,\"moe_intermediate_size\":16"
	static const struct { const char *json, *want; } cases[] = {
		{"{\"model_type\":\"mixtral\"," EXPERTS ",\"num_local_experts\":4}", "0 1 2 3 "},
		{"{\"model_type\":\"qwen3_moe\"," EXPERTS ",\"num_experts\":4}", "0 1 2 3 "},
		{"{\"model_type\":\"qwen3_moe\"," EXPERTS ",\"num_experts\":4,\"mlp_only_layers\":[1,3,99]}", "0 2 "},
		{"{\"model_type\":\"qwen3_moe\"," EXPERTS ",\"num_experts\":4,\"decoder_sparse_step\":2}", "1 3 "},
		{"{\"model_type\":\"deepseek_v3\"," EXPERTS ",\"n_routed_experts\":4,\"n_group\":2,\"topk_group\":1,\"kv_lora_rank\":8,"
			"\"qk_nope_head_dim\":8,\"qk_rope_head_dim\":4,\"v_head_dim\":8,\"first_k_dense_replace\":3}", "3 "},
		{"{\"model_type\":\"deepseek_v3\"," EXPERTS ",\"n_routed_experts\":4,\"n_group\":2,\"topk_group\":1,\"kv_lora_rank\":8,"
			"\"qk_nope_head_dim\":8,\"qk_rope_head_dim\":4,\"v_head_dim\":8,\"first_k_dense_replace\":9}", ""},
	};
	char text[64];
	(void)unused;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct made m;
		if (!make(&m, cases[i].json))
			fail_msg("%s: %s", cases[i].json, m.err.text);
		assert_string_equal(sparse(m.g, text, sizeof text), cases[i].want);
		wf_arena_free(m.arena);
	}
}

/* Frequencies for the context that is opened: long rope's other factors, dynamic rope's larger base. */
static void rope_follows_the_opened_context(void **unused)
{
	static const char longrope[] = "{\"model_type\":\"phi3\"," SMALL ",\"num_hidden_layers\":1,\"max_position_embeddings\":64,"
		"\"original_max_position_embeddings\":16,\"rope_scaling\":{\"type\":\"longrope\",\"long_factor\":[2,2,2,2],"
		"\"short_factor\":[1,1,1,1]}}";
	static const char dynamic[] = "{\"model_type\":\"llama\"," SMALL ",\"num_hidden_layers\":1,\"max_position_embeddings\":16,"
		"\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}";
	static const struct { const char *json; int64_t opened; double freq; } cases[] = {
		{longrope, 0, 0.5}, {longrope, 16, 1}, {longrope, 17, 0.5},
		/* theta^(-2/8), theta = 10000 (2 * 2 - 1)^(8 / 6) */
		{dynamic, 0, 0.1}, {dynamic, 16, 0.1}, {dynamic, 32, 0.0693361274},
	};
	(void)unused;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct made m;
		assert_non_null(make(&m, cases[i].json));
		m.c.opened = cases[i].opened;
		wf_graph *g = wf_graph_new(m.arena, &m.err, wf_ops);
		m.arch->build(g, &m.c);
		for (int k = 0; k < g->nnode; k++)
			if (g->node[k]->op == &wf_op_rope) {
				wf_tensor *freqs = g->node[k]->in[2];
				assert_int_equal(graph_constant(freqs, m.arena), 0);
				assert_true(fabs(((const float *)freqs->data)[cases[i].json == dynamic] / cases[i].freq - 1) < 1e-6);
			}
		wf_arena_free(m.arena);
	}
}

/* Gemma 3's layers with a window are stretched apart from the others. */
static void windows_turn_in_their_own_way(void **unused)
{
	static const double want[] = {0.25, 1};       /* the first frequency, of a layer each */
	struct made m;
	int n = 0;
	(void)unused;

	assert_non_null(make(&m, "{\"model_type\":\"gemma3_text\"," SMALL ",\"num_hidden_layers\":2,\"sliding_window\":5,"
		"\"layer_types\":[\"sliding_attention\",\"full_attention\"],\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6},"
		"\"sliding_attention\":{\"rope_type\":\"linear\",\"factor\":4,\"rope_theta\":1e4}}}"));
	for (int k = 0; k < m.g->nnode; k++)
		if (m.g->node[k]->op == &wf_op_rope) {
			wf_tensor *freqs = m.g->node[k]->in[2];
			assert_int_equal(graph_constant(freqs, m.arena), 0);
			assert_true((double)*(const float *)freqs->data == want[n++ / 2]);
		}
	assert_int_equal(n, 4);
	wf_arena_free(m.arena);
}

/* null is none where the family has a default; absent is the default. */
static void null_is_none(void **unused)
{
	struct made m;
	(void)unused;

	assert_non_null(make(&m, "{\"model_type\":\"gemma2\"," SMALL ",\"num_hidden_layers\":1}"));
	assert_true(m.c.attn_softcap == 50 && m.c.final_softcap == 30 && m.c.window == 4096);
	wf_arena_free(m.arena);
	assert_non_null(make(&m, "{\"model_type\":\"gemma2\"," SMALL ",\"num_hidden_layers\":1,"
		"\"attn_logit_softcapping\":null,\"final_logit_softcapping\":null,\"sliding_window\":null}"));
	assert_true(m.c.attn_softcap == 0 && m.c.final_softcap == 0 && m.c.window == 0);
	wf_arena_free(m.arena);
}

static double phi(double x) { return 0.5 * x * (1 + erf(x / sqrt(2))); }
static double gelu_10(double x) { return fmin(phi(x), 10); }
static double quick_gelu(double x) { return x / (1 + exp(-1.702 * x)); }
static double relu2(double x) { return x > 0 ? x * x : 0; }
static double relu6(double x) { return fmin(fmax(x, 0), 6); }
static double leaky_relu(double x) { return x > 0 ? x : 0.01 * x; }
static double hardswish(double x) { return x * relu6(x + 3) / 6; }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double linear(double x) { return x; }

/* Those that are put together from ops, on both sides of where they bend. */
static void activations_are_their_formulas(void **unused)
{
	static const struct { const char *name; double (*of)(double); } table[] = {
		{"gelu_python", phi}, {"gelu_10", gelu_10}, {"quick_gelu", quick_gelu}, {"relu2", relu2}, {"relu6", relu6},
		{"leaky_relu", leaky_relu}, {"hardswish", hardswish}, {"sigmoid", sigmoid}, {"tanh", tanh}, {"linear", linear},
	};
	static const float x[] = {-20, -4, -2, -0.25, 0, 0.5, 2, 5, 7, 20};
	enum { N = sizeof x / sizeof *x };
	(void)unused;

	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		struct made m;
		char json[512];
		snprintf(json, sizeof json, "{\"model_type\":\"llama\"," SMALL ",\"num_hidden_layers\":1,\"hidden_act\":\"%s\"}",
			table[i].name);
		if (!make(&m, json))
			fail_msg("%s: %s", table[i].name, m.err.text);
		wf_tensor *y = wf_activate(m.g, m.c.act, wf_const(m.g, WF_SHAPE(N), x));
		assert_int_equal(graph_constant(y, m.arena), 0);
		for (int k = 0; k < N; k++) {
			double got = (double)((const float *)y->data)[k], want = table[i].of((double)x[k]);
			if (fabs(got - want) > 1e-6 * (1 + fabs(want)))
				fail_msg("%s(%g): %.9g, expected %.9g", table[i].name, (double)x[k], got, want);
		}
		wf_arena_free(m.arena);
	}
}

static void other_mathematics_is_refused(void **unused)
{
	static const struct { const char *json, *message; } cases[] = {
		{"{\"model_type\":\"llama\"," SMALL ",\"num_hidden_layers\":1,\"hidden_act\":\"mish\"}",
			"hidden_act \"mish\" is not supported"},
		{"{\"model_type\":\"qwen2\"," SMALL ",\"num_hidden_layers\":1,\"rope_scaling\":{\"type\":\"mrope\"}}",
			"rope_type \"mrope\" is not supported"},
		{"{\"model_type\":\"mistral\"," SMALL ",\"num_hidden_layers\":1,\"rope_parameters\":{\"rope_type\":\"ntk\",\"factor\":2}}",
			"rope_type \"ntk\" is not supported"},
		{"{\"model_type\":\"phi3\"," SMALL ",\"num_hidden_layers\":1,\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}}",
			"expected rope.long_factor to be a list of numbers"},
		{"{\"model_type\":\"qwen3\"," SMALL ",\"num_hidden_layers\":1,\"layer_types\":[\"chunked_attention\"]}",
			"layer_types \"chunked_attention\" is not supported"},
		{"{\"model_type\":\"llama\"," SMALL ",\"num_hidden_layers\":1,\"quantization_config\":{\"quant_method\":\"gptq\"}}",
			"weights quantised by gptq are not supported: take the model's GGUF"},
		{"{\"model_type\":\"qwen3_moe\"," SMALL ",\"num_hidden_layers\":1,\"num_experts\":4,\"num_experts_per_tok\":2,"
			"\"decoder_sparse_step\":0}", "decoder_sparse_step is no integer above 0"},
		{"{\"model_type\":\"mixtral\"," SMALL ",\"num_hidden_layers\":1,\"num_local_experts\":4,\"num_experts_per_tok\":5}",
			"5 of 4 experts per token"},
		{"{\"model_type\":\"qwen3_moe\"," SMALL ",\"num_hidden_layers\":1,\"num_experts\":4,\"num_experts_per_tok\":2}",
			"4 experts of no width (moe_intermediate_size)"},
		{"{\"model_type\":\"gpt2\"," SMALL ",\"num_hidden_layers\":1,\"add_cross_attention\":true}",
			"add_cross_attention is true, which is not supported"},
		{"{\"model_type\":\"gemma3_text\"," SMALL ",\"num_hidden_layers\":1,\"use_bidirectional_attention\":true}",
			"use_bidirectional_attention is true, which is not supported"},
		{"{\"model_type\":\"gemma3_text\"," SMALL ",\"num_hidden_layers\":1,\"rope_parameters\":{\"full_attention\":{},"
			"\"sliding_attention\":{\"rope_type\":\"yarn\",\"factor\":2}}}", "rope_type of sliding_attention \"yarn\" is not supported"},
		{"{\"model_type\":\"chatglm\"," SMALL ",\"num_layers\":1,\"rmsnorm\":false}", "rmsnorm is false"},
		{"{\"model_type\":\"gpt_oss\"," SMALL ",\"num_hidden_layers\":1}", "without experts"},
		{"{\"model_type\":\"deepseek_v3\"," SMALL ",\"num_hidden_layers\":1}", "kv_lora_rank is missing"},
	};
	(void)unused;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct made m;
		if (make(&m, cases[i].json))
			fail_msg("accepted: %s", cases[i].json);
		if (!strstr(m.err.text, cases[i].message))
			fail_msg("%s: %s", cases[i].json, m.err.text);
		wf_arena_free(m.arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_models_have_their_parameters),
		cmocka_unit_test(windows_follow_the_config),
		cmocka_unit_test(windows_give_pages_back),
		cmocka_unit_test(experts_follow_the_config),
		cmocka_unit_test(rope_follows_the_opened_context),
		cmocka_unit_test(windows_turn_in_their_own_way),
		cmocka_unit_test(null_is_none),
		cmocka_unit_test(activations_are_their_formulas),
		cmocka_unit_test(other_mathematics_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
