/* load.c - weights to the device: many readers, a small pinned ring, copies that overlap.
 *
 * The weights' allocation is one range of bytes.  Each byte comes from somewhere: a run of rows in a
 * mapped file (layouts made of whole rows are followed down to the file, nothing is assembled on the
 * host), a value computed here, or a hash evaluated on the device, where bf16 also becomes f16
 * (load_make.c).  The range is cut into chunks; a reader takes the next one, gathers its runs into its
 * own pinned slot and sends it off.  Only the ring is pinned: pinning costs 0.4 s per GiB. */
#include "backends/cuda/cuda.h"

#ifdef WF_CUDA

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SLOT = 8 << 20, MAXREADER = 16, MADE_RUN = 65536, MAXLEAF = 16 };

struct run {                                  /* bytes [at, at + bytes) of the range */
	uint64_t at;
	const uint8_t *from;
	size_t bytes;
};

struct loader {
	wf_error *err;
	wf_arena *arena;                      /* computed constants */
	const struct load_opt *opt;
	struct run *run;
	int64_t nrun, maxrun;
	struct load_random *random;           /* made on the device: load_make.c */
	int64_t nrandom, maxrandom;
	struct load_half *half;
	int64_t nhalf, maxhalf;
	CUdeviceptr base;
	uint64_t bytes;                       /* of the range */
	CUstream stream[2];
	char *ring;
	atomic_llong next;
	atomic_int failed;
	pthread_mutex_t mutex;                /* err, from readers */
};

/* ---- where each byte comes from ---------------------------------------------------------------- */

static void *grown(wf_error *err, void *list, int64_t n, int64_t *max, size_t bytes)
{
	if (n < *max)
		return list;
	int64_t more = *max ? *max * 2 : 1024;
	void *larger = realloc(list, (size_t)more * bytes);
	if (!larger) {
		wf_fail(err, "load: no memory for %lld runs", (long long)more);
		return NULL;
	}
	*max = more;
	return larger;
}

static int add_run(struct loader *l, uint64_t at, const uint8_t *from, size_t bytes)
{
	struct run *last = l->nrun ? &l->run[l->nrun - 1] : NULL;

	if (last && last->at + last->bytes == at && last->from + last->bytes == from) {
		last->bytes += bytes;
		return 0;
	}
	struct run *list = grown(l->err, l->run, l->nrun, &l->maxrun, sizeof *list);
	if (!list)
		return -1;
	l->run = list;
	l->run[l->nrun++] = (struct run){at, from, bytes};
	return 0;
}

static int add_random(struct loader *l, uint64_t at, const wf_tensor *leaf, int64_t first, int64_t n)
{
	struct load_random *last = l->nrandom ? &l->random[l->nrandom - 1] : NULL;
	struct wf_random r = wf_random_of(leaf, l->opt->seed);
	uint64_t width = (uint64_t)wf_dtypes[leaf->dtype].bytes;

	if (last && last->key == r.key && last->to + last->count * width == at &&
	    last->first + last->count == (uint64_t)first && last->count + (uint64_t)n <= MADE_RUN) {
		last->count += (uint64_t)n;
		return 0;
	}
	for (; n > 0; n -= MADE_RUN, first += MADE_RUN, at += MADE_RUN * width) {
		struct load_random *list = grown(l->err, l->random, l->nrandom, &l->maxrandom, sizeof *list);
		if (!list)
			return -1;
		l->random = list;
		l->random[l->nrandom++] = (struct load_random){at, (uint64_t)first,
			(uint64_t)(n < MADE_RUN ? n : MADE_RUN), r.key, r.scale, r.shift, (uint32_t)leaf->dtype, 0};
	}
	return 0;
}

