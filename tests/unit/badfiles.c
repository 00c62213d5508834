/* badfiles.c - hostile files: one row for each rule, with words its message must have; then every
 * prefix and every single-byte change of small good files, which must end in success or a message. */
#include "backends/backend.h"
#include "models/model.h"
#include "ops/ops.h"

#include <setjmp.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "assemble.h"

struct bad { const char *expect, *text; };

#define ONE "'GGUF' 3i 0q 1q "        /* header of a file with one pair */
#define TEN "'GGUF' 3i 1q 0q "        /* of a file with one tensor */
#define TWO "'GGUF' 3i 2q 0q "

static const struct bad bad_gguf[] = {
	/* header */
	{"ends in its first bytes", "'GGU'"},
	{"expected the file to begin with GGUF", "'GGML' 3i 0q 0q"},
	{"expected the file to begin with GGUF", "80b 75b 3b 4b 20z"},
	{"begin with GGUF, found \"?[2J\"", "0x1bb '[2J' 20z"},                /* no escapes in messages */
	{"ends in its version", "'GGUF' 3w"},
	{"version 1, expected 2 or 3", "'GGUF' 1i 0i 0i"},
	{"version 0, expected 2 or 3", "'GGUF' 0i 0q 0q"},
	{"version 4, expected 2 or 3", "'GGUF' 4i 0q 0q"},
	{"big-endian", "'GGUF' 0x03000000i 0q 0q"},
	{"ends in its counts", "'GGUF' 3i 0q 0i"},
	{"65537 keys, expected at most 65536", "'GGUF' 3i 0q 65537q 2000000z"},
	{"3 keys, expected at most 65536 and room", "'GGUF' 3i 0q 3q 30z"},
	{"18446744073709551615 keys", "'GGUF' 3i 0q -1q 30z"},
	{"1048577 tensors, expected at most 1048576", "'GGUF' 3i 1048577q 0q 30000000z"},
	{"2 tensors, expected at most 1048576 and room", "'GGUF' 3i 2q 0q 40z"},
	{"9223372036854775808 tensors", "'GGUF' 3i 0x8000000000000000q 0q 40z"},
	/* keys */
	{"a key of 65536 bytes", ONE "65536q 70000z"},
	{"a key of 18446744073709551615 bytes", ONE "-1q 30z"},
	{"ends in a key", ONE "20q 'short' 3z"},
	{"a key is empty", ONE "0q 4i 1i"},
	{"control characters", ONE "3q 'a' 0b 'b' 4i 1i"},
	{"control characters: \"a?b\"", ONE "<a\nb> 4i 1i"},
	{"a key is empty, not UTF-8", ONE "<a\xc3> 4i 1i"},
	{"not UTF-8", ONE "<a\xed\xa0\x80> 4i 1i"},                            /* a surrogate */
	{"not UTF-8", ONE "<\xc0\xaf> 4i 1i"},                                 /* overlong */
	{"key twin appears twice", "'GGUF' 3i 0q 3q <twin> 4i 1i <other> 4i 1i <twin> 4i 1i"},
	/* values */
	{"value of unknown type 13 (key k)", ONE "<k> 13i 8z"},
	{"value of unknown type 4294967295", ONE "<k> -1i 8z"},
	{"ends in a value: expected 8 bytes", ONE "<k> 10i 4z"},
	{"ends in a value's type", ONE "<keykey> 1w"},
	{"bool of value 2", ONE "<k> 7i 2b"},
	{"a string of 67108865 bytes", ONE "<k> 8i 67108865q"},
	{"a string of 18446744073709551615 bytes", ONE "<k> 8i -1q 9z"},
	{"ends in a string", ONE "<k> 8i 10q 'abc'"},
	{"a string is not UTF-8 (key k)", ONE "<k> 8i <\xff>"},
	{"array of unknown type 99", ONE "<k> 9i 99i 1q 8z"},
	{"array of arrays", ONE "<k> 9i 9i 1q 4i 1q 1i"},
	{"array of 4 u32 values, but the file ends", ONE "<k> 9i 4i 4q 15z"},
	{"array of 4611686018427387905 u32 values", ONE "<k> 9i 4i 0x4000000000000001q 8z"},
	{"array of 2 string values, but the file ends", ONE "<k> 9i 8i 2q 15z"},
	{"ends in a string of an array", ONE "<k> 9i 8i 2q <abcdefgh> 5q"},
	{"a string of an array of 67108865 bytes", ONE "<k> 9i 8i 1q 67108865q"},
	{"bool of value 3, expected 0 or 1 (key k)", ONE "<k> 9i 7i 2q 1b 3b"},
	{"ends in an array's length", ONE "<k> 9i 4i 1i"},
	/* alignment */
	{"general.alignment is of type i32", ONE "<general.alignment> 5i 32i"},
	{"general.alignment is of type u64", ONE "<general.alignment> 10i 32q"},
	{"general.alignment is 0", ONE "<general.alignment> 4i 0i"},
	{"general.alignment is 4", ONE "<general.alignment> 4i 4i"},
	{"general.alignment is 48", ONE "<general.alignment> 4i 48i"},
	{"general.alignment is 131072", ONE "<general.alignment> 4i 131072i"},
	/* tensors */
	{"a tensor's name of 65 bytes", TEN "65q 65z 1i 1q 0i 0q 32a 4z"},
	{"a tensor's name is empty", TEN "0q 1i 1q 0i 0q 32a 4z"},
	{"has control characters: \"a?b\"", TEN "<a\x1b\x62> 1i 1q 0i 0q 32a 4z"},
	{"a tensor's name is empty, not UTF-8", TEN "<a\xfe> 1i 1q 0i 0q 32a 4z"},
	{"tensor w appears twice", TWO "<w> 1i 1q 0i 0q <w> 1i 1q 0i 32q 32a 64z"},
	{"tensor w has 5 dimensions", TEN "<w> 5i 1q 1q 1q 1q 1q 0i 0q 32a 4z"},
	{"ends in a tensor's dimensions", TEN "<a longer name> 4i 1q"},
	{"tensor w: the product of its dimensions overflows", TEN "<w> 1i 0x8000000000000000q 0i 0q 32a 4z"},
	{"tensor w: the product of its dimensions overflows", TEN "<w> 2i 0x100000000q 0x100000000q 0i 0q 32a 4z"},
	{"tensor w: the product of its dimensions overflows",
		TEN "<w> 4i 65536q 65536q 65536q 65536q 0i 0q 32a 4z"},
	{"tensor w: its size overflows", TEN "<w> 1i 0x7fffffffffffffffq 28i 0q 32a 4z"},
	{"tensor w has unknown type 4", TEN "<w> 1i 32q 4i 0q 32a 99z"},
	{"tensor w has unknown type 4294967295", TEN "<w> 1i 32q -1i 0q 32a 99z"},
	{"tensor w: rows of 33 values, expected a multiple of 32 (q4_0)", TEN "<w> 1i 33q 2i 0q 32a 99z"},
	{"rows of 32 values, expected a multiple of 256 (q6_k)", TEN "<w> 2i 32q 8q 14i 0q 32a 999z"},
	{"tensor w ends past the file", TEN "<w> 1i 4q 0i 0q 32a 15z"},
	{"the file ends before its tensors", TEN "<w> 1i 4q 0i 0q"},
	{"tensor w at offset 16, expected 0", TEN "<w> 1i 4q 0i 16q 32a 99z"},
	{"tensor v at offset 0, expected 32", TWO "<w> 1i 4q 0i 0q <v> 1i 4q 0i 0q 32a 99z"},     /* overlap */
	{"tensor v at offset 64, expected 32", TWO "<w> 1i 4q 0i 0q <v> 1i 4q 0i 64q 32a 99z"},   /* hole */
	{"tensor v at offset 16, expected 32", TWO "<w> 1i 4q 0i 0q <v> 1i 4q 0i 16q 32a 99z"},   /* alignment */
	{"tensor w at offset 18446744073709551584", TEN "<w> 1i 4q 0i -32q 32a 99z"},
};

