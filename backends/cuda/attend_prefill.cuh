/* attend_prefill.cuh - attention of many new tokens over their sequences' pages (flash attention).
 *
 * The keys are walked 64 at a time, K and V of a few such tiles under way in a ring in shared memory.
 *
 * Matrix units (MMA 1): a warp has TILES * 16 rows; S = Q K^T and O += P V by m16n8k16, P straight from
 * S's registers.  With two tiles what is read of K and V serves twice as many products: shared memory
 * is then no longer what holds them up.
 * Float arithmetic (MMA 0): a warp has 4 rows; a lane has a key for S, and its dims for O.
 *
 * Parameters, beside attend.cuh's:  WARPS SLOTS   warps of a block, blocks of a multiprocessor
 *                                   TILES STAGES  1 or 2; tiles of keys in the ring, 1 or 2
 * Launch: grid x: at least the sum over sequences of ceil(new tokens * GROUP / QUERY_ROWS), so
 * ceil(tokens * GROUP / QUERY_ROWS) + sequences will do; y: KVHEADS; WARPS * 32 threads; PREFILL_SMEM. */
#include "attend.cuh"

#ifndef WARPS
#define WARPS 4
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef TILES
#define TILES 2
#endif
#ifndef STAGES
#define STAGES 2
#endif

enum {
	THREADS = WARPS * 32,
	WARP_ROWS = MMA ? TILES * 16 : 4,
	QUERY_ROWS = WARPS * WARP_ROWS,
	KEYS = MMA ? 64 : 32,                              /* of a tile */
	QBYTES = MMA ? 2 : 4,
	KSTEPS = ceil_div(KDIM, 16), VSTEPS = ceil_div(VDIM, 16),
	/* Rows of an odd number of 16-byte columns meet different banks. */
	QROW = (KSTEPS * 16 * QBYTES / 16 | 1) * 16,
	KROW = (KSTEPS * 16 * KVBYTES / 16 | 1) * 16, VROW = (VSTEPS * 16 * KVBYTES / 16 | 1) * 16,
	AT_KEYS = QUERY_ROWS * QROW,
	TILE = KEYS * (KROW + VROW),
	AT_ROWS = AT_KEYS + STAGES * TILE,
	PREFILL_SMEM = AT_ROWS + 64
};
#include "attend_rows.cuh"

/* ---- which rows ------------------------------------------------------------------------------------------- */

/* Tile number i over all sequences; .n is 0 when there is none. */
__device__ inline rows find_rows(const args &p, int i)
{
	cursor c = {};
	int seq = find_sequence(p, c, 1, i);
	return seq < 0 ? rows{} : rows_at(p, seq, i, blockIdx.y);
}

/* ---- into shared memory -------------------------------------------------------------------------------------- */

/* Every row's KDIM values, zeros past them and for rows that are not; at(row, column of eight) is their place.  As
 * KVTYPE, or floats where there are no matrix units. */
template <int COLUMNS, typename F> __device__ inline void load_queries(const args &p, const rows &r, F at)
{
#pragma unroll 2
	for (int k = threadIdx.x; k < QUERY_ROWS * COLUMNS; k += THREADS) {
		int i = k / COLUMNS, column = k % COLUMNS;
		bool has = r.first + i < r.n && column * 8 < KDIM;
		const XTYPE *q = p.q + (has ? (size_t)(r.token0 + (r.first + i) / GROUP) * QSTRIDE + head_of(r, i) * KDIM + column * 8 : 0);
		if constexpr (MMA && same<XTYPE, KVTYPE>::value) {
			copy16(shared_at(at(i, column)), q, has ? 16 : 0);
			continue;
		}
		float v[8] = {};
		if (has)
			load8(q, v);
		if constexpr (MMA)
			store8((KVTYPE *)at(i, column), v);
		else
			store8((float *)at(i, column), v);
	}
}

/* KEYS rows of DIM values from position key0 on, zeros for what no row sees: its page may have been given back.
 * at(row, column of 16 bytes) is its place. */
template <int DIM, typename F> __device__ inline void request_rows(const rows &r, const byte *base, int key0, F at)
{
	enum { COLUMNS = DIM * KVBYTES / 16, PART = KEYS % PAGE == 0 ? PAGE : PAGE % KEYS == 0 ? KEYS : 16,
		AT_ONCE = TILES > 1 ? 1 : 4 };                 /* more would spill at heads of 128 */
	for (int part = 0; part < KEYS; part += PART) {
		int first = at_most(key0 + part, r.len - 1);
		const byte *from = base + r.page[first / PAGE] * r.bytes + first % PAGE / PART * PART * (DIM * KVBYTES);
#pragma unroll AT_ONCE
		for (int i = threadIdx.x; i < PART * COLUMNS; i += THREADS) {
			int key = part + i / COLUMNS;
			copy16(at(key, i % COLUMNS), from + i * 16, key0 + key >= r.from && key0 + key < r.len ? 16 : 0);
		}
	}
}

