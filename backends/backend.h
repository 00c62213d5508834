/* backend.h - devices that run plans.  Each offers one wf_backend; the caller chooses. */
#ifndef WF_BACKEND_H
#define WF_BACKEND_H

#include "graph/graph.h"

/* Text files built into the library: tools/embed.c, NULL name at the end. */
struct embedded { const char *name, *text; };
extern const struct embedded wf_embedded[];

/* cpu/: thread team, SIMD kernels chosen by CPUID at run time. */
extern const wf_backend wf_backend_cpu;

/* cuda/: NVRTC-compiled kernels; opened by name at run time, absent without a driver. */
extern const wf_backend wf_backend_cuda;

const wf_backend *wf_backend_find(const char *name);   /* NULL when unknown */

#endif
