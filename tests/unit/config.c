/* config.c - hyper-parameters from both layouts: every form a fact is written in, every range. */
#include "models/model.h"

#include <math.h>
#include <setjmp.h>
#include <unistd.h>
#include <cmocka.h>
#include "assemble.h"

static void build_nothing(wf_graph *g, const wf_config *c)
{
	(void)g;
	(void)c;
}

static const wf_arch any = {.name = "any", .build = build_nothing};

struct parsed { wf_arena *arena; wf_error err; wf_config c; const wf_arch *arch; };

static bool parse(struct parsed *p, const char *json, const wf_arch *only)
{
	*p = (struct parsed){.arena = wf_arena_new()};
	return config_from_json(p->arena, &p->err, json, strlen(json), only, &p->c, &p->arch) == 0;
}

static void parse_good(struct parsed *p, const char *json)
{
	if (!parse(p, json, &any))
		fail_msg("%s: %s", json, p->err.text);
}

/* A complete small config with `more` (",key:value...") at its end. */
#define BASE "{\"model_type\":\"llama\",\"vocab_size\":100,\"hidden_size\":32,\"num_hidden_layers\":4," \
	"\"num_attention_heads\":4"

/* ---- good ---- */

static void defaults(void **state)
{
	struct parsed p;

	(void)state;
	parse_good(&p, BASE "}");
	assert_true(p.c.nkv == 4 && p.c.hdim == 8 && p.c.vdim == 8 && p.c.ffn == 128 && p.c.rope_dim == 8);
	assert_true(p.c.theta == 10000 && p.c.ctx == 2048 && p.c.act == WF_SILU && p.c.dtype == WF_BF16);
	assert_true(p.c.bos == -1 && p.c.pad == -1 && p.c.neos == 0 && !p.c.tied && !p.c.gguf);
	assert_true(p.c.scaling == WF_ROPE_PLAIN && p.c.window == 0 && !p.c.sliding);
	assert_string_equal(p.c.arch, "any");
	wf_arena_free(p.arena);
	if (!parse(&p, BASE "}", NULL))
		fail_msg("%s", p.err.text);
	assert_ptr_equal(p.arch, &wf_arch_llama);
	wf_arena_free(p.arena);
}

static void null_is_absent(void **state)
{
	struct parsed p;

	(void)state;
	parse_good(&p, BASE ",\"num_key_value_heads\":null,\"head_dim\":null,\"n_inner\":null,\"rope_scaling\":null,"
		"\"sliding_window\":null,\"eos_token_id\":null,\"attn_logit_softcapping\":null}");
	assert_true(p.c.nkv == 4 && p.c.ffn == 128 && p.c.window == 0 && p.c.neos == 0);
	wf_arena_free(p.arena);
}

static void rope_forms(void **state)
{
	static const char *const same[] = {
		",\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
			"\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}",
		",\"rope_theta\":500000,\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1,"
			"\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}",
		",\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\",\"factor\":8,"
			"\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}",
		",\"rope_parameters\":{\"full_attention\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\",\"factor\":8,"
			"\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":64},"
			"\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":7.0}}}",
	};
	struct parsed p;

	(void)state;
	for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
		char json[1024];
		snprintf(json, sizeof json, "%s%s", BASE, same[i]);
		parse_good(&p, json);
		assert_true(p.c.scaling == WF_ROPE_LLAMA3 && p.c.theta == 500000 && p.c.rope_factor == 8);
		assert_true(p.c.rope_low == 1 && p.c.rope_high == 4 && p.c.rope_orig_ctx == 64);
		assert_true(p.c.theta_local == (i == 3 ? 7 : 0));
		wf_arena_free(p.arena);
	}
	parse_good(&p, BASE ",\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}");
	assert_true(p.c.rope_dim == 4 && p.c.scaling == WF_ROPE_LINEAR && p.c.rope_factor == 4);
	wf_arena_free(p.arena);
	parse_good(&p, BASE ",\"max_position_embeddings\":131072,\"rope_scaling\":{\"type\":\"yarn\","
		"\"original_max_position_embeddings\":32768}}");
	assert_true(p.c.scaling == WF_ROPE_YARN && p.c.rope_factor == 4 && p.c.rope_beta_fast == 32);
	wf_arena_free(p.arena);
	parse_good(&p, BASE ",\"max_position_embeddings\":64,\"original_max_position_embeddings\":16,\"rope_scaling\":"
		"{\"type\":\"longrope\",\"long_factor\":[1,2,3,4],\"short_factor\":[1,1,1,1.5]}}");
	assert_true(p.c.scaling == WF_ROPE_LONG && p.c.rope_long[3] == 4 && p.c.rope_short[3] == 1.5);
	wf_arena_free(p.arena);
}