/* ---- the ring -------------------------------------------------------------------------------------------------- */

/* Keys and values take turns in the ring. */
struct ring { int key0, end, at; };                        /* of the next request; where they end; its place */

__device__ inline byte *place(int at) { return smem + AT_KEYS + at / 2 * TILE + at % 2 * (KEYS * KROW); }

__device__ inline void request(const rows &r, ring &g)
{
	unsigned to = shared_at(place(g.at));
	if (g.key0 < g.end) {
		if (g.at % 2 == 0)
			request_rows<KDIM>(r, r.base, g.key0, [=](int key, int column) { return to + key * KROW + column * 16; });
		else
			request_rows<VDIM>(r, values_of(r), g.key0, [=](int key, int column) { return to + key * VROW + column * 16; });
	}
	copy_commit();
	g.key0 += g.at % 2 * KEYS;
	g.at = g.at + 1 == 2 * STAGES ? 0 : g.at + 1;
}

/* The oldest request is there for all, and what was read last is everyone's past: its place is asked for again. */
__device__ inline void advance(const rows &r, ring &g)
{
	copy_wait<2 * STAGES - 2>();
	__syncthreads();
	request(r, g);
}

/* ---- a tile of keys ---------------------------------------------------------------------------------------------- */

#if MMA
__device__ inline void scores(float (&d)[TILES][KEYS / 8][4], const byte *keys)
{
	int lane = threadIdx.x % 32;
	unsigned query = shared_at(smem) + (threadIdx.x / 32 * TILES * 16 + lane % 16) * QROW + lane / 16 * 16;
	unsigned key = shared_at(keys) + (lane % 8 + lane / 16 * 8) * KROW + lane / 8 % 2 * 16, a[TILES][4], b[4];
	for (int k = 0; k < KSTEPS; k++) {
#pragma unroll
		for (int t = 0; t < TILES; t++)
			ldmatrix4(a[t], query + t * 16 * QROW + k * 32);
#pragma unroll
		for (int j = 0; j < KEYS / 16; j++) {
			ldmatrix4(b, key + j * 16 * KROW + k * 32);
#pragma unroll
			for (int t = 0; t < TILES; t++) {
				mma(d[t][2 * j], a[t], b[0], b[1], KVTYPE{});
				mma(d[t][2 * j + 1], a[t], b[2], b[3], KVTYPE{});
			}
		}
	}
}

__device__ inline void values(state &s, const float (&d)[TILES][KEYS / 8][4], const byte *tile)
{
	int lane = threadIdx.x % 32;
	unsigned value = shared_at(tile) + lane % 16 * VROW + lane / 16 * 16, b[4];
#pragma unroll
	for (int j = 0; j < KEYS / 16; j++) {
		unsigned a[TILES][4];
#pragma unroll
		for (int t = 0; t < TILES; t++)
			for (int i = 0; i < 4; i++)
				a[t][i] = pack2(d[t][2 * j + i / 2][i % 2 * 2], d[t][2 * j + i / 2][i % 2 * 2 + 1], KVTYPE{});
		for (int k = 0; k < VSTEPS; k++) {
			ldmatrix4_transposed(b, value + j * 16 * VROW + k * 32);
#pragma unroll
			for (int t = 0; t < TILES; t++) {
				mma(s.o[t][2 * k], a[t], b[0], b[1], KVTYPE{});
				mma(s.o[t][2 * k + 1], a[t], b[2], b[3], KVTYPE{});
			}
		}
	}
}

/* mask: some key may be out of some row's sight. */
__device__ inline void take(const rows &r, state &s, ring &g, const byte *tile, int key0, bool mask)
{
	float d[TILES][KEYS / 8][4] = {};
	scores(d, tile);
#pragma unroll
	for (int t = 0; t < TILES; t++) {
		float scale[2];
		if (mask ? soften<true>(s, t, d[t], key0, scale) : soften<false>(s, t, d[t], key0, scale))
			rescale(s, t, scale);
	}
	advance(r, g);
	values(s, d, tile + KEYS * KROW);
}

#else
enum { LANE_DIMS = ceil_div(VDIM, 32) };

struct state { float o[WARP_ROWS][LANE_DIMS], most[WARP_ROWS], sum[WARP_ROWS], slope[WARP_ROWS]; int pos[WARP_ROWS]; };

