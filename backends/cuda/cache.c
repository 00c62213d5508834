/* cache.c - compiled kernels on disk, found by the hash of everything that decides them.
 *
 *   NAME-KEY.cu      the generated page, for people; its lock is the key's lock
 *   NAME-KEY.cubin   machine code, then the compiler's log, then a trailer with lengths and checksum
 *
 * A cubin appears under its name whole (temporary name, fsync, rename) and is believed only when its
 * checksum and key agree, so a crash, a full disk or a flipped bit costs one compilation.  Tools
 * that read ELF ignore what follows the machine code. */
#include "backends/cuda/cuda.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { MAXENTRY = 256 << 20, LOCK_SECONDS = 120 };

struct cuda_cache { int dir; char path[256]; };

struct trailer {
	uint64_t cubin_bytes, log_bytes;
	char key[32];
	uint64_t sum[2];                      /* XXH3-128 of all before it */
	char magic[8];
};

static const char magic[8] = "weftcub1";

/* ---- the folder ---------------------------------------------------------------------------------- */

static int make_folders(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		int failed = mkdir(path, 0700) && errno != EEXIST;
		*slash = '/';
		if (failed)
			return -1;
	}
	return mkdir(path, 0700) && errno != EEXIST ? -1 : 0;
}

/* Whoever can write here decides what runs on the GPU. */
static int check_owner(wf_error *err, int dir, const char *path)
{
	struct stat st;

	if (fstat(dir, &st))
		return wf_fail(err, "kernel cache %s: %s", path, strerror(errno));
	if (st.st_uid != geteuid())
		return wf_fail(err, "kernel cache %s: expected a folder of user %u, found one of user %u",
			path, (unsigned)geteuid(), (unsigned)st.st_uid);
	if (st.st_mode & 022)
		return wf_fail(err, "kernel cache %s: others may write there (mode %03o); chmod 700 it",
			path, (unsigned)st.st_mode & 0777);
	return 0;
}

struct cuda_cache *cache_open(wf_error *err, const char *dir)
{
	struct cuda_cache *cache = malloc(sizeof *cache);
	int n = cache ? snprintf(cache->path, sizeof cache->path, "%s", dir) : 0;

