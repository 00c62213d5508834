/* tokens.h - tokenizers opened and compared, for tests.  Include after cmocka.h. */
#ifndef WF_TEST_TOKENS_H
#define WF_TEST_TOKENS_H

#include "models/model.h"
#include <stdlib.h>
#include <string.h>

#define DATA "tests/data/tokenizer/"

struct opened { wf_arena *arena; struct file_map map; wf_tokenizer *tok; wf_error err; };

static inline struct opened open_file(const char *path)
{
	struct opened o = {.arena = wf_arena_new()};
	const char *dot = strrchr(path, '.');

	assert_int_equal(file_map(&o.err, path, &o.map), 0);
	if (strcmp(dot, ".json") == 0)
		o.tok = tokenizer_from_json(o.arena, &o.err, (const char *)o.map.data, o.map.bytes, NULL, 0);
	else if (strcmp(dot, ".model") == 0)
		o.tok = tokenizer_from_spm(o.arena, &o.err, o.map.data, o.map.bytes);
	else
		o.tok = tokenizer_from_gguf(o.arena, &o.err, gguf_parse(o.arena, &o.err, o.map.data, o.map.bytes));
	if (!o.tok)
		fail_msg("%s: %s", path, o.err.text);
	return o;
}

static inline void close_file(struct opened *o)
{
	tokenizer_close(o->tok);
	wf_arena_free(o->arena);
	file_unmap(&o->map);
}

static inline size_t encode(struct opened *o, const char *text, size_t n, int flags, int32_t **ids)
{
	size_t count;

	if (wf_tokenize(o->tok, &o->err, text, n, flags, ids, &count) < 0)
		fail_msg("%s", o->err.text);
	return count;
}

static inline void check_ids(struct opened *o, const char *text, size_t n, int flags, const int32_t *want, size_t nwant)
{
	int32_t *ids;
	size_t count = encode(o, text, n, flags, &ids);

	if (count != nwant || (count && memcmp(ids, want, count * sizeof *ids) != 0)) {
		print_message("text \"%.*s\"\nwant:", (int)n, text);
		for (size_t i = 0; i < nwant; i++)
			print_message(" %d", want[i]);
		print_message("\ngot: ");
		for (size_t i = 0; i < count; i++)
			print_message(" %d", ids[i]);
		print_message("\n");
		fail();
	}
	free(ids);
}

static inline size_t read_ids(char *line, int32_t *ids)
{
	size_t n = 0;

	for (char *at = strtok(line, " "); at; at = strtok(NULL, " "))
		ids[n++] = atoi(at);
	return n;
}

#endif