__device__ inline void open(const rows &r, state &s)
{
	for (int i = 0; i < WARP_ROWS; i++) {
		int row = threadIdx.x / 32 * WARP_ROWS + i;
		s.most[i] = -1e30f;
		s.sum[i] = 0;
		s.pos[i] = pos_of(r, row);
		s.slope[i] = ALIBI > 0 ? slope_of(head_of(r, row)) : 0;
		for (int k = 0; k < LANE_DIMS; k++)
			s.o[i][k] = 0;
	}
}

__device__ inline void take(const rows &r, state &s, ring &g, const byte *tile, int key0, bool)
{
	int lane = threadIdx.x % 32, key = key0 + lane;
	const float *query = (const float *)(smem + threadIdx.x / 32 * WARP_ROWS * QROW);
	float d[WARP_ROWS] = {}, q[8], k8[8];
	for (int k = 0; k < KDIM; k += 8) {
		load8((const KVTYPE *)(tile + lane * KROW) + k, k8);
		for (int i = 0; i < WARP_ROWS; i++) {
			load8(query + i * (QROW / 4) + k, q);
			for (int j = 0; j < 8; j++)
				d[i] = fmaf(q[j], k8[j], d[i]);
		}
	}
	for (int i = 0; i < WARP_ROWS; i++) {
		bool seen = key <= s.pos[i] && key >= first_seen(s.pos[i]);
		d[i] = seen ? exponent(d[i], s.slope[i], key - s.pos[i]) : -INFINITY;
		float most = fmaxf(s.most[i], warp_max(d[i])), scale = exp2_fast(s.most[i] - most);
		s.most[i] = most;
		d[i] = exp2_fast(d[i] - most);
		s.sum[i] = s.sum[i] * scale + warp_sum(d[i]);
		for (int k = 0; k < LANE_DIMS; k++)
			s.o[i][k] *= scale;
	}
	advance(r, g);
	for (int j = 0; j < KEYS; j++) {
		const KVTYPE *value = (const KVTYPE *)(tile + KEYS * KROW + j * VROW);
		float v[LANE_DIMS];
		for (int k = 0; k < LANE_DIMS; k++)
			v[k] = k * 32 + lane < VDIM ? to_float(value[k * 32 + lane]) : 0;
		for (int i = 0; i < WARP_ROWS; i++) {
			float w = __shfl_sync(~0u, d[i], j);
			for (int k = 0; k < LANE_DIMS; k++)
				s.o[i][k] = fmaf(w, v[k], s.o[i][k]);
		}
	}
}

__device__ inline void close(const args &p, const rows &r, state &s)
{
	for (int i = 0; i < WARP_ROWS; i++) {
		int row = threadIdx.x / 32 * WARP_ROWS + i, head = head_of(r, row);
		if (r.first + row >= r.n)
			continue;
		float sum = s.sum[i];
#if SINKS
		sum += exp2f(to_float(p.sinks[head]) * LOG2E - s.most[i]);
#endif
		XTYPE *y = p.y + ((size_t)(r.token0 + (r.first + row) / GROUP) * HEADS + head) * VDIM;
		for (int k = threadIdx.x % 32; k < VDIM; k += 32)
			y[k] = from_float<XTYPE>(s.o[i][k / 32] / sum);
	}
}
#endif

/* ---- the kernel --------------------------------------------------------------------------------------------------- */

extern "C" __global__ void __launch_bounds__(THREADS, SLOTS) attend_prefill(const __grid_constant__ args p)
{
	/* The last tiles of a sequence see the most keys: they go first. */
	rows &r = *(rows *)(smem + AT_ROWS);               /* in registers it would cost too many */
	if (threadIdx.x < 32) {
		rows found = find_rows(p, gridDim.x - 1 - blockIdx.x);
		if (threadIdx.x == 0)
			r = found;
	}
	grid_launch_next();
	if (KDIM % 16)
		for (int i = threadIdx.x; i < AT_ROWS / 16; i += THREADS)
			((uint4 *)smem)[i] = make_uint4(0, 0, 0, 0);
	__syncthreads();
	grid_wait();
	if (r.n == 0)
		return;
	int low = pos_of(r, 0), high = at_most(pos_of(r, QUERY_ROWS - 1), r.len - 1), end = high + 1, at = 0;
	int key0 = first_seen(low) / KEYS * KEYS;
	ring g = {key0, end, 0};
	state s;
	load_queries<KSTEPS * 2>(p, r, [](int row, int column) { return smem + row * QROW + column * 8 * QBYTES; });
	for (int i = 0; i < 2 * STAGES - 1; i++)
		request(r, g);
	open(r, s);
	for (; key0 < end; key0 += KEYS) {
		const byte *tile = place(at);
		advance(r, g);
		take(r, s, g, tile, key0, key0 + KEYS - 1 > low || key0 < first_seen(high));
		at = at + 2 == 2 * STAGES ? 0 : at + 2;
	}
	close(p, r, s);
}