static void window_forms(void **state)
{
	static const struct { const char *more, *sliding; int window; } table[] = {
		{",\"sliding_window\":9}", NULL, 9},
		{",\"sliding_window\":9,\"use_sliding_window\":false}", NULL, 0},
		{",\"sliding_window\":9,\"max_window_layers\":2}", NULL, 0},
		{",\"sliding_window\":9,\"use_sliding_window\":true,\"max_window_layers\":2}", "0011", 9},
		{",\"sliding_window\":9,\"sliding_window_pattern\":2}", "1010", 9},
		{",\"sliding_window\":9,\"_sliding_window_pattern\":3}", "1101", 9},
		{",\"sliding_window_pattern\":2}", NULL, 0},
		{",\"sliding_window\":9,\"layer_types\":[\"full_attention\",\"sliding_attention\","
			"\"sliding_attention\",\"full_attention\"]}", "0110", 9},
		{",\"sliding_window\":9,\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\","
			"\"full_attention\"]}", NULL, 0},
	};
	struct parsed p;

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		char json[512];
		snprintf(json, sizeof json, "%s%s", BASE, table[i].more);
		parse_good(&p, json);
		assert_int_equal(p.c.window, table[i].window);
		assert_int_equal(p.c.sliding != NULL, table[i].sliding != NULL);
		for (int l = 0; p.c.sliding && l < 4; l++)
			assert_int_equal(p.c.sliding[l], table[i].sliding[l] - '0');
		wf_arena_free(p.arena);
	}
}

static void tokens(void **state)
{
	static const char generation[] = "{\"eos_token_id\":[7,9],\"temperature\":0.6}";
	struct parsed p;

	(void)state;
	parse_good(&p, BASE ",\"eos_token_id\":[7,8],\"bos_token_id\":1,\"pad_token_id\":-1}");
	assert_true(p.c.neos == 2 && p.c.eos[0] == 7 && p.c.eos[1] == 8 && p.c.bos == 1 && p.c.pad == -1);
	assert_int_equal(config_generation(&p.c, &p.err, generation, sizeof generation - 1), 0);
	assert_true(p.c.neos == 3 && p.c.eos[2] == 9);
	assert_int_equal(config_generation(&p.c, &p.err, "{\"eos_token_id\":100}", 20), 0);
	assert_int_equal(p.c.neos, 3);
	wf_arena_free(p.arena);
	parse_good(&p, BASE ",\"eos_token_id\":[100,5,50256],\"pad_token_id\":100,\"bos_token_id\":50256}");
	assert_true(p.c.neos == 1 && p.c.eos[0] == 5 && p.c.pad == -1 && p.c.bos == -1);
	wf_arena_free(p.arena);
}

static void words(void **state)
{
	static const struct { const char *more; int act; wf_dtype dtype; } table[] = {
		{",\"hidden_act\":\"gelu\",\"torch_dtype\":\"float16\"}", WF_GELU, WF_F16},
		{",\"hidden_act\":\"gelu\",\"hidden_activation\":\"gelu_pytorch_tanh\",\"dtype\":\"float32\"}",
			WF_GELU_TANH, WF_F32},
		{",\"activation_function\":\"relu\",\"dtype\":\"bfloat16\",\"torch_dtype\":\"float32\"}", WF_RELU, WF_BF16},
	};
	struct parsed p;

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		char json[512];
		snprintf(json, sizeof json, "%s%s", BASE, table[i].more);
		parse_good(&p, json);
		assert_int_equal(p.c.act, table[i].act);
		assert_int_equal(p.c.dtype, table[i].dtype);
		wf_arena_free(p.arena);
	}
}

/* The text part of a model that has others. */
static void text_config(void **state)
{
	struct parsed p;

	(void)state;
	parse_good(&p, "{\"model_type\":\"llama_vision\",\"eos_token_id\":[3],\"text_config\":{\"model_type\":\"llama\","
		"\"vocab_size\":100,\"hidden_size\":32,\"num_hidden_layers\":4,\"num_attention_heads\":4,"
		"\"rope_theta\":7e3}}");
	assert_true(p.c.dim == 32 && p.c.theta == 7000 && p.c.neos == 1);
	wf_arena_free(p.arena);
}

