/* attend_wgmma.cuh - attention of many new tokens on Hopper: one block a multiprocessor, whose four last warps
 * bring what the others compute with.
 *
 * An item is a tile of query rows of one key head.  Blocks take the next one as they come free; the longest of
 * a sequence go first, so that all end together.  Four warps copy its queries and tiles of keys and values into
 * rings in shared memory and are ahead of the products, the next item's too.  The other warpgroups have 64 rows
 * each and wait for nobody but the rings and their turn: each asks the matrix units for the scores of a tile and
 * the result of the one before, and takes exponentials while the next one's products are under way (Shah and
 * others, FlashAttention-3, 2024).
 *
 * Parameters, beside attend.cuh's:  WARPS            that compute, 8 or 12
 *                                   KEYS             of a tile, 64 or 128
 *                                   STAGES QUERIES   tiles of keys and of values, of queries in shared memory
 *                                   TOGETHER         bytes of keys and values at work at a time, for the second level cache
 * Dims: KDIM a multiple of 16, VDIM of 64.
 * Launch: grid x: as many blocks as are to run; (WARPS + 4) * 32 threads; PREFILL_SMEM; counter[0] zero, and again afterwards. */
#include "attend.cuh"
#include "wgmma.cuh"

#ifndef WARPS
#define WARPS 8
#endif
#ifndef KEYS
#define KEYS (KDIM > 192 || VDIM > 128 ? 64 : 128)
#endif
#ifndef STAGES
#define STAGES 2
#endif
#ifndef QUERIES
#define QUERIES 1
#endif
#ifndef TOGETHER
#define TOGETHER (20 << 20)
#endif

enum {
	TILES = 1,
	GROUPS = WARPS / 4, PRODUCERS = 128,
	THREADS = WARPS * 32 + PRODUCERS,
	PRODUCER_REGISTERS = WARPS == 8 ? 56 : 32, CONSUMER_REGISTERS = WARPS == 8 ? 224 : 160,   /* of the 64 Ki there are */
	QUERY_ROWS = WARPS * 16,
	VSTEPS = VDIM / 16,
	ITEMS = QUERIES + 2,                               /* the oldest may still be written out */
	QTILE = QUERY_ROWS * ceil_div(KDIM, 64) * 128, KTILE = KEYS * ceil_div(KDIM, 64) * 128, VTILE = KEYS * VDIM * 2,
	AT_KEYS = QUERIES * QTILE,
	AT_VALUES = AT_KEYS + STAGES * KTILE,
	AT_RINGS = AT_VALUES + STAGES * VTILE,
	PREFILL_SMEM = AT_RINGS + 512 + 1024               /* blocks begin at multiples of 1024 */
};
static_assert(KDIM % 16 == 0 && VDIM % 64 == 0 && (WARPS == 8 || WARPS == 12) && KVBYTES == 2 && MMA && (KEYS == 64 || KEYS == 128), "what the products take");
#include "attend_rows.cuh"

/* Each place is full when the producers' copies are there, empty when all warps have read it.  An item's place is
 * taken again when its successors' queries are: by then nobody writes out what it says. */
struct rings {
	wide query_full[QUERIES], query_empty[QUERIES];
	wide keys_full[STAGES], keys_empty[STAGES], values_full[STAGES], values_empty[STAGES];
	rows item[ITEMS];                                  /* .n 0: there are no more */
	cursor found;                                      /* where the search for the next goes on */
};
static_assert(sizeof(rings) <= 512, "its place");

/* Of a ring's use number n: whether an even or an odd number of rounds came before. */
template <int N> __device__ inline int round_of(unsigned n) { return n / N & 1; }

__device__ inline unsigned keys_at(unsigned base, unsigned tile) { return base + AT_KEYS + tile % STAGES * KTILE; }
__device__ inline unsigned values_at(unsigned base, unsigned tile) { return base + AT_VALUES + tile % STAGES * VTILE; }

__device__ inline int end_of(const rows &r) { return at_most(pos_of(r, QUERY_ROWS - 1), r.len - 1) + 1; }

