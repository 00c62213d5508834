/* cuda_nvrtc.c - kernels compiled without a GPU: errors, options, the cache under 8 cold processes. */
#include "backends/cuda/cuda.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define KERNEL(name, body) "extern \"C\" __global__ void " name "(float *x) { " body " }\n"

static char dir[64];

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/weft-nvrtc-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	return system(command);
}

static bool has_nvrtc(void)
{
	struct cuda_build_opt opt = {.arch = "sm_80"};
	struct cuda_key key;
	wf_error err = {0};

	if (!nvrtc_key(&err, &opt, "", &key))
		return true;
	print_message("skipped: %s\n", err.text);
	return false;
}

/* Build `n` programs into dir; the number compiled here, -1 on failure. */
static int build(struct cuda_program *program, int n, struct cuda_build_stats *stats)
{
	struct cuda_build_opt opt = {.arch = "sm_90a", .threads = 2};
	wf_error err = {0};

	opt.cache = cache_open(&err, dir);
	int failed = !opt.cache || nvrtc_build(&err, &opt, program, n, stats);
	if (failed)
		print_error("%s\n", err.text);
	cache_close(opt.cache);
	return failed ? -1 : stats->compiled;
}

static void compiles_once(void **state)
{
	struct cuda_program program[2] = {
		{.name = "one", .source = KERNEL("one", "x[0] = 1;")},
		{.name = "two", .source = KERNEL("two", "__shared__ float s[64]; s[threadIdx.x] = x[0];"
			"__syncthreads(); x[threadIdx.x] = s[63 - threadIdx.x];")},
	};
	struct cuda_build_stats stats;

	(void)state;
	if (!has_nvrtc())
		skip();
	assert_int_equal(build(program, 2, &stats), 2);
	assert_int_equal(stats.cached, 0);
	assert_memory_equal(program[0].cubin, "\177ELF", 4);
	assert_true(program[0].usage.registers > 0);
	assert_int_equal(program[0].usage.spill_bytes, 0);
	assert_int_equal(program[1].usage.smem, 256);
	nvrtc_free(program, 2);
	assert_int_equal(build(program, 2, &stats), 0);
	assert_int_equal(stats.cached, 2);
	assert_true(program[0].cached);
	assert_int_equal(program[1].usage.smem, 256);
	nvrtc_free(program, 2);
}

