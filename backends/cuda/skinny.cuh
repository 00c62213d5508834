/* skinny.cuh - a weight times the activations of some tens of tokens, on the matrix units: y = x W^T.
 *
 * Too many tokens to keep all their columns in shared memory, too few to be worth anything but
 * reading the weights once.  A block takes an equal share of the rows, 16 * GROUPS of them at a time.
 * Its warps take turns along the columns, each with a ring of its own for weights and activations, so
 * nothing but the end of a tile needs a barrier; there the warps' sums meet in shared memory.
 *
 * Chains of one product in f16 on an H200, of the 4.54 TB/s a plain read reaches: 22016 x 4096, 8 tokens
 * 88 %, 16 tokens 81 %, 32 tokens 73 %; 4096 x 11008, 90, 85 and 54 %; 4096 x 4096, 79, 66 and 44 %.  What a
 * block reads of the activations grows with the tokens: at 32 it is as much as its share of a small weight.
 *
 * Parameters, beside dot.cuh's:
 *   TOKENS  8, 16, 32 or 64: the most there are
 *   GROUPS  of 16 rows a block takes at once
 *   WARPS STAGES XSTAGES   warps of a block; chunks of weights, and runs of 64 columns of activations,
 *           each has under way: XSTAGES at most SUB * (STAGES - 1) + 1, SUB runs to a chunk
 *   WARM    as in gemv.cuh
 * Hook: x_row(p, token)   its activations, of type MTYPE, at a multiple of 16 bytes; instead of x8.
 * Launch: any number of blocks, best one per multiprocessor; WARPS * 32 threads; SKINNY_SMEM bytes. */
#include "dot.cuh"

#ifndef TOKENS
#define TOKENS  16
#endif
#ifndef GROUPS
#define GROUPS  6
#endif
#ifndef WARPS
#define WARPS   4
#endif
#ifndef STAGES
#define STAGES  3
#endif
#ifndef XSTAGES
#define XSTAGES 3
#endif

#ifndef HOOKS
__device__ inline const MTYPE *x_row(const args &p, int token) { return (const MTYPE *)p.x + (size_t)token * COLS; }
#endif

enum {
	THREADS = WARPS * 32,
	TILES = TOKENS / 8,                                /* of eight tokens: one B operand */
	TILE_ROWS = 16 * GROUPS, TILE_UNITS = UNIT_ROWS * GROUPS,
	SUB = CHUNK / 64,
	W_STAGE = GROUPS * STAGE, X_STAGE = TOKENS * 128,
	PART = TILE_ROWS + 4,                              /* padded against bank conflicts */
	ITEMS = ceil_div(TILE_UNITS * TOKENS, THREADS),    /* values a thread finishes of a tile */
	AT_X = WARPS * STAGES * W_STAGE,
	AT_PARTS = AT_X + WARPS * XSTAGES * X_STAGE,
	AT_ROWS = AT_PARTS + WARPS * TOKENS * PART * 4,
	SKINNY_SMEM = AT_ROWS + WARPS * TILE_ROWS * 8
};
static_assert(MMA && TOKENS % 8 == 0 && COLS % 8 == 0 && (SNUG || !DENSE), "rows of whole operands");
static_assert(XSTAGES <= SUB * (STAGES - 1) + 1, "weights come no later than activations");

/* ---- requests --------------------------------------------------------------------------------------------- */

struct work { int first, last, tiles, chunks, n; };        /* units [first, last); chunks of this warp in a tile; tokens */

/* Row r of a tile; NULL past the block's last unit. */
__device__ inline const byte *row_of_tile(const args &p, const work &w, int tile, int r)
{
	int unit = w.first + tile * TILE_UNITS + r / 16 * UNIT_ROWS + (PAIR ? r & 7 : r & 15);
	return unit < w.last ? row_at(p, unit, PAIR ? r >> 3 & 1 : 0) : NULL;
}

