/* attend_prefill.cuh - attention of many new tokens over their sequences' pages (flash attention).
 *
 * A block takes a tile of query rows of one key head: the tokens of a sequence times the heads that share
 * the key head, so that grouped heads read keys once.  It walks the keys a tile at a time, two tiles in
 * shared memory, and keeps a running maximum, sum and result for each row; no score leaves the registers.
 * Sequences of any number of new tokens, one too, may stand in one step.
 *
 * Matrix units (MMA 1): a warp has 16 rows; S = Q K^T and O += P V by m16n8k16, P straight from S's
 * registers.  Float arithmetic (MMA 0): a warp has 4 rows; a lane has a key for S, and its dims for O.
 *
 * Parameters, beside attend.cuh's:  WARPS SLOTS   warps of a block, blocks of a multiprocessor
 * Launch: grid x: at least the sum over sequences of ceil(new tokens * GROUP / QUERY_ROWS), so
 * ceil(tokens * GROUP / QUERY_ROWS) + sequences will do; y: KVHEADS; WARPS * 32 threads; PREFILL_SMEM. */
#include "attend.cuh"

#ifndef WARPS
#define WARPS 8
#endif
#ifndef SLOTS
#define SLOTS 1
#endif

enum {
	THREADS = WARPS * 32,
	WARP_ROWS = MMA ? 16 : 4,
	QUERY_ROWS = WARPS * WARP_ROWS,
	KEYS = MMA ? 64 : 32,                              /* of a tile */
	QBYTES = MMA ? 2 : 4,
	KSTEPS = ceil_div(KDIM, 16), VSTEPS = ceil_div(VDIM, 16),
	/* Rows of an odd number of 16-byte columns meet different banks. */
	QROW = (KSTEPS * 16 * QBYTES / 16 | 1) * 16,
	KROW = (KSTEPS * 16 * KVBYTES / 16 | 1) * 16, VROW = (VSTEPS * 16 * KVBYTES / 16 | 1) * 16,
	AT_KEYS = QUERY_ROWS * QROW,
	TILE = KEYS * (KROW + VROW),
	PREFILL_SMEM = AT_KEYS + 2 * TILE
};
static_assert(PAGE % 16 == 0 && KDIM % 8 == 0 && VDIM % 8 == 0, "whole runs of 16 bytes");

/* ---- which rows ------------------------------------------------------------------------------------------- */

struct rows {
	int seq, head;                                     /* of keys */
	int first, n;                                      /* rows of the sequence: this tile's first, all */
	int token0, pos0, len;                             /* of the sequence's first new token; tokens cached */
};

__device__ inline int rows_of(const args &p, int seq)
{
	const int *start = p.table->seq_start + seq;
	return seq < p.table->nseq ? (start[1] - start[0]) * GROUP : 0;
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
		return r;
	}
	return {};
}

__device__ inline int pos_of(const rows &r, int i) { return r.pos0 + at_most(r.first + i, r.n - 1) / GROUP; }
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

template <int DIM, int ROW> __device__ inline void request_rows(const args &p, const rows &r, byte *to, int key0, size_t offset)
{
	const auto &kv = p.table->kv[KV_CLASS];
	enum { COLUMNS = DIM * KVBYTES / 16 };
	for (int i = threadIdx.x; i < KEYS * COLUMNS; i += THREADS) {
		int key = i / COLUMNS, column = i % COLUMNS, j = at_most(key0 + key, r.len - 1);
		const byte *from = kv.base + kv.page[(size_t)r.seq * kv.stride + j / PAGE] * kv.bytes + p.layer + offset +
			((size_t)r.head * PAGE + j % PAGE) * (DIM * KVBYTES);
		copy16(shared_at(to + key * ROW + column * 16), from + column * 16, key0 + key < r.len ? 16 : 0);
	}
}

__device__ inline void request(const args &p, const rows &r, int key0, int turn)
{
	byte *to = smem + AT_KEYS + turn * TILE;
	request_rows<KDIM, KROW>(p, r, to, key0, 0);
	request_rows<VDIM, VROW>(p, r, to + KEYS * KROW, key0, (size_t)KVHEADS * PAGE * KDIM * KVBYTES);
}

/* ---- rows of a warp -------------------------------------------------------------------------------------------- */

#if MMA
/* Lane 4g+c: rows g and g+8; keys and dims 2c, 2c+1 of each eight. */
struct state { float o[VSTEPS * 2][4], most[2], sum[2], slope[2]; int pos[2]; };

__device__ inline void open(const rows &r, state &s)
{
	for (int i = 0; i < 2; i++) {
		int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * i;
		s.most[i] = -1e30f;
		s.sum[i] = 0;
		s.pos[i] = pos_of(r, row);
		s.slope[i] = ALIBI > 0 ? slope_of(head_of(r, row)) : 0;
	}
	for (int k = 0; k < VSTEPS * 2; k++)
		for (int i = 0; i < 4; i++)
			s.o[k][i] = 0;
}

__device__ inline void scores(float (&d)[KEYS / 8][4], const byte *tile)
{
	int lane = threadIdx.x % 32;
	unsigned query = shared_at(smem) + (threadIdx.x / 32 * 16 + lane % 16) * QROW + lane / 16 * 16;
	unsigned key = shared_at(tile) + (lane % 8 + lane / 16 * 8) * KROW + lane / 8 % 2 * 16, a[4], b[4];
	for (int k = 0; k < KSTEPS; k++) {
		ldmatrix4(a, query + k * 32);
		for (int j = 0; j < KEYS / 16; j++) {
			ldmatrix4(b, key + j * 16 * KROW + k * 32);
			mma(d[2 * j], a, b[0], b[1], KVTYPE{});
			mma(d[2 * j + 1], a, b[2], b[3], KVTYPE{});
		}
	}
}

