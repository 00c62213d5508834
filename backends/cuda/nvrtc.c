/* nvrtc.c - source text to machine code, many programs at once.
 *
 * Always to a cubin for one named chip, never PTX: the driver then has nothing left to compile, and
 * registers and spills are known before anything runs.  Headers come from memory (the embedded
 * .cuh), never from a toolkit: cuda/ptx or cooperative_groups alone cost a second per program. */
#include "backends/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

void nvrtc_free(struct cuda_program *program, int n)
{
	for (int i = 0; i < n; i++) {
		free(program[i].cubin);
		free(program[i].log);
		program[i].cubin = NULL;
		program[i].log = NULL;
		program[i].bytes = 0;
	}
}

#ifdef WF_CUDA

#include <elf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { MAXOPTION = 12, MAXHEADER = 64, MAXTHREAD = 64 };

struct options { const char *text[MAXOPTION]; int n; char arch[48]; };

static int set_options(wf_error *err, struct options *out, const struct cuda_build_opt *opt)
{
	int version;

	if (strncmp(opt->arch, "sm_", 3) || strlen(opt->arch) > 12)
		return wf_fail(err, "arch: expected a name like sm_90a, found %.20s", opt->arch);
	driver_nvrtc_file(&version);
	snprintf(out->arch, sizeof out->arch, "--gpu-architecture=%s", opt->arch);
	out->n = 0;
	out->text[out->n++] = out->arch;
	out->text[out->n++] = "--std=c++17";
	out->text[out->n++] = "--ptxas-options=-v";
	if (version >= 12040)
		out->text[out->n++] = "-minimal";
	if (version >= 12090)
		out->text[out->n++] = "-no-cache";     /* its own cache would open the driver */
	if (opt->lineinfo)
		out->text[out->n++] = "-lineinfo";
	return 0;
}

static int embedded_headers(const char **text, const char **name)
{
	int n = 0;

	for (; wf_embedded[n].name && n < MAXHEADER; n++) {
		text[n] = wf_embedded[n].text;
		name[n] = wf_embedded[n].name;
	}
	return n;
}

/* ---- the key --------------------------------------------------------------------------------- */

static void mix(XXH3_state_t *state, const char *text)
{
	uint64_t length = strlen(text);

	XXH3_128bits_update(state, &length, sizeof length);
	XXH3_128bits_update(state, text, length);
}

/* Everything that changes code.  A patched NVRTC keeps its version number, so its size counts too. */
int nvrtc_key(wf_error *err, const struct cuda_build_opt *opt, const char *source, struct cuda_key *key)
{
	XXH3_state_t state;
	struct options options;
	struct stat file = {0};
	char compiler[64];
	int version;

	if (driver_open_nvrtc(err) || set_options(err, &options, opt))
		return -1;
	if (stat(driver_nvrtc_file(&version), &file))
		file.st_size = 0;
	snprintf(compiler, sizeof compiler, "weft 1, nvrtc %d, %lld bytes", version, (long long)file.st_size);
	XXH3_128bits_reset(&state);
	mix(&state, compiler);
	for (int i = 0; i < options.n; i++)
		mix(&state, options.text[i]);
	for (const struct embedded *e = wf_embedded; e->name; e++) {
		mix(&state, e->name);
		mix(&state, e->text);
	}
	mix(&state, source);
	XXH128_hash_t hash = XXH3_128bits_digest(&state);
	snprintf(key->hex, sizeof key->hex, "%016llx%016llx",
		(unsigned long long)hash.high64, (unsigned long long)hash.low64);
	return 0;
}

/* ---- one program ------------------------------------------------------------------------------ */

static int nvrtc_check(wf_error *err, nvrtcResult result, const char *what)
{
	return result == NVRTC_SUCCESS ? 0 :
		wf_fail(err, "%s: %s", what, cuda_nvrtc.nvrtcGetErrorString(result));
}

static int take_log(wf_error *err, nvrtcProgram handle, struct cuda_program *p)
{
	size_t n = 0;

	if (nvrtc_check(err, cuda_nvrtc.nvrtcGetProgramLogSize(handle, &n), p->name))
		return -1;
	p->log = calloc(1, n + 1);
	if (!p->log)
		return wf_fail(err, "%s: no memory for a log of %zu bytes", p->name, n);
	return n ? nvrtc_check(err, cuda_nvrtc.nvrtcGetProgramLog(handle, p->log), p->name) : 0;
}

static int take_cubin(wf_error *err, nvrtcProgram handle, struct cuda_program *p)
{
	if (nvrtc_check(err, cuda_nvrtc.nvrtcGetCUBINSize(handle, &p->bytes), p->name))
		return -1;
	p->cubin = malloc(p->bytes + 1);
	if (!p->cubin)
		return wf_fail(err, "%s: no memory for a cubin of %zu bytes", p->name, p->bytes);
	return nvrtc_check(err, cuda_nvrtc.nvrtcGetCUBIN(handle, p->cubin), p->name);
}

