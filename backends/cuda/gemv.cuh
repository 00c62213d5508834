/* gemv.cuh - a weight times the activations of few tokens: y[t,m] = sum_k w[m,k] x[t,k].
 *
 * The step of a single stream is reading weights, so everything here serves that.  A block takes an
 * equal share of the rows, whatever their number; its warps take turns along the columns of 16 rows
 * and add up at the end of each tile.  Weights are requested before grid_wait(), and the next kernel is let
 * in at once: its block takes the multiprocessor when ours leaves it.  One block with 128 KB under way reads
 * faster than two with 96 KB each, of which a multiprocessor may get two of one kernel and none of the next
 * (H200: 3.40 ms a step of Llama-2-7B against 3.77).  Asking the second level cache for more, of this weight or of
 * the next kernel's, makes a step slower by as much as 3 %.
 *
 * Matrix units (MMA 1): 16 rows by 16 columns of weights are the A operand, up to eight tokens the B
 * operand.  The sum over k may run in any order, so a lane's operands of two products are simply
 * 16 neighbouring bytes, of weights and of activations alike.
 * Float arithmetic (MMA 0): eight lanes to a row, for float activations and as the fallback for any T.
 *
 * Parameters, beside dot.cuh's:
 *   TOKENS  in one pass over the weights, 1-8; more tokens take more passes
 *   PASSES  1: there are never more than TOKENS; 0: any number
 *   WARPS STAGES SLOTS   warps of a block, chunks each has under way, blocks of a multiprocessor
 *   BEFORE  of STAGES, asked for before grid_wait(); the others once this step's activations are under way:
 *           whatever is asked for after weights waits behind them
 *   WARM    hook warm(p), first of all: touch() what will be wanted and no kernel of the step writes
 *   NORM    1: rows are normalised on the way in (hooks lift(x), and with struct vectors that vectors8(p, k, w) fills
 *           drop8(w, k, sum, v): the ROW op's);
 *   ROW_CENTRED  1: after their mean is taken off
 *   XPLAIN  1: x8 gives values of XTYPE, as they are in memory
 *   GROUPED 1: without its kernel, for another's work (experts.cuh); XROW(p, i)  the row of activations that is number i there
 * Launch: any number of blocks, best one per multiprocessor; WARPS * 32 threads; GEMV_SMEM bytes of
 * dynamic shared memory. */
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
#ifndef BEFORE
#define BEFORE STAGES
#endif
#ifndef PASSES
#define PASSES 0
#endif
#ifndef NORM
#define NORM   0
#endif
#ifndef XPLAIN
#define XPLAIN 0
#endif
#ifndef ROW_CENTRED
#define ROW_CENTRED 0
#endif
#ifndef XROW                                               /* which activations row i of this pass is */
#define XROW(p, i) (i)
#endif

enum {
	THREADS = WARPS * 32,
	PADDED = CHUNKS * CHUNK,                           /* columns as staged, zero past COLS */
	XBYTES = MMA ? 2 : 4,
	PART = 20,                                         /* 16 rows, padded against bank conflicts */
	SETS = TOKENS > 2 ? 2 : 4,
	AT_X = WARPS * STAGES * STAGE,
	AT_PARTS = AT_X + TOKENS * PADDED * XBYTES,
	AT_SUMS = AT_PARTS + SETS * WARPS * TOKENS * PART * 4,
	AT_DESK = AT_SUMS + 2 * WARPS * TOKENS * 4 + 7 & ~7,
	AT_END = AT_DESK + 2 * SETS * 8,
	GEMV_SMEM = AT_END
};
static_assert(TOKENS <= 8, "one B operand");

/* ---- activations -------------------------------------------------------------------------------------- */

__device__ inline int swizzle_x(int token) { return (token & 1) << 2 | (token >> 1 & 3); }

/* MMA: [64 columns][token][64], sixteen-byte columns swizzled as the weights are; else [token][column]. */
__device__ inline byte *staged(int token, int k8)
{
	if (MMA)
		return smem + AT_X + ((k8 / 8 * TOKENS + token) * 8 + (k8 % 8 ^ swizzle_x(token))) * 16;
	return smem + AT_X + (token * PADDED + 8 * k8) * 4;
}

