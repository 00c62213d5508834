/* experts_gemm.cuh - many tokens times the weights of the experts they chose, on matrix units.
 *
 * A tile is BM rows of one expert's weights times a segment of up to TOKENS pairs (choices.cuh, made by
 * sort.cuh); blocks take tiles in turn, the segments of an expert beside each other, so that weights
 * come from memory once.  Panels of 64 columns of both go through one ring of asynchronous copies,
 * which does not stop between tiles.  Rows of 128 bytes, sixteen-byte columns swizzled.
 *
 * On Hopper (WGMMA 1) a warpgroup's products run while the next panel is waited for; elsewhere warps take
 * their operands into registers.  Gate and value of Mixtral-8x7B, 512 tokens an expert, on an H200: 419
 * TFLOP/s in tiles of 256 rows by 128 tokens, 352 of 128 by 128, 312 without warpgroups.
 *
 * With PAIR each 16 rows are 8 units' first rows and then their second ones: both meet in one thread.
 * Weights of another type than the activations' are converted on their way into the ring.
 *
 * Parameters: dot.cuh's (MMA 1; XTYPE is MTYPE), choices.cuh's, and
 *   BM WARPS_M WARPS_N   rows of a tile; how its warps divide it
 *   STAGES SLOTS         panels under way, blocks of a multiprocessor
 *   WGMMA 1              WARPS_M warps of 16 rows, a multiple of 4; TOKENS 128
 *   YTYPE                of the result; 16-bit ones leave by way of shared memory, in whole rows
 * Hooks: experts.cuh's without x8; args has list and x.
 * Launch: any number of blocks; WARPS_M * WARPS_N * 32 threads; GEMM_SMEM bytes of dynamic shared memory. */
#include "common.cuh"
#include "dequant.cuh"
#include "table.cuh"
#ifndef TOKENS
#define TOKENS  128
#define BM      128
#define WARPS_M 2
#define WARPS_N 2
#define STAGES  3
#define SLOTS   2
#endif
#ifndef WGMMA
#define WGMMA   0
#endif
#include "choices.cuh"

#ifndef HOOKS
#define HOOKS
#define ROWS   14336
#define COLS   4096
#define UNITS  ROWS
#define XTYPE  half
#define YTYPE  half
struct args { const struct table *table; const byte *w; const half *x; const int *list; half *y; };
__device__ inline int count(const args &p) { return p.table->ntoken; }
__device__ inline const byte *row_at(const args &p, int unit, int) { return p.w + unit * (COLS * 2ll); }
__device__ inline float value(const args &, int, int, int, float a, float) { return a; }
__device__ inline half *y_at(const args &p, int pair) { return p.y + (size_t)pair * UNITS; }
#endif
#include "dot.cuh"
#if WGMMA
#include "wgmma.cuh"
#endif

enum {
	BN = TOKENS, BK = 64, THREADS = WARPS_M * WARPS_N * 32, LINES = THREADS / 8,   /* rows a block copies at once */
	WM = BM / WARPS_M, WN = BN / WARPS_N,
	BU = PAIR ? BM / 2 : BM,                                                       /* units of a tile */
	TILES = ceil_div(UNITS, BU), STEPS = ceil_div(COLS, BK),
	SLAB = (BM + BN) * 128, GEMM_SMEM = STAGES * SLAB + (WGMMA ? 1024 : 0),
	AHEAD = STAGES - (WGMMA ? 2 : 1),                                              /* panels asked for before their turn */
	PLAIN = same<WTYPE, MTYPE>::value
};
static_assert(same<XTYPE, MTYPE>::value && COLS % 8 == 0, "rows as the matrix units read them");
static_assert(BM % LINES == 0 && BN % LINES == 0 && WM % 16 == 0 && WN % 16 == 0 && LINES % 16 == 0, "whole pieces");

__device__ inline int piece_at(int row, int column) { return row * 128 + ((column ^ row) & 7) * 16; }

/* ---- what is copied ---------------------------------------------------------------------------------------- */

struct source {
	int tile, step, first, last;                       /* units, counted through all experts; the expert's last one */
	int row[BN / LINES];                               /* of the activations; below 0: none */
};

struct where { segment of; int unit; };                    /* a tile: its segment, its first unit within the expert */

__device__ inline where tile_at(const args &p, int tile)
{
	const segment *all = segments_in(p.list);
	segment some = all[tile / TILES];
	int at = tile - some.base * TILES;
	return {all[some.base + at % some.count], at / some.count * BU};
}

