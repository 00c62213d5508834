/* folders.c - where this user's caches and history lie, after the XDG Base Directory Specification. */
#include "tools/weft.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool user_path(char *out, size_t cap, const char *variable, const char *below_home, const char *name)
{
	const char *xdg = getenv(variable), *home = getenv("HOME");

	if (xdg && *xdg == '/')
		return (size_t)snprintf(out, cap, "%s/%s", xdg, name) < cap;
	/* a home that is not there is no home: /nonexistent is what daemons have */
	if (!home || *home != '/' || access(home, X_OK))
		return false;
	return (size_t)snprintf(out, cap, "%s/%s/%s", home, below_home, name) < cap;
}

void make_parents(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0700);
		*slash = '/';
	}
}
