/* pages.c - every page a plan needs: for each group that differs, one variant per class of rows.
 *
 * A step's row count picks the smallest class that holds it.  Equal groups (layers) share variants,
 * equal pages share one program, whatever class or group asked for them. */
#include "backends/cuda/cuda.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { MAXCLASS = 12 };

static const int64_t classes[] = {1, 2, 4, 8, 16, 32, 64, INT64_MAX};

/* Upper bound of a kernel's rows. */
static int64_t most_rows(const wf_plan *plan, const wf_kernel *kernel)
{
	int64_t n = kernel->anchor->dim[0];

	return n == WF_T ? plan->opt.max_tokens : n == WF_S ? plan->opt.max_seqs : n == WF_R ? plan->opt.max_rows : n;
}

struct maker {
	wf_error *err;
	wf_arena *arena;
	const struct emit_opt *opt;
	const wf_plan *plan;
	struct pages *out;
	uint64_t *hash;                       /* of each program's source */
	int max;
};

static int find_program(struct maker *m, const struct emit_launch *l)
{
	uint64_t hash = XXH3_64bits(l->source, strlen(l->source));
	int i = 0;

	while (i < m->out->nprogram && (m->hash[i] != hash || strcmp(m->out->program[i].source, l->source)))
		i++;
	if (i < m->out->nprogram)
		return i;
	if (i == m->max) {
		int max = m->max ? 2 * m->max : 64;
		struct cuda_program *program = wf_alloc_n(m->arena, (size_t)max, sizeof *program);
		uint64_t *hashes = wf_alloc_n(m->arena, (size_t)max, sizeof *hashes);
		if (!program || !hashes)
			return wf_fail(m->err, "emit: out of memory");
		if (i) {
			memcpy(program, m->out->program, sizeof *program * (size_t)i);
			memcpy(hashes, m->hash, sizeof *hashes * (size_t)i);
		}
		m->out->program = program;
		m->hash = hashes;
		m->max = max;
	}
	m->hash[i] = hash;
	m->out->program[m->out->nprogram++] = (struct cuda_program){.name = l->name, .source = l->source, .weight = l->weight};
	return i;
}

static int make_variant(struct maker *m, const wf_kernel *kernel, struct variant *v)
{
	if (emit_kernel(m->err, m->arena, m->opt, m->plan, kernel, v->rows, v->single, &v->work))
		return -1;
	for (int i = 0; i < v->work.n; i++) {
		v->program[i] = v->work.launch[i].source ? find_program(m, &v->work.launch[i]) : -1;
		if (v->work.launch[i].source && v->program[i] < 0)
			return -1;
	}
	return 0;
}

/* Attention also has a form for steps of one token per sequence. */
static int make_variants(struct maker *m, const wf_kernel *kernel, struct kernel_pages *k)
{
	int64_t most = most_rows(m->plan, kernel);
	bool attends = kernel->kind == WF_ATTEND;

	k->variant = wf_alloc_n(m->arena, 2 * MAXCLASS, sizeof *k->variant);
	if (!k->variant)
		return wf_fail(m->err, "emit: out of memory");
	for (int single = attends; single >= 0; single--) {
		if (attends && single == 0 && most == 1)
			break;
		int64_t below = 0;
		for (size_t c = 0; below < most; c++) {
			int64_t rows = classes[c] < most ? classes[c] : most;
			if (single && below >= m->plan->opt.max_seqs)
				break;
			struct variant *v = &k->variant[k->nvariant++];
			*v = (struct variant){.rows = rows, .single = single};
			if (make_variant(m, kernel, v))
				return -1;
			below = rows;
		}
	}
	return 0;
}