/* Where row r's column of 16 bytes lies in blocks of n rows. */
__device__ inline unsigned block_at(int n, int r, int column) { return column / 8 * (n * 128) + panel_place(r, column % 8); }

/* ---- producers: which items ---------------------------------------------------------------------------------- */

/* Heads whose keys and values fit the cache go together, of those the last tiles first: they see the most keys. */
__device__ inline rows item_at(const args &p, int seq, int i)
{
	int tiles = ceil_div(rows_of(p, seq), QUERY_ROWS), len = p.table->seq_len[seq];
	int together = at_least(1, at_most(KVHEADS, TOGETHER / ((KDIM + VDIM) * KVBYTES) / len));
	int first = i / (tiles * together) * together, n = at_most(together, KVHEADS - first);
	i -= first * tiles;
	return rows_at(p, seq, tiles - 1 - i / n, first + i % n);
}

/* A warp: item number i of all, into its place.  True when nobody asks for a greater number: each item brings its
 * block another, from gridDim.x on. */
__device__ inline bool find_item(const args &p, rings &s, rows &place, int i)
{
	cursor c = s.found;
	int number = i, seq = find_sequence(p, c, KVHEADS, i);
	__syncwarp();
	if (threadIdx.x % 32 == 0) {
		s.found = c;
		place = seq < 0 ? rows{} : item_at(p, seq, i);
	}
	__syncwarp();
	return seq < 0 && number - (int)gridDim.x == c.items - 1;
}

/* ---- producers: copies ------------------------------------------------------------------------------------------ */

/* A producer has one column of a panel, and every STEP-th row from its own. */
enum { STEP = PRODUCERS / 8, PART = KEYS % PAGE == 0 ? PAGE : PAGE % KEYS == 0 ? KEYS : 16, PARTS = KEYS / PART };

__device__ inline int own_row() { return (threadIdx.x - WARPS * 32) / 8; }
__device__ inline int own_column() { return threadIdx.x % 8; }

/* A lane knows the page of one part of a tile: asked for a tile ahead, so that nobody waits for the numbers. */
__device__ inline int pages_of(const rows &r, int key0)
{
	return r.page[at_most(key0 + (int)threadIdx.x % 32 * PART, r.len - 1) / PAGE];
}

/* KEYS rows of DIM values, zeros for what no row sees: its page may have been given back. */
template <int DIM, bool WHOLE> __device__ inline void copy_rows(const rows &r, const byte *base, int pages, int key0, unsigned to)
{
	enum { PANELS = ceil_div(DIM, 64), LAST = (DIM - 1) / 8 % 8 };
	int key = key0 + own_row(), from = r.from, len = r.len;
	to += panel_place(own_row(), own_column());
	base += own_row() * (DIM * 2) + own_column() * 16;
#pragma unroll
	for (int part = 0; part < PARTS; part++) {
		const byte *page = base + __shfl_sync(~0u, pages, part) * r.bytes + (key0 + part * PART) % PAGE * (DIM * 2);
#pragma unroll
		for (int j = 0; j < PART; j += STEP) {
			bool seen = WHOLE || (key + part * PART + j >= from && key + part * PART + j < len);
#pragma unroll
			for (int panel = 0; panel < PANELS; panel++) {
				if (panel == PANELS - 1 && own_column() > LAST)
					break;
				unsigned at = to + panel * (KEYS * 128) + (part * PART + j) * 128;
				if (WHOLE)
					copy16(at, page + j * (DIM * 2) + panel * 128);
				else
					copy16(at, page + j * (DIM * 2) + panel * 128, seen ? 16 : 0);
			}
		}
	}
}

template <int DIM> __device__ inline void copy_tile(const rows &r, const byte *base, int pages, int key0, unsigned to)
{
	if (key0 >= r.from && key0 + KEYS <= r.len)
		copy_rows<DIM, true>(r, base, pages, key0, to);
	else
		copy_rows<DIM, false>(r, base, pages, key0, to);
}

