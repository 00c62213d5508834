/* fakeblas.c - a libcublasLt.so.13 beside the stand-in driver: every product is written down as a launch. */
#include "fakecuda.h"

#include <cublasLt.h>

struct object { int kind; };

static cublasStatus_t make(void **out)
{
	struct object *o = fake_fails("cublasLt") ? NULL : malloc(sizeof *o);

	*out = o;
	if (o)
		fake_cuda()->live++;
	return o ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

static cublasStatus_t drop(void *o)
{
	fake_cuda()->live--;
	free(o);
	return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void)
{
	return 130000;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
	return status == CUBLAS_STATUS_ALLOC_FAILED ? "out of memory" : "fake failure";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
	return make((void **)h);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
	return drop(h);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t compute, cudaDataType_t scale)
{
	(void)compute, (void)scale;
	return make((void **)d);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
	return drop(d);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t which,
		const void *value, size_t bytes)
{
	(void)d, (void)which, (void)value, (void)bytes;
	return fake_fails("cublasLt") ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *m, cudaDataType type, uint64_t rows, uint64_t cols,
		int64_t ld)
{
	(void)type, (void)cols;
	return ld < (int64_t)rows ? CUBLAS_STATUS_INVALID_VALUE : make((void **)m);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t m)
{
	return drop(m);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
	return make((void **)p);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
	return drop(p);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
		cublasLtMatmulPreferenceAttributes_t which, const void *value, size_t bytes)
{
	(void)p, (void)which, (void)value, (void)bytes;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
		cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t y, cublasLtMatmulPreference_t p,
		int asked, cublasLtMatmulHeuristicResult_t result[], int *found)
{
	(void)h, (void)d, (void)a, (void)b, (void)c, (void)y, (void)p, (void)result;
	*found = fake_fails("cublasLt") ? 0 : asked;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *alpha, const void *w,
		cublasLtMatrixLayout_t wl, const void *x, cublasLtMatrixLayout_t xl, const void *beta, const void *c,
		cublasLtMatrixLayout_t cl, void *y, cublasLtMatrixLayout_t yl, const cublasLtMatmulAlgo_t *algo,
		void *workspace, size_t bytes, cudaStream_t stream)
{
	(void)h, (void)d, (void)alpha, (void)wl, (void)xl, (void)beta, (void)c, (void)cl, (void)yl, (void)algo;
	if (!fake_is_device(w) || !fake_is_device(x) || !fake_is_device(y) || !fake_is_device(workspace) || !bytes)
		return CUBLAS_STATUS_INVALID_VALUE;
	return fake_launch_named(stream, "cublasLtMatmul") ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}
