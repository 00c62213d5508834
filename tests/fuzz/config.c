/* config.c - fuzz: config.json, and the graph that comes of it when it is accepted. */
#include "models/model.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_model m = {0};

	if ((config_from_json(arena, &err, (const char *)data, bytes, NULL, &m.config, &m.arch) < 0) != err.set)
		abort();
	if (!err.set && m.config.nlayer <= 8 && (wf_model_graph(&m, arena, &err) == NULL) != err.set)
		abort();
	if (!err.set)
		config_generation(&m.config, &err, (const char *)data, bytes);
	wf_arena_free(arena);
	return 0;
}
