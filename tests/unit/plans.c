/* plans.c - golden plans: each file in tests/plans holds a graph and the plan it must become.
 *
 *   $g : f32[T,8]                                      the input
 *   # >>> tokens=4 seqs=1 rows=1 backend=none [act=f16] [skip=fuse]
 *   # kernel 0 map {                                   the plan as printed, then what was not fused:
 *   # ! map after dot.store: matmul -> silu: 2 readers
 *   # = kernel 2 is kernel 0 again                     equal work, which shares one kernel
 *   # <<<
 *
 * WEFT_BLESS=1 writes what the compiler gives now: read the difference before it is committed. */
#include "backends/backend.h"
#include "ops/ops.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { MAXPLAN = 128, MAXBYTES = 1 << 20 };

static const char folder[] = "tests/plans";

struct golden {
	char *text;
	char *options;                        /* of the >>> line */
	char *want;                           /* lines up to <<<, without "# " */
	size_t input;                         /* bytes before the >>> line */
};

static char *read_file(const char *path)
{
	char *text = calloc(1, MAXBYTES + 1);
	FILE *f = fopen(path, "r");

	if (!f || !text || fread(text, 1, MAXBYTES, f) == MAXBYTES)
		fail_msg("%s: cannot read, or more than %d bytes", path, MAXBYTES);
	fclose(f);
	return text;
}

/* The expectation stands in comments: what is left of each line. */
static char *uncomment(const char *s)
{
	char *text = NULL;
	size_t len;
	FILE *m = open_memstream(&text, &len);

	for (; *s && strncmp(s, "# <<<", 5); s += strcspn(s, "\n"), s += *s == '\n') {
		int n = (int)strcspn(s, "\n"), skip = n > 1 ? 2 : n;
		fprintf(m, "%.*s\n", n - skip, s + skip);
	}
	fclose(m);
	return text;
}

static void open_golden(struct golden *g, const char *path)
{
	*g = (struct golden){.text = read_file(path)};
	char *mark = strstr(g->text, "# >>>");
	if (!mark) {
		fail_msg("%s: expected a line '# >>> tokens=N ...'", path);
		return;
	}
	g->input = (size_t)(mark - g->text);
	g->options = strndup(mark + 5, strcspn(mark + 5, "\n"));
	g->want = uncomment(mark + strcspn(mark, "\n") + 1);
}

static void close_golden(struct golden *g)
{
	free(g->text);
	free(g->options);
	free(g->want);
}

/* The value of key=value, "" when it is not there. */
static const char *option(const char *options, const char *key, char out[64])
{
	const char *at = strstr(options, key);

	out[0] = 0;
	if (at)
		snprintf(out, 64, "%.*s", (int)strcspn(at + strlen(key), " "), at + strlen(key));
	return out;
}

static void print_blockers(const wf_plan *plan, FILE *f)
{
	for (int i = 0; i < plan->nnote; i++) {
		const struct wf_note *note = &plan->note[i];
		if (note->text)
			fprintf(f, "! %s: %s -> %s: %s\n", note->rule, note->from->op->name, note->to->op->name, note->text);
	}
}

static void print_twins(const wf_plan *plan, FILE *f)
{
	for (int k = 0; k < plan->nkernel; k++)
		if (plan->kernel[k].twin != k)
			fprintf(f, "= kernel %d is kernel %d again\n", k, plan->kernel[k].twin);
}

static char *compile(const struct golden *golden, const char *path)
{
	char value[64], skip[64], *text;
	size_t len;
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_graph *g = wf_graph_new(arena, &err, wf_ops);
	wf_plan *plan = NULL;
	struct wf_plan_opt opt = {.verify = true};

	opt.max_tokens = atoi(option(golden->options, "tokens=", value));
	opt.max_seqs = atoi(option(golden->options, "seqs=", value));
	opt.max_rows = atoi(option(golden->options, "rows=", value));
	if (*option(golden->options, "skip=", skip))
		opt.skip = skip;
	if (*option(golden->options, "act=", value))
		g->act = (wf_dtype)wf_dtype_find(value);
	option(golden->options, "backend=", value);
	if (!wf_graph_parse(g, golden->text, golden->input, &plan))
		plan = wf_plan_build(g, wf_rules, wf_backend_find(value), &opt);
	if (err.set)
		fail_msg("%s: %s", path, err.text);
	FILE *m = open_memstream(&text, &len);
	wf_plan_print(plan, m);
	print_blockers(plan, m);
	print_twins(plan, m);
	fclose(m);
	wf_arena_free(arena);
	return text;
}

static void bless(const struct golden *g, const char *path, const char *got)
{
	FILE *f = fopen(path, "w");

	fprintf(f, "%.*s# >>>%s\n", (int)g->input, g->text, g->options);
	for (; *got; got += strcspn(got, "\n") + 1)
		fprintf(f, "# %.*s\n", (int)strcspn(got, "\n"), got);
	fputs("# <<<\n", f);
	fclose(f);
}

static void compare(const char *path, const char *want, const char *got)
{
	size_t start = 0;
	int line = 1;

	for (size_t i = 0; want[i] || got[i]; i++) {
		if (want[i] != got[i])
			fail_msg("%s, line %d of the plan\nexpected %.*s\nfound    %.*s\nthe whole plan is\n%s", path, line,
				(int)strcspn(want + start, "\n"), want + start, (int)strcspn(got + start, "\n"), got + start, got);
		if (got[i] == '\n') {
			start = i + 1;
			line++;
		}
	}
}

static void becomes(void **state)
{
	const char *path = *state;
	struct golden g;

	open_golden(&g, path);
	char *got = compile(&g, path);
	if (getenv("WEFT_BLESS"))
		bless(&g, path, got);
	else
		compare(path, g.want, got);
	free(got);
	close_golden(&g);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct CMUnitTest *)a)->name, ((const struct CMUnitTest *)b)->name);
}

int main(void)
{
	static struct CMUnitTest tests[MAXPLAN];
	static char path[MAXPLAN][512];
	size_t n = 0;
	DIR *dir = opendir(folder);

	for (struct dirent *e; dir && (e = readdir(dir)) && n < MAXPLAN; ) {
		size_t len = strlen(e->d_name);
		if (len < 6 || strcmp(e->d_name + len - 5, ".weft"))
			continue;
		snprintf(path[n], sizeof path[n], "%s/%s", folder, e->d_name);
		tests[n] = (struct CMUnitTest){.name = path[n] + strlen(folder) + 1, .test_func = becomes, .initial_state = path[n]};
		n++;
	}
	if (dir)
		closedir(dir);
	qsort(tests, n, sizeof *tests, by_name);
	if (!n) {
		fprintf(stderr, "no plans in %s\n", folder);
		return 1;
	}
	return _cmocka_run_group_tests("plans", tests, n, NULL, NULL);
}