	if (!cache)
		wf_fail(err, "kernel cache: no memory");
	else if (n == 0 || n >= (int)sizeof cache->path)
		wf_fail(err, "kernel cache: expected a path of 1 to %zu bytes, found %d", sizeof cache->path - 1, n);
	else if (make_folders(cache->path) ||
	         (cache->dir = open(cache->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		wf_fail(err, "kernel cache %s: %s", cache->path, strerror(errno));
	else if (check_owner(err, cache->dir, cache->path))
		close(cache->dir);
	else
		return cache;
	free(cache);
	return NULL;
}

void cache_close(struct cuda_cache *cache)
{
	if (cache)
		close(cache->dir);
	free(cache);
}

const char *cache_path(const struct cuda_cache *cache)
{
	return cache->path;
}

/* ---- reading and writing whole files -------------------------------------------------------------- */

static int read_all(int fd, char *to, size_t bytes)
{
	while (bytes > 0) {
		ssize_t n = read(fd, to, bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		to += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static int write_all(int fd, const char *from, size_t bytes)
{
	while (bytes > 0) {
		ssize_t n = write(fd, from, bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		from += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static void entry_name(char out[256], const char *name, const struct cuda_key *key, const char *suffix)
{
	snprintf(out, 256, "%.180s-%s%s", name, key->hex, suffix);
}

/* ---- the lock --------------------------------------------------------------------------------------- */

/* A stopped process must not stop the others for good. */
static void wait_lock(int fd)
{
	const struct timespec pause = {.tv_nsec = 2000000};

	for (int i = 0; i < LOCK_SECONDS * 500; i++) {
		if (!flock(fd, LOCK_EX | LOCK_NB) || (errno != EWOULDBLOCK && errno != EINTR))
			return;
		nanosleep(&pause, NULL);
	}
}

static void write_page(int fd, const char *source)
{
	size_t bytes = strlen(source);
	struct stat st;

	if (!fstat(fd, &st) && (size_t)st.st_size == bytes)
		return;
	if (!ftruncate(fd, 0) && write_all(fd, source, bytes))
		(void)!ftruncate(fd, 0);
}

int cache_lock(struct cuda_cache *cache, const char *name, const struct cuda_key *key, const char *source)
{
	char file[256];

	entry_name(file, name, key, ".cu");
	int fd = openat(cache->dir, file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -1;
	wait_lock(fd);
	write_page(fd, source);
	return fd;
}

/* ---- entries ------------------------------------------------------------------------------------------ */

static bool is_whole(const char *data, size_t bytes, const struct cuda_key *key, struct trailer *t)
{
	if (bytes < sizeof *t)
		return false;
	size_t body = bytes - sizeof *t;
	memcpy(t, data + body, sizeof *t);
	XXH128_hash_t sum = XXH3_128bits(data, body + offsetof(struct trailer, sum));
	return !memcmp(t->magic, magic, sizeof magic) && !memcmp(t->key, key->hex, sizeof t->key) &&
		t->sum[0] == sum.low64 && t->sum[1] == sum.high64 &&
		t->cubin_bytes <= body && t->log_bytes == body - t->cubin_bytes;
}

static char *read_entry(int fd, size_t *bytes)
{
	struct stat st;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > MAXENTRY)
		return NULL;
	*bytes = (size_t)st.st_size;
	char *data = malloc(*bytes + 1);
	if (data && read_all(fd, data, *bytes)) {
		free(data);
		data = NULL;
	}
	return data;
}

void *cache_load(struct cuda_cache *cache, const char *name, const struct cuda_key *key, size_t *bytes, char **log,
		bool *damaged)
{
	char file[256];
	struct trailer t;
	size_t size = 0;

	entry_name(file, name, key, ".cubin");
	*damaged = false;
	int fd = openat(cache->dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return NULL;
	char *data = read_entry(fd, &size);
	close(fd);
	*damaged = !data || !is_whole(data, size, key, &t);
	*log = *damaged ? NULL : strndup(data + t.cubin_bytes, t.log_bytes);
	if (!*log) {
		free(data);
		return NULL;
	}
	*bytes = t.cubin_bytes;
	return data;
}

static int write_entry(int fd, const struct cuda_key *key, const void *cubin, size_t bytes, const char *log)
{
	struct trailer t = {.cubin_bytes = bytes, .log_bytes = strlen(log)};
	XXH3_state_t state;

	memcpy(t.key, key->hex, sizeof t.key);
	memcpy(t.magic, magic, sizeof magic);
	XXH3_128bits_reset(&state);
	XXH3_128bits_update(&state, cubin, bytes);
	XXH3_128bits_update(&state, log, t.log_bytes);
	XXH3_128bits_update(&state, &t, offsetof(struct trailer, sum));
	XXH128_hash_t sum = XXH3_128bits_digest(&state);
	t.sum[0] = sum.low64;
	t.sum[1] = sum.high64;
	if (write_all(fd, cubin, bytes) || write_all(fd, log, t.log_bytes) ||
	    write_all(fd, (const char *)&t, sizeof t))
		return -1;
	return fsync(fd);
}

int cache_save(struct cuda_cache *cache, const char *name, const struct cuda_key *key, const void *cubin,
		size_t bytes, const char *log)
{
	char file[256], temporary[256];

	entry_name(file, name, key, ".cubin");
	snprintf(temporary, sizeof temporary, "%s.%ld.%lx", key->hex, (long)getpid(), (unsigned long)(uintptr_t)cubin);
	unlinkat(cache->dir, temporary, 0);     /* left by a crash: process numbers repeat in containers */
	int fd = openat(cache->dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	int failed = write_entry(fd, key, cubin, bytes, log);
	failed |= close(fd);
	if (!failed)
		failed = renameat(cache->dir, temporary, cache->dir, file);
	if (failed)
		unlinkat(cache->dir, temporary, 0);
	return failed ? -1 : 0;
}