static void golden_configs(void **state)
{
	static const char *const names[] = {
		"bloom", "deepseek-v3", "falcon-mq", "gemma2", "gemma3", "glm4", "gpt-neox", "gpt-oss", "gpt2", "llama",
		"llama2-gqa", "llama3-rope", "mistral-swa", "mixtral", "olmo2", "opt", "phi3", "qwen2", "qwen3-moe",
		"qwen3", "chatglm2",
	};
	const char *shared = getenv("WEFT_SHARED");

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char path[512];
		struct parsed p;
		snprintf(path, sizeof path, "%s/golden/%s/config.json", shared ? shared : "../shared", names[i]);
		if (!file_exists(path)) {
			print_message("no %s\n", path);
			skip();
		}
		wf_arena *arena = wf_arena_new();
		char *json = file_read(arena, &(wf_error){0}, path, 1 << 20, NULL);
		assert_non_null(json);
		if (!parse(&p, json, NULL))       /* by its own family */
			fail_msg("%s: %s", names[i], p.err.text);
		assert_true(p.c.dim == 64 && p.c.vocab == 256 && p.c.ctx == 512 && p.c.nlayer >= 2);
		assert_true(p.c.neos == 1 && p.c.eos[0] == 2);
		wf_arena_free(arena);
		wf_arena_free(p.arena);
	}
}

/* ---- a family's own rows ---- */

static int finish(wf_config *c, wf_error *err)
{
	return c->embed_scale > 10 ? wf_fail(err, "too much") : 0;
}

static void family_rows(void **state)
{
	static const struct wf_key keys[] = {
		{"my_scale", "my_scale", offsetof(wf_config, embed_scale), 'f', 0, 100, 2},
		{"hidden_size", NULL, offsetof(wf_config, dim), 'i', 1, 31, NAN},
		{"twice", NULL, offsetof(wf_config, alibi), 'b', 0, 1, 1},
		{0}
	};
	static const wf_arch family = {.name = "family", .keys = keys, .finish = finish, .build = build_nothing};
	struct parsed p;

	(void)state;
	assert_false(parse(&p, BASE "}", &family));
	assert_string_equal(p.err.text, "config.json: hidden_size is 32, expected an integer from 1 to 31");
	wf_arena_free(p.arena);
	assert_true(parse(&p, "{\"hidden_size\":16,\"vocab_size\":9,\"n_layer\":1,\"n_head\":2}", &family));
	assert_true(p.c.embed_scale == 2 && p.c.alibi);
	wf_arena_free(p.arena);
	assert_false(parse(&p, "{\"hidden_size\":16,\"vocab_size\":9,\"n_layer\":1,\"n_head\":2,\"my_scale\":11}", &family));
	assert_string_equal(p.err.text, "too much");
	wf_arena_free(p.arena);
}

static void unknown_family(void **state)
{
	struct parsed p;

	(void)state;
	assert_false(parse(&p, "{\"model_type\":\"lama\\u001b\"}", NULL));
	assert_non_null(strstr(p.err.text, "model_type \"lama?\" is not a known architecture; the nearest are: "));
	assert_non_null(strstr(p.err.text, "llama"));
	assert_non_null(strstr(p.err.text, "models/example/my_arch.c"));
	wf_arena_free(p.arena);
	assert_ptr_equal(wf_arch_find("llama"), &wf_arch_llama);
	assert_null(wf_arch_find("lama"));
}

static void loaded_family(void **state)
{
	static const char source[] = "#include \"models/model.h\"\n"
		"static void build(wf_graph *g, const wf_config *c) { (void)g; (void)c; }\n"
		"const wf_arch wf_arch_toy = {.abi = WF_ABI, .name = \"toy\", .build = build};\n";
	char folder[] = "/tmp/weft-config-XXXXXX", path[64], command[512];
	wf_error err = {0};

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/toy.c", folder);
	FILE *f = fopen(path, "w");
	assert_true(f && fputs(source, f) >= 0 && fclose(f) == 0);
	snprintf(command, sizeof command, "cd %s && cc -I\"$OLDPWD\" -std=c11 -shared -fPIC -o libtoy.so toy.c "
		"2>/dev/null && cp libtoy.so other.so", folder);
	int rc = system(command);
	if (rc == 0) {
		snprintf(path, sizeof path, "%s/libtoy.so", folder);
		const wf_arch *arch = wf_arch_load(&err, path);
		if (!arch)
			fail_msg("%s", err.text);
		assert_string_equal(arch->name, "toy");
		snprintf(path, sizeof path, "%s/other.so", folder);
		assert_null(wf_arch_load(&err, path));
		assert_non_null(strstr(err.text, "expected it to export `const wf_arch wf_arch_other`"));
	}
	snprintf(command, sizeof command, "rm -rf %s", folder);
	assert_int_equal(system(command), 0);
	err.set = false;
	assert_null(wf_arch_load(&err, "nowhere.so"));
	assert_true(err.set);
	if (rc != 0) {
		print_message("no C compiler here\n");
		skip();
	}
}

