/* spm.c - fuzz: a SentencePiece tokenizer.model, and a text through what loads. */
#include "models/model.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const char text[] = "  the <sep>\xE4\xBD\xA0\xE2\x96\x81 \xEF\xBC\xA1\t12\xff ";
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_tokenizer *tok = tokenizer_from_spm(arena, &err, data, bytes);
	int32_t *ids;
	size_t n;

	if (!tok != err.set)
		abort();
	if (tok && wf_tokenize(tok, &err, text, sizeof text - 1, WF_TOK_BOS | WF_TOK_SPECIAL, &ids, &n) == 0) {
		for (size_t i = 0; i < n; i++)
			if (!wf_token_piece(tok, ids[i], NULL))
				abort();
		free(ids);
	}
	tokenizer_close(tok);
	wf_arena_free(arena);
	return 0;
}
