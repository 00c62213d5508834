/* cuda_driver.c - the libraries found or missed, and driver errors as sentences, on a stand-in driver. */
#include "backends/cuda/cuda.h"
#include "fakecuda.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static struct fake *fake;

static void report_is_complete(void **state)
{
	struct cuda_report report;

	(void)state;
	cuda_devices(&report);
	for (int i = 0; i < CUDA_NLIB; i++) {
		struct cuda_library *lib = &report.lib[i];
		assert_non_null(lib->name);
		assert_true(strlen(lib->without) > 0);
		assert_true(lib->found ? lib->path[0] && lib->version[0] : lib->problem[0]);
	}
	assert_true(report.ngpu > 0 || report.problem[0]);
}

#ifdef WF_CUDA

static void fake_is_reported(void **state)
{
	struct cuda_report report;

	(void)state;
	if (!fake)
		skip();
	cuda_devices(&report);
	assert_true(report.lib[0].found);
	assert_int_equal(report.ngpu, 1);
	assert_string_equal(report.gpu[0].name, "Fake GPU");
	assert_string_equal(report.gpu[0].arch, "sm_90a");
	assert_int_equal(report.gpu[0].sms, 132);
}

static void failed_call_is_named(void **state)
{
	wf_error err = {0};
	CUdeviceptr p;

	(void)state;
	if (!fake)
		skip();
	assert_int_equal(driver_open(&err), 0);
	assert_int_equal(CU(&err, cuMemAlloc(&p, fake->memory + 1)), -1);
	assert_non_null(strstr(err.text, "cuMemAlloc(&p, fake->memory + 1)"));
	assert_non_null(strstr(err.text, "out of memory"));
}

static void every_call_can_fail(void **state)
{
	struct cuda_report report;

	(void)state;
	if (!fake)
		skip();
	for (int n = 1; n < 100; n++) {
		fake->calls = 0;
		fake->fail_at = n;
		cuda_devices(&report);
		fake->fail_at = 0;
		if (fake->calls < n)
			return;
		assert_true(report.problem[0] || report.ngpu == 1);
	}
	fail();
}

static void memory_is_balanced(void **state)
{
	wf_error err = {0};
	CUdeviceptr p = 0;
	long live;

	(void)state;
	if (!fake)
		skip();
	live = fake->live;
	assert_int_equal(driver_open(&err), 0);
	assert_int_equal(CU(&err, cuMemAlloc(&p, 4096)), 0);
	assert_int_equal(fake->live, live + 1);
	assert_int_equal(CU(&err, cuMemsetD8Async(p, 1, 4097, NULL)), -1);
	assert_int_equal(CU(&err, cuMemFree(p)), 0);
	assert_int_equal(fake->live, live);
	assert_int_equal(fake->device_bytes, 0);
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(report_is_complete),
#ifdef WF_CUDA
		cmocka_unit_test(fake_is_reported),
		cmocka_unit_test(failed_call_is_named),
		cmocka_unit_test(every_call_can_fail),
		cmocka_unit_test(memory_is_balanced),
#endif
	};

	fake = fake_load();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