/* n values at `at`, bf16 of `leaf` until all is there. */
static int add_half(struct loader *l, uint64_t at, const wf_tensor *leaf, int64_t n)
{
	struct load_half *last = l->nhalf ? &l->half[l->nhalf - 1] : NULL;

	if (last && last->leaf == (uintptr_t)leaf && last->to + last->count * 2 == at && last->count + (uint64_t)n <= MADE_RUN) {
		last->count += (uint64_t)n;
		return 0;
	}
	for (; n > 0; n -= MADE_RUN, at += MADE_RUN * 2) {
		struct load_half *list = grown(l->err, l->half, l->nhalf, &l->maxhalf, sizeof *list);
		if (!list)
			return -1;
		l->half = list;
		l->half[l->nhalf++] = (struct load_half){.to = at, .count = (uint64_t)(n < MADE_RUN ? n : MADE_RUN), .leaf = (uintptr_t)leaf};
	}
	return 0;
}

struct leaf { const wf_tensor *t; struct wf_blob blob; };

static struct leaf *find_leaf(struct leaf *leaves, const wf_tensor *t)
{
	int i = 0;

	while (i < MAXLEAF && leaves[i].t && leaves[i].t != t)
		i++;
	if (i == MAXLEAF)
		return NULL;
	if (!leaves[i].t) {
		if (t->g->weights && t->g->weights->find(t->g->weights, t->name, &leaves[i].blob))
			return NULL;
		leaves[i].t = t;
	}
	return &leaves[i];
}

/* Turned into f16 where it lies: as long as what it comes from. */
static bool is_halved(const wf_tensor *t)
{
	return !strcmp(t->op->name, "half") && t->in[0]->dtype == WF_BF16;
}

/* Entry r of t along dimension 0, followed through layouts to a weight; NULL when it is computed. */
static const wf_tensor *follow(const wf_tensor *t, int64_t r, int64_t *at)
{
	while (t->op->source_row || (t->op != &wf_op_weight && is_halved(t))) {
		int k = 0;
		if (t->op->source_row) {
			k = t->op->source_row(t, r, at);
			r = *at;
		}
		t = t->in[k];
	}
	*at = r;
	return t->op == &wf_op_weight ? t : NULL;
}

static bool is_rows(const wf_tensor *t)
{
	if (t->op == &wf_op_weight)
		return true;
	if (!t->op->source_row && !is_halved(t))
		return false;
	for (int k = 0; k < t->nin; k++)
		if (!is_rows(t->in[k]))
			return false;
	return true;
}

static int add_rows(struct loader *l, const wf_tensor *t, uint64_t at)
{
	struct leaf leaves[MAXLEAF] = {{0}};
	int64_t n = wf_nelem(t) / t->dim[0], src;
	size_t bytes = wf_row_bytes(t->dtype, n);

	for (int64_t r = 0; r < t->dim[0]; r++, at += bytes) {
		const wf_tensor *weight = follow(t, r, &src);
		struct leaf *leaf = weight ? find_leaf(leaves, weight) : NULL;
		bool halved = weight && weight->dtype == WF_BF16 && t->dtype == WF_F16;
		if (!leaf || (weight->dtype != t->dtype && !halved))
			return wf_fail(l->err, "load: %s is not in the file as planned", weight ? weight->name : "a weight");
		if (halved && add_half(l, at, weight, n))
			return -1;
		if (l->opt->random) {
			if (random_check(weight) || add_random(l, at, weight, src * n, n))
				return -1;
			continue;
		}
		if (!leaf->blob.data || (size_t)(src + 1) * bytes > leaf->blob.bytes)
			return wf_fail(l->err, "%s: row %lld of %zu bytes is past the %zu bytes of the tensor", weight->name,
				(long long)src, bytes, leaf->blob.bytes);
		if (add_run(l, at, (const uint8_t *)leaf->blob.data + (size_t)src * bytes, bytes))
			return -1;
	}
	return 0;
}

/* Weights of the hash for what is computed here, made when asked for. */
struct hashed { wf_weights weights; struct loader *l; const wf_graph *g; };