#define F32X1 "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"

static const struct bad bad_safetensors[] = {
	{"ends in its first 8 bytes", "7z"},
	{"header of 18446744073709551615 bytes", "-1q '{}'"},
	{"header of 104857601 bytes", "104857601q 104857601z"},
	{"header of 3 bytes, expected", "3q '{}'"},
	{"expected the header to begin with {", "0q"},
	{"expected the header to begin with {", "< {}>"},
	{"expected the header to begin with {", "<[]>"},
	{"safetensors: header:", "<{>"},
	{"safetensors: header:", "<{} x>"},
	{"safetensors: header:", "4q '{}' 2z"},
	{"safetensors: header:", "<{\"a\xff\":" F32X1 "}> 4z"},
	{"tensor a appears twice", "<{\"a\":" F32X1 ",\"a\":" F32X1 "}> 4z"},
	{"expected each of dtype, shape, data_offsets once (tensor a)", "<{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}> 4z"},
	{"__metadata__ appears twice", "<{\"__metadata__\":{},\"__metadata__\":{}}>"},
	{"expected each of dtype, shape, data_offsets once", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"x\":[0,4]}}> 4z"},
	{"expected , or } (tensor a)", "<{\"a\":{\"dtype\":\"F32\" \"shape\":[1]}}> 4z"},
	{"expected a value", "<{\"a\":" F32X1 ",}> 4z"},
	{"expected a value (tensor a)", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[1,],\"data_offsets\":[0,4]}}> 4z"},
	{"expected a value (tensor a)", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[01],\"data_offsets\":[0,4]}}> 4z"},
	{"ends in a string", "<{\"a>"},
	{"a control character in a string", "<{\"a\n\":" F32X1 "}> 4z"},
	{"unknown escape", "<{\"\\x\":" F32X1 "}> 4z"},
	{"expected four hex digits", "<{\"\\u12\":" F32X1 "}> 4z"},
	{"second half of a surrogate pair", "<{\"\\ud800\":" F32X1 "}> 4z"},
	{"__metadata__ to be an object", "<{\"__metadata__\":[]}>"},
	{"__metadata__ to hold strings only", "<{\"__metadata__\":{\"format\":1}}>"},
	{"a tensor's name is empty", "<{\"\":" F32X1 "}> 4z"},
	{"control characters: \"a?\"", "<{\"a\\u001b\":" F32X1 "}> 4z"},
	{"expected { (tensor a)", "<{\"a\":[]}>"},
	{"expected a dtype (tensor a)", "<{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,4]}}> 4z"},
	{"unknown dtype F31 (tensor a)", "<{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}> 4z"},
	{"expected {dtype, shape, data_offsets} (tensor a)", "<{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}> 4z"},
	{"expected [ (tensor a)", "<{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}> 4z"},
	{"expected an integer from 0 to 2^63 - 1 (tensor a)", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}> 4z"},
	{"expected an integer from 0 to 2^63 - 1 (tensor a)", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}> 4z"},
	{"expected an integer from 0 to 2^63 - 1 (tensor a)", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}> 4z"},
	{"expected an integer from 0 to 2^63 - 1 (tensor a)",
		"<{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,4]}}> 4z"},
	{"the product of the dimensions overflows (tensor a)",
		"<{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}> 4z"},
	{"the size overflows",
		"<{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}> 4z"},
	{"not whole bytes", "<{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}> 2z"},
	{"expected {dtype, shape, data_offsets}", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}> 4z"},
	{"the list is too long (tensor a)", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}> 4z"},
	{"expected data_offsets [begin, end]", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}> 4z"},
	{"expected an integer from 0", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}> 4z"},
	{"the tensor ends past the file: offset 4, 3 bytes of data (tensor a)", "<{\"a\":" F32X1 "}> 3z"},
	{"8 bytes by data_offsets, 4 by shape",
		"<{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}> 8z"},
	{"the data overlaps", "<{\"a\":" F32X1 ",\"b\":" F32X1 "}> 4z"},
	{"the data has a hole", "<{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}> 8z"},
	{"tensors end at offset 4, but there are 5 bytes", "<{\"a\":" F32X1 "}> 5z"},
};