__device__ inline void open_tile(const args &p, source &s, int total)
{
	if (s.tile >= total)
		return;
	where t = tile_at(p, s.tile);
	s.step = 0;
	s.first = t.of.expert * UNITS + t.unit;
	s.last = t.of.expert * UNITS + UNITS - 1;
	for (int i = 0; i < BN / LINES; i++) {
		int j = threadIdx.x / 8 + i * LINES;
		s.row[i] = j < t.of.n ? row_of_pair(order_in(p.list)[t.of.first + j]) : -1;
	}
}

/* Row r of a tile's weights. */
__device__ inline const byte *weights_at(const args &p, const source &s, int r)
{
	int unit = s.first + (PAIR ? r / 16 * 8 + r % 8 : r);
	return row_at(p, unit < s.last ? unit : s.last, PAIR ? r / 8 % 2 : 0);
}

__device__ inline void request(const args &p, source &s, int total, byte *slab)
{
	int line = threadIdx.x / 8, column = threadIdx.x % 8, k = s.step * BK + column * 8;
	int bytes = COLS % BK == 0 ? 16 : at_least(0, at_most(16, (COLS - k) * 2));
	if (s.tile < total) {
#pragma unroll
		for (int i = 0; i < BN / LINES; i++) {
			const XTYPE *x = p.x + (size_t)at_least(s.row[i], 0) * COLS + k;
			copy16(shared_at(slab + BM * 128 + piece_at(line + i * LINES, column)), x, s.row[i] < 0 ? 0 : bytes);
		}
#pragma unroll (PLAIN ? BM / LINES : 2)
		for (int i = 0; i < BM / LINES; i++) {
			int r = line + i * LINES;
			byte *to = slab + piece_at(r, column);
			if constexpr (PLAIN) {
				if (COLS % BK == 0)
					copy16(shared_at(to), weights_at(p, s, r) + k * 2);
				else
					copy16(shared_at(to), weights_at(p, s, r) + k * 2, bytes);
			} else {
				float v[8] = {};
				if (k < COLS)
					weights8(weights_at(p, s, r), k, v, (WTYPE *)0);
				*(uint4 *)to = pack8<MTYPE>(v);
			}
		}
		if (++s.step == STEPS) {
			s.tile += gridDim.x;
			open_tile(p, s, total);
		}
	}
	copy_commit();
}

/* ---- products ------------------------------------------------------------------------------------------------ */

typedef float sums[WM / 16][WN / 8][4];

#if WGMMA
__device__ inline byte *ring_at() { return smem + (-shared_at(smem) & 1023); }

/* Left running; those of the step before are done. */
__device__ inline void multiply(sums &d, const byte *slab, int step, int warp_m, int)
{
	unsigned a = shared_at(slab) + warp_m / 4 * (64 * 128), b = shared_at(slab) + BM * 128;
	wgmma_fence();
#pragma unroll
	for (int k = 0; k < BK; k += 16)
		wgmma(d[0], panel_at(a, k), panel_at(b, k), step > 0 || k > 0, MTYPE{});
	wgmma_commit();
}

__device__ inline void multiply_wait() { wgmma_wait<1>(); }
__device__ inline void multiply_end(sums &d)
{
	wgmma_wait<0>();
	wgmma_arrived(d[0]);
}
__device__ inline void arrived() { panel_fence(); }
#else
__device__ inline byte *ring_at() { return smem; }

__device__ inline void multiply(sums &d, const byte *slab, int step, int warp_m, int warp_n)
{
	int lane = threadIdx.x % 32;
#pragma unroll
	for (int i = 0; i < WM / 16; i++)
#pragma unroll
		for (int j = 0; j < WN / 8; j++)
#pragma unroll
			for (int k = 0; k < 4; k++)
				d[i][j][k] = step ? d[i][j][k] : 0;
#pragma unroll
	for (int k = 0; k < 4; k++) {
		unsigned a[WM / 16][4], b[WN / 16][4];
#pragma unroll
		for (int i = 0; i < WM / 16; i++)
			ldmatrix4(a[i], shared_at(slab + piece_at(warp_m * WM + i * 16 + lane % 16, 2 * k + lane / 16)));
#pragma unroll
		for (int i = 0; i < WN / 16; i++)
			ldmatrix4(b[i], shared_at(slab + BM * 128 +
				piece_at(warp_n * WN + i * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2)));
#pragma unroll
		for (int i = 0; i < WM / 16; i++)
#pragma unroll
			for (int j = 0; j < WN / 8; j++)
				mma(d[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], MTYPE{});
	}
}

__device__ inline void multiply_wait() {}
__device__ inline void multiply_end(sums &) {}
__device__ inline void arrived() {}
#endif