__device__ inline void copy_queries(const args &p, const rows &r, byte *place)
{
#pragma unroll 1
	for (int i = own_row(); i < QUERY_ROWS; i += STEP) {
		bool has = r.first + i < r.n;
		const XTYPE *q = p.q + (has ? (size_t)(r.token0 + (r.first + i) / GROUP) * QSTRIDE + head_of(r, i) * KDIM : 0);
#pragma unroll
		for (int column = own_column(); column < KDIM / 8; column += 8) {
			byte *at = place + block_at(QUERY_ROWS, i, column);
			if constexpr (same<XTYPE, KVTYPE>::value) {
				copy16(shared_at(at), q + column * 8, has ? 16 : 0);
				continue;
			}
			float v[8] = {};
			if (has)
				load8(q + column * 8, v);
			store8((KVTYPE *)at, v);
		}
	}
}

/* Copies, and the item, which one of the producers wrote. */
__device__ inline void arrive_queries(wide *full)
{
	if (same<XTYPE, KVTYPE>::value) {
		copy_arrive(full);
	} else {
		panel_fence();
		barrier_arrive(full);
	}
	if (threadIdx.x == WARPS * 32)
		barrier_arrive(full);
}

/* Until all warps have read what lay there before use number n. */
template <int N> __device__ inline void claim(wide *empty, unsigned n) { barrier_wait(&empty[n % N], !round_of<N>(n)); }

__device__ inline void produce(const args &p, byte *place, rings &s)
{
	unsigned base = shared_at(place), ticket = 0, tile = 0;
	bool finds = threadIdx.x < WARPS * 32 + 32, first = threadIdx.x == WARPS * 32;
	if (finds)
		find_item(p, s, s.item[0], blockIdx.x);
	grid_wait();
	for (unsigned item = 0;; item++) {
		named_sync(GROUPS + 1, PRODUCERS);
		const rows &r = s.item[item % ITEMS];
		wide *full = &s.query_full[item % QUERIES];
		claim<QUERIES>(s.query_empty, item);
		if (r.n == 0) {
			arrive_queries(full);
			break;
		}
		int key0 = r.from / KEYS * KEYS, before = 0, here = pages_of(r, key0);
		copy_queries(p, r, place + item % QUERIES * QTILE);
		arrive_queries(full);
		if (first)
			ticket = atomicAdd(p.counter, 1u);
		/* Each time keys, and the values of the tile before. */
		for (int key = key0; key < end_of(r) + KEYS; key += KEYS) {
			int next = pages_of(r, key + KEYS);
			if (key < end_of(r)) {
				claim<STAGES>(s.keys_empty, tile);
				copy_tile<KDIM>(r, r.base, here, key, keys_at(base, tile));
				copy_arrive(&s.keys_full[tile % STAGES]);
				tile++;
			}
			if (key > key0) {
				unsigned last = key < end_of(r) ? tile - 2 : tile - 1;
				claim<STAGES>(s.values_empty, last);
				copy_tile<VDIM>(r, values_of(r), before, key - KEYS, values_at(base, last));
				copy_arrive(&s.values_full[last % STAGES]);
			}
			before = here;
			here = next;
		}
		if (finds) {
			ticket = gridDim.x + __shfl_sync(~0u, ticket, 0);
			if (find_item(p, s, s.item[(item + 1) % ITEMS], ticket) && first)
				*p.counter = 0;
		}
	}
	copy_wait<0>();
}

/* ---- consumers ------------------------------------------------------------------------------------------------------ */

/* The warp has read what lies there. */
__device__ inline void release(wide *empty)
{
	if (threadIdx.x % 32 == 0)
		barrier_arrive(empty);
}

/* Warpgroups take turns: barrier 1 + g lets g go on, and the one before it says when. */
__device__ inline void await_turn(int group)
{
	named_sync(1 + group, 256);
}

__device__ inline void pass_turn(int group)
{
	named_arrive(group + 1 == GROUPS ? 1 : 2 + group, 256);
}

