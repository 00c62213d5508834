/* fakecuda.h - what the stand-in driver (fakecuda.c) counts and obeys. */
#ifndef FAKECUDA_H
#define FAKECUDA_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

enum { FAKE_MAXLAUNCH = 4096, FAKE_MAXPARAM = 512 };

/* What a launch does, where it does anything. */
typedef void fake_kernel(const void *params, const unsigned *grid, const unsigned *block, unsigned smem);

struct fake_launch {
	char name[64];                        /* of the kernel */
	unsigned grid[3], block[3], smem;
	bool dependent;                       /* launched with programmatic dependent launch */
	unsigned long long first;             /* its first parameter, 8 bytes */
};

struct fake {
	long calls;                           /* driver calls so far */
	long fail_at;                         /* this call fails; 0 none.  Then and later when fail_on */
	bool fail_on;
	int fail_code;                        /* CUresult it fails with; 0: unknown, or out of memory when allocating */
	char failed[64];                      /* the call that was failed */
	long live;                            /* contexts, allocations, streams, events, modules, graphs */
	long allocations;                     /* device and pinned host allocations ever made */
	size_t device_bytes, peak_bytes, memory;
	long modules, captures, replays, copies, syncs;
	long nlaunch;                         /* of kernels, those in replayed graphs too */
	struct fake_launch launch[FAKE_MAXLAUNCH];   /* the first of them */
};

struct fake *fake_cuda(void);

/* For fakeblas.c: count a call and say whether it fails; is this device memory; a launch on a stream. */
bool fake_fails(const char *call);
bool fake_is_device(const void *);
int  fake_launch_named(void *stream, const char *name, fake_kernel *, const void *params, size_t bytes);

/* And a compiler that makes nothing of anything: for tests of what comes after. */
static inline bool fake_nvrtc(void)
{
	return dlopen("build/fake/libnvrtc.so.13", RTLD_NOW | RTLD_GLOBAL) != NULL;
}

/* Build and load the stand-in before anything asks for libcuda.so.1, which then is this one; NULL
 * where it cannot be built. */
static inline struct fake *fake_load(void)
{
	struct fake *(*get)(void) = NULL;
	void *handle = system("sh tests/fakecuda.sh build/fake") ? NULL :
		dlopen("build/fake/libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);

	if (handle && dlopen("build/fake/libcublasLt.so.13", RTLD_NOW | RTLD_GLOBAL))
		*(void **)&get = dlsym(handle, "fake_cuda");
	return get ? get() : NULL;
}

#endif
