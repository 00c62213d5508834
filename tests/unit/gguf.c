/* gguf.c - what a good GGUF file gives: values of every type, tensors, real files, speed. */
#include "models/model.h"

#include <setjmp.h>
#include <time.h>
#include <cmocka.h>
#include "assemble.h"

struct file { wf_arena *arena; wf_error err; struct bytes bytes; gguf *g; };

static void open_text(struct file *f, const char *text)
{
	*f = (struct file){.arena = wf_arena_new(), .bytes = assemble(text)};
	assert_non_null(f->arena);
	f->g = gguf_parse(f->arena, &f->err, f->bytes.data, f->bytes.n);
	if (!f->g)
		fail_msg("%s", f->err.text);
}

static void close_file(struct file *f)
{
	wf_arena_free(f->arena);
	free(f->bytes.data);
}

static const char values[] = "'GGUF' 2i 0q 13q <u8> 0i 255b <i8> 1i -1b <u16> 2i 65535w <i16> 3i -2w "
	"<u32> 4i 4294967295i <i32> 5i -3i <f32> 6i 0.5f <yes> 7i 1b <text> 8i <h\xc3\xa9> "
	"<u64> 10i -1q <i64> 11i -4q <f64> 12i 0x3fe0000000000000q <Odd Key-1> 9i 5i 2q 7i -8i";

static void integers(void **state)
{
	static const struct { const char *key; int64_t want; } table[] = {
		{"u8", 255}, {"i8", -1}, {"u16", 65535}, {"i16", -2}, {"u32", 4294967295}, {"i32", -3}, {"i64", -4},
	};
	struct file f;
	int64_t v = 77;

	(void)state;
	open_text(&f, values);
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		assert_true(gguf_int(f.g, &f.err, table[i].key, &v));
		assert_int_equal(v, table[i].want);
	}
	v = 77;
	assert_false(gguf_int(f.g, &f.err, "absent", &v));
	assert_false(f.err.set);
	assert_false(gguf_int(f.g, &f.err, "u64", &v));     /* 2^64 - 1 */
	assert_non_null(strstr(f.err.text, "u64"));
	f.err.set = false;
	assert_false(gguf_int(f.g, &f.err, "f32", &v));
	assert_true(f.err.set);
	assert_int_equal(v, 77);
	close_file(&f);
}

static void other_values(void **state)
{
	struct file f;
	double d = 0;
	bool yes = false;
	struct gguf_str s;
	struct gguf_array a;
	int64_t v;

	(void)state;
	open_text(&f, values);
	assert_true(gguf_float(f.g, &f.err, "f32", &d) && d == 0.5);
	assert_true(gguf_float(f.g, &f.err, "f64", &d) && d == 0.5);
	assert_true(gguf_float(f.g, &f.err, "i32", &d) && d == -3);
	assert_true(gguf_bool(f.g, &f.err, "yes", &yes) && yes);
	assert_true(gguf_string(f.g, &f.err, "text", &s) && s.len == 3);
	assert_true(gguf_array(f.g, &f.err, "Odd Key-1", GGUF_I32, &a) && a.n == 2);
	assert_int_equal(gguf_array_int(&a, 1, &v), 0);
	assert_int_equal(v, -8);
	assert_true(gguf_array(f.g, &f.err, "Odd Key-1", GGUF_NTYPE, &a));
	assert_true(gguf_has(f.g, "yes") && !gguf_has(f.g, "ye"));
	assert_false(f.err.set);
	assert_false(gguf_array(f.g, &f.err, "Odd Key-1", GGUF_STRING, &a));
	assert_string_equal(f.err.text, "gguf: Odd Key-1 is an array of i32, expected of string");
	close_file(&f);
}