/* Of N eights of keys. */
template <int N> __device__ inline void ask_scores(float (&d)[N][4], unsigned query, unsigned keys)
{
	wide a = panel_at(query, 0), b = panel_at(keys, 0);
#pragma unroll
	for (int k = 0; k < KDIM / 16; k++)
		wgmma(d, panel_after(a, k / 4 * (QUERY_ROWS * 128) + k % 4 * 32),
			panel_after(b, k / 4 * (KEYS * 128) + k % 4 * 32), k > 0, KVTYPE{});
	wgmma_commit();
}

/* Of the first N sixteens of keys. */
template <int N> __device__ inline void ask_values(state &s, const unsigned (&a)[KEYS / 16][4], unsigned tile)
{
	enum { COLUMNS = VDIM % 128 ? 64 : 128 };
	wide b = panels_across(tile, KEYS * 128);
#pragma unroll
	for (int j = 0; j < N; j++)
#pragma unroll
		for (int i = 0; i < VDIM / COLUMNS; i++)
			wgmma(*(float (*)[COLUMNS / 8][4])s.o[0][i * (COLUMNS / 8)], a[j],
				panel_after(b, i * (COLUMNS / 64) * (KEYS * 128) + j * (16 * 128)), KVTYPE{});
	wgmma_commit();
}

template <int N> __device__ inline void pack(unsigned (&a)[KEYS / 16][4], const float (&d)[N][4])
{
#pragma unroll
	for (int j = 0; j < N / 2; j++)
		for (int i = 0; i < 4; i++)
			a[j][i] = pack2(d[2 * j + i / 2][i % 2 * 2], d[2 * j + i / 2][i % 2 * 2 + 1], KVTYPE{});
}

/* What a warpgroup goes by: its rows of the item, and tiles counted through all items. */
struct work {
	int group;
	unsigned base, query, tile;
	int key0, low, high;                               /* of the tile; least and greatest position of its rows */
};

template <int N> __device__ inline bool soften(const work &w, state &s, float (&d)[N][4], float (&scale)[2])
{
	return N * 8 < KEYS || w.key0 + KEYS - 1 > w.low || w.key0 < first_seen(w.high) ?
		soften<true>(s, 0, d, w.key0, scale) : soften<false>(s, 0, d, w.key0, scale);
}

/* Weights of the item's first tile: of N eights of its keys, the others being in no row's sight. */
template <int N> __device__ inline void start(const work &w, rings &sh, state &s, unsigned (&a)[KEYS / 16][4])
{
	float d[N][4], scale[2];
	barrier_wait(&sh.keys_full[w.tile % STAGES], round_of<STAGES>(w.tile));
	panel_fence();
	wgmma_fence();
	ask_scores(d, w.query, keys_at(w.base, w.tile));
	wgmma_wait<0>();
	wgmma_arrived(d);
	release(&sh.keys_empty[w.tile % STAGES]);
	soften(w, s, d, scale);
	pack(a, d);
}

/* Weights of another tile, while the one before it goes into the result. */
template <int N> __device__ inline void proceed(const work &w, rings &sh, state &s, unsigned (&a)[KEYS / 16][4])
{
	float d[N][4], scale[2];
	unsigned before = w.tile - 1;
	barrier_wait(&sh.keys_full[w.tile % STAGES], round_of<STAGES>(w.tile));
	barrier_wait(&sh.values_full[before % STAGES], round_of<STAGES>(before));
	panel_fence();
	await_turn(w.group);
	wgmma_arrived(s.o[0]);
	wgmma_fence();
	ask_scores(d, w.query, keys_at(w.base, w.tile));
	ask_values<KEYS / 16>(s, a, values_at(w.base, before));
	pass_turn(w.group);
	wgmma_wait<1>();
	wgmma_arrived(d);
	release(&sh.keys_empty[w.tile % STAGES]);
	bool grows = soften(w, s, d, scale);
	wgmma_wait<0>();
	wgmma_arrived(s.o[0]);
	release(&sh.values_empty[before % STAGES]);
	if (grows)
		rescale(s, 0, scale);
	pack(a, d);
}

