/* safetensors.c - what a good safetensors file gives. */
#include "models/model.h"

#include <setjmp.h>
#include <time.h>
#include <cmocka.h>
#include "assemble.h"

struct file { wf_arena *arena; wf_error err; struct bytes bytes; safetensors *st; };

static void open_text(struct file *f, const char *text)
{
	*f = (struct file){.arena = wf_arena_new(), .bytes = assemble(text)};
	assert_non_null(f->arena);
	f->st = safetensors_parse(f->arena, &f->err, f->bytes.data, f->bytes.n);
	if (!f->st)
		fail_msg("%s", f->err.text);
}

static void close_file(struct file *f)
{
	wf_arena_free(f->arena);
	free(f->bytes.data);
}

static void tensors(void **state)
{
	struct file f;
	struct wf_blob b;

	(void)state;
	open_text(&f, TINY_SAFETENSORS);
	assert_int_equal(safetensors_ntensor(f.st), 3);
	assert_true(safetensors_find(f.st, "a", &b));
	assert_true(b.dtype == WF_F32 && b.ndim == 2 && b.dim[0] == 2 && b.dim[1] == 3 && b.bytes == 24);
	assert_ptr_equal(b.data, f.bytes.data + f.bytes.n - 34);
	assert_true(safetensors_find(f.st, "b", &b));
	assert_true(b.dtype == WF_BF16 && b.ndim == 0 && b.bytes == 2);
	assert_ptr_equal(b.data, f.bytes.data + f.bytes.n - 2);
	assert_true(safetensors_find(f.st, "c", &b));
	assert_true(b.dtype == WF_NDTYPE);
	assert_string_equal(b.type, "I64");
	assert_false(safetensors_find(f.st, "__metadata__", &b));
	close_file(&f);
}

static void odd_but_legal(void **state)
{
	static const char *const table[] = {
		"<{}>", "<{\"__metadata__\":{}}   >",
		"<{\"e\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[0,0]}}>",
		"<{\"e\":{\"dtype\":\"F4\",\"shape\":[6],\"data_offsets\":[0,3]}}> 3z",
		"<{\"e\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,2],\"data_offsets\":[0,8]}}> 8z",
		"<{\"\\u00e9 [0]/x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}> 1z",
	};

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		struct file f;
		open_text(&f, table[i]);
		close_file(&f);
	}
}

static void golden(void **state)
{
	const char *shared = getenv("WEFT_SHARED");
	char path[512];
	struct file_map map;
	wf_error err = {0};
	struct wf_blob b;

	(void)state;
	snprintf(path, sizeof path, "%s/golden/llama/golden.safetensors", shared ? shared : "../shared");
	if (!file_exists(path)) {
		print_message("no %s\n", path);
		skip();
	}
	assert_int_equal(file_map(&err, path, &map), 0);
	wf_arena *arena = wf_arena_new();
	safetensors *st = safetensors_parse(arena, &err, map.data, map.bytes);
	assert_non_null(st);
	assert_true(safetensors_find(st, "a.input_ids", &b));
	assert_true(b.dtype == WF_I32 && b.ndim == 1 && b.dim[0] == 37);
	wf_arena_free(arena);
	file_unmap(&map);
}

static void many_tensors(void **state)
{
	enum { N = 65536, EACH = 100 };
	char *json = malloc((size_t)N * EACH + 16), *at = json + 8;
	wf_error err = {0};
	wf_arena *arena = wf_arena_new();

	(void)state;
	assert_non_null(json);
	for (int i = 0; i < N; i++)
		at += sprintf(at, "%c\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? ',' : '{', i);
	*at++ = '}';
	memcpy(json, &(uint64_t){(uint64_t)(at - json - 8)}, 8);
	clock_t start = clock();
	safetensors *st = safetensors_parse(arena, &err, (uint8_t *)json, (size_t)(at - json));
	double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
	assert_non_null(st);
	assert_int_equal(safetensors_ntensor(st), N);
	assert_true(seconds < 2);
	wf_arena_free(arena);
	free(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tensors),
		cmocka_unit_test(odd_but_legal),
		cmocka_unit_test(golden),
		cmocka_unit_test(many_tensors),
	};

	return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