__device__ inline void put8(int token, int k8, const float (&v)[8])
{
	if constexpr (MMA)
		store8((MTYPE *)staged(token, k8), v);
	else
		store8((float *)staged(token, k8), v);
}

/* A thread has the same columns of every token: a norm's weight is read once for all of them.  Up to eight runs
 * are kept in registers from load to store, as they lay in memory if they have 16 bits; more are loaded anew. */
enum { RUNS = ceil_div(PADDED / 8, THREADS), PACKED = XPLAIN && sizeof(XTYPE) == 2, KEPT = RUNS * TOKENS <= (PACKED ? 8 : 4) };

template <bool, typename T> struct run8 {
	float v[8];
	__device__ inline void put(const float (&x)[8]) { for (int i = 0; i < 8; i++) v[i] = x[i]; }
	__device__ inline void get(float (&x)[8]) const { for (int i = 0; i < 8; i++) x[i] = v[i]; }
};
template <typename T> struct run8<true, T> {
	uint4 v;
	__device__ inline void put(const float (&x)[8]) { v = pack8<T>(x); }
	__device__ inline void get(float (&x)[8]) const { unpack8<T>(v, x); }
};

struct columns {
	run8<PACKED, XTYPE> run[KEPT ? RUNS * TOKENS : 1];
	__device__ inline run8<PACKED, XTYPE> &at(int r, int t) { return run[KEPT ? r * TOKENS + t : 0]; }
};

/* f(run, token, k) for all of this thread's runs: columns k..k+7 of a token. */
template <typename F> __device__ inline void each_run(F f)
{
#pragma unroll
	for (int r = 0; r < RUNS; r++)
#pragma unroll
		for (int t = 0; t < TOKENS; t++)
			f(r, t, (int)(threadIdx.x + r * THREADS) * 8);
}

/* All that is kept, under way together: tokens that are not have another's values, so that no load waits for a branch.
 * A step may have none at all: then there is memory for the first. */
__device__ inline void load_columns(const args &p, columns &c, int first, int n)
{
	each_run([&](int r, int t, int k) {
		float v[8] = {};
		if (k < COLS)
			x8(p, first + at_least(0, at_most(t, n - 1)), k, v);
		c.at(r, t).put(v);
	});
}

/* f(token, run, k, v) for this thread's columns k..k+7 of n tokens, as the norm finds them: kept, or loaded here. */
template <typename F> __device__ inline void each8(const args &p, columns &c, int first, int n, F f)
{
	each_run([&](int r, int t, int k) {
		float v[8] = {};
		if (t >= n || k >= PADDED)
			return;
		if (KEPT)
			c.at(r, t).get(v);
		else if (k < COLS)
			x8(p, first + t, k, v);
		f(t, r, k, v);
	});
}

/* meanwhile() is called when the first loads are under way: whatever it asks for comes after them. */
template <typename F> __device__ inline void load_x(const args &p, int first, int n, F meanwhile)
{
	enum { AT_ONCE = 4 };
	for (int m = 0; m < RUNS * TOKENS; m += AT_ONCE) {
		float v[AT_ONCE][8] = {};
#pragma unroll
		for (int i = 0; i < AT_ONCE; i++) {
			int t = (m + i) % TOKENS, k8 = threadIdx.x + (m + i) / TOKENS * THREADS;
			if (t < n && 8 * k8 < COLS)
				x8(p, XROW(p, first + t), 8 * k8, v[i]);
		}
		if (m == 0)
			meanwhile();
#pragma unroll
		for (int i = 0; i < AT_ONCE; i++) {
			int t = (m + i) % TOKENS, k8 = threadIdx.x + (m + i) / TOKENS * THREADS;
			if (t < n && k8 < PADDED / 8)
				put8(t, k8, v[i]);
		}
	}
}

#if NORM
/* The norm's own vectors, loaded before the weights are asked for where a thread has room for them: beside the means and
 * sums of eight tokens whose columns are loaded anew it has none. */
enum { EARLY = RUNS <= 2 && (KEPT || !ROW_CENTRED) };

struct norm_vectors { vectors w[EARLY ? RUNS : 1]; };