/* ---- rows ---- */

typedef bool try_parse(wf_arena *, wf_error *, const uint8_t *, size_t);

static bool try_gguf(wf_arena *arena, wf_error *err, const uint8_t *data, size_t n)
{
	return gguf_parse(arena, err, data, n) != NULL;
}

static bool try_safetensors(wf_arena *arena, wf_error *err, const uint8_t *data, size_t n)
{
	return safetensors_parse(arena, err, data, n) != NULL;
}

static void check_rows(const struct bad *row, size_t n, try_parse *parse)
{
	wf_arena *arena = wf_arena_new();
	size_t wrong = 0;

	for (size_t i = 0; i < n; i++, row++) {
		struct bytes b = assemble(row->text);
		uint8_t *exact = malloc(b.n);               /* no byte more: the sanitizer sees any overrun */
		wf_error err = {0};
		memcpy(exact, b.data, b.n);
		wf_arena_reset(arena);
		if (parse(arena, &err, exact, b.n) || !strstr(err.text, row->expect)) {
			print_error("row %zu: expected \"%s\", found \"%s\"\n", i, row->expect, err.text);
			wrong++;
		}
		free(exact);
		free(b.data);
	}
	wf_arena_free(arena);
	assert_int_equal(wrong, 0);
}

static void gguf_rows(void **state)
{
	(void)state;
	check_rows(bad_gguf, sizeof bad_gguf / sizeof *bad_gguf, try_gguf);
}