/* ---- bad ---- */

static void bad_documents(void **state)
{
	static const struct { const char *expect, *json; } table[] = {
		{"line 1, column 1: expected a value", ""},
		{"config.json: line 1", "{"},
		{"expected an object", "[]"},
		{"key \"a\" appears twice", "{\"a\":1,\"a\":2}"},
		{"hidden_size is missing (or any of: n_embd d_model)", "{\"vocab_size\":1}"},
		{"vocab_size is missing", "{\"hidden_size\":4,\"n_layer\":1,\"n_head\":1}"},
		{"hidden_size is 0, expected an integer from 1 to 1048576", "{\"vocab_size\":1,\"hidden_size\":0}"},
		{"hidden_size is -1, expected", "{\"vocab_size\":1,\"hidden_size\":-1}"},
		{"hidden_size is 1048577, expected", "{\"vocab_size\":1,\"hidden_size\":1048577}"},
		{"hidden_size is 4.5, expected an integer", "{\"vocab_size\":1,\"hidden_size\":4.5}"},
		{"hidden_size is 1e+30, expected", "{\"vocab_size\":1,\"hidden_size\":1e30}"},
		{"hidden_size is a boolean", "{\"vocab_size\":1,\"hidden_size\":true}"},
		{"hidden_size is neither a number nor", "{\"vocab_size\":1,\"hidden_size\":\"4\"}"},
		{"hidden_size is neither a number nor", "{\"vocab_size\":1,\"hidden_size\":[4]}"},
		{"tie_word_embeddings is a number, expected true or false", BASE ",\"tie_word_embeddings\":1}"},
		{"width 32 is no multiple of 5 heads", "{\"vocab_size\":1,\"hidden_size\":32,\"n_layer\":1,\"n_head\":5}"},
		{"4 heads, expected a multiple of 3", BASE ",\"num_key_value_heads\":3}"},
		{"rope over 10 values of heads of 8", BASE ",\"rotary_dim\":10}"},
		{"partial_rotary_factor is 0, expected a number from 1e-06 to 1", BASE ",\"partial_rotary_factor\":0}"},
		{"expected at most 4194304 in all", "{\"vocab_size\":1,\"hidden_size\":4096,\"n_layer\":1,\"n_head\":4096,"
			"\"head_dim\":4096}"},
		{"rms_norm_eps is -1", BASE ",\"rms_norm_eps\":-1}"},
		{"rope_theta is 0, expected", BASE ",\"rope_theta\":0}"},
		{"rope_type \"magic\" is not supported", BASE ",\"rope_scaling\":{\"rope_type\":\"magic\"}}"},
		{"without a factor", BASE ",\"rope_scaling\":{\"rope_type\":\"linear\"}}"},
		{"expected an object or null", BASE ",\"rope_scaling\":5}"},
		{"has a factor but no rope_type", BASE ",\"rope_scaling\":{\"factor\":2}}"},
		{"rope.factor is -1", BASE ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":-1}}"},
		{"expected 0 < low < high", BASE ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":2,"
			"\"low_freq_factor\":4,\"high_freq_factor\":4}}"},
		{"rope.long_factor to be a list", BASE ",\"rope_scaling\":{\"rope_type\":\"longrope\"}}"},
		{"rope.long_factor has 2 entries, expected 4", BASE ",\"rope_scaling\":{\"rope_type\":\"longrope\","
			"\"long_factor\":[1,1],\"short_factor\":[1,1]}}"},
		{"rope.short_factor[1] is no number", BASE ",\"rope_scaling\":{\"rope_type\":\"longrope\","
			"\"long_factor\":[1,1,1,1],\"short_factor\":[1,0]}}"},
		{"hidden_act \"mish\" is not supported", BASE ",\"hidden_act\":\"mish\"}"},
		{"dtype \"int8\" is not supported", BASE ",\"torch_dtype\":\"int8\"}"},
		{"quantised by gptq are not supported", BASE ",\"quantization_config\":{\"quant_method\":\"gptq\"}}"},
		{"layer_types has 1 entries, expected one for each of 4", BASE ",\"layer_types\":[\"full_attention\"]}"},
		{"layer_types \"magic\" is not supported", BASE ",\"layer_types\":[\"magic\",\"\",\"\",\"\"]}"},
		{"there is no sliding_window", BASE ",\"layer_types\":[\"sliding_attention\",\"sliding_attention\","
			"\"sliding_attention\",\"sliding_attention\"]}"},
		{"max_window_layers is no integer", BASE ",\"use_sliding_window\":true,\"max_window_layers\":\"x\"}"},
		{"eos_token_id is no integer", BASE ",\"eos_token_id\":\"</s>\"}"},
		{"end token -2, expected one from 0", BASE ",\"eos_token_id\":[-2]}"},
		{"more than 8 end tokens", BASE ",\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}"},
		{"bos_token_id is not a token id", BASE ",\"bos_token_id\":1e10}"},
		{"3 of 2 experts per token", BASE ",\"num_experts\":2,\"num_experts_per_tok\":3}"},
		{"0 of 2 experts per token", BASE ",\"num_experts\":2}"},
		{"8 experts in 3 groups", BASE ",\"num_experts\":8,\"num_experts_per_tok\":2,\"n_group\":3}"},
	};
	size_t wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		struct parsed p;
		if (parse(&p, table[i].json, &any) || !strstr(p.err.text, table[i].expect)) {
			print_error("expected \"%s\", found \"%s\"\n", table[i].expect, p.err.text);
			wrong++;
		}
		wf_arena_free(p.arena);
	}
	assert_int_equal(wrong, 0);
}