/* Scores become weights.  MASK: some key may be out of some row's sight. */
template <bool MASK> __device__ inline void soften(state &s, float (&d)[KEYS / 8][4], int key0)
{
	int c = threadIdx.x % 4;
	float most[2] = {s.most[0], s.most[1]}, scale[2];
	for (int j = 0; j < KEYS / 8; j++)
		for (int i = 0; i < 4; i++) {
			int key = key0 + j * 8 + 2 * c + i % 2, pos = s.pos[i / 2];
			d[j][i] = exponent(d[j][i], s.slope[i / 2], key - pos);
			if (MASK && (key > pos || key < first_seen(pos)))
				d[j][i] = -INFINITY;
			most[i / 2] = fmaxf(most[i / 2], d[j][i]);
		}
	for (int i = 0; i < 2; i++) {
		most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], 1));
		most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], 2));
		scale[i] = exp2_fast(s.most[i] - most[i]);
		s.most[i] = most[i];
		s.sum[i] *= scale[i];
	}
	for (int j = 0; j < KEYS / 8; j++)
		for (int i = 0; i < 4; i++) {
			d[j][i] = exp2_fast(d[j][i] - most[i / 2]);
			s.sum[i / 2] += d[j][i];
		}
	for (int k = 0; k < VSTEPS * 2; k++)
		for (int i = 0; i < 4; i++)
			s.o[k][i] *= scale[i / 2];
}

__device__ inline void values(state &s, const float (&d)[KEYS / 8][4], const byte *tile)
{
	int lane = threadIdx.x % 32;
	unsigned value = shared_at(tile) + KEYS * KROW + lane % 16 * VROW + lane / 16 * 16, b[4];
	for (int j = 0; j < KEYS / 16; j++) {
		unsigned a[4];
		for (int i = 0; i < 4; i++)
			a[i] = pack2(d[2 * j + i / 2][i % 2 * 2], d[2 * j + i / 2][i % 2 * 2 + 1], KVTYPE{});
		for (int k = 0; k < VSTEPS; k++) {
			ldmatrix4_transposed(b, value + j * 16 * VROW + k * 32);
			mma(s.o[2 * k], a, b[0], b[1], KVTYPE{});
			mma(s.o[2 * k + 1], a, b[2], b[3], KVTYPE{});
		}
	}
}

template <bool MASK> __device__ inline void take(state &s, const byte *tile, int key0)
{
	float d[KEYS / 8][4] = {};
	scores(d, tile);
	soften<MASK>(s, d, key0);
	values(s, d, tile);
}

__device__ inline void close(const args &p, const rows &r, state &s)
{
	for (int i = 0; i < 2; i++) {
		int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * i, head = head_of(r, row);
		float sum = s.sum[i];
		sum += __shfl_xor_sync(~0u, sum, 1);
		sum += __shfl_xor_sync(~0u, sum, 2);
		if (r.first + row >= r.n)
			continue;
#if SINKS
		sum += exp2f(to_float(p.sinks[head]) * LOG2E - s.most[i]);
#endif
		XTYPE *y = p.y + ((size_t)(r.token0 + (r.first + row) / GROUP) * HEADS + head) * VDIM + threadIdx.x % 4 * 2;
		float by = 1 / sum;
		for (int k = 0; k < VDIM / 8; k++) {
			if constexpr (sizeof(XTYPE) == 2)
				*(unsigned *)(y + 8 * k) = pack2(s.o[k][2 * i] * by, s.o[k][2 * i + 1] * by, XTYPE{});
			else
				*(float2 *)(y + 8 * k) = make_float2(s.o[k][2 * i] * by, s.o[k][2 * i + 1] * by);
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

template <bool MASK> __device__ inline void take(state &s, const byte *tile, int key0)
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
	rows r = find_rows(p, gridDim.x - 1 - blockIdx.x);
	grid_launch_next();
	if (KDIM % 16)
		for (int i = threadIdx.x; i < PREFILL_SMEM / 16; i += THREADS)
			((uint4 *)smem)[i] = make_uint4(0, 0, 0, 0);
	__syncthreads();
	grid_wait();
	if (r.n == 0)
		return;
	int low = pos_of(r, 0), high = pos_of(r, QUERY_ROWS - 1), turn = 0, end = high + 1;
	int key0 = first_seen(low) / KEYS * KEYS;
	state s;
	request(p, r, key0, 0);
	copy_commit();
	load_queries(p, r);
	open(r, s);
	for (; key0 < end; key0 += KEYS, turn ^= 1) {
		if (key0 + KEYS < end)
			request(p, r, key0 + KEYS, turn ^ 1);
		copy_commit();
		copy_wait<1>();
		__syncthreads();
		const byte *tile = smem + AT_KEYS + turn * TILE;
		if (key0 + KEYS - 1 > low || key0 < first_seen(high))
			take<true>(s, tile, key0);
		else
			take<false>(s, tile, key0);
		__syncthreads();
	}
	close(p, r, s);
}
