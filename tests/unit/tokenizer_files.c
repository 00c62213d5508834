/* tokenizer_files.c - what tokenizer files may say, and what is refused with a message that names it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>
#include "assemble.h"
#include "tokens.h"

/* ---- GGUF files made here ---- */

static void put_text(struct bytes *b, const char *s)
{
	uint64_t n = strlen(s);

	bytes_put(b, &n, 8);
	bytes_put(b, s, n);
}

/* "key" and its value in the language of assemble.h */
static void put_key(struct bytes *b, const char *key, const char *value)
{
	struct bytes v = assemble(value);

	put_text(b, key);
	bytes_put(b, v.data, v.n);
	free(v.data);
}

/* An array of strings, separated by ';'. */
static void put_list(struct bytes *b, const char *key, const char *items)
{
	uint64_t n = 1;
	uint32_t types[2] = {9, 8};

	for (const char *p = items; *p; p++)
		n += *p == ';';
	put_text(b, key);
	bytes_put(b, types, sizeof types);
	bytes_put(b, &n, 8);
	for (const char *p = items; n--; p += strcspn(p, ";") + 1) {
		uint64_t len = strcspn(p, ";");
		bytes_put(b, &len, 8);
		bytes_put(b, p, len);
	}
}

struct source {
	const char *model, *pre, *tokens, *merges;   /* NULL: left out */
	const char *more[8][2];                      /* key after tokenizer.ggml., value for assemble() */
};

static struct bytes write_gguf(const struct source *s)
{
	struct bytes b = {0}, body = {0};
	char key[128], value[128];
	uint64_t nkv = 0, zero = 0;
	uint32_t version = 3;

	if (s->model && ++nkv) {
		snprintf(value, sizeof value, "8i <%s>", s->model);
		put_key(&body, "tokenizer.ggml.model", value);
	}
	if (s->pre && ++nkv) {
		snprintf(value, sizeof value, "8i <%s>", s->pre);
		put_key(&body, "tokenizer.ggml.pre", value);
	}
	if (s->tokens && ++nkv)
		put_list(&body, "tokenizer.ggml.tokens", s->tokens);
	if (s->merges && ++nkv)
		put_list(&body, "tokenizer.ggml.merges", s->merges);
	for (int i = 0; i < 8 && s->more[i][0]; i++, nkv++) {
		snprintf(key, sizeof key, "tokenizer.ggml.%s", s->more[i][0]);
		put_key(&body, key, s->more[i][1]);
	}
	bytes_put(&b, "GGUF", 4);
	bytes_put(&b, &version, 4);
	bytes_put(&b, &zero, 8);
	bytes_put(&b, &nkv, 8);
	if (body.n)
		bytes_put(&b, body.data, body.n);
	free(body.data);
	return b;
}

/* Loads it; the caller closes.  The map holds the bytes, on the heap. */
static struct opened load(const struct source *s)
{
	struct opened o = {.arena = wf_arena_new()};
	struct bytes b = write_gguf(s);

	o.map.data = b.data;
	gguf *g = gguf_parse(o.arena, &o.err, b.data, b.n);
	if (!g)
		fail_msg("%s", o.err.text);
	o.tok = tokenizer_from_gguf(o.arena, &o.err, g);
	assert_true(!o.tok == o.err.set);
	return o;
}

static void unload(struct opened *o)
{
	tokenizer_close(o->tok);
	wf_arena_free(o->arena);
	free((void *)o->map.data);
}

static void expect(const struct source *s, const char *text, int flags, const char *ids)
{
	struct opened o = load(s);
	int32_t want[64];
	char list[256];

	if (!o.tok)
		fail_msg("%s", o.err.text);
	check_ids(&o, text, strlen(text), flags, want, read_ids(strcpy(list, ids), want));
	unload(&o);
}

