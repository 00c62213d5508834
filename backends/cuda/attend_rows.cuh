/* attend_rows.cuh - what the kernels of many new tokens share: which rows a block takes, what it asks for,
 * and its state where matrix units are used.
 *
 * A block takes a tile of query rows of one key head: the tokens of a sequence times the heads that share
 * the key head, so that grouped heads read keys once.  It walks the keys a tile at a time and keeps a
 * running maximum, sum and result for each row; no score leaves the registers.  Sequences of one new
 * token are left to attend_decode.
 *
 * Whoever includes it says before: THREADS QUERY_ROWS KEYS (of a tile) TILES VSTEPS. */
#include "attend.cuh"

static_assert(PAGE % 16 == 0 && KDIM % 8 == 0 && VDIM % 8 == 0, "whole runs of 16 bytes");

/* ---- which rows ------------------------------------------------------------------------------------------- */

struct rows {
	int seq, head;                                     /* of keys */
	int first, n;                                      /* rows of the sequence: this tile's first, all */
	int token0, pos0, len;                             /* of the sequence's first new token; tokens cached */
	int from;                                          /* first position that any of this tile's rows sees */
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
		r.from = first_seen(r.pos0 + r.first / GROUP);
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

__device__ inline const byte *values_of(const rows &r)
{
	return r.base + (size_t)(KVHEADS - r.head) * (PAGE * KDIM * KVBYTES) + (size_t)r.head * (PAGE * VDIM * KVBYTES);
}

#if MMA
/* ---- rows of a warp in matrix units' registers ------------------------------------------------------------------ */

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

/* A maximum that grows by little stays as it is: weights may exceed 1, and the result need not be rescaled.
 * True when it must be, by `scale`; the sum is. */
__device__ inline bool raise(state &s, int t, const float (&top)[2], float (&scale)[2])
{
	enum { LITTLE = 8 };                               /* powers of two: far from f16's largest number */
	float most[2] = {top[0], top[1]};
	bool grows = false;
	for (int i = 0; i < 2; i++) {
		most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], 1));
		most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], 2));
		grows |= (most[i] - s.most[t][i]) * FACTOR > LITTLE;
	}
	if (!__any_sync(~0u, grows))
		return false;
	for (int i = 0; i < 2; i++) {
		scale[i] = exp2_fast((s.most[t][i] - fmaxf(most[i], s.most[t][i])) * FACTOR);
		s.most[t][i] = fmaxf(most[i], s.most[t][i]);
		s.sum[t][i] *= scale[i];
	}
	return true;
}

__device__ inline void rescale(state &s, int t, const float (&scale)[2])
{
	for (int k = 0; k < VSTEPS * 2; k++)
		for (int i = 0; i < 4; i++)
			s.o[t][k][i] *= scale[i / 2];
}

/* A tile's scores become weights; as raise(). */
template <bool MASK> __device__ inline bool soften(state &s, int t, float (&d)[KEYS / 8][4], int key0, float (&scale)[2])
{
	int c = threadIdx.x % 4;
	float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
	for (int j = 0; j < KEYS / 8; j++)
		for (int i = 0; i < 4; i++) {
			int key = key0 + j * 8 + 2 * c + i % 2, pos = s.pos[t][i / 2];
			if (!PLAIN)
				d[j][i] = exponent(d[j][i], s.slope[t][i / 2], key - pos);
			if (MASK && (key > pos || key < first_seen(pos)))
				d[j][i] = -INFINITY;
			most[i / 2] = fmaxf(most[i / 2], d[j][i]);
		}
	bool grows = raise(s, t, most, scale);
	for (int i = 0; i < 2; i++)
		most[i] = -s.most[t][i] * FACTOR;
#pragma unroll
	for (int j = 0; j < KEYS / 8; j++)
		for (int i = 0; i < 4; i++) {
			d[j][i] = exp2_fast(fmaf(d[j][i], FACTOR, most[i / 2]));
			s.sum[t][i / 2] += d[j][i];
		}
	return grows;
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
#endif
