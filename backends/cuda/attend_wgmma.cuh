/* attend_wgmma.cuh - attention of many new tokens on Hopper: attend_prefill with products of four warps.
 *
 * Scores of the next tile of keys and the result of the last one are asked of the matrix units
 * together; the exponentials of one are taken while the other is still under way (Shah and others,
 * FlashAttention-3, 2024).  Two tiles of keys and two of values in shared memory: while a tile is at
 * work, the next keys and its own values are on their way.
 *
 * Parameters, beside attend.cuh's:  WARPS SLOTS   multiple of four; blocks of a multiprocessor
 *                                   KEYS          of a tile, 64 or 128
 * Dims: KDIM a multiple of 16, VDIM of 64.
 * Launch: grid x: at least the sum over sequences of ceil(new tokens * GROUP / QUERY_ROWS), so
 * ceil(tokens * GROUP / QUERY_ROWS) + sequences will do; y: KVHEADS; WARPS * 32 threads; PREFILL_SMEM. */
#include "attend.cuh"
#include "wgmma.cuh"

#ifndef WARPS
#define WARPS 8
#endif
#ifndef SLOTS
#define SLOTS 1
#endif
#ifndef KEYS
#define KEYS (KDIM > 192 || VDIM > 128 ? 64 : 128)
#endif

enum {
	TILES = 1,
	THREADS = WARPS * 32,
	QUERY_ROWS = WARPS * 16,
	VSTEPS = VDIM / 16,
	KTILE = KEYS * ceil_div(KDIM, 64) * 128, VTILE = KEYS * VDIM * 2,
	AT_KEYS = QUERY_ROWS * ceil_div(KDIM, 64) * 128,
	AT_VALUES = AT_KEYS + 2 * KTILE,
	AT_ROWS = AT_VALUES + 2 * VTILE,
	PREFILL_SMEM = AT_ROWS + 64 + 1024                 /* blocks begin at multiples of 1024 */
};
static_assert(KDIM % 16 == 0 && VDIM % 64 == 0 && WARPS % 4 == 0 && KVBYTES == 2 && MMA && (KEYS == 64 || KEYS == 128), "what the products take");
#include "attend_rows.cuh"

/* Where row r's column of 16 bytes lies in blocks of n rows. */
__device__ inline unsigned block_at(int n, int r, int column) { return column / 8 * (n * 128) + panel_place(r, column % 8); }

/* What a thread's requests go by, in registers: shared memory would make them wait. */
struct source {
	const byte *keys, *values;                         /* in page 0 */
	const int *page;
	wide bytes;
	int from, len, last;                               /* positions seen by any row; its last page */
	unsigned base;
};

enum { PART = KEYS % PAGE == 0 ? PAGE : PAGE % KEYS == 0 ? KEYS : 16, PARTS = KEYS / PART };

/* The pages of a tile of keys: asked for a tile ahead, so that nobody waits for the numbers either. */
struct numbers { int page[PARTS]; };

__device__ inline numbers pages_of(const source &in, int key0)
{
	numbers n;
	for (int i = 0; i < PARTS; i++)
		n.page[i] = in.page[at_most((key0 + i * PART) / PAGE, in.last)];
	return n;
}

/* KEYS rows of DIM values, zeros for what no row sees: its page may have been given back. */
template <int DIM> __device__ inline void request_tile(const source &in, const byte *base, const numbers &n, int key0, unsigned to)
{
	enum { COLUMNS = DIM / 8, COPIES = ceil_div(PART * COLUMNS, THREADS) };
	bool whole = key0 >= in.from && key0 + KEYS <= in.len;
#pragma unroll
	for (int part = 0; part < PARTS; part++) {
		const byte *from = base + n.page[part] * in.bytes + (key0 + part * PART) % PAGE * (DIM * 2);
#pragma unroll
		for (int j = 0; j < COPIES; j++) {
			int i = threadIdx.x + j * THREADS, key = part * PART + i / COLUMNS;
			if (PART * COLUMNS % THREADS && i >= PART * COLUMNS)
				break;
			bool seen = whole || (key0 + key >= in.from && key0 + key < in.len);
			copy16(to + block_at(KEYS, key, i % COLUMNS), from + i * 16, seen ? 16 : 0);
		}
	}
}

/* Tiles take turns in two places. */
__device__ inline unsigned keys_at(unsigned base, int key0) { return base + AT_KEYS + key0 / KEYS % 2 * KTILE; }
__device__ inline unsigned values_at(unsigned base, int key0) { return base + AT_VALUES + key0 / KEYS % 2 * VTILE; }