/* The kernel that chooses tokens, where there are logits of a size it knows. */
static int make_pick(struct maker *m)
{
	const wf_plan *plan = m->plan;
	struct emit_launch *l = &m->out->pick;
	const wf_tensor *logits = NULL;
	struct page p;

	m->out->head = -1;
	for (int i = 0; i < plan->g->nout; i++)
		if (!strcmp(plan->g->out[i].name, "logits"))
			logits = plan->g->out[i].t;
	if (!logits || logits->dim[0] != WF_R || plan->value[logits->id].alias || wf_last(logits) > 1 << 20)
		return 0;
	m->out->head = plan->value[logits->id].kernel;
	page_open(&p, m->arena, plan, &plan->kernel[m->out->head]);
	page_define(&p, "VOCAB", "%lld", (long long)wf_last(logits));
	page_define(&p, "ARGS", "1");
	page_pointer(&p, PAGE_TABLE, NULL, "const struct table *", "table");
	page_pointer(&p, PAGE_VALUE, logits, "float *", "logits");
	page_pointer(&p, PAGE_CHOSEN, NULL, "int *", "chosen");
	*l = (struct emit_launch){.name = "pick", .function = "pick", .threads = 1024, .grid_y = 1, .weight = 4,
		.narg = p.narg, .source = page_done(&p, m->err, "pick: the next tokens", "pick.cuh")};
	memcpy(l->arg, p.arg, sizeof p.arg[0] * (size_t)p.narg);
	m->out->pick_program = l->source ? find_program(m, l) : -1;
	return m->out->pick_program < 0 ? -1 : 0;
}

int pages_make(wf_error *err, wf_arena *arena, const struct emit_opt *opt, const wf_plan *plan, struct pages *out)
{
	struct maker m = {.err = err, .arena = arena, .opt = opt, .plan = plan, .out = out};

	*out = (struct pages){.kernel = wf_alloc_n(arena, (size_t)plan->nkernel + 1, sizeof *out->kernel)};
	if (!out->kernel)
		return wf_fail(err, "emit: out of memory");
	for (int k = 0; k < plan->nkernel; k++) {
		int twin = plan->kernel[k].twin;
		if (twin < k)
			out->kernel[k] = out->kernel[twin];
		else if (make_variants(&m, &plan->kernel[k], &out->kernel[k]))
			return -1;
	}
	return make_pick(&m);
}

const struct variant *pages_pick(const struct kernel_pages *k, int64_t rows, bool single)
{
	const struct variant *best = NULL;

	for (int i = 0; i < k->nvariant; i++) {
		const struct variant *v = &k->variant[i];
		if (v->rows >= rows && v->single <= single && (!best || v->single > best->single ||
		    (v->single == best->single && v->rows < best->rows)))
			best = v;
	}
	return best;
}

/* ---- on disk, for people ------------------------------------------------------------------------------- */

static int write_page(wf_error *err, const char *dir, int kernel, int64_t rows, const struct emit_launch *l)
{
	char path[512];

	snprintf(path, sizeof path, "%s/k%03d-%s-%lld.cu", dir, kernel, l->name, (long long)rows);
	FILE *f = fopen(path, "w");
	if (!f)
		return wf_fail(err, "%s: %s", path, strerror(errno));
	bool failed = fputs(l->source, f) < 0;
	failed |= fclose(f) != 0;
	return failed ? wf_fail(err, "%s: could not be written", path) : 0;
}

static int write_headers(wf_error *err, const char *dir)
{
	char path[512];

	for (const struct embedded *e = wf_embedded; e->name; e++) {
		snprintf(path, sizeof path, "%s/%s", dir, e->name);
		FILE *f = fopen(path, "w");
		if (!f)
			return wf_fail(err, "%s: %s", path, strerror(errno));
		bool failed = fputs(e->text, f) < 0;
		failed |= fclose(f) != 0;
		if (failed)
			return wf_fail(err, "%s: could not be written", path);
	}
	return 0;
}

/* Each page once, under the first kernel that needs it, and the skeletons beside them. */
int pages_write(wf_error *err, const wf_plan *plan, const struct pages *pages, const char *dir)
{
	bool *done = calloc((size_t)pages->nprogram + 1, sizeof *done);
	int failed = done ? 0 : wf_fail(err, "emit: out of memory");

	if (!failed && mkdir(dir, 0777) && errno != EEXIST)
		failed = wf_fail(err, "%s: %s", dir, strerror(errno));
	failed = failed || write_headers(err, dir);
	for (int k = 0; k < plan->nkernel && !failed; k++) {
		const struct kernel_pages *kernel = &pages->kernel[k];
		for (int i = 0; i < kernel->nvariant && !failed; i++)
			for (int j = 0; j < kernel->variant[i].work.n && !failed; j++) {
				int program = kernel->variant[i].program[j];
				if (program < 0 || done[program])
					continue;
				done[program] = true;
				failed = write_page(err, dir, k, kernel->variant[i].rows, &kernel->variant[i].work.launch[j]);
			}
	}
	free(done);
	return failed ? -1 : 0;
}
