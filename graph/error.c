/* error.c - the first message, kept.
 *
 * Input, devices and memory report through wf_fail(), which the caller passes up as -1; only a bug
 * of our own, found, ends the process. */
#include "graph/graph.h"

#include <stdlib.h>

int wf_fail(wf_error *err, const char *fmt, ...)
{
	if (!err || err->set)
		return -1;
	va_list args;
	va_start(args, fmt);
	vsnprintf(err->text, sizeof err->text, fmt, args);
	va_end(args);
	err->set = true;
	return -1;
}

void wf_die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("weft: internal error: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	abort();
}
