/* experts.cuh - few tokens times the weights of the experts they chose.
 *
 * gemv.cuh's way of reading: tiles of 16 rows, warps taking chunks of columns in turn, a ring of copies
 * each.  What differs is the work: the tiles of all segments (choices.cuh), end to end, in equal shares of
 * the blocks.  A block stages a segment's activations once; where two segments meet the weights of
 * the next are already under way.
 *
 * Parameters: gemv.cuh's, choices.cuh's, and
 *   SORTED 1  the list comes from sort.cuh (args has list); 0: every block makes its own, of at most
 *             as many pairs as it has threads
 *   ROWS UNITS  are those of one expert
 * Hooks (HOOKS says they are there):
 *   struct args, count(p)            args has ids
 *   row_at(p, unit, side)            address of a row, units counted through all experts
 *   x8(p, pair, k, v)                activations k..k+7 of a pair
 *   value(p, expert, unit, pair, a, b)   the epilogue
 *   y_at(p, pair)                    where the pair's row of results goes
 * Launch: any number of blocks, best one per multiprocessor. */
#include "common.cuh"
#include "dequant.cuh"
#include "table.cuh"
#include "choices.cuh"

#ifndef HOOKS
#define HOOKS
#define ROWS   14336
#define COLS   4096
#define UNITS  ROWS
#define SORTED 0
struct args { const struct table *table; const byte *w; const half *x; const int *ids; half *y; };
__device__ inline int count(const args &p) { return p.table->ntoken; }
__device__ inline const byte *row_at(const args &p, int unit, int) { return p.w + unit * (COLS * 2ll); }
__device__ inline void x8(const args &p, int pair, int k, float (&v)[8])
{
	load8_of<true>(p.x + (size_t)row_of_pair(pair) * COLS, k, COLS, v);
}
__device__ inline float value(const args &, int, int, int, float a, float) { return a; }
__device__ inline half *y_at(const args &p, int pair) { return p.y + (size_t)pair * UNITS; }
#endif

__device__ inline int pair_at(const args &p, int i);
#define GROUPED 1
#define XROW(p, i) pair_at(p, i)
#include "gemv.cuh"

enum { AT_LIST = (AT_END + 15) & ~15, EXPERTS_SMEM = SORTED ? AT_END : AT_LIST + CHOICE_BYTES + MAXPAIRS * 4 };
static_assert(SORTED || MAXPAIRS <= THREADS, "a thread a pair");

/* ---- the list -------------------------------------------------------------------------------------------- */

__device__ inline const int *list_of(const args &p)
{
#if SORTED
	return p.list;
#else
	return (const int *)(smem + AT_LIST);
#endif
}

__device__ inline int pair_at(const args &p, int i) { return order_in(list_of(p))[i]; }

#if !SORTED
/* Every thread finds its pair's place by looking at all others: they are few. */
__device__ inline void make_list(const args &p)
{
	int *list = (int *)(smem + AT_LIST), *expert = (int *)(smem + AT_LIST + CHOICE_BYTES);
	int i = threadIdx.x, n = count(p) * CHOSEN, at = 0, rank = 0, same = 0, before = 0, segments = 0;
	if (i < n)
		expert[i] = p.ids[i];
	__syncthreads();
	for (int j = 0; j < n; j++) {
		int mine = i < n ? expert[i] : 0, other = expert[j];
		at += other < mine || (other == mine && j < i);
		rank += other == mine && j < i;
		same += other == mine;
	}
	if (i < n)
		order_in(list)[at] = i | (rank % TOKENS == 0 ? 1 << 30 : 0);
	__syncthreads();
	for (int j = 0; j < n; j++) {
		bool starts = order_in(list)[j] >> 30;
		before += starts && j < at;
		segments += starts;
	}
	__syncthreads();
	if (i < n) {
		order_in(list)[at] = i;
		if (rank % TOKENS == 0)
			segments_in(list)[before] = {expert[i], at, at_most(TOKENS, same - rank), before - rank / TOKENS,
				ceil_div(same, TOKENS)};
	}
	if (i == 0)
		list[0] = segments;
	__syncthreads();
}
#endif

/* ---- the kernel -------------------------------------------------------------------------------------------- */

enum { TILES = ceil_div(UNITS, UNIT_ROWS), LANE_UNITS = ceil_div(UNIT_ROWS * TOKENS, 32) };

/* A tile's units, counted through all experts, and the end of its expert's. */
struct tile { segment of; int first, last; };

__device__ inline tile tile_at(const args &p, int i)
{
	tile t = {segments_in(list_of(p))[i / TILES]};
	t.first = t.of.expert * UNITS + i % TILES * UNIT_ROWS;
	t.last = (t.of.expert + 1) * UNITS;
	return t;
}