static void tensors(void **state)
{
	struct file f;
	struct wf_blob b;

	(void)state;
	open_text(&f, "'GGUF' 3i 4q 1q <general.alignment> 4i 64i <w> 3i 32q 3q 2q 2i 0q <n> 0i 0i 128q "
		"<x> 2i 32q 1q 39i 192q <e> 1i 0q 0i 256q 64a 108z 64a 'abcd' 64a 17z 64a");
	assert_int_equal(gguf_ntensor(f.g), 4);
	assert_true(gguf_find(f.g, "w", &b));
	assert_int_equal(b.dtype, WF_Q4_0);
	assert_int_equal(b.ndim, 3);
	assert_true(b.dim[0] == 2 && b.dim[1] == 3 && b.dim[2] == 32);
	assert_int_equal(b.bytes, 108);
	assert_int_equal(((const uint8_t *)b.data - f.bytes.data) % 64, 0);
	assert_string_equal(gguf_tensor(f.g, 1, &b), "n");
	assert_true(b.ndim == 0 && b.bytes == 4 && !memcmp(b.data, "abcd", 4));
	assert_true(gguf_find(f.g, "x", &b));                /* listed, though nothing here reads it */
	assert_int_equal(b.dtype, WF_NDTYPE);
	assert_string_equal(b.type, "mxfp4");
	assert_true(gguf_find(f.g, "e", &b) && b.bytes == 0);
	assert_false(gguf_find(f.g, "W", &b));
	close_file(&f);
}

/* The last tensor's padding may be missing, and a file may end in padding. */
static void padding_at_the_end(void **state)
{
	static const char *const ends[] = {"4z", "32z", "100z"};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct file f;
		char text[200];
		snprintf(text, sizeof text, "'GGUF' 3i 1q 0q <w> 1i 1q 0i 0q 32a %s", ends[i]);
		open_text(&f, text);
		close_file(&f);
	}
}

static void real_files(void **state)
{
	static const struct { const char *name; size_t ntensor; } table[] = {
		{"models/stories260K.gguf", 47}, {"vocab/ggml-vocab-falcon.gguf", 0}, {"vocab/ggml-vocab-gpt-2.gguf", 0},
		{"vocab/ggml-vocab-llama-spm.gguf", 0}, {"vocab/ggml-vocab-starcoder.gguf", 0},
	};
	const char *shared = getenv("WEFT_SHARED");

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		char path[512];
		struct file_map map;
		wf_error err = {0};
		snprintf(path, sizeof path, "%s/%s", shared ? shared : "../shared", table[i].name);
		if (!file_exists(path)) {
			print_message("no %s\n", path);
			skip();
		}
		assert_int_equal(i % 2 ? file_copy(&err, path, &map) : file_map(&err, path, &map), 0);
		wf_arena *arena = wf_arena_new();
		gguf *g = gguf_parse(arena, &err, map.data, map.bytes);
		if (!g)
			fail_msg("%s: %s", path, err.text);
		assert_int_equal(gguf_ntensor(g), table[i].ntensor);
		wf_arena_free(arena);
		file_unmap(&map);
	}
}

/* As many keys as are allowed: the duplicate check must not be quadratic. */
static void many_keys(void **state)
{
	enum { N = 65536 };
	struct bytes b = assemble("'GGUF' 3i 0q 65536q");
	wf_error err = {0};
	wf_arena *arena = wf_arena_new();
	int64_t v;

	(void)state;
	uint8_t *at = b.data = realloc(b.data, b.n + N * 24);
	assert_non_null(at);
	at += b.n;
	for (uint32_t i = 0; i < N; i++) {
		char key[9];
		snprintf(key, sizeof key, "k%07u", i);
		memcpy(at, &(uint64_t){8}, 8);
		memcpy(at + 8, key, 8);
		memcpy(at + 16, &(uint32_t){GGUF_U32}, 4);
		memcpy(at + 20, &i, 4);
		at += 24;
	}
	clock_t start = clock();
	gguf *g = gguf_parse(arena, &err, b.data, b.n + N * 24);
	double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
	assert_non_null(g);
	assert_true(gguf_int(g, &err, "k0065535", &v) && v == 65535);
	assert_true(seconds < 1);
	wf_arena_free(arena);
	free(b.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers),
		cmocka_unit_test(other_values),
		cmocka_unit_test(tensors),
		cmocka_unit_test(padding_at_the_end),
		cmocka_unit_test(real_files),
		cmocka_unit_test(many_keys),
	};

	return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