static void damaged_is_rebuilt(void **state)
{
	struct cuda_program program = {.name = "one", .source = KERNEL("one", "x[0] = 1;")};
	struct cuda_build_stats stats;
	char command[160];

	(void)state;
	if (!has_nvrtc())
		skip();
	assert_int_equal(build(&program, 1, &stats), 1);
	nvrtc_free(&program, 1);
	snprintf(command, sizeof command, "truncate -s 100 %s/*.cubin", dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(build(&program, 1, &stats), 1);
	assert_true(stats.damaged > 0);
	nvrtc_free(&program, 1);
	assert_int_equal(build(&program, 1, &stats), 0);
	assert_int_equal(stats.damaged, 0);
	nvrtc_free(&program, 1);
}

static void error_names_page(void **state)
{
	struct cuda_program program[2] = {
		{.name = "good", .source = KERNEL("good", "x[0] = 1;")},
		{.name = "bad", .source = "\n\nint f() { return undeclared_thing; }\n"},
	};
	struct cuda_build_opt opt = {.arch = "sm_80"};
	wf_error err = {0};

	(void)state;
	if (!has_nvrtc())
		skip();
	opt.cache = cache_open(&err, dir);
	assert_non_null(opt.cache);
	assert_int_equal(nvrtc_build(&err, &opt, program, 2, NULL), -1);
	assert_non_null(strstr(err.text, dir));
	assert_non_null(strstr(err.text, "/bad-"));
	assert_non_null(strstr(err.text, ".cu(3)"));
	assert_non_null(strstr(err.text, "undeclared_thing"));
	assert_null(program[0].cubin);
	cache_close(opt.cache);
}

static void every_arch(void **state)
{
	static const char *const archs[] = {"sm_80", "sm_89", "sm_90a", "sm_100", "sm_120"};

	(void)state;
	if (!has_nvrtc())
		skip();
	for (int i = 0; i < 5; i++) {
		struct cuda_program program = {.name = "k", .source = KERNEL("k", "x[0] = 1;")};
		struct cuda_build_opt opt = {.arch = archs[i]};
		wf_error err = {0};
		assert_int_equal(nvrtc_build(&err, &opt, &program, 1, NULL), 0);
		nvrtc_free(&program, 1);
	}
	struct cuda_program program = {.name = "k", .source = ""};
	struct cuda_build_opt unknown = {.arch = "sm_7; rm"}, foreign = {.arch = "gfx90a"};
	wf_error err = {0}, second = {0};
	assert_int_equal(nvrtc_build(&err, &unknown, &program, 1, NULL), -1);
	assert_int_equal(nvrtc_build(&second, &foreign, &program, 1, NULL), -1);
	assert_non_null(strstr(second.text, "gfx90a"));
}

static void key_follows_content(void **state)
{
	struct cuda_build_opt a = {.arch = "sm_80"}, b = {.arch = "sm_90a"}, c = {.arch = "sm_80", .lineinfo = true};
	struct cuda_key base, again, text, arch, option;
	wf_error err = {0};

	(void)state;
	if (!has_nvrtc())
		skip();
	assert_int_equal(nvrtc_key(&err, &a, "x", &base), 0);
	assert_int_equal(nvrtc_key(&err, &a, "x", &again), 0);
	assert_int_equal(nvrtc_key(&err, &a, "y", &text), 0);
	assert_int_equal(nvrtc_key(&err, &b, "x", &arch), 0);
	assert_int_equal(nvrtc_key(&err, &c, "x", &option), 0);
	assert_string_equal(base.hex, again.hex);
	assert_string_not_equal(base.hex, text.hex);
	assert_string_not_equal(base.hex, arch.hex);
	assert_string_not_equal(base.hex, option.hex);
}

/* In a child: wait for the start, build, tell how many were compiled here. */
static int cold_process(int start)
{
	struct cuda_program program[3] = {
		{.name = "a", .source = KERNEL("a", "x[0] = sinf(x[1]);")},
		{.name = "b", .source = KERNEL("b", "x[0] = x[1] / x[2];")},
		{.name = "c", .source = KERNEL("c", "x[0] = powf(x[1], x[2]);"), .weight = 2},
	};
	struct cuda_build_stats stats;
	char byte;

	if (read(start, &byte, 1) != 0)
		return 100;
	int compiled = build(program, 3, &stats);
	for (int i = 0; i < 3 && compiled >= 0; i++)
		if (program[i].bytes < 64 || memcmp(program[i].cubin, "\177ELF", 4))
			return 101;
	if (compiled < 0 || stats.damaged || stats.unsaved || compiled + stats.cached != 3)
		return 102;
	return compiled;
}

static int count_files(void)
{
	DIR *d = opendir(dir);
	int n = 0;

	for (struct dirent *e; (e = readdir(d)); n++)
		assert_true(e->d_name[0] == '.' || strstr(e->d_name, ".cu"));
	closedir(d);
	return n - 2;
}

static void eight_cold_processes(void **state)
{
	int start[2], total = 0;
	pid_t child[8];

	(void)state;
	if (!has_nvrtc())
		skip();
	assert_int_equal(pipe(start), 0);
	for (int i = 0; i < 8; i++) {
		child[i] = fork();
		if (child[i] == 0) {
			close(start[1]);
			_exit(cold_process(start[0]));
		}
	}
	close(start[0]);
	close(start[1]);
	for (int i = 0; i < 8; i++) {
		int status;
		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		assert_true(WIFEXITED(status));
		assert_in_range(WEXITSTATUS(status), 0, 3);
		total += WEXITSTATUS(status);
	}
	assert_int_equal(total, 3);
	assert_int_equal(count_files(), 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(eight_cold_processes, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(compiles_once, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(damaged_is_rebuilt, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(error_names_page, make_dir, remove_dir),
		cmocka_unit_test(every_arch),
		cmocka_unit_test(key_follows_content),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