static void expect_error(const struct source *s, const char *part)
{
	struct opened o = load(s);

	if (o.tok)
		fail_msg("loaded, expected an error with \"%s\"", part);
	if (!strstr(o.err.text, part))
		fail_msg("\"%s\" does not say \"%s\"", o.err.text, part);
	unload(&o);
}

#define BYTES "a;b;c;\xC4\xA0;ab;abc;\xC4\xA0" "a;<;s;>;<s>;<u>;1;2"
#define SPM "<unk>;<s>;</s>;<0x0A>;\xE2\x96\x81;a;b;ab;\xE2\x96\x81" "ab;<u>;c"
#define SPM_SCORES "9i 6i 11q 0f 0f 0f 0f -1f -2f -3f -4f -5f 0f -6f"
#define SPM_TYPES "9i 5i 11q 2i 3i 3i 6i 1i 1i 1i 1i 1i 4i 1i"

static void gguf_bytes(void **unused)
{
	const struct source s = {"gpt2", "gpt-2", BYTES, "a b;ab c;\xC4\xA0 a;x y;a b c;nospace;ab c", {
		{"token_type", "9i 5i 14q 1i 1i 1i 1i 1i 1i 1i 1i 1i 1i 3i 4i 1i 1i"},
		{"bos_token_id", "4i 10i"}, {"eos_token_id", "4i 10i"}}};
	struct source t = s;
	(void)unused;

	expect(&s, "abc", 0, "5");
	expect(&s, "ab a<u>b", 0, "4 6 11 1");               /* a user's token is cut out always */
	expect(&s, "<s>", 0, "7 8 9");                       /* a control token only when asked for */
	expect(&s, "<s>", WF_TOK_SPECIAL, "10");
	expect(&s, "a", WF_TOK_BOS, "0");
	expect(&s, "12zz1", 0, "12 13 12");                  /* a byte without a token is left out */
	t.more[3][0] = "add_bos_token";
	t.more[3][1] = "7i 1b";
	expect(&t, "a", WF_TOK_BOS, "10 0");
	t.more[4][0] = "add_eos_token";
	t.more[4][1] = "7i 1b";
	expect(&t, "a", WF_TOK_BOS, "10 0 10");
	t.pre = "llama-bpe";
	expect(&t, "abc", 0, "5");
	t.merges = "a x";
	expect(&t, "abc", 0, "5");                           /* a whole piece needs no merges here */
	t.pre = "gpt-2";
	expect(&t, "abc", 0, "0 1 2");
}

static void gguf_scores(void **unused)
{
	const struct source s = {"llama", NULL, SPM, NULL, {{"scores", SPM_SCORES}, {"token_type", SPM_TYPES}}};
	struct source t = s;
	(void)unused;

	expect(&s, "ab", 0, "8");
	expect(&s, "ab", WF_TOK_BOS, "1 8");
	expect(&s, "ab\nz", 0, "8 3 0");                     /* a byte token; a byte without one */
	expect(&s, "b a", 0, "4 6 4 5");
	expect(&s, "ab<u>ab", 0, "8 9 8");
	expect(&s, "<s>", WF_TOK_SPECIAL, "1");
	t.more[2][0] = "add_space_prefix";
	t.more[2][1] = "7i 0b";
	expect(&t, "ab", 0, "7");
	t.more[3][0] = "add_bos_token";
	t.more[3][1] = "7i 0b";
	expect(&t, "ab", WF_TOK_BOS, "7");
}

static void ends(void **unused)
{
	const struct source s = {"gpt2", "gpt-2", "a;<|im_end|>;<|end|>;<|return|>;<|call|>;</s>;x", "a b",
		{{"token_type", "9i 5i 7q 1i 3i 3i 3i 3i 1i 1i"}, {"eot_token_id", "4i 6i"}}};
	struct opened o = load(&s);
	(void)unused;

	assert_non_null(o.tok);
	assert_true(wf_token_is_eog(o.tok, 1));
	assert_false(wf_token_is_eog(o.tok, 2));             /* with <|return|> and <|call|>, only a message ends */
	assert_true(wf_token_is_eog(o.tok, 3));
	assert_false(wf_token_is_eog(o.tok, 5));             /* ordinary text that looks like one */
	assert_true(wf_token_is_eog(o.tok, 6));
	assert_false(wf_token_is_eog(o.tok, -1));
	assert_false(wf_token_is_eog(o.tok, 7));
	assert_int_equal(wf_token_bos(o.tok), -1);
	unload(&o);
}

