/* backend.c - the backends by name. */
#include "backends/backend.h"
#include <string.h>

static const wf_backend *const backends[] = {&wf_backend_cpu, &wf_backend_cuda, NULL};

const wf_backend *wf_backend_find(const char *name)
{
	for (int i = 0; backends[i]; i++)
		if (!strcmp(backends[i]->name, name))
			return backends[i];
	return NULL;
}
