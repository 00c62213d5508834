/* load.c - families that are not in the table: what an unknown name was meant to be, and those in shared
 * objects.
 *
 * An object exports one struct that says all: the family, the ops it brings, and the sizes of the
 * structs it was compiled with, so that one made for other headers is refused before it is called. */
#include "models/model.h"
#include "ops/ops.h"

#include <dlfcn.h>
#include <limits.h>
#include <string.h>

/* ---- the nearest names ---- */

static int nearness(const wf_arch *arch, const char *name)
{
	int least = near_distance(arch->name, name);

	for (int layout = 0; layout < 2; layout++)
		for (const char *const *n = layout ? arch->gguf : arch->hf; n && *n; n++)
			if (near_distance(*n, name) < least)
				least = near_distance(*n, name);
	return least;
}

int arch_unknown(wf_error *err, const char *where, const char *name)
{
	enum { SHOWN = 3 };
	const wf_arch *best[SHOWN] = {NULL};
	char near[128] = "", show[NAMES_SHOW];

	for (const wf_arch *const *a = wf_archs; *a; a++) {
		const wf_arch *arch = *a;
		for (int i = 0; i < SHOWN && arch; i++)
			if (!best[i] || nearness(arch, name) < nearness(best[i], name)) {
				const wf_arch *pushed = best[i];
				best[i] = arch;
				arch = pushed;
			}
	}
	for (int i = 0; i < SHOWN && best[i]; i++)
		snprintf(near + strlen(near), sizeof near - strlen(near), "%s%s", i ? ", " : "", best[i]->name);
	return wf_fail(err, "%s \"%s\" is not a known architecture; the nearest are: %s.  A new one is a single C "
		"file: models/example/my_arch.c (share/weft where installed) is the guide, --arch FILE.so loads it", where,
		names_show(show, name, strlen(name)), near);
}

/* ---- shared objects ---- */

/* wf_arch_NAME for DIR/libNAME.so. */
static void symbol_name(const char *path, char *out, size_t cap)
{
	const char *base = strrchr(path, '/');

	base = base ? base + 1 : path;
	if (!strncmp(base, "lib", 3))
		base += 3;
	snprintf(out, cap, "wf_arch_%.*s", (int)strcspn(base, "."), base);
}

static int check_arch(wf_error *err, const char *path, const char *symbol, const wf_arch *arch)
{
	if (!arch)
		return wf_fail(err, "%s: expected it to export `const wf_arch %s`", path, symbol);
	if (arch->abi != WF_ABI)
		return wf_fail(err, "%s: %s.abi is %d, expected WF_ABI, %d here: compile it with this version's headers",
			path, symbol, arch->abi, WF_ABI);
	if (!arch->name || !arch->build)
		return wf_fail(err, "%s: %s has no %s", path, symbol, arch->name ? "build function" : "name");
	return 0;
}

static int register_ops(wf_error *err, const char *path, const wf_arch *arch)
{
	for (const wf_op *const *op = arch->ops; op && *op; op++) {
		wf_error why = {0};
		if (wf_op_register(&why, *op))
			return wf_fail(err, "%s: %s", path, why.text);
	}
	return 0;
}

const wf_arch *wf_arch_load(wf_error *err, const char *so_path)
{
	char symbol[256], here[PATH_MAX];

	/* without a slash dlopen would search the system's folders */
	if ((size_t)snprintf(here, sizeof here, "./%s", so_path) >= sizeof here) {
		wf_fail(err, "cannot load the architecture: path too long");
		return NULL;
	}
	symbol_name(so_path, symbol, sizeof symbol);
	void *object = dlopen(strchr(so_path, '/') ? so_path : here, RTLD_NOW | RTLD_LOCAL);
	if (!object) {
		wf_fail(err, "cannot load the architecture: %s", dlerror());
		return NULL;
	}
	const wf_arch *arch = dlsym(object, symbol);
	if (check_arch(err, so_path, symbol, arch)) {
		dlclose(object);
		return NULL;
	}
	return register_ops(err, so_path, arch) ? NULL : arch;     /* what is registered stays, and so does the object */
}
