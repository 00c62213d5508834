/* gemv.cuh - a weight times the activations of few tokens: y[t,m] = sum_k w[m,k] x[t,k].
 *
 * The step of a single stream is reading weights, so everything here serves that.  A block takes an
 * equal share of the rows, whatever their number; its warps take turns along the columns of 16 rows
 * and add up at the end of each tile.  Weights are requested before grid_wait(), and the next kernel
 * is let in when the last request is out: with two blocks to a multiprocessor (SLOTS 2) its requests
 * are under way while ours drain, so memory never falls idle between kernels.
 *
 * Matrix units (MMA 1): 16 rows by 16 columns of weights are the A operand, up to eight tokens the B
 * operand.  The sum over k may run in any order, so a lane's operands of two products are simply
 * 16 neighbouring bytes, of weights and of activations alike.
 * Float arithmetic (MMA 0): eight lanes to a row, for float activations and as the fallback for any T.
 *
 * Parameters, beside dot.cuh's:
 *   TOKENS  in one pass over the weights, 1-8; more tokens take more passes
 *   WARPS STAGES SLOTS   warps of a block, chunks each has under way, blocks of a multiprocessor
 *   NORM    1: rows are normalised on the way in (hooks lift(x), drop8(p, k, sum, v): the ROW op's);
 *   ROW_CENTRED  1: after their mean is taken off
 *   ARGMAX  rows compete per token: hook chosen(p, token, row); args has wide *best, unsigned *counter
 * Launch: any number of blocks, best SLOTS per multiprocessor times their number but one per kernel:
 *   grid = multiprocessors; WARPS * 32 threads; GEMV_SMEM bytes of dynamic shared memory. */
#include "dot.cuh"

#ifndef TOKENS
#define TOKENS 1
#endif
#ifndef WARPS
#define WARPS  8
#endif
#ifndef STAGES
#define STAGES 5
#endif
#ifndef SLOTS
#define SLOTS  2
#endif
#ifndef NORM
#define NORM   0
#endif
#ifndef ROW_CENTRED
#define ROW_CENTRED 0
#endif

enum {
	THREADS = WARPS * 32,
	PADDED = CHUNKS * CHUNK,                           /* columns as staged, zero past COLS */
	XBYTES = MMA ? 2 : 4,
	PART = 20,                                         /* 16 rows, padded against bank conflicts */
	ROW_WARPS = TOKENS >= WARPS ? 1 : WARPS / TOKENS,  /* warps that share a token's row while staging */
	AT_X = WARPS * STAGES * STAGE,
	AT_PARTS = AT_X + TOKENS * PADDED * XBYTES,
	AT_SUMS = AT_PARTS + 2 * WARPS * TOKENS * PART * 4,
	AT_BEST = AT_SUMS + TOKENS * ROW_WARPS * 4 + 16 & ~7,
	GEMV_SMEM = AT_BEST + TOKENS * 8
};
static_assert(TOKENS <= 8, "one B operand");

/* ---- activations -------------------------------------------------------------------------------------- */

/* MMA: [64 columns][token][64], sixteen-byte columns swizzled by token; else [token][column]. */
__device__ inline byte *staged(int token, int k8)
{
	if (MMA)
		return smem + AT_X + ((k8 / 8 * TOKENS + token) * 8 + (k8 % 8 ^ (token & 1) << 2)) * 16;
	return smem + AT_X + (token * PADDED + 8 * k8) * 4;
}

__device__ inline void put8(int token, int k8, const float (&v)[8])
{
	if constexpr (MMA)
		*(uint4 *)staged(token, k8) = pack8<MTYPE>(v);
	else
		store8((float *)staged(token, k8), v);
}

#if NORM
/* A number for each row of the pass, from what `part` makes of eight values. */
template <typename F> __device__ inline void row_sums(const args &p, int first, int n, F part)
{
	float *sums = (float *)(smem + AT_SUMS);
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	for (int t = warp / ROW_WARPS; t < n; t += WARPS / ROW_WARPS) {
		float sum = 0;
		for (int k8 = warp % ROW_WARPS * 32 + lane; k8 * 8 < COLS; k8 += ROW_WARPS * 32) {
			float v[8];
			x8(p, first + t, 8 * k8, v);
			sum += part(t, 8 * k8, v);
		}
		sum = warp_sum(sum);
		if (lane == 0)
			sums[t * ROW_WARPS + warp % ROW_WARPS] = sum;
	}
	__syncthreads();
}

__device__ inline float row_sum(int t)
{
	float sum = 0;
	for (int i = 0; i < ROW_WARPS; i++)
		sum += ((const float *)(smem + AT_SUMS))[t * ROW_WARPS + i];
	return sum;
}
#endif