static void safetensors_rows(void **state)
{
	(void)state;
	check_rows(bad_safetensors, sizeof bad_safetensors / sizeof *bad_safetensors, try_safetensors);
}

/* ---- every prefix, every byte ---- */

static volatile unsigned sum;

/* What parsed is read to its last byte: a wrong length would show. */
static void touch(const void *data, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum += ((const uint8_t *)data)[i];
}

static bool walk_gguf(wf_arena *arena, wf_error *err, const uint8_t *data, size_t n)
{
	gguf *g = gguf_parse(arena, err, data, n);
	struct wf_blob b;

	for (size_t i = 0; g && i < gguf_ntensor(g); i++) {
		touch(gguf_tensor(g, i, &b), 1);
		touch(b.data, b.bytes);
	}
	return g != NULL;
}

static bool walk_safetensors(wf_arena *arena, wf_error *err, const uint8_t *data, size_t n)
{
	safetensors *st = safetensors_parse(arena, err, data, n);
	struct wf_blob b;

	for (size_t i = 0; st && i < safetensors_ntensor(st); i++) {
		touch(safetensors_tensor(st, i, &b), 1);
		touch(b.data, b.bytes);
	}
	return st != NULL;
}

static void try_one(wf_arena *arena, try_parse *parse, const uint8_t *data, size_t n, size_t at)
{
	wf_error err = {0};

	wf_arena_reset(arena);
	if (parse(arena, &err, data, n) == err.set)
		fail_msg("byte %zu: success and a message, or neither: \"%s\"", at, err.text);
}

static void exhaust(const char *text, try_parse *parse)
{
	struct bytes b = assemble(text);
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	uint8_t *exact = malloc(b.n);

	memcpy(exact, b.data, b.n);
	if (!parse(arena, &err, exact, b.n))
		fail_msg("the good file: %s", err.text);
	for (size_t i = 0; i < b.n; i++)
		for (int change = 1; change < 256; change++) {
			exact[i] ^= (uint8_t)change;
			try_one(arena, parse, exact, b.n, i);
			exact[i] ^= (uint8_t)change;
		}
	free(exact);
	for (size_t n = 0; n < b.n; n++) {
		exact = malloc(n ? n : 1);
		memcpy(exact, b.data, n);
		try_one(arena, parse, exact, n, n);
		free(exact);
	}
	wf_arena_free(arena);
	free(b.data);
}

static void gguf_exhaustive(void **state)
{
	(void)state;
	exhaust(TINY_LLAMA_GGUF, walk_gguf);
}

static void safetensors_exhaustive(void **state)
{
	(void)state;
	exhaust(TINY_SAFETENSORS, walk_safetensors);
}

/* ---- whole models, from disk ---- */

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/weft-badfiles-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof command, "rm -rf '%s'", folder);
	return system(command);
}

static const char *in_folder(const char *name)
{
	static char path[2][512];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
	return path[turn];
}