/* The warp's next chunk of weights: tile, which of its chunks, and its rows' addresses in shared memory. */
struct place { int tile, i; const byte **rows; };

__device__ inline void open_rows(const args &p, const work &w, place &at)
{
	__syncwarp();
	for (int r = threadIdx.x % 32; r < TILE_ROWS; r += 32)
		at.rows[r] = row_of_tile(p, w, at.tile, r);
	__syncwarp();
}

__device__ inline void request_weights(const args &p, const work &w, place &at, byte *stage)
{
	enum { COLUMNS = SLOT / 16, COPIES_ALL = ceil_div(TILE_ROWS * COLUMNS, 32) };
	int chunk = threadIdx.x / 32 + at.i * WARPS;
	if (at.tile >= w.tiles)
		return;
#pragma unroll
	for (int k = 0; k < COPIES_ALL; k++) {
		int u = threadIdx.x % 32 + 32 * k, r = u / COLUMNS, column = u % COLUMNS;
		if (TILE_ROWS * COLUMNS % 32 && r >= TILE_ROWS)
			break;
		const byte *row = at.rows[r];
		if (row)
			copy_column(stage + r * SLOT + (column ^ swizzle(r)) * 16,
				row + (long long)chunk * PIECE + (SNUG ? column * 16 : 0), column, bytes_left(chunk));
	}
	if (++at.i < w.chunks)
		return;
	at.i = 0;
	if (++at.tile < w.tiles)
		open_rows(p, w, at);
}

/* The warp's next run of activations: it takes the same ones for every tile. */
struct run { int tile, i, sub; };

__device__ inline int first_column(const run &at) { return (threadIdx.x / 32 + at.i * WARPS) * CHUNK + at.sub * 64; }

__device__ inline void go_on(const work &w, run &at)
{
	if (++at.sub < SUB)
		return;
	at.sub = 0;
	if (++at.i < w.chunks)
		return;
	at.i = 0;
	at.tile++;
}

__device__ inline int swizzle_x(int token) { return (token & 1) << 2 | (token >> 1 & 3); }
__device__ inline int slot_x(int token, int column) { return token * 128 + (column ^ swizzle_x(token)) * 16; }

__device__ inline void request_x(const args &p, const work &w, run &at, byte *stage)
{
	if (at.tile >= w.tiles)
		return;
#pragma unroll
	for (int k = 0; k < TOKENS / 4; k++) {
		int t = threadIdx.x % 32 / 8 + 4 * k, column = threadIdx.x % 8, from = first_column(at) + 8 * column;
		bool there = t < w.n && (COLS % CHUNK == 0 || from < COLS);
		copy16(shared_at(stage + slot_x(t, column)), x_row(p, t < w.n ? t : 0) + (there ? from : 0), there ? 16 : 0);
	}
	go_on(w, at);
}

/* The first runs go through registers: copies of their own would be waited for with the weights before them. */
__device__ inline void load_first_x(const args &p, const work &w, run &at, byte *ring)
{
	enum { ALL = XSTAGES * TOKENS / 4, AT_ONCE = at_most(ALL, 24) };
	for (int m = 0; m < ALL; m += AT_ONCE) {
		uint4 v[AT_ONCE];
		run from = at;
#pragma unroll
		for (int k = 0; k < AT_ONCE; k++) {
			int t = threadIdx.x % 32 / 8 + 4 * ((m + k) % (TOKENS / 4)), column = first_column(from) + threadIdx.x % 8 * 8;
			bool there = m + k < ALL && t < w.n && from.tile < w.tiles && column < COLS;
			v[k] = there ? *(const uint4 *)(x_row(p, t) + column) : make_uint4(0, 0, 0, 0);
			if (m + k < ALL && (m + k) % (TOKENS / 4) == TOKENS / 4 - 1)
				go_on(w, from);
		}
#pragma unroll
		for (int k = 0; k < AT_ONCE; k++)
			if (m + k < ALL)
				*(uint4 *)(ring + (m + k) / (TOKENS / 4) * X_STAGE +
					slot_x(threadIdx.x % 32 / 8 + 4 * ((m + k) % (TOKENS / 4)), threadIdx.x % 8)) = v[k];
		at = from;
	}
	__syncwarp();
}