__device__ inline void stage_x(const args &p, int first, int n)
{
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	[[maybe_unused]] float mean[ROW_CENTRED ? ceil_div(TOKENS, WARPS / ROW_WARPS) : 1] = {};
#if NORM
#if ROW_CENTRED
	row_sums(p, first, n, [](int, int, const float (&v)[8]) {
		return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
	});
	for (int i = 0; i < (int)(sizeof mean / sizeof *mean); i++)
		mean[i] = row_sum(at_most(warp / ROW_WARPS + i * (WARPS / ROW_WARPS), TOKENS - 1)) / COLS;
	__syncthreads();
#endif
	row_sums(p, first, n, [&](int t, int k, const float (&v)[8]) {
		float sum = 0;
		for (int i = 0; i < 8; i++)
			if (COLS % 8 == 0 || k + i < COLS)
				sum += lift(v[i] - mean[ROW_CENTRED ? t / (WARPS / ROW_WARPS) : 0]);
		return sum;
	});
#endif
	for (int t = warp / ROW_WARPS; t < n; t += WARPS / ROW_WARPS) {
#if NORM
		float sum = row_sum(t);
#endif
		for (int k8 = warp % ROW_WARPS * 32 + lane; k8 < PADDED / 8; k8 += ROW_WARPS * 32) {
			float v[8] = {};
			if (k8 * 8 < COLS) {
				x8(p, first + t, 8 * k8, v);
#if NORM
				for (int i = 0; i < 8; i++)
					v[i] -= mean[ROW_CENTRED ? t / (WARPS / ROW_WARPS) : 0];
				drop8(p, 8 * k8, sum, v);
#endif
			}
			put8(t, k8, v);
		}
	}
	__syncthreads();
}

/* ---- a chunk of 16 rows ---------------------------------------------------------------------------------- */

#if MMA
struct sums { float d[4]; };

__device__ inline void take(sums &s, const byte *stage, int chunk, const unsigned (&low)[2])
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4, token = at_most(g, TOKENS - 1);
	for (int i = c; i < CHUNK / 8; i += 4) {
		uint4 a = piece8_packed(stage, g, low[0], i), b = piece8_packed(stage, g + 8, low[1], i);
		uint4 x = *(const uint4 *)staged(token, chunk * (CHUNK / 8) + i);
		mma(s.d, {a.x, b.x, a.y, b.y}, x.x, x.y, MTYPE{});
		mma(s.d, {a.z, b.z, a.w, b.w}, x.z, x.w, MTYPE{});
	}
}

__device__ inline void leave(const sums &s, float *part)
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
	for (int i = 0; i < 2; i++)
		if (2 * c + i < TOKENS) {
			part[(2 * c + i) * PART + g] = s.d[i];
			part[(2 * c + i) * PART + g + 8] = s.d[2 + i];
		}
}
#else
struct sums { float d[4][TOKENS]; };                       /* rows q, q+4, q+8, q+12 of lane 8q+c */

__device__ inline void take(sums &s, const byte *stage, int chunk, const unsigned (&low)[4])
{
	int q = threadIdx.x % 32 / 8;
	for (int i = threadIdx.x % 8; i < CHUNK / 8; i += 8) {
		float w[4][8], x[8];
		for (int j = 0; j < 4; j++)
			piece8(stage, q + 4 * j, low[j], i, w[j]);
		for (int t = 0; t < TOKENS; t++) {
			load8((const float *)staged(t, chunk * (CHUNK / 8) + i), x);
			for (int j = 0; j < 4; j++)
				for (int k = 0; k < 8; k++)
					s.d[j][t] = fmaf(w[j][k], x[k], s.d[j][t]);
		}
	}
}

__device__ inline void leave(const sums &s, float *part)
{
	int q = threadIdx.x % 32 / 8, c = threadIdx.x % 8;
	for (int t = 0; t < TOKENS; t++)
		for (int j = 0; j < 4; j++) {
			float sum = s.d[j][t];
			for (int i = 4; i; i >>= 1)
				sum += __shfl_xor_sync(~0u, sum, i);
			if (t == c)
				part[t * PART + q + 4 * j] = sum;
		}
}
#endif

enum { LANE_ROWS = MMA ? 2 : 4 };

__device__ inline void lane_rows(const args &p, int first, int last, size_t (&low)[LANE_ROWS])
{
	for (int i = 0; i < LANE_ROWS; i++)
		low[i] = SNUG || DENSE ? 0 :
			(size_t)tile_row(p, first, last, MMA ? threadIdx.x % 32 / 4 + 8 * i : threadIdx.x % 32 / 8 + 4 * i);
}

/* ---- the kernel -------------------------------------------------------------------------------------------- */

/* Where a warp is: chunk of tile; the warps take chunks in turn, across the ends of tiles. */
struct place { int tile, chunk; };

