/* map.c - files in memory.
 *
 * A model is mapped, so that loading is paging and several processes share one copy.  The price: if
 * another program truncates the file while it is mapped, reading past its new end raises SIGBUS.  A
 * library must not own that signal, so the answer is file_copy(), which reads the bytes once into
 * memory of its own; callers offer it as --no-mmap.  Both fail if the size changes under them. */
#include "models/model.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A descriptor of a regular file and its size; O_NONBLOCK so that a FIFO cannot hang us. */
static int open_regular(wf_error *err, const char *path, size_t *bytes)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return wf_fail(err, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0)
		wf_fail(err, "%s: %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		wf_fail(err, "%s: expected a regular file, found %s", path,
			S_ISDIR(st.st_mode) ? "a directory" : "something else");
	else if (st.st_size <= 0)
		wf_fail(err, "%s: the file is empty", path);
	else if ((uintmax_t)st.st_size > PTRDIFF_MAX)
		wf_fail(err, "%s: the file is larger than the address space", path);
	else {
		*bytes = (size_t)st.st_size;
		return fd;
	}
	close(fd);
	return -1;
}

/* Exactly `bytes` bytes, to the end of the file. */
static int read_all(wf_error *err, int fd, const char *path, uint8_t *out, size_t bytes)
{
	size_t at = 0;
	uint8_t past;

	while (at < bytes) {
		ssize_t n = read(fd, out + at, bytes - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return wf_fail(err, "%s: %s", path, strerror(errno));
		if (n == 0)
			return wf_fail(err, "%s: the file shrank while it was read", path);
		at += (size_t)n;
	}
	if (read(fd, &past, 1) > 0)
		return wf_fail(err, "%s: the file grew while it was read", path);
	return 0;
}

static int check_size(wf_error *err, int fd, const char *path, size_t bytes)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return wf_fail(err, "%s: %s", path, strerror(errno));
	if ((size_t)st.st_size != bytes)
		return wf_fail(err, "%s: the file's size changed while it was opened", path);
	return 0;
}

static int map_or_copy(wf_error *err, const char *path, bool copy, struct file_map *map)
{
	size_t bytes;
	int fd = open_regular(err, path, &bytes), rc;

	if (fd < 0)
		return -1;
	int prot = copy ? PROT_READ | PROT_WRITE : PROT_READ;
	int flags = copy ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE;
	void *data = mmap(NULL, bytes, prot, flags, copy ? -1 : fd, 0);
	if (data == MAP_FAILED) {
		rc = wf_fail(err, "%s: cannot map %zu bytes: %s", path, bytes, strerror(errno));
	} else {
		rc = copy ? read_all(err, fd, path, data, bytes) : check_size(err, fd, path, bytes);
		if (rc < 0)
			munmap(data, bytes);
		else
			*map = (struct file_map){data, bytes};
	}
	close(fd);
	return rc;
}

int file_map(wf_error *err, const char *path, struct file_map *map)
{
	return map_or_copy(err, path, false, map);
}

int file_copy(wf_error *err, const char *path, struct file_map *map)
{
	return map_or_copy(err, path, true, map);
}

void file_unmap(struct file_map *map)
{
	if (map->data)
		munmap((void *)map->data, map->bytes);
	*map = (struct file_map){0};
}

bool file_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

char *file_read(wf_arena *arena, wf_error *err, const char *path, size_t limit, size_t *bytes)
{
	size_t n;
	int fd = open_regular(err, path, &n);
	char *text = NULL;

	if (fd < 0)
		return NULL;
	if (n > limit)
		wf_fail(err, "%s: %zu bytes, expected at most %zu", path, n, limit);
	else if (!(text = wf_alloc(arena, n + 1)))
		wf_fail(err, "%s: out of memory for %zu bytes", path, n);
	else if (read_all(err, fd, path, (uint8_t *)text, n) < 0)
		text = NULL;
	close(fd);
	if (text && bytes)
		*bytes = n;
	return text;
}