static int find_hashed(const wf_weights *w, const char *name, struct wf_blob *out)
{
	const struct hashed *h = (const struct hashed *)w;

	for (int i = 0; i < h->g->nnode; i++)
		if (h->g->node[i]->op == &wf_op_weight && !strcmp(h->g->node[i]->name, name))
			return random_blob(h->g->node[i], h->l->arena, h->l->opt->seed, out);
	return -1;
}

static int compute(struct loader *l, wf_tensor *t, struct wf_blob *out)
{
	struct hashed hashed = {{find_hashed}, l, t->g};
	const wf_weights *file = t->g->weights;

	t->g->weights = l->opt->random ? &hashed.weights : file;
	int failed = graph_constant_bytes(t, l->arena, out);
	t->g->weights = file;
	return failed;
}

static int add_item(struct loader *l, const struct load_item *item)
{
	uint64_t at = item->at - l->base;
	struct wf_blob blob;

	if (is_rows(item->t))
		return add_rows(l, item->t, at);
	if (compute(l, item->t, &blob))
		return -1;
	if (blob.bytes != item->bytes)
		return wf_fail(l->err, "load: a constant of %zu bytes, planned %zu", blob.bytes, item->bytes);
	return add_run(l, at, blob.data, blob.bytes);
}

/* ---- readers ------------------------------------------------------------------------------------- */