/* The values of the tile at key0 and the keys of the one after it. */
__device__ inline void request(const source &in, numbers &here, numbers &next, int key0, int end)
{
	request_tile<VDIM>(in, in.values, here, key0, values_at(in.base, key0));
	if (key0 + KEYS < end)
		request_tile<KDIM>(in, in.keys, next, key0 + KEYS, keys_at(in.base, key0 + KEYS));
	copy_commit();
	here = next;
	next = pages_of(in, key0 + 2 * KEYS);
}

/* All that was asked for is there, and nobody is at what was read before. */
__device__ inline void arrive_all()
{
	copy_wait<0>();
	panel_fence();
	__syncthreads();
}

__device__ inline void scores(float (&d)[KEYS / 8][4], unsigned query, unsigned keys)
{
#pragma unroll
	for (int k = 0; k < KDIM / 16; k++)
		wgmma(d, panel_at(query + k / 4 * (QUERY_ROWS * 128), k % 4 * 16),
			panel_at(keys + k / 4 * (KEYS * 128), k % 4 * 16), k > 0, KVTYPE{});
	wgmma_commit();
}

__device__ inline void values(state &s, const unsigned (&a)[KEYS / 16][4], unsigned tile)
{
	enum { N = VDIM % 128 ? 64 : 128 };
#pragma unroll
	for (int j = 0; j < KEYS / 16; j++)
#pragma unroll
		for (int i = 0; i < VDIM / N; i++)
			wgmma(*(float (*)[N / 8][4])s.o[0][i * (N / 8)], a[j],
				panels_across(tile + i * (N / 64) * (KEYS * 128) + j * (16 * 128), KEYS * 128), KVTYPE{});
	wgmma_commit();
}

__device__ inline void pack(unsigned (&a)[KEYS / 16][4], const float (&d)[KEYS / 8][4])
{
#pragma unroll
	for (int j = 0; j < KEYS / 16; j++)
		for (int i = 0; i < 4; i++)
			a[j][i] = pack2(d[2 * j + i / 2][i % 2 * 2], d[2 * j + i / 2][i % 2 * 2 + 1], KVTYPE{});
}

__device__ inline bool soften(state &s, float (&d)[KEYS / 8][4], int key0, int low, int high, float (&scale)[2])
{
	return key0 + KEYS - 1 > low || key0 < first_seen(high) ? soften<true>(s, 0, d, key0, scale) : soften<false>(s, 0, d, key0, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, SLOTS) attend_wgmma(const __grid_constant__ args p)
{
	unsigned base = shared_at(smem) + 1023 & ~1023u;
	byte *place = smem + (base - shared_at(smem));
	rows &r = *(rows *)(place + AT_ROWS);
	/* The last tiles of a sequence see the most keys: they go first. */
	if (threadIdx.x < 32) {
		rows found = find_rows(p, gridDim.x - 1 - blockIdx.x);
		if (threadIdx.x == 0)
			r = found;
	}
	grid_launch_next();
	__syncthreads();
	grid_wait();
	if (r.n == 0)
		return;
	int low = pos_of(r, 0), high = at_most(pos_of(r, QUERY_ROWS - 1), r.len - 1), end = high + 1;
	int key0 = first_seen(low) / KEYS * KEYS;
	source in = {r.base, values_of(r), r.page, r.bytes, r.from, r.len, (r.len - 1) / PAGE, base};
	numbers here = pages_of(in, key0), next = pages_of(in, key0 + KEYS);
	unsigned query = base + threadIdx.x / 128 * (64 * 128), a[KEYS / 16][4];
	float d[KEYS / 8][4], scale[2];
	state s;
	load_queries<(KDIM + 63) / 64 * 8>(p, r, [=](int row, int column) { return place + block_at(QUERY_ROWS, row, column); });
	request_tile<KDIM>(in, in.keys, here, key0, keys_at(base, key0));
	copy_commit();
	open(r, s);
	arrive_all();
	wgmma_fence();
	scores(d, query, keys_at(base, key0));
	request(in, here, next, key0, end);
	wgmma_wait<0>();
	wgmma_arrived(d);
	soften(s, d, key0, low, high, scale);
	pack(a, d);
	for (key0 += KEYS; key0 < end; key0 += KEYS) {
		arrive_all();
		wgmma_arrived(s.o[0]);
		wgmma_fence();
		scores(d, query, keys_at(base, key0));
		values(s, a, values_at(base, key0 - KEYS));
		request(in, here, next, key0, end);
		wgmma_wait<1>();
		wgmma_arrived(d);
		bool grows = soften(s, d, key0, low, high, scale);
		wgmma_wait<0>();
		wgmma_arrived(s.o[0]);
		if (grows)
			rescale(s, 0, scale);
		pack(a, d);
	}
	arrive_all();
	wgmma_arrived(s.o[0]);
	wgmma_fence();
	values(s, a, values_at(base, key0 - KEYS));
	wgmma_wait<0>();
	wgmma_arrived(s.o[0]);
	close(p, r, s);
}
