/* fakenvrtc.c - a libnvrtc.so.13 beside the stand-in driver: compiles anything to an empty ELF at once. */
#include <nvrtc.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES = 64 };

nvrtcResult nvrtcVersion(int *major, int *minor)
{
	*major = 13;
	*minor = 0;
	return NVRTC_SUCCESS;
}

const char *nvrtcGetErrorString(nvrtcResult result)
{
	return result == NVRTC_SUCCESS ? "success" : "fake failure";
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram *p, const char *source, const char *name, int n, const char *const *text,
		const char *const *names)
{
	(void)source, (void)name, (void)n, (void)text, (void)names;
	*p = malloc(1);
	return *p ? NVRTC_SUCCESS : NVRTC_ERROR_OUT_OF_MEMORY;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram *p)
{
	free(*p);
	return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram p, int n, const char *const *options)
{
	(void)p, (void)n, (void)options;
	return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram p, size_t *bytes)
{
	(void)p;
	*bytes = BYTES;
	return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBIN(nvrtcProgram p, char *to)
{
	(void)p;
	memset(to, 0, BYTES);
	memcpy(to, "\177ELF", 4);
	return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram p, size_t *bytes)
{
	(void)p;
	*bytes = 1;
	return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram p, char *to)
{
	(void)p;
	*to = 0;
	return NVRTC_SUCCESS;
}