/* The first run that ends after `at`; runs ascend. */
static int64_t first_run(const struct loader *l, uint64_t at)
{
	int64_t low = 0, high = l->nrun;

	while (low < high) {
		int64_t mid = low + (high - low) / 2;
		if (l->run[mid].at + l->run[mid].bytes > at)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

/* One call maps a whole chunk's pages; faults one by one cost more than the copy. */
static void map_pages(const uint8_t *from, size_t bytes)
{
#ifdef MADV_POPULATE_READ
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)from & ~(page - 1);

	if (bytes >= 16 * page)
		(void)!madvise((void *)start, (uintptr_t)from + bytes - start, MADV_POPULATE_READ);
#else
	(void)from, (void)bytes;
#endif
}

static void gather(const struct loader *l, uint64_t at, uint64_t end, char *to)
{
	uint64_t done = at;

	for (int64_t i = first_run(l, at); i < l->nrun && l->run[i].at < end; i++) {
		const struct run *r = &l->run[i];
		uint64_t from = r->at > at ? r->at : at, upto = r->at + r->bytes < end ? r->at + r->bytes : end;
		memset(to + (done - at), 0, (size_t)(from - done));
		map_pages(r->from + (from - r->at), (size_t)(upto - from));
		memcpy(to + (from - at), r->from + (from - r->at), (size_t)(upto - from));
		done = upto;
	}
	memset(to + (done - at), 0, (size_t)(end - done));
}

struct reader {
	struct loader *l;
	int id;
	pthread_t thread;
	CUevent sent[2];
};

static int send_chunk(wf_error *err, struct reader *r, int64_t chunk, int slot)
{
	struct loader *l = r->l;
	uint64_t at = (uint64_t)chunk * SLOT, end = at + SLOT < l->bytes ? at + SLOT : l->bytes;
	char *data = l->ring + (size_t)(2 * r->id + slot) * SLOT;
	int64_t first = first_run(l, at);

	if (first == l->nrun || l->run[first].at >= end)
		return 0;
	at = at > l->run[first].at ? at : l->run[first].at;
	if (CU(err, cuEventSynchronize(r->sent[slot])))
		return -1;
	gather(l, at, end, data);
	if (CU(err, cuMemcpyHtoDAsync(l->base + at, data, end - at, l->stream[chunk % 2])) ||
	    CU(err, cuEventRecord(r->sent[slot], l->stream[chunk % 2])))
		return -1;
	return 0;
}

static void *read_chunks(void *arg)
{
	struct reader *r = arg;
	struct loader *l = r->l;
	wf_error err = {0};
	int64_t chunk, nchunk = (int64_t)((l->bytes + SLOT - 1) / SLOT);
	int failed = CU(&err, cuCtxSetCurrent(l->opt->context));

	for (int turn = 0; !failed && !l->failed && (chunk = l->next++) < nchunk; turn++)
		failed = send_chunk(&err, r, chunk, turn % 2);
	if (failed) {
		pthread_mutex_lock(&l->mutex);
		wf_fail(l->err, "%s", err.text);
		pthread_mutex_unlock(&l->mutex);
		l->failed = 1;
	}
	return NULL;
}

static int open_readers(struct loader *l, struct reader *reader, int n)
{
	for (int i = 0; i < n; i++) {
		reader[i] = (struct reader){.l = l, .id = i};
		for (int k = 0; k < 2; k++)
			if (CU(l->err, cuEventCreate(&reader[i].sent[k], CU_EVENT_DISABLE_TIMING)))
				return -1;
	}
	return 0;
}

static void close_readers(struct reader *reader, int n)
{
	for (int i = 0; i < n; i++)
		for (int k = 0; k < 2; k++)
			if (reader[i].sent[k])
				cuda_driver.cuEventDestroy(reader[i].sent[k]);
}

/* The caller reads too, so a failed pthread_create only costs time. */
static int read_all(struct loader *l)
{
	struct reader reader[MAXREADER] = {{0}};
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int n = l->opt->threads > 0 ? l->opt->threads : (int)cores, started = 1;

	n = n < 1 ? 1 : n > MAXREADER ? MAXREADER : n;
	if (CU(l->err, cuMemHostAlloc((void **)&l->ring, (size_t)n * 2 * SLOT, 0)))
		return -1;
	if (!open_readers(l, reader, n)) {
		while (started < n && !pthread_create(&reader[started].thread, NULL, read_chunks, &reader[started]))
			started++;
		read_chunks(&reader[0]);
		while (started > 1)
			pthread_join(reader[--started].thread, NULL);
	}
	int failed = l->err->set;
	for (int k = 0; k < 2; k++)
		failed |= CU(l->err, cuStreamSynchronize(l->stream[k]));
	close_readers(reader, n);
	failed |= CU(l->err, cuMemFreeHost(l->ring));
	return failed ? -1 : 0;
}

/* ---- all of it ---------------------------------------------------------------------------------------- */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int load(struct loader *l, const struct load_item *item, int n)
{
	for (int i = 0; i < n; i++)
		if (add_item(l, &item[i]))
			return -1;
	for (int k = 0; k < 2; k++)
		if (CU(l->err, cuStreamCreate(&l->stream[k], CU_STREAM_NON_BLOCKING)))
			return -1;
	if (l->nrun && read_all(l))
		return -1;
	const struct load_target t = {l->err, l->arena, l->opt, l->base, l->stream[0]};
	return load_make_random(&t, l->random, l->nrandom) || load_make_half(&t, l->half, l->nhalf) ? -1 : 0;
}

int load_weights(wf_error *err, const struct load_item *item, int n, const struct load_opt *opt,
		struct load_stats *stats)
{
	struct loader l = {.err = err, .opt = opt, .mutex = PTHREAD_MUTEX_INITIALIZER, .arena = wf_arena_new()};
	double start = seconds();

	if (!l.arena)
		return wf_fail(err, "load: out of memory");
	l.base = n ? item[0].at : 0;
	l.bytes = n ? item[n - 1].at + item[n - 1].bytes - l.base : 0;
	int failed = load(&l, item, n);
	for (int k = 0; k < 2; k++)
		if (l.stream[k])
			cuda_driver.cuStreamDestroy(l.stream[k]);
	free(l.run);
	free(l.random);
	free(l.half);
	wf_arena_free(l.arena);
	pthread_mutex_destroy(&l.mutex);
	*stats = (struct load_stats){(int64_t)l.bytes, seconds() - start};
	return failed ? -1 : 0;
}

#endif