/* ---- 16 * GROUPS rows by 64 columns by TOKENS ---------------------------------------------------------------- */

struct sums { float d[GROUPS][TILES][4]; };

/* Operands as ldmatrix leaves them. */
__device__ inline void take_direct(sums &s, const byte *stage, const byte *xs)
{
	int lane = threadIdx.x % 32, r = lane % 16, t = lane % 8;
	unsigned row = shared_at(stage) + r * 128 + (lane / 16 ^ swizzle(r)) * 16;
	unsigned token = shared_at(xs) + slot_x(t, lane / 8);
#pragma unroll
	for (int h = 0; h < 2; h++) {
		unsigned x[TILES][4], a[4];
#pragma unroll
		for (int n = 0; n < TILES; n++)
			ldmatrix4(x[n], (token ^ h << 6) + n * 1024);
#pragma unroll
		for (int k = 0; k < 2; k++)
#pragma unroll
			for (int g = 0; g < GROUPS; g++) {
				ldmatrix4(a, (row ^ (2 * h + k) << 5) + g * 2048);
#pragma unroll
				for (int n = 0; n < TILES; n++)
					mma(s.d[g][n], a, x[n][2 * k], x[n][2 * k + 1], MTYPE{});
			}
	}
}

/* Weights of other types: a lane's operands of two products are 16 neighbouring bytes. */
__device__ inline void take(sums &s, const byte *stage, const byte *xs, int sub, const unsigned (&low)[2 * GROUPS], int chunk)
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll
	for (int j = 0; j < 2; j++) {
		uint4 x[TILES];
#pragma unroll
		for (int n = 0; n < TILES; n++)
			x[n] = *(const uint4 *)(xs + slot_x(8 * n + g, lane_piece(c, j)));
#pragma unroll
		for (int r = 0; r < GROUPS; r++) {
			int i = sub * 8 + lane_piece(c, j);
			uint4 a = piece8_packed(stage, 16 * r + g, skew_of((const byte *)(size_t)low[2 * r], chunk), i);
			uint4 b = piece8_packed(stage, 16 * r + g + 8, skew_of((const byte *)(size_t)low[2 * r + 1], chunk), i);
#pragma unroll
			for (int n = 0; n < TILES; n++) {
				mma(s.d[r][n], {a.x, b.x, a.y, b.y}, x[n].x, x[n].y, MTYPE{});
				mma(s.d[r][n], {a.z, b.z, a.w, b.w}, x[n].z, x[n].w, MTYPE{});
			}
		}
	}
}

__device__ inline void leave(const sums &s, float *part)
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll
	for (int r = 0; r < GROUPS; r++)
#pragma unroll
		for (int n = 0; n < TILES; n++)
#pragma unroll
			for (int i = 0; i < 4; i++)
				part[(8 * n + 2 * c + i % 2) * PART + 16 * r + g + i / 2 * 8] = s.d[r][n][i];
}

/* ---- the end of a tile ------------------------------------------------------------------------------------------ */

struct item { int t, j, unit; bool there; };

__device__ inline item item_of(const work &w, int tile, int i)
{
	int all = threadIdx.x + i * THREADS, t = all / TILE_UNITS, j = all % TILE_UNITS, unit = w.first + tile * TILE_UNITS + j;
	return {t, j, unit, t < w.n && unit < w.last};
}

__device__ inline void fetch_extra(const args &p, const work &w, int tile, float (&extra)[ITEMS])
{
	for (int i = 0; i < ITEMS; i++) {
		extra[i] = 0;
#ifdef FETCH
		item at = item_of(w, tile, i);
		if (at.there)
			extra[i] = fetch(p, at.unit, at.t);
#endif
	}
}