static void gguf_errors(void **unused)
{
	static const struct { struct source s; const char *part; } rows[] = {
		{{NULL, NULL, BYTES, "a b", {{0}}}, "tokenizer.ggml.model"},
		{{"bert", NULL, BYTES, "a b", {{0}}}, "\"bert\""},
		{{"t5", NULL, BYTES, "a b", {{0}}}, "\"t5\""},
		{{"rwkv", NULL, BYTES, "a b", {{0}}}, "\"rwkv\""},
		{{"gpt2", "no-such-cut", BYTES, "a b", {{0}}}, "\"no-such-cut\""},
		{{"gpt2", NULL, BYTES, "a b", {{0}}}, "tokenizer.ggml.pre"},
		{{"gpt2", "gpt-2", NULL, "a b", {{0}}}, "tokenizer.ggml.tokens"},
		{{"gpt2", "gpt-2", BYTES, NULL, {{0}}}, "tokenizer.ggml.merges"},
		{{"gpt2", "gpt-2", "a;b;a", "a b", {{0}}}, "both \"a\""},
		{{"llama", NULL, SPM, NULL, {{0}}}, "tokenizer.ggml.scores"},
		{{"llama", NULL, SPM, NULL, {{"scores", "9i 6i 2q 0f 0f"}}}, "2 values for 11 tokens"},
		{{"llama", NULL, SPM, NULL, {{"scores", "9i 5i 1q 0i"}}}, "array of i32"},
		{{"llama", NULL, "a;b", NULL, {{"scores", "9i 6i 2q 0f nanf"}}}, "not a number"},
		{{"llama", NULL, "a;b", NULL, {{"scores", "9i 6i 2q 0f 0f"}, {"token_type", "9i 5i 1q 1i"}}}, "1 values for 2"},
		{{"llama", NULL, "a;b", NULL, {{"scores", "9i 6i 2q 0f 0f"}, {"token_type", "9i 5i 2q 1i 7i"}}}, "1 to 6"},
		{{"llama", NULL, "a;<0x-1>", NULL, {{"scores", "9i 6i 2q 0f 0f"}, {"token_type", "9i 5i 2q 1i 6i"}}}, "<0x-1>"},
		{{"llama", NULL, "a;<0x1>", NULL, {{"scores", "9i 6i 2q 0f 0f"}, {"token_type", "9i 5i 2q 1i 6i"}}}, "<0x1>"},
		{{"llama", NULL, "<0xaB>;<0xAb>", NULL, {{"scores", "9i 6i 2q 0f 0f"}, {"token_type", "9i 5i 2q 6i 6i"}}}, "both byte"},
		{{"gpt2", "gpt-2", BYTES, "a b", {{"bos_token_id", "4i 14i"}}}, "bos_token_id"},
		{{"gpt2", "gpt-2", BYTES, "a b", {{"eos_token_id", "5i -2i"}}}, "eos_token_id"},
		{{"gpt2", "gpt-2", BYTES, "a b", {{"add_bos_token", "4i 1i"}}}, "add_bos_token"},
		{{"gpt2", "gpt-2", BYTES, "a b", {{"token_type", "9i 6i 1q 1f"}}}, "token_type"},
	};
	(void)unused;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		expect_error(&rows[i].s, rows[i].part);
}

/* ---- tokenizer.json ---- */

