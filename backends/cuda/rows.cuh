/* rows.cuh - row by row: elementwise ops, norms, moves, and what stands around a library's product.
 *
 * Parameters:  WIDTH     values a thread handles together: 8, or 1 where lengths do not allow it
 *              SUMS TURNS  floats of shared memory for sums over rows; angles of rotary positions
 * Hooks (generated text; HOOKS says they are there):
 *   struct args, count(p)   the kernel's one parameter; rows of this step
 *   make_sums(p, r)         sums over segments of the row, by segment_sums(), and the angles of its position
 *   make_row(p, r)          computes and stores the row, from first_run() by run_stride()
 * The page includes this file before its members' functions and again for the kernel.
 * Launch: any grid; x takes rows in turn, y shares a row; 256 threads; no dynamic shared memory. */
#ifndef ROWS_CUH
#define ROWS_CUH
#include "common.cuh"
#include "dequant.cuh"
#include "table.cuh"

#ifndef WIDTH
#define WIDTH    8
#define SUMS     1
#define TURNS    0
#endif

enum { THREADS = 256 };

struct row { int t; float *sum; float2 *turn; };           /* which one; sums, cosines and sines in shared memory */

__device__ inline float2 turned(float a, float b, float2 by) { return make_float2(a * by.x - b * by.y, b * by.x + a * by.y); }

template <typename T> __device__ inline void load_run(const T *p, float *v)
{
	if constexpr (WIDTH == 8)
		load8(p, *(float (*)[8])v);
	else
		v[0] = to_float(*p);
}

template <typename T> __device__ inline void store_run(T *p, const float *v)
{
	if constexpr (WIDTH == 8)
		store8(p, *(const float (*)[8])v);
	else
		*p = from_float<T>(v[0]);
}

__device__ inline int first_run() { return (blockIdx.y * THREADS + threadIdx.x) * WIDTH; }
__device__ inline int run_stride() { return gridDim.y * THREADS * WIDTH; }

/* The sum of part(i), i = 0, WIDTH, ... < N, for each of SEGMENTS runs of N values. */
template <int SEGMENTS, int N, typename F> __device__ inline void segment_sums(F part, float *sum)
{
	__shared__ float warps[THREADS / 32];
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	if (SEGMENTS > 1) {
		for (int s = warp; s < SEGMENTS; s += THREADS / 32) {
			float x = 0;
			for (int i = lane * WIDTH; i < N; i += 32 * WIDTH)
				x += part(s * N + i);
			x = warp_sum(x);
			if (lane == 0)
				sum[s] = x;
		}
	} else {
		float x = 0;
		for (int i = threadIdx.x * WIDTH; i < N; i += THREADS * WIDTH)
			x += part(i);
		x = warp_sum(x);
		if (lane == 0)
			warps[warp] = x;
		__syncthreads();
		if (warp == 0) {
			x = warp_sum(lane < THREADS / 32 ? warps[lane] : 0);
			if (lane == 0)
				sum[0] = x;
		}
	}
	__syncthreads();
}

#ifndef HOOKS
struct args { const half *x; half *y; int n; };
__device__ inline int count(const args &p) { return p.n; }
__device__ inline void make_sums(const args &, const row &) {}
__device__ inline void make_row(const args &p, const row &r)
{
	for (int i = first_run(); i < 4096; i += run_stride()) {
		float v[WIDTH];
		load_run(p.x + (size_t)r.t * 4096 + i, v);
		store_run(p.y + (size_t)r.t * 4096 + i, v);
	}
}
#include "rows.cuh"
#endif

#else

extern "C" __global__ void __launch_bounds__(THREADS) rows(const __grid_constant__ args p)
{
	__shared__ float sum[SUMS > 0 ? SUMS : 1];
	__shared__ float2 turn[TURNS > 0 ? TURNS : 1];
	grid_launch_next();
	grid_wait();
	for (int t = blockIdx.x; t < count(p); t += gridDim.x) {
		row r = {t, sum, turn};
		if (SUMS > 0 || TURNS > 0) {
			__syncthreads();
			make_sums(p, r);
		}
		make_row(p, r);
	}
}

#endif