__device__ inline void finish(const args &p, const work &w, const float *parts, int tile, const float (&extra)[ITEMS])
{
#pragma unroll
	for (int i = 0; i < ITEMS; i++) {
		item at = item_of(w, tile, i);
		int row = PAIR ? at.j / 8 * 16 + at.j % 8 : at.j;
		float a = 0, b = 0;
		if (!at.there)
			continue;
#pragma unroll
		for (int k = 0; k < WARPS; k++) {
			a += parts[(k * TOKENS + at.t) * PART + row];
			if (PAIR)
				b += parts[(k * TOKENS + at.t) * PART + row + 8];
		}
		store(p, at.unit, at.t, a, b, extra[i]);
	}
}

/* ---- the kernel --------------------------------------------------------------------------------------------------- */

extern "C" __global__ void __launch_bounds__(THREADS, 1) skinny(const __grid_constant__ args p)
{
	int warp = threadIdx.x / 32, next = 0, next_x = 0;
	byte *ring = smem + warp * STAGES * W_STAGE, *ring_x = smem + AT_X + warp * XSTAGES * X_STAGE;
	float *parts = (float *)(smem + AT_PARTS);
	work w = {(int)((long long)UNITS * blockIdx.x / gridDim.x), (int)((long long)UNITS * (blockIdx.x + 1) / gridDim.x)};
	grid_launch_next();
#ifdef WARM
	warm(p);
#endif
	w.chunks = warp < CHUNKS ? ceil_div(CHUNKS - warp, WARPS) : 0;
	w.tiles = ceil_div(w.last - w.first, TILE_UNITS);
	place asked = {w.chunks ? 0 : w.tiles, 0, (const byte **)(smem + AT_ROWS) + warp * TILE_ROWS};
	if (asked.tile < w.tiles)
		open_rows(p, w, asked);
	for (int i = 0; i < XSTAGES; i++) {
#pragma unroll
		for (int s = 0; s < STAGES; s++)
			if (at_most(SUB * s, XSTAGES - 1) == i)
				request_weights(p, w, asked, ring + s * W_STAGE);
		copy_commit();
	}
	w.n = at_most(TOKENS, count(p));
	grid_wait();
	run asked_x = {w.chunks ? 0 : w.tiles, 0, 0};
	load_first_x(p, w, asked_x, ring_x);
	for (int tile = 0; tile < w.tiles; tile++) {
		sums acc = {};
		float extra[ITEMS];
		unsigned low[2 * GROUPS];
		for (int i = 0; i < 2 * GROUPS; i++)
			low[i] = SNUG ? 0 : (unsigned)(size_t)row_of_tile(p, w, tile, threadIdx.x % 32 / 4 + 8 * i);
		for (int i = 0; i < w.chunks; i++) {
			for (int sub = 0; sub < SUB; sub++) {
				byte *xs = ring_x + next_x * X_STAGE;
				copy_wait<XSTAGES - 1>();
				__syncwarp();
				if (DIRECT)
					take_direct(acc, ring + next * W_STAGE, xs);
				else
					take(acc, ring + next * W_STAGE, xs, sub, low, warp + i * WARPS);
				__syncwarp();
				request_x(p, w, asked_x, xs);
				if (sub == SUB - 1)
					request_weights(p, w, asked, ring + next * W_STAGE);
				copy_commit();
				next_x = next_x + 1 == XSTAGES ? 0 : next_x + 1;
			}
			next = next + 1 == STAGES ? 0 : next + 1;
		}
		fetch_extra(p, w, tile, extra);
		leave(acc, parts + warp * TOKENS * PART);
		__syncthreads();
		finish(p, w, parts, tile, extra);
		if (tile + 1 < w.tiles)
			__syncthreads();
	}
}