__device__ inline void open_norm(const args &p, norm_vectors &c)
{
#pragma unroll
	for (int r = 0; r < RUNS; r++)
		if (EARLY && (int)(threadIdx.x + r * THREADS) * 8 < COLS)
			vectors8(p, (threadIdx.x + r * THREADS) * 8, c.w[EARLY ? r : 0]);
}

/* Sums over the block of a number for each token; `turn` tells apart two in a row. */
__device__ inline void block_sums(float (&sum)[TOKENS], int turn)
{
	float *parts = (float *)(smem + AT_SUMS) + turn * WARPS * TOKENS;
	for (int t = 0; t < TOKENS; t++) {
		float s = warp_sum(sum[t]);
		if (threadIdx.x % 32 == 0)
			parts[t * WARPS + threadIdx.x / 32] = s;
		sum[t] = 0;
	}
	__syncthreads();
	enum { SPREAD = TOKENS >= 4 && 32 % TOKENS == 0 && WARPS * TOKENS % 32 == 0, LANES = at_least(1, 32 / TOKENS) };
	if constexpr (SPREAD) {                            /* a lane adds its share: all of them would be too many registers */
		float own = 0;
		for (int i = 0; i < WARPS / LANES; i++)
			own += parts[threadIdx.x % 32 * (WARPS / LANES) + i];
		for (int i = 1; i < LANES; i *= 2)
			own += __shfl_xor_sync(~0u, own, i);
		for (int t = 0; t < TOKENS; t++)
			sum[t] = __shfl_sync(~0u, own, t * LANES);
	} else {
		for (int t = 0; t < TOKENS; t++)
#pragma unroll
			for (int i = 0; i < WARPS; i++)
				sum[t] += parts[t * WARPS + i];
	}
}

template <typename F> __device__ inline void normalise(const args &p, norm_vectors &with, int first, int n, F meanwhile)
{
	columns c;
	float mean[TOKENS] = {}, sum[TOKENS] = {};
	if (KEPT)
		load_columns(p, c, first, n);
	meanwhile();
#if ROW_CENTRED
	each8(p, c, first, n, [&](int t, int, int, float (&v)[8]) {
		mean[t] += ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
	});
	block_sums(mean, 0);
	for (int t = 0; t < TOKENS; t++)
		mean[t] /= COLS;
#endif
	each8(p, c, first, n, [&](int t, int, int k, float (&v)[8]) {
		for (int i = 0; i < 8; i++)
			sum[t] += k + i < COLS ? lift(v[i] - mean[t]) : 0;
	});
	block_sums(sum, 1);
	each8(p, c, first, n, [&](int t, int r, int k, float (&v)[8]) {
		vectors &w = with.w[EARLY ? r : 0];
		float y[8];
		for (int i = 0; i < 8; i++)
			y[i] = v[i] - mean[t];
		if (!EARLY && k < COLS)
			vectors8(p, k, w);
		if (k < COLS)
			drop8(w, k, sum[t], y);
		for (int i = 0; i < 8; i++)
			y[i] = k + i < COLS ? y[i] : 0;
		put8(t, k / 8, y);
	});
}
#else
struct norm_vectors {};

__device__ inline void open_norm(const args &, norm_vectors &) {}
#endif

template <typename F> __device__ inline void stage_x(const args &p, norm_vectors &with, int first, int n, F meanwhile)
{
#if NORM
	normalise(p, with, first, n, meanwhile);
#else
	load_x(p, first, n, meanwhile);
#endif
	__syncthreads();
}

/* ---- a chunk of 16 rows ---------------------------------------------------------------------------------- */

#if MMA
struct sums { float d[2][4]; };                            /* two, so that products need not wait for each other */

/* Operands as ldmatrix leaves them: addresses of a stage's rows and of the tokens, at column 0. */
__device__ inline unsigned lane_row(byte *stage)
{
	int r = threadIdx.x % 16;
	return shared_at(stage) + r * 128 + (threadIdx.x % 32 / 16 ^ swizzle(r)) * 16;
}

__device__ inline unsigned lane_token()
{
	int t = at_most(threadIdx.x % 8, TOKENS - 1);
	return shared_at(smem + AT_X) + t * 128 + (threadIdx.x % 32 / 8 ^ swizzle_x(t)) * 16;
}