/* The next chunk a warp asks for: the warps take chunks in turn, across the ends of tiles. */
struct place { int tile, chunk; stream rows; };

__device__ inline void place_at(const args &p, int end, place &at)
{
	for (; at.chunk >= CHUNKS; at.tile++)
		at.chunk -= CHUNKS;
	if (at.tile < end) {
		tile t = tile_at(p, at.tile);
		stream_open(p, at.rows, t.first, t.last, at.chunk);
	}
}

__device__ inline void request(const args &p, int end, place &at, byte *stage)
{
	if (at.tile < end) {
		stream_request(at.rows, stage, at.chunk, WARPS);
		at.chunk += WARPS;
		if (at.chunk >= CHUNKS)
			place_at(p, end, at);
	}
	copy_commit();
}

/* Add up what the warps found and hand it over. */
__device__ inline void finish(const args &p, const tile &here, const float *parts)
{
	for (int i = 0; i < LANE_UNITS; i++) {
		int item = threadIdx.x % 32 + 32 * i, t = item / UNIT_ROWS, j = item % UNIT_ROWS;
		float a = 0, b = 0;
		if (t >= here.of.n || here.first + j >= here.last)
			continue;
#pragma unroll
		for (int k = 0; k < WARPS; k++) {
			a += parts[(k * TOKENS + t) * PART + j];
			if (PAIR)
				b += parts[(k * TOKENS + t) * PART + j + 8];
		}
		int pair = pair_at(p, here.of.first + t), unit = here.first + j - here.of.expert * UNITS;
		auto *y = y_at(p, pair) + unit;
		put(y, value(p, here.of.expert, unit, pair, a, b));
	}
}

/* As in gemv.cuh: a warp leaves its part and goes on, the warps finish tiles in turn.  number: of this block's
 * tiles, which. */
struct desk { wide full[SETS], free[SETS]; };

__device__ inline desk &the_desk() { return *(desk *)(smem + AT_DESK); }

__device__ inline void hand_in(const args &p, const sums &s, const tile &here, int number)
{
	int set = number % SETS, turn = number / SETS, warp = threadIdx.x / 32;
	float *parts = (float *)(smem + AT_PARTS) + set * (WARPS * TOKENS * PART);
	if (turn > 0)
		barrier_wait(&the_desk().free[set], turn - 1 & 1);
	leave(s, parts + warp * (TOKENS * PART));
	barrier_arrive(&the_desk().full[set]);
	if (number % WARPS != warp)
		return;
	barrier_wait(&the_desk().full[set], turn & 1);
	finish(p, here, parts);
	barrier_arrive(&the_desk().free[set]);
}

extern "C" __global__ void __launch_bounds__(THREADS, SLOTS) experts(const __grid_constant__ args p)
{
	int warp = threadIdx.x / 32, next = 0, at = warp, staged_of = -1;
	norm_vectors none;
	byte *ring = smem + warp * STAGES * STAGE;
	grid_launch_next();
	if (threadIdx.x < SETS) {
		barrier_init(&the_desk().full[threadIdx.x], THREADS);
		barrier_init(&the_desk().free[threadIdx.x], 32);
	}
	grid_wait();
#if !SORTED
	make_list(p);
#endif
	long long total = (long long)list_of(p)[0] * TILES;
	int first = (int)(total * blockIdx.x / gridDim.x), end = (int)(total * (blockIdx.x + 1) / gridDim.x);
	place asked = {first, warp};
	place_at(p, end, asked);
	for (int i = 0; i < STAGES; i++)
		request(p, end, asked, ring + i * STAGE);
	unsigned row = lane_row(ring), token = lane_token();
	for (int i = first; i < end; i++) {
		tile here = tile_at(p, i);
		if (i / TILES != staged_of) {
			staged_of = i / TILES;
			__syncthreads();
			stage_x(p, none, here.of.first, here.of.n, []() {});
		}
		sums acc = {};
		size_t low[LANE_ROWS];
		lane_rows(p, here.first, here.last, low);
		for (; at < CHUNKS; at += WARPS) {
			byte *stage = ring + next * STAGE;
			copy_wait<STAGES - 1>();
			__syncwarp();
			if (DIRECT) {
				take_direct(acc, row + next * STAGE, token, at);
			} else {
				unsigned skew[LANE_ROWS];
				for (int k = 0; k < LANE_ROWS; k++)
					skew[k] = skew_of((const byte *)low[k], at);
				take(acc, stage, at, skew);
			}
			__syncwarp();
			request(p, end, asked, stage);
			next = next + 1 == STAGES ? 0 : next + 1;
		}
		at -= CHUNKS;
		hand_in(p, acc, here, i - first);
	}
}