__device__ inline void step(place &at)
{
	at.chunk += WARPS;
	while (at.chunk >= CHUNKS) {
		at.chunk -= CHUNKS;
		at.tile++;
	}
}

struct work { int first, last, tiles, total; };            /* units [first, last), tiles of one pass and of all */

__device__ inline void request(const args &p, const work &w, stream &s, place &at, int &open, byte *stage, wide policy)
{
	if (at.tile < w.total) {
		if (at.tile != open) {
			stream_open(p, s, w.first + at.tile % w.tiles * UNIT_ROWS, w.last);
			open = at.tile;
		}
		stream_request(s, stage, at.chunk, policy);
		step(at);
		if (at.tile >= w.total)
			grid_launch_next();
	}
	copy_commit();
}

/* What this thread's part of the epilogue needs from memory, asked for before the tile's weights are. */
__device__ inline float fetch_extra(const args &p, const work &w, int tile, int token0, int n)
{
#ifdef FETCH
	int unit = w.first + tile % w.tiles * UNIT_ROWS + threadIdx.x % UNIT_ROWS, t = threadIdx.x / UNIT_ROWS;
	if (t < n && unit < w.last)
		return fetch(p, unit, token0 + t);
#endif
	return 0;
}

/* Add up what the warps found and hand it over; tiles take turns with two sets of parts. */
__device__ inline void finish(const args &p, const work &w, const sums &s, int tile, int token0, int n, float extra)
{
	float *parts = (float *)(smem + AT_PARTS) + tile % 2 * (WARPS * TOKENS * PART);
	int first = w.first + tile % w.tiles * UNIT_ROWS, i = threadIdx.x, j = i % UNIT_ROWS, t = i / UNIT_ROWS;
	bool mine = t < n && first + j < w.last;
	float a = 0, b = 0;
	leave(s, parts + threadIdx.x / 32 * (TOKENS * PART));
	__syncthreads();
	if (!mine)
		return;
	for (int k = 0; k < WARPS; k++) {
		a += parts[(k * TOKENS + t) * PART + j];
		if (PAIR)
			b += parts[(k * TOKENS + t) * PART + j + 8];
	}
	[[maybe_unused]] float y = store(p, first + j, token0 + t, a, b, extra);
#ifdef ARGMAX
	atomicMax((wide *)(smem + AT_BEST) + t, ranked(y, first + j));
#endif
}
static_assert(UNIT_ROWS * TOKENS <= THREADS, "a thread finishes one unit of a tile");

extern "C" __global__ void __launch_bounds__(THREADS, SLOTS) gemv(const __grid_constant__ args p)
{
	int warp = threadIdx.x / 32, next = 0, open = -1, n = count(p), passes = ceil_div(n, TOKENS);
	byte *ring = smem + warp * STAGES * STAGE;
	wide policy = stream_policy();
	work w = {(int)((long long)UNITS * blockIdx.x / gridDim.x), (int)((long long)UNITS * (blockIdx.x + 1) / gridDim.x)};
	w.tiles = ceil_div(w.last - w.first, UNIT_ROWS);
	w.total = w.tiles * passes;
	place asked = {0, warp - WARPS}, at;
	step(asked);
	at = asked;
	stream s;
	if (w.total == 0)
		grid_launch_next();
	for (int i = 0; i < STAGES; i++)
		request(p, w, s, asked, open, ring + i * STAGE, policy);
#ifdef ARGMAX
	if (threadIdx.x < TOKENS)
		((wide *)(smem + AT_BEST))[threadIdx.x] = 0;
#endif
	grid_wait();
	for (int tile = 0; tile < w.total; tile++) {
		int token0 = tile / w.tiles * TOKENS, here = at_most(TOKENS, n - token0);
		if (tile % w.tiles == 0) {
			__syncthreads();
			stage_x(p, token0, here);
		}
		float extra = fetch_extra(p, w, tile, token0, here);
		sums acc = {};
		size_t low[LANE_ROWS];
		lane_rows(p, w.first + tile % w.tiles * UNIT_ROWS, w.last, low);
		while (at.tile == tile) {
			unsigned skew[LANE_ROWS];
			for (int i = 0; i < LANE_ROWS; i++)
				skew[i] = skew_of((const byte *)low[i], at.chunk);
			copy_wait<STAGES - 1>();
			__syncwarp();
			take(acc, ring + next * STAGE, at.chunk, skew);
			__syncwarp();
			request(p, w, s, asked, open, ring + next * STAGE, policy);
			next = next + 1 == STAGES ? 0 : next + 1;
			step(at);
		}
		finish(p, w, acc, tile, token0, here, extra);
	}
#ifdef ARGMAX
	choose(p, (wide *)(smem + AT_BEST), at_most(n, TOKENS), (unsigned *)(smem + AT_SUMS));
#endif
}