/* Every key, every value: what is accepted builds a graph. */
static void hostile_values(void **state)
{
	static const char *const keys[] = {
		"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
		"head_dim", "v_head_dim", "intermediate_size", "max_position_embeddings", "rms_norm_eps",
		"tie_word_embeddings", "attention_bias", "mlp_bias", "rope_theta", "rotary_dim",
		"partial_rotary_factor", "rope_scaling", "rope_parameters", "sliding_window", "layer_types",
		"max_window_layers", "use_sliding_window", "sliding_window_pattern", "eos_token_id", "bos_token_id",
		"pad_token_id", "hidden_act", "dtype", "torch_dtype", "num_local_experts", "num_experts_per_tok",
		"moe_intermediate_size", "n_group", "topk_group", "first_k_dense_replace", "routed_scaling_factor",
		"text_config", "model_type", "quantization_config", "attn_logit_softcapping", "_name_or_path",
	};
	static const char *const values[] = {
		"0", "1", "-1", "2147483647", "2147483648", "4294967296", "9223372036854775807", "9223372036854775808",
		"1e308", "-1e308", "0.5", "null", "true", "false", "\"\"", "\"x\"", "[]", "[1]", "[null]", "{}",
		"{\"factor\":1e300,\"rope_type\":\"linear\"}", "{\"rope_type\":\"yarn\",\"factor\":1}",
		"{\"full_attention\":3}", "{\"full_attention\":{\"rope_theta\":[]}}",
	};
	int accepted = 0;

	(void)state;
	for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
		for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
			static const char *const base[][2] = {{"model_type", "\"llama\""}, {"vocab_size", "100"},
				{"hidden_size", "32"}, {"num_hidden_layers", "2"}, {"num_attention_heads", "4"}};
			char json[1024];
			int n = sprintf(json, "{\"%s\":%s", keys[k], values[v]);
			for (size_t i = 0; i < 5; i++)
				if (strcmp(base[i][0], keys[k]))
					n += sprintf(json + n, ",\"%s\":%s", base[i][0], base[i][1]);
			strcpy(json + n, "}");
			struct parsed p;
			if (parse(&p, json, &wf_arch_llama)) {
				wf_model m = {.arch = p.arch, .config = p.c};
				wf_graph *g = wf_model_graph(&m, p.arena, &p.err);
				assert_int_equal(g != NULL, !p.err.set);
				accepted += g != NULL;
			} else {
				assert_true(p.err.set);
			}
			wf_arena_free(p.arena);
		}
	assert_in_range(accepted, 200, 600);
}

/* ---- GGUF ---- */

#define META "'GGUF' 3i 0q %dq <general.architecture> 8i <llama> <llama.embedding_length> 4i 32i " \
	"<llama.block_count> 4i 2i <llama.attention.head_count> 4i 4i <llama.vocab_size> 4i 100i "