static int compile(wf_error *err, const struct cuda_build_opt *opt, struct cuda_program *p, const char *page)
{
	const char *text[MAXHEADER], *name[MAXHEADER];
	int nheader = embedded_headers(text, name);
	struct options options;
	nvrtcProgram handle;

	if (set_options(err, &options, opt) ||
	    nvrtc_check(err, cuda_nvrtc.nvrtcCreateProgram(&handle, p->source, page, nheader, text, name), p->name))
		return -1;
	nvrtcResult result = cuda_nvrtc.nvrtcCompileProgram(handle, options.n, options.text);
	int failed = take_log(err, handle, p);
	if (!failed && result != NVRTC_SUCCESS)
		failed = wf_fail(err, "%s for %s: %s\n%.800s", page, opt->arch,
			cuda_nvrtc.nvrtcGetErrorString(result), p->log);
	if (!failed)
		failed = take_cubin(err, handle, p);
	cuda_nvrtc.nvrtcDestroyProgram(&handle);
	return failed;
}

/* ---- what ptxas said: "Used 40 registers, used 1 barriers, 512 bytes smem" ---------------------- */

/* The number that stands before (or after, when offset > 0) each occurrence of `word`: the largest. */
static int largest(const char *log, const char *word, int after)
{
	int most = 0;

	for (const char *at = strstr(log, word); at; at = strstr(at + 1, word)) {
		const char *digit = at;
		if (after)
			digit += after;
		else
			while (digit > log && (digit[-1] == ' ' || (digit[-1] >= '0' && digit[-1] <= '9')))
				digit--;
		int value = atoi(digit);
		most = value > most ? value : most;
	}
	return most;
}

static struct cuda_usage read_usage(const char *log)
{
	return (struct cuda_usage){
		.registers = largest(log, "Used ", 5),
		.stack = largest(log, " bytes stack frame", 0),
		.spill_bytes = largest(log, " bytes spill stores", 0),
		.smem = largest(log, " bytes smem", 0),
	};
}

/* ---- what the page itself says: an int of that name in the machine code, -1 when there is none ----------- */

static bool inside(size_t bytes, uint64_t at, uint64_t n)
{
	return at <= bytes && n <= bytes - at;
}

static const Elf64_Shdr *section(const char *elf, size_t bytes, const Elf64_Ehdr *head, unsigned i)
{
	uint64_t at = head->e_shoff + (uint64_t)i * sizeof(Elf64_Shdr);

	return i < head->e_shnum && head->e_shentsize == sizeof(Elf64_Shdr) && at % 8 == 0 &&
		inside(bytes, at, sizeof(Elf64_Shdr)) ? (const Elf64_Shdr *)(const void *)(elf + at) : NULL;
}

static int read_symbol(const char *elf, size_t bytes, const Elf64_Ehdr *head, const Elf64_Sym *sym)
{
	const Elf64_Shdr *data = section(elf, bytes, head, sym->st_shndx);
	int value;

	if (!data || !inside(bytes, data->sh_offset, sym->st_value) ||
	    !inside(bytes, data->sh_offset + sym->st_value, sizeof value))
		return -1;
	memcpy(&value, elf + data->sh_offset + sym->st_value, sizeof value);
	return value;
}

static int int_named(const char *elf, size_t bytes, const char *name)
{
	const Elf64_Ehdr *head = (const Elf64_Ehdr *)(const void *)elf;
	const Elf64_Shdr *symbols, *names;
	size_t length = strlen(name) + 1;

	if (bytes < sizeof *head || memcmp(elf, ELFMAG, SELFMAG))
		return -1;
	for (unsigned i = 0; (symbols = section(elf, bytes, head, i)); i++) {
		if (symbols->sh_type != SHT_SYMTAB || !(names = section(elf, bytes, head, symbols->sh_link)) ||
		    symbols->sh_offset % 8 || !inside(bytes, symbols->sh_offset, symbols->sh_size) ||
		    !inside(bytes, names->sh_offset, names->sh_size))
			continue;
		const Elf64_Sym *sym = (const Elf64_Sym *)(const void *)(elf + symbols->sh_offset);
		for (size_t k = 0; k < symbols->sh_size / sizeof *sym; k++)
			if (inside(names->sh_size, sym[k].st_name, length) && !memcmp(elf + names->sh_offset + sym[k].st_name, name, length))
				return read_symbol(elf, bytes, head, &sym[k]);
	}
	return -1;
}

/* ---- all of them ------------------------------------------------------------------------------- */