/* The last weights go into the result. */
template <int N> __device__ inline void finish(const work &w, rings &sh, state &s, const unsigned (&a)[KEYS / 16][4])
{
	barrier_wait(&sh.values_full[w.tile % STAGES], round_of<STAGES>(w.tile));
	panel_fence();
	wgmma_arrived(s.o[0]);
	wgmma_fence();
	ask_values<N>(s, a, values_at(w.base, w.tile));
	wgmma_wait<0>();
	wgmma_arrived(s.o[0]);
	release(&sh.values_empty[w.tile % STAGES]);
}

/* A tile of which only the other warpgroups' rows see anything. */
__device__ inline void pass_over(const work &w, rings &sh)
{
	barrier_wait(&sh.keys_full[w.tile % STAGES], round_of<STAGES>(w.tile));
	release(&sh.keys_empty[w.tile % STAGES]);
	await_turn(w.group);
	pass_turn(w.group);
	barrier_wait(&sh.values_full[w.tile % STAGES], round_of<STAGES>(w.tile));
	release(&sh.values_empty[w.tile % STAGES]);
}

__device__ inline void consume(const args &p, byte *place, rings &sh)
{
	enum { ALL = KEYS / 8, SOME = 8 };                 /* eights of keys; some will do at the end of what a warpgroup sees */
	unsigned a[KEYS / 16][4];
	work w = {__shfl_sync(~0u, (int)threadIdx.x / 128, 0), shared_at(place)};
	if (w.group == GROUPS - 1)
		pass_turn(w.group);
	for (unsigned item = 0;; item++) {
		barrier_wait(&sh.query_full[item % QUERIES], round_of<QUERIES>(item));
		const rows &r = sh.item[item % ITEMS];
		if (r.n == 0)
			return;
		w.query = w.base + item % QUERIES * QTILE + w.group * (64 * 128);
		w.key0 = r.from / KEYS * KEYS;
		w.low = pos_of(r, w.group * 64);
		/* Where there are no such rows, one tile for nothing. */
		w.high = r.first + w.group * 64 < r.n ? at_most(pos_of(r, w.group * 64 + 63), r.len - 1) : w.key0;
		int last = (w.high - w.key0) / KEYS, rest = (end_of(r) - 1 - w.key0) / KEYS - last;
		bool some = SOME < ALL && (w.high - w.key0) % KEYS < SOME * 8;
		state s;
		open(r, s);
		if (some && last == 0)
			start<SOME>(w, sh, s, a);
		else
			start<ALL>(w, sh, s, a);
		for (int left = last; left > 0; left--) {
			w.tile++;
			w.key0 += KEYS;
			if (some && left == 1)
				proceed<SOME>(w, sh, s, a);
			else
				proceed<ALL>(w, sh, s, a);
		}
		barrier_arrive(&sh.query_empty[item % QUERIES]);   /* each lane for itself: it has read the item */
		if (some)
			finish<SOME / 2>(w, sh, s, a);
		else
			finish<ALL / 2>(w, sh, s, a);
		for (w.tile++; rest > 0; rest--, w.tile++)
			pass_over(w, sh);
		close(p, r, s);
	}
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) attend_wgmma(const __grid_constant__ args p)
{
	unsigned begin = shared_at(smem) + 1023 & ~1023u;
	byte *place = smem + (begin - shared_at(smem));
	rings &s = *(rings *)(place + AT_RINGS);
	if (threadIdx.x == 0) {
		s.found = {};
		for (int i = 0; i < QUERIES; i++) {
			barrier_init(&s.query_full[i], PRODUCERS + 1);
			barrier_init(&s.query_empty[i], WARPS * 32);
		}
		for (int i = 0; i < STAGES; i++) {
			barrier_init(&s.keys_full[i], PRODUCERS);
			barrier_init(&s.keys_empty[i], WARPS);
			barrier_init(&s.values_full[i], PRODUCERS);
			barrier_init(&s.values_empty[i], WARPS);
		}
	}
	grid_launch_next();
	__syncthreads();
	if (threadIdx.x >= WARPS * 32) {
		registers_give<PRODUCER_REGISTERS>();
		produce(p, place, s);
	} else {
		registers_take<CONSUMER_REGISTERS>();
		consume(p, place, s);
	}
}
