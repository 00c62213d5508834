/* tokenizer_json.c - fuzz: a tokenizer.json, and behind a NUL the text it cuts.  What loads gives ids in
 * range for any text, and the decoder writes no more than it said. */
#include "models/model.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void use(const wf_tokenizer *tok, const char *text, size_t n)
{
	struct wf_decoder d;
	wf_error err = {0};
	int32_t *ids;
	size_t count;
	char *buf = malloc(wf_decoder_cap(tok) + 16);

	wf_decoder_init(&d, tok, n & 1);
	if (buf && wf_tokenize(tok, &err, text, n, WF_TOK_BOS | (n & 2 ? WF_TOK_SPECIAL : 0), &ids, &count) == 0) {
		for (size_t i = 0; i < count; i++)
			if (!wf_token_piece(tok, ids[i], NULL) || wf_decoder_push(&d, ids[i], buf) > wf_decoder_cap(tok))
				abort();
		if (wf_decoder_flush(&d, buf) > 12)
			abort();
		free(ids);
	}
	free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const char text[] = "Hi  <s>\xE4\xBD\xA0's 12\n\xff";
	const uint8_t *nul = memchr(data, 0, bytes);
	size_t json = nul ? (size_t)(nul - data) : bytes;
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_tokenizer *tok = tokenizer_from_json(arena, &err, (const char *)data, json, NULL, 0);

	if (!tok != err.set)
		abort();
	if (tok) {
		use(tok, text, sizeof text - 1);
		if (nul)
			use(tok, (const char *)nul + 1, bytes - json - 1);
	}
	tokenizer_close(tok);
	wf_arena_free(arena);
	return 0;
}
