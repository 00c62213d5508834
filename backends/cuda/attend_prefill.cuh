/* attend_prefill.cuh - attention of many new tokens over their sequences' pages (flash attention).
 *
 * A block takes a tile of query rows of one key head: the tokens of a sequence times the heads that share
 * the key head, so that grouped heads read keys once.  It walks the keys 64 at a time, K and V of a few
 * such tiles under way in a ring in shared memory, and keeps a running maximum, sum and result for each
 * row; no score leaves the registers.  Sequences of one new token are left to attend_decode.
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
static_assert(PAGE % 16 == 0 && KDIM % 8 == 0 && VDIM % 8 == 0, "whole runs of 16 bytes");

/* ---- which rows ------------------------------------------------------------------------------------------- */

struct rows {
	int seq, head;                                     /* of keys */
	int first, n;                                      /* rows of the sequence: this tile's first, all */
	int token0, pos0, len;                             /* of the sequence's first new token; tokens cached */
	const int *page;                                   /* of each block of PAGE positions */
	const byte *base;                                  /* where the head's keys lie in page 0 */
	wide bytes;                                        /* of a page */
};
static_assert(sizeof(rows) <= 64, "its place");

__device__ inline int rows_of(const args &p, int seq)
{
	int n = seq < p.table->nseq ? new_tokens(p, seq) : 0;
	return n > 1 ? n * GROUP : 0;
}

/* Tile number i over all sequences; .n is 0 when there is none.  A warp passes over 32 sequences at a time. */
__device__ inline rows find_rows(const args &p, int i)
{
	int lane = threadIdx.x % 32;
	for (int seq = 0; seq < p.table->nseq; seq += 32) {
		int upto = ceil_div(rows_of(p, seq + lane), QUERY_ROWS);
		for (int k = 1; k < 32; k *= 2) {
			int before = __shfl_up_sync(~0u, upto, k);
			upto += lane >= k ? before : 0;
		}
		int passed = __popc(__ballot_sync(~0u, upto <= i));
		int before = __shfl_sync(~0u, upto, passed ? passed - 1 : 0);
		if (passed == 32) {
			i -= before;
			continue;
		}
		rows r = {seq + passed, (int)blockIdx.y, (i - (passed ? before : 0)) * QUERY_ROWS};
		r.n = rows_of(p, r.seq);
		r.token0 = p.table->seq_start[r.seq];
		r.len = p.table->seq_len[r.seq];
		r.pos0 = r.len - r.n / GROUP;
		const auto &kv = p.table->kv[KV_CLASS];
		r.page = kv.page + (size_t)r.seq * kv.stride;
		r.base = kv.base + p.layer + (size_t)r.head * (PAGE * KDIM * KVBYTES);
		r.bytes = kv.bytes;
		return r;
	}
	return {};
}

__device__ inline int pos_of(const rows &r, int i) { return r.pos0 + (r.first + i) / GROUP; }
__device__ inline int head_of(const rows &r, int i) { return r.head * GROUP + (r.first + i) % GROUP; }

/* ---- into shared memory -------------------------------------------------------------------------------------- */

__device__ inline void load_queries(const args &p, const rows &r)
{
	for (int k = threadIdx.x; k < QUERY_ROWS * KSTEPS * 2; k += THREADS) {
		int i = k / (KSTEPS * 2), column = k % (KSTEPS * 2) * 8;
		float v[8] = {};
		if (r.first + i < r.n && column < KDIM)
			load8(p.q + (size_t)(r.token0 + (r.first + i) / GROUP) * QSTRIDE + head_of(r, i) * KDIM + column, v);
		if constexpr (MMA)
			store8((KVTYPE *)(smem + i * QROW + column * 2), v);
		else
			store8((float *)(smem + i * QROW + column * 4), v);
	}
}

/* KEYS rows of DIM values from position key0 on, zeros past position len. */
template <int DIM, int ROW> __device__ inline void request_rows(const rows &r, const byte *base, byte *to, int key0)
{
	enum { COLUMNS = DIM * KVBYTES / 16, WHOLE = PAGE % KEYS == 0 };
	if (WHOLE)
		base += r.page[key0 / PAGE] * r.bytes + key0 % PAGE * (DIM * KVBYTES);
#pragma unroll 2                                       /* more would spill at heads of 128 */
	for (int i = threadIdx.x; i < KEYS * COLUMNS; i += THREADS) {
		int key = i / COLUMNS, j = at_most(key0 + key, r.len - 1);
		const byte *from = base + i * 16;
		if (!WHOLE)
			from = base + r.page[j / PAGE] * r.bytes + j % PAGE * (DIM * KVBYTES) + i % COLUMNS * 16;
		copy16(shared_at(to + key * ROW + i % COLUMNS * 16), from, key0 + key < r.len ? 16 : 0);
	}
}

/* Keys and values take turns in the ring. */
struct ring { int key0, end, at; };                        /* of the next request; where they end; its place */

__device__ inline byte *place(int at) { return smem + AT_KEYS + at / 2 * TILE + at % 2 * (KEYS * KROW); }