static void json_error(const char *json, const char *part)
{
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_tokenizer *tok = tokenizer_from_json(arena, &err, json, strlen(json), NULL, 0);

	if (tok)
		fail_msg("loaded, expected an error with \"%s\"", part);
	if (!strstr(err.text, part))
		fail_msg("\"%s\" does not say \"%s\"", err.text, part);
	wf_arena_free(arena);
}

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"

static void json_errors(void **unused)
{
	static const char *const rows[][2] = {
		{"", "tokenizer.json"}, {"[]", "expected an object"}, {"{}", "model"},
		{"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "\"WordPiece\""},
		{"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}}", "\"WordLevel\""},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", "model.vocab"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "highest token id"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"b\"},\"merges\":[]}}", "no integer"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1,\"b\":0},\"merges\":[]}}", "has the id -1"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":16777215},\"merges\":[]}}", "highest token id"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}", "defined twice"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "merges"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "two tokens at 0"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[7]}}", "two tokens at 0"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}", "end_of_word_suffix"},
		{"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", "dropout"},
		{"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "[text, score]"},
		{"{\"model\":{\"type\":\"Unigram\",\"unk_id\":3,\"vocab\":[[\"a\",0]]}}", "unk_id 3"},
		{"{" MODEL ",\"normalizer\":{\"type\":\"BertNormalizer\"}}", "\"BertNormalizer\""},
		{"{" MODEL ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]}}", "\"Nmt\""},
		{"{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}}", "empty"},
		{"{" MODEL ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}}", "charsmap"},
		{"{" MODEL ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", "\"UnicodeScripts\""},
		{"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Sideways\"}}", "\"Sideways\""},
		{"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"(\"}}}", "\"(\""},
		{"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"x\"}}", "prepend_scheme"},
		{"{" MODEL ",\"post_processor\":{\"type\":\"Whatever\"}}", "\"Whatever\""},
		{"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]}}", "\"x\""},
		{"{" MODEL ",\"decoder\":{\"type\":\"WordPiece\"}}", "\"WordPiece\""},
		{"{" MODEL ",\"added_tokens\":[{\"id\":0,\"content\":\"z\"}]}", "added_tokens"},
		{"{" MODEL ",\"added_tokens\":[{\"content\":\"z\"}]}", "has no id"},
		{"{" MODEL ",\"added_tokens\":[{\"id\":3,\"content\":\"a\"}]}", "both \"a\""},
	};
	(void)unused;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		json_error(rows[i][0], rows[i][1]);
}

static void json_config(void **unused)
{
	static const char json[] = "{" MODEL ",\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true},"
		"{\"id\":4,\"content\":\"</s>\",\"special\":true}]}";
	static const char config[] = "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"</s>\",\"add_bos_token\":true,"
		"\"model_max_length\":1000000000000000019884624838656}";
	wf_error err = {0};
	wf_arena *arena = wf_arena_new();
	wf_tokenizer *tok = tokenizer_from_json(arena, &err, json, strlen(json), config, strlen(config));
	struct opened o = {.tok = tok};
	(void)unused;

	if (!tok)
		fail_msg("%s", err.text);
	check_ids(&o, "abb", 3, WF_TOK_BOS, (int32_t[]){3, 2, 1}, 3);
	assert_int_equal(wf_token_bos(tok), 3);
	assert_true(wf_token_is_eog(tok, 4));
	tokenizer_close(tok);
	wf_arena_free(arena);
}

/* ---- directories ---- */

