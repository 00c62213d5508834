/* safetensors.c - fuzz: a safetensors file's bytes, through the parser and every tensor. */
#include "models/model.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	struct wf_blob b;
	size_t total = 0;
	volatile uint8_t last;

	safetensors *st = safetensors_parse(arena, &err, data, bytes);
	if ((st == NULL) != err.set)
		abort();
	for (size_t i = 0; st && i < safetensors_ntensor(st); i++) {
		const char *name = safetensors_tensor(st, i, &b);
		if (!safetensors_find(st, name, &b) || (const uint8_t *)b.data + b.bytes > data + bytes)
			abort();
		if (b.bytes)
			last = ((const uint8_t *)b.data)[b.bytes - 1];
		total += b.bytes;
	}
	(void)last;
	if (total > bytes)
		abort();
	wf_arena_free(arena);
	return 0;
}
