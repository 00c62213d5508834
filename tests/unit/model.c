/* model.c - what a path opens to: GGUF, a directory, a config alone; templates, end tokens, names. */
#include "models/model.h"

#include <setjmp.h>
#include <unistd.h>
#include <cmocka.h>
#include "assemble.h"

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/weft-model-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof command, "rm -rf '%s'", folder);
	return system(command);
}

static const char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	return path;
}

static void write_file(const char *name, const void *data, size_t n)
{
	FILE *f = fopen(path_of(name), "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static void write_text(const char *name, const char *text)
{
	write_file(name, text, strlen(text));
}

static void write_directory(void)
{
	struct bytes b = tiny_shard("model.", 0, NTENSOR);

	write_text("config.json", TINY_CONFIG);
	write_file("model.safetensors", b.data, b.n);
	free(b.data);
}

static wf_model *open_good(const char *path, int flags)
{
	wf_error err = {0};
	wf_model *m = wf_model_open(&err, path, NULL, flags);

	if (!m)
		fail_msg("%s", err.text);
	return m;
}

static void a_directory(void **state)
{
	struct wf_blob b;

	(void)state;
	write_directory();
	write_text("generation_config.json", "{\"eos_token_id\":0}");
	wf_model *m = open_good(folder, 0);
	assert_ptr_equal(m->arch, &wf_arch_llama);
	assert_true(m->config.dtype == WF_F16 && m->config.tied && !m->config.gguf);
	assert_true(m->config.neos == 3 && m->config.eos[2] == 0);
	assert_int_equal(m->weight_bytes, 2 * (3 * 4 + 16 + 16 + 8 + 8 + 16 + 3 * 16));
	assert_int_equal(m->weights->find(m->weights, "blk.0.attn_k.weight", &b), 0);
	assert_true(b.ndim == 2 && b.dim[0] == 2 && b.dim[1] == 4);
	assert_int_equal(m->weights->find(m->weights, "blk.1.attn_k.weight", &b), -1);
	assert_int_equal(m->weights->find(m->weights, "blk.x.attn_k.weight", &b), -1);
	assert_int_equal(m->weights->find(m->weights, "blk.0.attn_k.weigh", &b), -1);
	assert_int_equal(m->weights->find(m->weights, "blk.12345678901.attn_k.weight", &b), -1);
	assert_null(m->tokenizer);
	assert_null(m->chat_template);
	wf_model_close(m);
	unlink(path_of("generation_config.json"));
}

/* What is said to have a head of its own does not run with the embedding for one. */
static void a_missing_head(void **state)
{
	static const char whole[] = TINY_CONFIG, said[] = "\"tie_word_embeddings\":";
	const char *at = strstr(whole, said) + strlen(said);
	char config[sizeof whole + 1];
	wf_error err = {0};

	(void)state;
	write_directory();
	snprintf(config, sizeof config, "%.*sfalse%s", (int)(at - whole), whole, at + strlen("true"));
	write_text("config.json", config);
	assert_null(wf_model_open(&err, folder, NULL, 0));
	assert_non_null(strstr(err.text, "tie_word_embeddings is false, but"));
}

static void a_config_alone(void **state)
{
	wf_error err = {0};
	wf_arena *arena = wf_arena_new();

	(void)state;
	write_text("config.json", TINY_CONFIG);
	wf_model *m = open_good(path_of("config.json"), 0);
	assert_null(m->weights);
	assert_int_equal(m->weight_bytes, 0);
	assert_non_null(wf_model_graph(m, arena, &err));
	wf_model_close(m);
	wf_arena_free(arena);
}

static void a_gguf(void **state)
{
	struct bytes b = assemble(TINY_LLAMA_GGUF);
	wf_error err = {0};
	wf_arena *arena = wf_arena_new();

	(void)state;
	write_file("tiny.gguf", b.data, b.n);
	free(b.data);
	for (int flags = 0; flags <= WF_OPEN_NO_MMAP; flags += WF_OPEN_NO_MMAP) {
		wf_model *m = open_good(path_of("tiny.gguf"), flags);
		assert_true(m->config.gguf && m->config.tied && m->config.vocab == 4 && m->config.dtype == WF_F16);
		assert_non_null(m->tokenizer);
		assert_non_null(wf_model_graph(m, arena, &err));
		wf_model_close(m);
	}
	wf_model *m = open_good(path_of("tiny.gguf"), WF_OPEN_VOCAB_ONLY);
	assert_non_null(m->tokenizer);
	assert_null(wf_model_graph(m, arena, &err));
	assert_non_null(strstr(err.text, "opened for its vocabulary only"));
	wf_model_close(m);
	wf_arena_free(arena);
}

/* Each form replaces the one before it. */
static void templates(void **state)
{
	static const struct { const char *file, *text, *want; } table[] = {
		{"tokenizer_config.json", "{\"model_max_length\":1000000000000000019884624838656}", NULL},
		{"tokenizer_config.json", "{\"chat_template\":\"plain\"}", "plain"},
		{"tokenizer_config.json", "{\"chat_template\":[{\"name\":\"tool\",\"template\":\"t\"},"
			"{\"name\":\"default\",\"template\":\"d\"}]}", "d"},
		{"tokenizer_config.json", "{\"chat_template\":[{\"name\":\"tool\",\"template\":\"t\"}]}", "t"},
		{"tokenizer_config.json", "{\"chat_template\":[]}", NULL},
		{"tokenizer_config.json", "{\"chat_template\":7}", NULL},
		{"chat_template.json", "{\"chat_template\":\"in json\"}", "in json"},
		{"chat_template.jinja", "{{ jinja }}\n", "{{ jinja }}\n"},
	};

	(void)state;
	write_directory();
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		write_text(table[i].file, table[i].text);
		wf_model *m = open_good(folder, 0);
		if (table[i].want)
			assert_string_equal(m->chat_template, table[i].want);
		else
			assert_null(m->chat_template);
		wf_model_close(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_directory),
		cmocka_unit_test(a_missing_head),
		cmocka_unit_test(a_config_alone),
		cmocka_unit_test(a_gguf),
		cmocka_unit_test(templates),
	};

	return cmocka_run_group_tests_name("model", tests, make_folder, drop_folder);
}