static bool parse_meta(struct parsed *p, const char *more, int nmore)
{
	char text[1024];

	snprintf(text, sizeof text, META "%s", 5 + nmore, more);
	*p = (struct parsed){.arena = wf_arena_new()};
	struct bytes b = assemble(text);
	gguf *g = gguf_parse(p->arena, &p->err, b.data, b.n);
	bool good = g && config_from_gguf(p->arena, &p->err, g, &any, &p->c) == 0;
	free(b.data);
	return good;
}

static void gguf_configs(void **state)
{
	static const struct { const char *expect, *more; int n; } bad[] = {
		{"gguf: llama.rope.freq_base is 0, expected a number", "<llama.rope.freq_base> 6i 0f", 1},
		{"gguf: llama.rope.freq_base is nan", "<llama.rope.freq_base> 6i 0x7fc00000i", 1},
		{"llama.rope.freq_base is inf", "<llama.rope.freq_base> 6i 0x7f800000i", 1},
		{"llama.context_length is 0", "<llama.context_length> 4i 0i", 1},
		{"llama.context_length is of type string", "<llama.context_length> 8i <8>", 1},
		{"llama.context_length is a boolean", "<llama.context_length> 7i 1b", 1},
		{"llama.context_length is 1.8446744073709552e+19", "<llama.context_length> 12i 0x43f0000000000000q", 1},
		{"llama.context_length is of type u64, expected", "<llama.context_length> 10i -1q", 1},
		{"differs from layer to layer", "<llama.attention.head_count_kv> 9i 5i 2q 4i 2i", 1},
		{"empty array or not of integers", "<llama.attention.head_count_kv> 9i 5i 0q", 1},
		{"empty array or not of integers", "<llama.attention.head_count_kv> 9i 6i 1q 1f", 1},
		{"llama.rope.scaling.type is \"x\", expected", "<llama.rope.scaling.type> 8i <x>", 1},
		{"llama.rope.scaling.type is of type u32", "<llama.rope.scaling.type> 4i 1i", 1},
		{"tokenizer.ggml.eos_token_id is 100, expected below", "<tokenizer.ggml.eos_token_id> 4i 100i", 1},
		{"tokenizer.ggml.bos_token_id is 4294967295", "<tokenizer.ggml.bos_token_id> 4i -1i", 1},
		{"sliding_window_pattern has 1 entries", "<llama.attention.sliding_window_pattern> 9i 7i 1q 1b", 1},
		{"rope over 16 values of heads of 8", "<llama.rope.dimension_count> 4i 16i", 1},
	};
	struct parsed p;

	(void)state;
	if (!parse_meta(&p, "<general.name> 8i <my model> <llama.attention.head_count_kv> 9i 5i 2q 2i 2i "
			"<llama.rope.scale_linear> 6i 2f <llama.attention.sliding_window> 4i 7i "
			"<llama.attention.sliding_window_pattern> 9i 7i 2q 1b 0b <tokenizer.ggml.eos_token_id> 4i 3i "
			"<tokenizer.ggml.eot_token_id> 4i 4i <tokenizer.ggml.bos_token_id> 5i 1i", 8))
		fail_msg("%s", p.err.text);
	assert_true(p.c.gguf && p.c.nkv == 2 && p.c.scaling == WF_ROPE_LINEAR && p.c.rope_factor == 2);
	assert_true(p.c.window == 7 && p.c.sliding[0] && !p.c.sliding[1] && p.c.bos == 1);
	assert_true(p.c.neos == 2 && p.c.eos[0] == 3 && p.c.eos[1] == 4);
	assert_string_equal(p.c.name, "my model");
	wf_arena_free(p.arena);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		if (parse_meta(&p, bad[i].more, bad[i].n) || !strstr(p.err.text, bad[i].expect))
			fail_msg("expected \"%s\", found \"%s\"", bad[i].expect, p.err.text);
		wf_arena_free(p.arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(null_is_absent),
		cmocka_unit_test(rope_forms),
		cmocka_unit_test(window_forms),
		cmocka_unit_test(tokens),
		cmocka_unit_test(words),
		cmocka_unit_test(text_config),
		cmocka_unit_test(golden_configs),
		cmocka_unit_test(family_rows),
		cmocka_unit_test(unknown_family),
		cmocka_unit_test(loaded_family),
		cmocka_unit_test(bad_documents),
		cmocka_unit_test(hostile_values),
		cmocka_unit_test(gguf_configs),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