struct build {
	const struct cuda_build_opt *opt;
	struct cuda_program **order;          /* [n] heavy first */
	int n;
	atomic_int next, failed, compiled, cached, damaged, unsaved;
	pthread_mutex_t mutex;                /* err */
	wf_error *err;
};

static bool from_cache(struct build *b, struct cuda_program *p, const struct cuda_key *key)
{
	bool damaged = false;

	p->cubin = cache_load(b->opt->cache, p->name, key, &p->bytes, &p->log, &damaged);
	b->damaged += damaged;
	p->cached = p->cubin != NULL;
	b->cached += p->cached;
	return p->cached;
}

static int compile_and_save(wf_error *err, struct build *b, struct cuda_program *p, const struct cuda_key *key)
{
	char page[512];

	snprintf(page, sizeof page, "%s/%s-%s.cu", cache_path(b->opt->cache), p->name, key->hex);
	int lock = cache_lock(b->opt->cache, p->name, key, p->source);
	int failed = 0;
	if (!from_cache(b, p, key)) {
		failed = compile(err, b->opt, p, page);
		b->compiled += !failed;
		if (!failed && cache_save(b->opt->cache, p->name, key, p->cubin, p->bytes, p->log))
			b->unsaved++;
	}
	if (lock >= 0)
		close(lock);
	return failed;
}

static int build_one(wf_error *err, struct build *b, struct cuda_program *p)
{
	struct cuda_key key;
	int failed = 0;

	if (!b->opt->cache) {
		failed = compile(err, b->opt, p, p->name);
		b->compiled += !failed;
	} else if (nvrtc_key(err, b->opt, p->source, &key)) {
		failed = -1;
	} else if (!from_cache(b, p, &key)) {
		failed = compile_and_save(err, b, p, &key);
	}
	if (!failed) {
		p->usage = read_usage(p->log);
		p->usage.dynamic = int_named(p->cubin, p->bytes, "dynamic_smem");
	}
	return failed;
}

static void *work(void *arg)
{
	struct build *b = arg;
	int i;

	while ((i = b->next++) < b->n && !b->failed) {
		wf_error err = {0};
		if (build_one(&err, b, b->order[i])) {
			pthread_mutex_lock(&b->mutex);
			wf_fail(b->err, "%s", err.text);
			pthread_mutex_unlock(&b->mutex);
			b->failed = 1;
		}
	}
	return NULL;
}

static int heavier(const void *a, const void *b)
{
	const struct cuda_program *p = *(struct cuda_program *const *)a, *q = *(struct cuda_program *const *)b;

	return (p->weight < q->weight) - (p->weight > q->weight);
}

static int thread_count(int asked, int n)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int threads = asked > 0 ? asked : cores > 0 ? (int)cores : 1;

	threads = threads < n ? threads : n;
	return threads < MAXTHREAD ? threads : MAXTHREAD;
}

/* The caller's own thread works too, so a failed pthread_create only costs time. */
static void run_threads(struct build *b, int threads)
{
	pthread_t thread[MAXTHREAD];
	int started = 0;

	while (started < threads - 1 && !pthread_create(&thread[started], NULL, work, b))
		started++;
	work(b);
	while (started > 0)
		pthread_join(thread[--started], NULL);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int nvrtc_build(wf_error *err, const struct cuda_build_opt *opt, struct cuda_program *program, int n,
		struct cuda_build_stats *stats)
{
	struct build b = {.opt = opt, .n = n, .err = err, .mutex = PTHREAD_MUTEX_INITIALIZER};
	double start = seconds();

	if (driver_open_nvrtc(err))
		return -1;
	b.order = malloc((size_t)(n > 0 ? n : 1) * sizeof *b.order);
	if (!b.order)
		return wf_fail(err, "no memory to compile %d programs", n);
	for (int i = 0; i < n; i++)
		b.order[i] = &program[i];
	qsort(b.order, (size_t)n, sizeof *b.order, heavier);
	run_threads(&b, thread_count(opt->threads, n));
	free(b.order);
	pthread_mutex_destroy(&b.mutex);
	if (stats)
		*stats = (struct cuda_build_stats){b.compiled, b.cached, b.damaged, b.unsaved, seconds() - start};
	if (b.failed)
		nvrtc_free(program, n);
	return b.failed ? -1 : 0;
}

#else

int nvrtc_key(wf_error *err, const struct cuda_build_opt *opt, const char *source, struct cuda_key *key)
{
	(void)opt, (void)source, (void)key;
	return wf_fail(err, "NVRTC: built without the CUDA toolkit");
}

int nvrtc_build(wf_error *err, const struct cuda_build_opt *opt, struct cuda_program *program, int n,
		struct cuda_build_stats *stats)
{
	(void)opt, (void)program, (void)n, (void)stats;
	return wf_fail(err, "NVRTC: built without the CUDA toolkit");
}

#endif