/* ---- results ---------------------------------------------------------------------------------------------------- */

/* Of a pair's results in shared memory: sixteen-byte columns, bytes; and how often a panel's room is needed. */
enum { COLUMNS = BU / 8, ROW_STAGED = BU * 2, PARTS = ceil_div(BN * ROW_STAGED, SLAB), PART_TOKENS = BN / PARTS };

__device__ inline byte *staged_at(byte *slab, int j, int unit)
{
	return slab + j % PART_TOKENS * ROW_STAGED + ((unit / 8 ^ j) & COLUMNS - 1) * 16 + unit % 8 * 2;
}

/* A unit's value of pair j of the tile. */
__device__ inline void leave(const args &p, const where &t, byte *slab, int j, int unit, float a, float b)
{
	if (j >= t.of.n || t.unit + unit >= UNITS)
		return;
	int pair = order_in(p.list)[t.of.first + j];
	float y = value(p, t.of.expert, t.unit + unit, pair, a, b);
	if constexpr (sizeof(YTYPE) == 2)
		put((YTYPE *)staged_at(slab, j, unit), y);
	else
		put(y_at(p, pair) + t.unit + unit, y);
}

__device__ inline void leave_part(const args &p, const where &t, byte *slab, const sums &d, int part, int warp_m, int warp_n)
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll
	for (int i = 0; i < WM / 16; i++)
#pragma unroll
		for (int j = 0; j < WN / 8; j++)
#pragma unroll
			for (int side = 0; side < 2; side++) {
				int n = warp_n * WN + j * 8 + 2 * c + side, m = warp_m * WM + i * 16;
				if (PARTS > 1 && (warp_n * WN + j * 8) / PART_TOKENS != part)
					continue;
				if (PAIR) {
					leave(p, t, slab, n, m / 2 + g, d[i][j][side], d[i][j][2 + side]);
				} else {
					leave(p, t, slab, n, m + g, d[i][j][side], 0);
					leave(p, t, slab, n, m + g + 8, d[i][j][2 + side], 0);
				}
			}
}

/* Whole rows from shared memory. */
__device__ inline void send(const args &p, const where &t, byte *slab, int part)
{
	int first = part * PART_TOKENS, n = at_most(t.of.n - first, PART_TOKENS);
	for (int i = threadIdx.x; i < n * COLUMNS; i += THREADS) {
		int j = first + i / COLUMNS, unit = i % COLUMNS * 8;
		YTYPE *y = (YTYPE *)y_at(p, order_in(p.list)[t.of.first + j]) + t.unit + unit;
		const YTYPE *from = (const YTYPE *)staged_at(slab, j, unit);
		if (UNITS % 8 == 0) {
			if (t.unit + unit < UNITS)
				*(uint4 *)y = *(const uint4 *)from;
		} else
			for (int k = 0; k < 8; k++)
				if (t.unit + unit + k < UNITS)
					y[k] = from[k];
	}
}

extern "C" __global__ void __launch_bounds__(THREADS, SLOTS) experts_gemm(const __grid_constant__ args p)
{
	static_assert(PART_TOKENS % 8 == 0 && PARTS * PART_TOKENS == BN, "parts of whole columns");
	int warp_m = threadIdx.x / 32 % WARPS_M, warp_n = threadIdx.x / 32 / WARPS_M, at = 0;
	byte *ring = ring_at(), *slab = ring;
	grid_launch_next();
	grid_wait();
	int total = p.list[0] * TILES;
	source next = {(int)blockIdx.x};
	open_tile(p, next, total);
	for (int i = 0; i < AHEAD; i++)
		request(p, next, total, ring + i * SLAB);
	for (int tile = blockIdx.x; tile < total; tile += gridDim.x) {
		sums d;
		for (int step = 0; step < STEPS; step++) {
			copy_wait<AHEAD - 1>();
			arrived();
			__syncthreads();
			slab = ring + at * SLAB;
			if (WGMMA)
				multiply(d, slab, step, warp_m, warp_n);
			request(p, next, total, ring + (at + AHEAD) % STAGES * SLAB);
			if (!WGMMA)
				multiply(d, slab, step, warp_m, warp_n);
			multiply_wait();
			at = at + 1 == STAGES ? 0 : at + 1;
		}
		multiply_end(d);
		where t = tile_at(p, tile);
		for (int part = 0; part < PARTS; part++) {
			__syncthreads();
			leave_part(p, t, slab, d, part, warp_m, warp_n);
			if constexpr (sizeof(YTYPE) == 2) {
				__syncthreads();
				send(p, t, slab, part);
			}
		}
	}
}
