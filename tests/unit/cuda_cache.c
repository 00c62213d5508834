/* cuda_cache.c - the kernel cache: what is saved comes back, what is damaged does not. */
#include "backends/cuda/cuda.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];
static const struct cuda_key key = {"0123456789abcdef0123456789abcdef"};
static const struct cuda_key other = {"0123456789abcdef0123456789abcdee"};

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/weft-cache-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	return system(command);
}

static struct cuda_cache *opened(const char *sub)
{
	wf_error err = {0};
	char path[128];

	snprintf(path, sizeof path, "%s%s", dir, sub);
	struct cuda_cache *cache = cache_open(&err, path);
	if (!cache)
		print_error("%s\n", err.text);
	assert_non_null(cache);
	return cache;
}

static void saved_comes_back(void **state)
{
	struct cuda_cache *cache = opened("/a/b/c");
	struct stat st;
	char path[128], *log;
	bool damaged;
	size_t bytes;

	(void)state;
	snprintf(path, sizeof path, "%s/a/b", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_null(cache_load(cache, "k", &key, &bytes, &log, &damaged));
	assert_false(damaged);
	assert_int_equal(cache_save(cache, "k", &key, "cubin\0bytes", 11, "words"), 0);
	char *cubin = cache_load(cache, "k", &key, &bytes, &log, &damaged);
	assert_non_null(cubin);
	assert_int_equal(bytes, 11);
	assert_memory_equal(cubin, "cubin\0bytes", 11);
	assert_string_equal(log, "words");
	assert_null(cache_load(cache, "k", &other, &bytes, &log, &damaged));
	free(cubin);
	free(log);
	cache_close(cache);
}

/* Every byte of an entry counts, and so does its length. */
static void damage_is_seen(void **state)
{
	struct cuda_cache *cache = opened("");
	char path[128], whole[256], *log;
	bool damaged;
	size_t bytes;

	(void)state;
	assert_int_equal(cache_save(cache, "k", &key, "0123456789", 10, "log"), 0);
	snprintf(path, sizeof path, "%s/k-%s.cubin", dir, key.hex);
	int fd = open(path, O_RDWR);
	ssize_t n = read(fd, whole, sizeof whole);
	assert_true(n > 13);
	for (ssize_t i = 0; i < n; i++) {
		char bad = (char)(whole[i] ^ 4);
		assert_int_equal(pwrite(fd, &bad, 1, i), 1);
		assert_null(cache_load(cache, "k", &key, &bytes, &log, &damaged));
		assert_true(damaged);
		assert_int_equal(pwrite(fd, whole + i, 1, i), 1);
	}
	for (ssize_t i = n - 1; i >= 0; i--) {
		assert_int_equal(ftruncate(fd, i), 0);
		assert_null(cache_load(cache, "k", &key, &bytes, &log, &damaged));
		assert_true(damaged);
	}
	close(fd);
	assert_int_equal(cache_save(cache, "k", &key, "again", 5, ""), 0);
	void *cubin = cache_load(cache, "k", &key, &bytes, &log, &damaged);
	assert_non_null(cubin);
	free(cubin);
	free(log);
	cache_close(cache);
}

/* An entry copied under another key's name is not that key's entry. */
static void key_is_inside(void **state)
{
	struct cuda_cache *cache = opened("");
	char from[128], to[128], *log;
	bool damaged;
	size_t bytes;

	(void)state;
	assert_int_equal(cache_save(cache, "k", &key, "x", 1, ""), 0);
	snprintf(from, sizeof from, "%s/k-%s.cubin", dir, key.hex);
	snprintf(to, sizeof to, "%s/k-%s.cubin", dir, other.hex);
	assert_int_equal(rename(from, to), 0);
	assert_null(cache_load(cache, "k", &other, &bytes, &log, &damaged));
	assert_true(damaged);
	cache_close(cache);
}

static void page_is_readable(void **state)
{
	struct cuda_cache *cache = opened("");
	char path[128], text[64] = "";

	(void)state;
	int lock = cache_lock(cache, "k", &key, "#define N 4096\n");
	assert_true(lock >= 0);
	snprintf(path, sizeof path, "%s/k-%s.cu", dir, key.hex);
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof text, f));
	assert_string_equal(text, "#define N 4096\n");
	fclose(f);
	close(lock);
	cache_close(cache);
}

static void open_to_others_is_refused(void **state)
{
	wf_error err = {0};

	(void)state;
	assert_int_equal(chmod(dir, 0777), 0);
	assert_null(cache_open(&err, dir));
	assert_non_null(strstr(err.text, "others may write"));
}

static void owned_by_others_is_refused(void **state)
{
	wf_error err = {0};

	(void)state;
	if (geteuid() || chown(dir, 12345, 12345))
		skip();
	assert_null(cache_open(&err, dir));
	assert_non_null(strstr(err.text, "12345"));
	assert_int_equal(chown(dir, 0, 0), 0);
}

static void unusable_path_is_refused(void **state)
{
	wf_error err = {0}, empty = {0}, longer = {0};
	char path[600];

	(void)state;
	assert_null(cache_open(&err, "/dev/null/cache"));
	assert_non_null(strstr(err.text, "/dev/null/cache"));
	assert_null(cache_open(&empty, ""));
	memset(path, 'a', sizeof path - 1);
	path[sizeof path - 1] = 0;
	assert_null(cache_open(&longer, path));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(saved_comes_back, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(damage_is_seen, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(key_is_inside, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(page_is_readable, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(open_to_others_is_refused, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(owned_by_others_is_refused, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(unusable_path_is_refused, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