/* 16 rows by 64 columns. */
__device__ inline void take_direct(sums &s, unsigned row, unsigned token, int chunk)
{
	unsigned a[4][4], x[2][4];
	token += chunk * (TOKENS * 128);
	for (int i = 0; i < 4; i++)
		ldmatrix4(a[i], row ^ i << 5);
	for (int i = 0; i < 2; i++)
		ldmatrix4(x[i], token ^ i << 6);
	for (int i = 0; i < 4; i++)
		mma(s.d[i % 2], a[i], x[i / 2][i % 2 * 2], x[i / 2][i % 2 * 2 + 1], MTYPE{});
}

__device__ inline void take(sums &s, const byte *stage, int chunk, const unsigned (&low)[2])
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4, token = at_most(g, TOKENS - 1);
#pragma unroll
	for (int m = 0; m < CHUNK / 32; m++) {
		int i = lane_piece(c, m);
		uint4 a = piece8_packed(stage, g, low[0], i), b = piece8_packed(stage, g + 8, low[1], i);
		uint4 x = *(const uint4 *)staged(token, chunk * (CHUNK / 8) + i);
		mma(s.d[0], {a.x, b.x, a.y, b.y}, x.x, x.y, MTYPE{});
		mma(s.d[1], {a.z, b.z, a.w, b.w}, x.z, x.w, MTYPE{});
	}
}

__device__ inline void leave(const sums &s, float *part)
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
	for (int i = 0; i < 2; i++)
		if (2 * c + i < TOKENS) {
			part[(2 * c + i) * PART + g] = s.d[0][i] + s.d[1][i];
			part[(2 * c + i) * PART + g + 8] = s.d[0][2 + i] + s.d[1][2 + i];
		}
}
#else
struct sums { float d[4][TOKENS]; };                       /* rows q, q+4, q+8, q+12 of lane 8q+c */

__device__ inline unsigned lane_row(byte *) { return 0; }
__device__ inline unsigned lane_token() { return 0; }
__device__ inline void take_direct(sums &, unsigned, unsigned, int) {}

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

#ifndef GROUPED
/* ---- the kernel -------------------------------------------------------------------------------------------- */

struct work { int first, last, tiles, total; };            /* units [first, last), tiles of one pass and of all */

/* The next chunk a warp asks for: the warps take chunks in turn, across the ends of tiles. */
struct place { int tile, chunk; stream rows; };

__device__ inline void place_at(const args &p, const work &w, place &at)
{
	for (; at.chunk >= CHUNKS; at.tile++)
		at.chunk -= CHUNKS;
	if (at.tile < w.total)
		stream_open(p, at.rows, w.first + at.tile % w.tiles * UNIT_ROWS, w.last, at.chunk);
}

__device__ inline void request(const args &p, const work &w, place &at, byte *stage)
{
	if (at.tile < w.total) {
		stream_request(at.rows, stage, at.chunk, WARPS);
		at.chunk += WARPS;
		if (at.chunk >= CHUNKS)
			place_at(p, w, at);
	}
	copy_commit();
}

enum { LANE_UNITS = ceil_div(UNIT_ROWS * TOKENS, 32) };    /* units a lane finishes of a tile */

/* What the epilogue needs from memory, asked for before the tile's weights are there. */
__device__ inline void fetch_extra(const args &p, const work &w, int tile, int token0, int n, float (&extra)[LANE_UNITS])
{
	for (int i = 0; i < LANE_UNITS; i++) {
		extra[i] = 0;
#ifdef FETCH
		int item = threadIdx.x % 32 + 32 * i, t = item / UNIT_ROWS;
		int unit = w.first + tile % w.tiles * UNIT_ROWS + item % UNIT_ROWS;
		if (t < n && unit < w.last)
			extra[i] = fetch(p, unit, token0 + t);
#endif
	}
}

/* Add up what the warps found and hand it over. */
__device__ inline void finish(const args &p, const work &w, const float *parts, int tile, int token0, int n,
		const float (&extra)[LANE_UNITS])
{
	for (int i = 0; i < LANE_UNITS; i++) {
		int item = threadIdx.x % 32 + 32 * i, t = item / UNIT_ROWS, j = item % UNIT_ROWS;
		int unit = w.first + tile % w.tiles * UNIT_ROWS + j;
		float a = 0, b = 0;
		if (t >= n || unit >= w.last)
			continue;
#pragma unroll
		for (int k = 0; k < WARPS; k++) {
			a += parts[(k * TOKENS + t) * PART + j];
			if (PAIR)
				b += parts[(k * TOKENS + t) * PART + j + 8];
		}
		store(p, unit, token0 + t, a, b, extra[i]);
	}
}

