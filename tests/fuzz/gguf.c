/* gguf.c - fuzz: a GGUF file's bytes, through parser, configuration and every tensor. */
#include "models/model.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const wf_arch any = {.name = "any"};

static void walk(const gguf *g)
{
	struct wf_blob b;
	float row[256];

	for (size_t i = 0; i < gguf_ntensor(g); i++) {
		const char *name = gguf_tensor(g, i, &b);
		if (!gguf_find(g, name, &b))
			abort();
		if (b.dtype < WF_NDTYPE && b.bytes >= (size_t)wf_dtypes[b.dtype].bytes)
			wf_decode(b.dtype, row, (const char *)b.data + b.bytes - wf_dtypes[b.dtype].bytes,
				wf_dtypes[b.dtype].block);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_config c;
	gguf *g = gguf_parse(arena, &err, data, bytes);

	if ((g == NULL) != err.set)
		abort();
	if (g) {
		walk(g);
		if ((config_from_gguf(arena, &err, g, &any, &c) < 0) != err.set)
			abort();
	}
	wf_arena_free(arena);
	return 0;
}