static void write_file(const char *name, const void *data, size_t n)
{
	FILE *f = fopen(in_folder(name), "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static void write_text(const char *name, const char *text)
{
	struct bytes b = assemble(text);

	write_file(name, b.data, b.n);
	free(b.data);
}

/* A step of two tokens.  What a file may say of a model is enough to plan it, load it and run it. */
static int try_step(wf_graph *g, wf_error *err)
{
	static const struct wf_plan_opt bounds = {.max_tokens = 2, .max_seqs = 1, .max_rows = 1, .verify = true};
	wf_plan *plan = wf_plan_build(g, wf_rules, &wf_backend_cpu, &bounds);
	struct wf_runner_opt opt = {.ctx = 16, .page_tokens = 16, .exec = {.threads = 1}};
	wf_runner *r = plan ? wf_runner_new(err, plan, &opt) : NULL;
	wf_seq *seq = r ? wf_seq_new(wf_runner_slab(r)) : NULL;
	struct wf_piece piece = {.seq = seq, .token = (int32_t[]){1, 2}, .n = 2};
	const float *logits;
	int nrow, result = seq ? wf_runner_step(r, &piece, 1, &logits, &nrow) : -1;

	if (seq)
		wf_seq_free(wf_runner_slab(r), seq);
	wf_runner_free(r);
	return result;
}

/* Open, build and run; true when it worked.  A message must begin with the path when opening failed. */
static bool try_model(const char *path, wf_error *err)
{
	wf_model *m = wf_model_open(err, path, NULL, 0);
	wf_arena *arena = wf_arena_new();
	wf_graph *g = m ? wf_model_graph(m, arena, err) : NULL;

	bool worked = g && !try_step(g, err);

	if (!m && strncmp(err->text, path, strlen(path)))
		fail_msg("no path in \"%s\"", err->text);
	wf_arena_free(arena);
	wf_model_close(m);
	if (worked == err->set)
		fail_msg("success and a message, or neither: \"%s\"", err->text);
	return worked;
}

static void try_changes(const char *name, const char *path, const struct bytes *good)
{
	static const uint8_t changes[] = {0x01, 0x80, 0xff};
	struct bytes b = {malloc(good->n), good->n};
	wf_error err = {0};

	write_file(name, good->data, good->n);
	if (!try_model(path, &err))
		fail_msg("%s: the good model: %s", name, err.text);
	memcpy(b.data, good->data, b.n);
	for (size_t i = 0; i < b.n * sizeof changes; i++) {
		uint8_t *at = &b.data[i / sizeof changes], change = changes[i % sizeof changes];
		*at ^= change;
		write_file(name, b.data, b.n);
		err.set = false;
		try_model(path, &err);
		*at ^= change;
	}
	for (size_t n = 1; n < b.n; n += 7) {
		write_file(name, b.data, n);
		err.set = false;
		try_model(path, &err);
	}
	write_file(name, good->data, good->n);
	free(b.data);
}

static void gguf_model_changes(void **state)
{
	struct bytes b = assemble(TINY_LLAMA_GGUF);

	(void)state;
	try_changes("tiny.gguf", in_folder("tiny.gguf"), &b);
	free(b.data);
}

static void clear_folder(void)
{
	char command[128];

	snprintf(command, sizeof command, "rm -rf '%s'/*", folder);
	assert_int_equal(system(command), 0);
}

static void write_shard(const char *name, const char *prefix, int from, int to)
{
	struct bytes b = tiny_shard(prefix, from, to);

	write_file(name, b.data, b.n);
	free(b.data);
}

static void directory_changes(void **state)
{
	struct bytes config = {(uint8_t *)TINY_CONFIG, strlen(TINY_CONFIG)}, b = tiny_shard("model.", 0, NTENSOR);

	(void)state;
	clear_folder();
	write_file("model.safetensors", b.data, b.n);
	try_changes("config.json", folder, &config);
	try_changes("model.safetensors", folder, &b);
	free(b.data);
}

static void prefixes(void **state)
{
	static const char *const table[] = {"", "model.", "transformer.", "language_model.model.", "model.language_model."};

	(void)state;
	clear_folder();
	write_file("config.json", TINY_CONFIG, strlen(TINY_CONFIG));
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		wf_error err = {0};
		write_shard("model.safetensors", table[i], 0, NTENSOR);
		if (!try_model(folder, &err))
			fail_msg("prefix \"%s\": %s", table[i], err.text);
	}
}

static void expect_error(const char *path, const char *expect)
{
	wf_error err = {0};

	if (try_model(path, &err) || !strstr(err.text, expect))
		fail_msg("expected \"%s\", found \"%s\"", expect, err.text);
}

/* weight_map of the tiny model in two files: `file` for its first 3 tensors, part2 for the rest. */
static void write_index(const char *file, const char *extra)
{
	char json[4096] = "{\"metadata\":{\"total_size\":1e3},\"weight_map\":{";

	for (int i = 0; i < NTENSOR; i++)
		sprintf(json + strlen(json), "%s\"model.%s\":\"%s\"", i ? "," : "", tiny_tensors[i].name,
			i < 3 ? file : "part2.safetensors");
	strcat(json, extra);
	strcat(json, "}}");
	write_file("model.safetensors.index.json", json, strlen(json));
}

static void sharded_directory(void **state)
{
	wf_error err = {0};

	(void)state;
	clear_folder();
	expect_error(folder, "a directory without config.json");
	write_file("config.json", TINY_CONFIG, strlen(TINY_CONFIG));
	write_text("pytorch_model.bin", "4z");
	expect_error(folder, "found pytorch_model.bin, but neither model.safetensors nor");
	write_shard("part1.safetensors", "model.", 0, 3);
	write_shard("part2.safetensors", "model.", 3, NTENSOR);
	write_index("part1.safetensors", "");
	if (!try_model(folder, &err))
		fail_msg("two good files: %s", err.text);
	write_index("../part1.safetensors", "");
	expect_error(folder, "is no plain name of a .safetensors file");
	write_index("/etc/passwd", "");
	expect_error(folder, "\"/etc/passwd\" is no plain name");
	write_index(".safetensors", "");
	expect_error(folder, "is no plain name");
	write_index("part1.safetensors\\u001b", "");
	expect_error(folder, "\"part1.safetensors?\" is no plain name");
	write_index("part3.safetensors", "");
	expect_error(folder, "part3.safetensors: No such file");
	write_index("part1.safetensors", ",\"ghost\":\"part2.safetensors\"");
	expect_error(folder, "tensor ghost is not in part2.safetensors");
	write_index("part1.safetensors", ",\"model.norm.weight\":\"part2.safetensors\"");
	expect_error(folder, "key \"model.norm.weight\" appears twice");
	write_index("part1.safetensors", ",\"x\":3");
	expect_error(folder, "(not a string)");
	write_shard("part2.safetensors", "model.", 2, NTENSOR);
	write_index("part1.safetensors", "");
	expect_error(folder, "tensor model.layers.0.input_layernorm.weight is in two files");
	write_shard("part2.safetensors", "model.", 3, NTENSOR - 1);
	expect_error(folder, "tensor model.layers.0.mlp.down_proj.weight is not in part2.safetensors");
	write_text("part2.safetensors", "<{>");
	expect_error(folder, "part2.safetensors: safetensors: header:");
	write_text("model.safetensors.index.json", "'{}'");
	expect_error(folder, "weight_map is missing or empty");
	write_text("model.safetensors.index.json", "'{\"weight_map\":{}}'");
	expect_error(folder, "weight_map is missing or empty");
	write_text("model.safetensors.index.json", "'{\"weight_map\"'");
	expect_error(folder, "model.safetensors.index.json: line 1");
}

/* Weights that do not fit the config: found when the graph is built. */
static void missing_and_misshapen(void **state)
{
	(void)state;
	clear_folder();
	write_file("config.json", TINY_CONFIG, strlen(TINY_CONFIG));
	write_shard("model.safetensors", "model.", 0, NTENSOR - 1);
	expect_error(folder, "blk.0.ffn_down.weight: not in the model's files");
	write_shard("model.safetensors", "model.", 0, NTENSOR);
	write_text("config.json", "'{\"model_type\":\"llama\",\"hidden_size\":4,\"num_hidden_layers\":1,"
		"\"num_attention_heads\":2,\"vocab_size\":5,\"tie_word_embeddings\":true}'");
	expect_error(folder, "token_embd.weight: expected [5,4], found [4,4]");
}

/* The tiny GGUF cut in two as gguf-split does: metadata, then all tensors. */
static void split_gguf(void **state)
{
	const char *text = TINY_LLAMA_GGUF, *tensors = strstr(text, "<token_embd.weight>");
	const char *split = "<split.no> 2i %dw <split.count> 2i %dw <split.tensors.count> 5i %di ";
	char first[4096], second[4096], keys[256];
	wf_error err = {0};

	(void)state;
	clear_folder();
	snprintf(keys, sizeof keys, split, 0, 2, 11);
	snprintf(first, sizeof first, "'GGUF' 3i 0q 18q %.*s %s", (int)(tensors - strstr(text, "<general.arch")),
		strstr(text, "<general.arch"), keys);
	write_text("m-00001-of-00002.gguf", first);
	expect_error(in_folder("m-00001-of-00002.gguf"), "m-00002-of-00002.gguf: No such file");
	snprintf(keys, sizeof keys, split, 1, 2, 11);
	snprintf(second, sizeof second, "'GGUF' 3i 11q 3q %s %s", keys, tensors);
	write_text("m-00002-of-00002.gguf", second);
	if (!try_model(in_folder("m-00001-of-00002.gguf"), &err))
		fail_msg("two good files: %s", err.text);
	expect_error(in_folder("m-00002-of-00002.gguf"), "part 2 of a model in 2 files, expected the first");
	write_text("renamed.gguf", first);
	expect_error(in_folder("renamed.gguf"), "NAME-00001-of-00002.gguf");
	write_text("m-00002-of-00002.gguf", first);
	expect_error(in_folder("m-00001-of-00002.gguf"), "says part 1 of 2, expected 2 of 2");
	snprintf(keys, sizeof keys, split, 1, 2, 12);
	snprintf(first, sizeof first, "'GGUF' 3i 0q 18q %.*s %s", (int)(tensors - strstr(text, "<general.arch")),
		strstr(text, "<general.arch"), "<split.no> 2i 0w <split.count> 2i 2w <split.tensors.count> 5i 12i");
	write_text("m-00001-of-00002.gguf", first);
	write_text("m-00002-of-00002.gguf", second);
	expect_error(in_folder("m-00001-of-00002.gguf"), "11 tensors in 2 files, expected 12");
}

/* A copy outlives its file; a mapping of a file cut short would raise SIGBUS. */
static void file_cut_while_open(void **state)
{
	const char *path = in_folder("cut.gguf");
	wf_error err = {0};
	struct wf_blob b;

	(void)state;
	clear_folder();
	write_text("cut.gguf", TINY_LLAMA_GGUF);
	wf_model *m = wf_model_open(&err, path, NULL, WF_OPEN_NO_MMAP);
	assert_non_null(m);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(m->weights->find(m->weights, "output_norm.weight", &b), 0);
	touch(b.data, b.bytes);
	wf_model_close(m);
}

static void paths(void **state)
{
	(void)state;
	clear_folder();
	expect_error(in_folder("nothing.gguf"), "No such file");
	expect_error("/dev/zero", "expected a regular file");
	write_file("empty.gguf", "", 0);
	expect_error(in_folder("empty.gguf"), "the file is empty");
	write_text("x.safetensors", TINY_SAFETENSORS);
	expect_error(in_folder("x.safetensors"), "expected the directory");
	assert_int_equal(mkfifo(in_folder("fifo.gguf"), 0600), 0);
	expect_error(in_folder("fifo.gguf"), "expected a regular file");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gguf_rows),
		cmocka_unit_test(safetensors_rows),
		cmocka_unit_test(gguf_exhaustive),
		cmocka_unit_test(safetensors_exhaustive),
		cmocka_unit_test(paths),
		cmocka_unit_test(file_cut_while_open),
		cmocka_unit_test(prefixes),
		cmocka_unit_test(sharded_directory),
		cmocka_unit_test(missing_and_misshapen),
		cmocka_unit_test(split_gguf),
		cmocka_unit_test(gguf_model_changes),
		cmocka_unit_test(directory_changes),
	};

	return cmocka_run_group_tests_name("badfiles", tests, make_folder, drop_folder);
}