/* A warp leaves its part of a tile and goes on; each tile is finished by one of them, in turn, when all
 * have come.  No barrier of the block: it would wait for the slowest request of every tile.  Parts of SETS
 * tiles have room.  Every lane arrives for itself: racecheck follows no __syncwarp before an arrival. */
struct desk { wide full[SETS], free[SETS]; };

__device__ inline desk &the_desk() { return *(desk *)(smem + AT_DESK); }
__device__ inline bool finishes(int tile) { return tile % WARPS == (int)threadIdx.x / 32; }

__device__ inline void hand_in(const args &p, const work &w, const sums &s, int tile, int token0, int n,
		const float (&extra)[LANE_UNITS])
{
	int set = tile % SETS, turn = tile / SETS;
	float *parts = (float *)(smem + AT_PARTS) + set * (WARPS * TOKENS * PART);
	if (turn > 0)
		barrier_wait(&the_desk().free[set], turn - 1 & 1);
	leave(s, parts + threadIdx.x / 32 * (TOKENS * PART));
	barrier_arrive(&the_desk().full[set]);
	if (!finishes(tile))
		return;
	barrier_wait(&the_desk().full[set], turn & 1);
	finish(p, w, parts, tile, token0, n, extra);
	barrier_arrive(&the_desk().free[set]);
}

extern "C" __global__ void __launch_bounds__(THREADS, SLOTS) gemv(const __grid_constant__ args p)
{
	int warp = threadIdx.x / 32, next = 0, requested = 0, n = count(p), at = warp;
	byte *ring = smem + warp * STAGES * STAGE;
	work w = {(int)((long long)UNITS * blockIdx.x / gridDim.x), (int)((long long)UNITS * (blockIdx.x + 1) / gridDim.x)};
	norm_vectors with;
	grid_launch_next();
	open_norm(p, with);
#ifdef WARM
	warm(p);
#endif
	w.tiles = ceil_div(w.last - w.first, UNIT_ROWS);
	w.total = w.tiles * (PASSES ? 1 : ceil_div(n, TOKENS));
	place asked = {0, warp};
	place_at(p, w, asked);
	for (; requested < BEFORE; requested++)
		request(p, w, asked, ring + requested * STAGE);
	if (threadIdx.x < SETS) {
		barrier_init(&the_desk().full[threadIdx.x], THREADS);
		barrier_init(&the_desk().free[threadIdx.x], 32);
	}
	grid_wait();
	unsigned row = lane_row(ring), token = lane_token();
	for (int tile = 0; tile < w.total; tile++) {
		int token0 = tile / w.tiles * TOKENS, here = at_most(TOKENS, n - token0);
		if (tile % w.tiles == 0) {
			__syncthreads();
			stage_x(p, with, token0, here, [&]() {
				for (; requested < STAGES; requested++)
					request(p, w, asked, ring + requested * STAGE);
			});
		}
		float extra[LANE_UNITS];
		if (finishes(tile))
			fetch_extra(p, w, tile, token0, here, extra);
		sums acc = {};
		size_t low[LANE_ROWS];
		lane_rows(p, w.first + tile % w.tiles * UNIT_ROWS, w.last, low);
		for (; at < CHUNKS; at += WARPS) {
			byte *stage = ring + next * STAGE;
			copy_wait<STAGES - 1>();
			__syncwarp();
			if (DIRECT) {
				take_direct(acc, row + next * STAGE, token, at);
			} else {
				unsigned skew[LANE_ROWS];
				for (int i = 0; i < LANE_ROWS; i++)
					skew[i] = skew_of((const byte *)low[i], at);
				take(acc, stage, at, skew);
			}
			__syncwarp();
			request(p, w, asked, stage);
			next = next + 1 == STAGES ? 0 : next + 1;
		}
		at -= CHUNKS;
		hand_in(p, w, acc, tile, token0, here, extra);
	}
}
#endif
