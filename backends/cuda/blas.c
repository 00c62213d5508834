/* blas.c - matrix products of prompts and large batches through cuBLASLt.
 *
 * y[t, m] = sum_k w[m, k] x[t, k] (+ c[t, m]), rows dense: column by column that is W^T X.  Products
 * accumulate in f32, f32 operands too, never TF32.  What the library advises is kept per shape, with
 * its descriptors, so a repeated shape allocates nothing; the workspace is the caller's. */
#include "backends/cuda/cuda.h"

#ifdef WF_CUDA

#include <string.h>

enum { MAXSHAPE = 512 };                      /* a power of two; open addressing, emptied when 3/4 full */

struct entry {
	bool used;
	struct blas_shape shape;
	cublasLtMatmulDesc_t operation;
	cublasLtMatrixLayout_t w, x, y;
	cublasLtMatmulAlgo_t algo;
};

struct blas {
	cublasLtHandle_t handle;
	CUdeviceptr workspace;
	size_t bytes;
	int nused;
	struct entry entry[MAXSHAPE];
};

static int check(wf_error *err, cublasStatus_t status, const char *call)
{
	return status == CUBLAS_STATUS_SUCCESS ? 0 :
		wf_fail(err, "cuBLASLt: %s: %s", call, cuda_blas.cublasLtGetStatusString(status));
}

#define LT(err, call) check(err, cuda_blas.call, #call)

struct blas *blas_open(wf_error *err, CUdeviceptr workspace, size_t bytes)
{
	struct blas *blas = calloc(1, sizeof *blas);

	if (!blas) {
		wf_fail(err, "cuBLASLt: out of memory");
		return NULL;
	}
	blas->workspace = workspace;
	blas->bytes = bytes;
	if (driver_open_blas(err) || LT(err, cublasLtCreate(&blas->handle))) {
		free(blas);
		return NULL;
	}
	return blas;
}

static void drop(struct entry *e)
{
	if (e->operation)
		cuda_blas.cublasLtMatmulDescDestroy(e->operation);
	if (e->w)
		cuda_blas.cublasLtMatrixLayoutDestroy(e->w);
	if (e->x)
		cuda_blas.cublasLtMatrixLayoutDestroy(e->x);
	if (e->y)
		cuda_blas.cublasLtMatrixLayoutDestroy(e->y);
	memset(e, 0, sizeof *e);
}

static void drop_all(struct blas *blas)
{
	for (int i = 0; i < MAXSHAPE; i++)
		if (blas->entry[i].used)
			drop(&blas->entry[i]);
	blas->nused = 0;
}

void blas_close(struct blas *blas)
{
	if (!blas)
		return;
	drop_all(blas);
	cuda_blas.cublasLtDestroy(blas->handle);
	free(blas);
}

static cudaDataType_t type_of(wf_dtype dtype)
{
	return dtype == WF_F16 ? CUDA_R_16F : dtype == WF_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static int describe(wf_error *err, const struct blas_shape *s, struct entry *e)
{
	const cublasOperation_t transposed = CUBLAS_OP_T;
	cudaDataType_t in = type_of(s->in), out = type_of(s->out);
	uint64_t M = (uint64_t)s->M, K = (uint64_t)s->K, N = (uint64_t)s->N;

	return LT(err, cublasLtMatmulDescCreate(&e->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F)) ||
		LT(err, cublasLtMatmulDescSetAttribute(e->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
			sizeof transposed)) ||
		LT(err, cublasLtMatrixLayoutCreate(&e->w, in, K, M, (int64_t)K)) ||
		LT(err, cublasLtMatrixLayoutCreate(&e->x, in, K, N, s->ldx)) ||
		LT(err, cublasLtMatrixLayoutCreate(&e->y, out, M, N, s->ldy)) ? -1 : 0;
}

static int advise(wf_error *err, struct blas *blas, struct entry *e)
{
	cublasLtMatmulPreference_t preference;
	cublasLtMatmulHeuristicResult_t best = {0};
	int found = 0;

	if (LT(err, cublasLtMatmulPreferenceCreate(&preference)))
		return -1;
	int failed = LT(err, cublasLtMatmulPreferenceSetAttribute(preference,
			CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &blas->bytes, sizeof blas->bytes)) ||
		LT(err, cublasLtMatmulAlgoGetHeuristic(blas->handle, e->operation, e->w, e->x, e->y, e->y, preference,
			1, &best, &found));
	cuda_blas.cublasLtMatmulPreferenceDestroy(preference);
	if (!failed && !found)
		failed = wf_fail(err, "cuBLASLt: no kernel for a product [%lld,%lld] x [%lld,%lld]",
			(long long)e->shape.N, (long long)e->shape.K, (long long)e->shape.M, (long long)e->shape.K);
	e->algo = best.algo;
	return failed ? -1 : 0;
}

static unsigned slot_of(const struct blas_shape *s)
{
	uint64_t h = (uint64_t)s->M * 0x9E3779B97F4A7C15u ^ (uint64_t)s->N * 0xBF58476D1CE4E5B9u ^
		(uint64_t)s->K * 0x94D049BB133111EBu ^ (uint64_t)(s->ldx * 31 + s->ldy * 7 + s->in * 3 + s->out);

	return (unsigned)(h >> 32) % MAXSHAPE;
}

static bool same(const struct blas_shape *a, const struct blas_shape *b)
{
	return a->M == b->M && a->N == b->N && a->K == b->K && a->ldx == b->ldx && a->ldy == b->ldy &&
		a->in == b->in && a->out == b->out;
}

static struct entry *find(wf_error *err, struct blas *blas, const struct blas_shape *s)
{
	unsigned i = slot_of(s);

	while (blas->entry[i].used && !same(&blas->entry[i].shape, s))
		i = (i + 1) % MAXSHAPE;
	struct entry *e = &blas->entry[i];
	if (e->used)
		return e;
	if (blas->nused >= MAXSHAPE / 4 * 3) {
		drop_all(blas);
		e = &blas->entry[slot_of(s)];
	}
	e->shape = *s;
	if (describe(err, s, e) || advise(err, blas, e)) {
		drop(e);
		return NULL;
	}
	e->used = true;
	blas->nused++;
	return e;
}

int blas_matmul(wf_error *err, struct blas *blas, CUstream stream, const struct blas_shape *s, CUdeviceptr w,
		CUdeviceptr x, CUdeviceptr c, CUdeviceptr y)
{
	struct entry *e = find(err, blas, s);
	const float one = 1, beta = c ? 1 : 0;

	if (!e)
		return -1;
	return LT(err, cublasLtMatmul(blas->handle, e->operation, &one, (void *)w, e->w, (void *)x, e->x, &beta,
		(void *)(c ? c : y), e->y, (void *)y, e->y, &e->algo, (void *)blas->workspace, blas->bytes, stream));
}

#endif