__device__ inline void request(const rows &r, ring &g)
{
	if (g.key0 < g.end) {
		if (g.at % 2 == 0)
			request_rows<KDIM, KROW>(r, r.base, place(g.at), g.key0);
		else
			request_rows<VDIM, VROW>(r, r.base + (size_t)(KVHEADS - r.head) * (PAGE * KDIM * KVBYTES) +
				(size_t)r.head * (PAGE * VDIM * KVBYTES), place(g.at), g.key0);
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

/* ---- rows of a warp -------------------------------------------------------------------------------------------- */

#if MMA
/* Lane 4g+c: rows g and g+8 of each tile; keys and dims 2c, 2c+1 of each eight. */
struct state { float o[TILES][VSTEPS * 2][4], most[TILES][2], sum[TILES][2], slope[TILES][2]; int pos[TILES][2]; };

/* Scores are kept as they come where a factor is all they need; the exponential then takes it in. */
#define PLAIN  (!((float)SOFTCAP > 0) && !((float)ALIBI > 0))
#define FACTOR (PLAIN ? (float)(SCALE * LOG2E) : 1.0f)

__device__ inline int row_of(int t, int i) { return (threadIdx.x / 32 * TILES + t) * 16 + threadIdx.x % 32 / 4 + 8 * i; }

__device__ inline void open(const rows &r, state &s)
{
#pragma unroll
	for (int t = 0; t < TILES; t++) {
		for (int i = 0; i < 2; i++) {
			s.most[t][i] = -1e30f;
			s.sum[t][i] = 0;
			s.pos[t][i] = pos_of(r, row_of(t, i));
			s.slope[t][i] = ALIBI > 0 ? slope_of(head_of(r, row_of(t, i))) : 0;
		}
		for (int k = 0; k < VSTEPS * 2; k++)
			for (int i = 0; i < 4; i++)
				s.o[t][k][i] = 0;
	}
}

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

/* A maximum that grows by little stays as it is: weights may exceed 1, and the result need not be rescaled. */
__device__ inline void raise(state &s, int t, float (&most)[2])
{
	enum { LITTLE = 8 };                               /* powers of two: far from f16's largest number */
	bool grows = false;
	for (int i = 0; i < 2; i++) {
		most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], 1));
		most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], 2));
		grows |= (most[i] - s.most[t][i]) * FACTOR > LITTLE;
	}
	if (!__any_sync(~0u, grows))
		return;
	for (int i = 0; i < 2; i++) {
		float scale = exp2_fast((s.most[t][i] - fmaxf(most[i], s.most[t][i])) * FACTOR);
		s.most[t][i] = fmaxf(most[i], s.most[t][i]);
		s.sum[t][i] *= scale;
		for (int k = 0; k < VSTEPS * 2; k++) {
			s.o[t][k][2 * i] *= scale;
			s.o[t][k][2 * i + 1] *= scale;
		}
	}
}

/* Scores become weights. */
template <bool MASK> __device__ inline void soften(state &s, float (&d)[TILES][KEYS / 8][4], int key0)
{
	int c = threadIdx.x % 4;
#pragma unroll
	for (int t = 0; t < TILES; t++) {
		float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
		for (int j = 0; j < KEYS / 8; j++)
			for (int i = 0; i < 4; i++) {
				int key = key0 + j * 8 + 2 * c + i % 2, pos = s.pos[t][i / 2];
				if (!PLAIN)
					d[t][j][i] = exponent(d[t][j][i], s.slope[t][i / 2], key - pos);
				if (MASK && (key > pos || key < first_seen(pos)))
					d[t][j][i] = -INFINITY;
				most[i / 2] = fmaxf(most[i / 2], d[t][j][i]);
			}
		raise(s, t, most);
		for (int i = 0; i < 2; i++)
			most[i] = -s.most[t][i] * FACTOR;
#pragma unroll
		for (int j = 0; j < KEYS / 8; j++)
			for (int i = 0; i < 4; i++) {
				d[t][j][i] = exp2_fast(fmaf(d[t][j][i], FACTOR, most[i / 2]));
				s.sum[t][i / 2] += d[t][j][i];
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
	if (mask)
		soften<true>(s, d, key0);
	else
		soften<false>(s, d, key0);
	advance(r, g);
	values(s, d, tile + KEYS * KROW);
}

__device__ inline void close(const args &p, const rows &r, state &s)
{
#pragma unroll
	for (int t = 0; t < TILES; t++)
		for (int i = 0; i < 2; i++) {
			int row = row_of(t, i), head = head_of(r, row);
			float sum = s.sum[t][i];
			sum += __shfl_xor_sync(~0u, sum, 1);
			sum += __shfl_xor_sync(~0u, sum, 2);
			if (r.first + row >= r.n)
				continue;
#if SINKS
			sum += exp2f(to_float(p.sinks[head]) * LOG2E - s.most[t][i] * FACTOR);
#endif
			XTYPE *y = p.y + ((size_t)(r.token0 + (r.first + row) / GROUP) * HEADS + head) * VDIM + threadIdx.x % 4 * 2;
			float by = 1 / sum;
			for (int k = 0; k < VDIM / 8; k++) {
				float low = s.o[t][k][2 * i] * by, high = s.o[t][k][2 * i + 1] * by;
				if constexpr (sizeof(XTYPE) == 2)
					*(unsigned *)(y + 8 * k) = pack2(low, high, XTYPE{});
				else
					*(float2 *)(y + 8 * k) = make_float2(low, high);
			}
		}
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
	for (int i = 0; i < 2 * STAGES - 1; i++)
		request(r, g);
	load_queries(p, r);
	open(r, s);
	for (; key0 < end; key0 += KEYS) {
		const byte *tile = place(at);
		advance(r, g);
		take(r, s, g, tile, key0, key0 + KEYS - 1 > low || key0 < first_seen(high));
		at = at + 2 == 2 * STAGES ? 0 : at + 2;
	}
	close(p, r, s);
}
