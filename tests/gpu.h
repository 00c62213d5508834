/* gpu.h - what tests on a GPU share: whether there is one, where its kernels are kept, how many cases run. */
#ifndef TESTS_GPU_H
#define TESTS_GPU_H

#include "backends/cuda/cuda.h"

/* A stand-in counts where it runs kernels. */
static inline bool has_gpu(void)
{
	struct cuda_report report;

	cuda_devices(&report);
	if (report.ngpu && (strcmp(report.gpu[0].name, "Fake GPU") || getenv("FAKENVRTC")))
		return true;
	print_message("skipped: no GPU (%s)\n", report.problem);
	return false;
}

static inline const char *cache_dir(void)
{
	const char *dir = getenv("WEFT_CACHE");

	return dir ? dir : "build/kernels";
}

/* WEFT_TRIALS: per cent of the usual cases. */
static inline int percent_tried(void)
{
	const char *s = getenv("WEFT_TRIALS");

	return s ? atoi(s) : 100;
}

/* Spread over all of them. */
static inline bool is_tried(int i)
{
	int percent = percent_tried();

	return i * percent / 100 != (i + 1) * percent / 100;
}

#endif
