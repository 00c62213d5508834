/* fakeblas.c - a libcublasLt.so.13 beside the stand-in driver: every product is written down as a launch,
 * and computed where the device is emulated (FAKENVRTC is set). */
#include "fakecuda.h"

#include <cublasLt.h>
#include <stdint.h>
#include <string.h>

/* A matrix layout; of other objects only the address counts. */
struct object { cudaDataType type; uint64_t rows, cols; int64_t ld; };

struct product { struct object w, x, y; const void *a, *b, *c; void *out; float beta; };

static float value(cudaDataType type, const void *p, int64_t i)
{
	uint16_t bits;
	uint32_t word;
	float v;

	if (type == CUDA_R_32F)
		return ((const float *)p)[i];
	memcpy(&bits, (const char *)p + 2 * i, sizeof bits);
	word = type == CUDA_R_16BF ? (uint32_t)bits << 16 : (uint32_t)(bits & 0x7fff) << 13;
	memcpy(&v, &word, sizeof v);
	if (type == CUDA_R_16BF)
		return v;
	v *= 0x1p112f;
	return bits & 0x8000 ? -v : v;
}

/* The upper bits of v, or of what has a half's exponent where a float has its own; to the nearest even. */
static void store(cudaDataType type, void *p, int64_t i, float v)
{
	int drop = type == CUDA_R_16F ? 13 : 16;
	float shown = type == CUDA_R_16F ? v * 0x1p-112f : v;
	uint32_t word;

	if (type == CUDA_R_32F) {
		((float *)p)[i] = v;
		return;
	}
	memcpy(&word, &shown, sizeof word);
	uint32_t sign = word >> 31 << 15, bits = ((word & 0x7fffffff) + (1u << (drop - 1)) - 1 + (word >> drop & 1)) >> drop;
	if (type == CUDA_R_16F && !(v > -65520 && v < 65520))
		bits = v != v ? 0x7fff : 0x7c00;
	uint16_t half = (uint16_t)(sign | bits);
	memcpy((char *)p + 2 * i, &half, sizeof half);
}

/* rows of n, `ld` apart, as floats. */
static float *values(const struct object *o, const void *p, int64_t rows, int64_t n)
{
	float *v = malloc(sizeof *v * (size_t)(rows * n + 1));

	for (int64_t i = 0; i < rows; i++)
		for (int64_t k = 0; k < n; k++)
			v[i * n + k] = value(o->type, p, i * o->ld + k);
	return v;
}

static void multiply(const void *params, const unsigned *grid, const unsigned *block, unsigned smem)
{
	const struct product *m = params;
	int64_t M = (int64_t)m->y.rows, N = (int64_t)m->y.cols, K = (int64_t)m->w.rows;

	float *w = values(&m->w, m->a, M, K), *x = values(&m->x, m->b, N, K);

	(void)grid, (void)block, (void)smem;
	for (int64_t n = 0; n < N; n++)
		for (int64_t i = 0; i < M; i++) {
			double sum = m->beta != 0 ? m->beta * (double)value(m->y.type, m->c, n * m->y.ld + i) : 0;
			for (int64_t k = 0; k < K; k++)
				sum += (double)w[i * K + k] * x[n * K + k];
			store(m->y.type, m->out, n * m->y.ld + i, (float)sum);
		}
	free(w);
	free(x);
}

static cublasStatus_t make(void **out)
{
	struct object *o = fake_fails("cublasLt") ? NULL : calloc(1, sizeof *o);

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
	return status == CUBLAS_STATUS_ALLOC_FAILED ? "out of memory" :
		status == CUBLAS_STATUS_NOT_SUPPORTED ? "the requested functionality is not supported" : "fake failure";
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
	cublasStatus_t status = ld < (int64_t)rows ? CUBLAS_STATUS_INVALID_VALUE : make((void **)m);

	if (status == CUBLAS_STATUS_SUCCESS)
		*(struct object *)*m = (struct object){type, rows, cols, ld};
	return status;
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

/* Products that accumulate in f32: operands of one type, the result of that or f32. */
static bool is_supported(const struct object *w, const struct object *x, const struct object *c, const struct object *y)
{
	return w->type == x->type && c->type == y->type && (y->type == x->type || y->type == CUDA_R_32F);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
		cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t y, cublasLtMatmulPreference_t p,
		int asked, cublasLtMatmulHeuristicResult_t result[], int *found)
{
	(void)h, (void)d, (void)p, (void)result;
	*found = 0;
	if (!is_supported((struct object *)a, (struct object *)b, (struct object *)c, (struct object *)y))
		return CUBLAS_STATUS_NOT_SUPPORTED;
	*found = fake_fails("cublasLt") ? 0 : asked;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *alpha, const void *w,
		cublasLtMatrixLayout_t wl, const void *x, cublasLtMatrixLayout_t xl, const void *beta, const void *c,
		cublasLtMatrixLayout_t cl, void *y, cublasLtMatrixLayout_t yl, const cublasLtMatmulAlgo_t *algo,
		void *workspace, size_t bytes, cudaStream_t stream)
{
	struct product product = {.w = *(struct object *)wl, .x = *(struct object *)xl, .y = *(struct object *)yl, .a = w, .b = x,
		.c = c, .out = y, .beta = *(const float *)beta};

	(void)h, (void)d, (void)alpha, (void)cl, (void)algo;
	if (!fake_is_device(w) || !fake_is_device(x) || !fake_is_device(y) || !fake_is_device(workspace) || !bytes)
		return CUBLAS_STATUS_INVALID_VALUE;
	return fake_launch_named(stream, "cublasLtMatmul", getenv("FAKENVRTC") ? multiply : NULL, &product, sizeof product) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}