static void write_file(const char *dir, const char *name, const void *data, size_t n)
{
	char path[256];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

/* A directory of bpe.model and this tokenizer_config.json, read and removed again. */
static struct opened open_directory(const char *config, const char *map)
{
	struct opened o = {.arena = wf_arena_new()}, model = open_file(DATA "bpe.model");
	char dir[] = "/tmp/weft-tokens-XXXXXX", command[128];

	assert_non_null(mkdtemp(dir));
	if (config) {
		write_file(dir, "tokenizer.model", model.map.data, model.map.bytes);
		write_file(dir, "tokenizer_config.json", config, strlen(config));
	}
	if (map)
		write_file(dir, "special_tokens_map.json", map, strlen(map));
	int rc = tokenizer_from_dir(o.arena, &o.err, dir, &o.tok);
	assert_int_equal(rc, o.err.set ? -1 : 0);
	snprintf(command, sizeof command, "rm -r %s", dir);
	assert_int_equal(system(command), 0);
	close_file(&model);
	return o;
}

static void directories(void **unused)
{
	struct opened o = open_directory(NULL, NULL);
	(void)unused;

	assert_false(o.err.set);                             /* neither file: no tokenizer, no error */
	assert_null(o.tok);
	close_file(&o);

	o = open_directory("{\"tokenizer_class\":\"ChatGLMTokenizer\"}", NULL);
	int32_t n = wf_token_find(o.tok, "[MASK]");
	assert_true(n > 400);
	check_ids(&o, "[gMASK]sop", 10, WF_TOK_BOS | WF_TOK_SPECIAL, (int32_t[]){n + 1, n + 3, n + 1, n + 3}, 4);
	close_file(&o);

	o = open_directory("{\"added_tokens_decoder\":{\"1000\":{\"content\":\"<end>\",\"special\":true}},\"eos_token\":"
		"{\"content\":\"<end>\"},\"add_bos_token\":true,\"add_eos_token\":true}", NULL);
	assert_int_equal(wf_vocab_size(o.tok), 1001);
	assert_int_equal(wf_token_bos(o.tok), 1);
	assert_true(wf_token_is_eog(o.tok, 1000));
	check_ids(&o, "<end>", 5, WF_TOK_BOS | WF_TOK_SPECIAL, (int32_t[]){1, 1000, 1000}, 3);
	assert_null(wf_token_piece(o.tok, 1001, NULL));
	assert_string_equal(wf_token_piece(o.tok, 999, NULL), "");
	close_file(&o);

	o = open_directory("{\"add_bos_token\":false}", "{\"bos_token\":\"</s>\"}");
	check_ids(&o, "", 0, WF_TOK_BOS, (int32_t[]){0}, 0);
	close_file(&o);

	o = open_directory("{\"added_tokens_decoder\":{\"99999999\":{\"content\":\"<end>\"}}}", NULL);
	assert_non_null(strstr(o.err.text, "99999999"));
	close_file(&o);

	o = open_directory("{\"added_tokens_decoder\":{\"0\":{\"content\":\"<end>\"}}}", NULL);
	assert_non_null(strstr(o.err.text, "<end>"));
	close_file(&o);
}

/* ---- tokenizer.model: every prefix and every byte ---- */

static void try_model(const uint8_t *data, size_t n)
{
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_tokenizer *tok = tokenizer_from_spm(arena, &err, data, n);
	int32_t *ids;
	size_t count;

	assert_true(!tok == err.set);
	if (tok && wf_tokenize(tok, &err, "ab <sep>\xE4\xBD\xA0", 11, WF_TOK_BOS, &ids, &count) == 0)
		free(ids);
	tokenizer_close(tok);
	wf_arena_free(arena);
}

static void broken_model(void **unused)
{
	struct opened o = open_file(DATA "unigram.model");
	size_t n = o.map.bytes;
	uint8_t *copy = malloc(n);
	(void)unused;

	assert_non_null(copy);
	for (size_t i = 0; i < n; i += 1 + i / 300) {
		memcpy(copy, o.map.data, n);
		try_model(copy, i);
		for (int bit = 0; bit < 8; bit += 3) {
			copy[i] ^= (uint8_t)(1 << bit);
			try_model(copy, n);
			copy[i] = o.map.data[i];
		}
	}
	free(copy);
	close_file(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gguf_bytes), cmocka_unit_test(gguf_scores), cmocka_unit_test(ends), cmocka_unit_test(gguf_errors),
		cmocka_unit_test(json_errors), cmocka_unit_test(json_config), cmocka_unit_test(directories), cmocka_unit_test(broken_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
