/* attend_rows.cuh - what the kernels of many new tokens share: which rows a block takes, and its state where
 * matrix units are used.
 *
 * A block takes a tile of query rows of one key head: the tokens of a sequence times the heads that share
 * the key head, so that grouped heads read keys once.  It walks the keys a tile at a time and keeps a
 * running maximum, sum and result for each row; no score leaves the registers.  Sequences of one new
 * token are left to attend_decode.
 *
 * Whoever includes it says before: QUERY_ROWS TILES VSTEPS. */
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

/* Where a search goes on: the sequences before seq make so many items. */
struct cursor { int seq, items; };

/* The sequence of item i, which becomes its number there, when each tile of rows makes `each` items; -1 when there are
 * no more than c.items.  A warp passes over 32 sequences at a time. */
__device__ inline int find_sequence(const args &p, cursor &c, int each, int &i)
{
	int lane = threadIdx.x % 32;
	for (; c.seq < p.table->nseq; c.seq += 32) {
		int upto = ceil_div(rows_of(p, c.seq + lane), QUERY_ROWS) * each;
		for (int k = 1; k < 32; k *= 2) {
			int before = __shfl_up_sync(~0u, upto, k);
			upto += lane >= k ? before : 0;
		}
		int passed = __popc(__ballot_sync(~0u, c.items + upto <= i));
		int before = __shfl_sync(~0u, upto, passed ? passed - 1 : 0);
		if (passed < 32) {
			i -= c.items + (passed ? before : 0);
			return c.seq + passed;
		}
		c.items += before;
	}
	return -1;
}

__device__ inline rows rows_at(const args &p, int seq, int tile, int head)
{
	rows r = {seq, head, tile * QUERY_ROWS, rows_of(p, seq)};
	r.token0 = p.table->seq_start[seq];
	r.len = p.table->seq_len[seq];
	r.pos0 = r.len - r.n / GROUP;
	r.from = first_seen(r.pos0 + r.first / GROUP);
	const auto &kv = p.table->kv[KV_CLASS];
	r.page = kv.page + (size_t)seq * kv.stride;
	r.base = kv.base + p.layer + (size_t)head * (PAGE * KDIM * KVBYTES);
	r.bytes = kv.bytes;
	return r;
}

__device__ inline int pos_of(const rows &r, int i) { return r.pos0 + (r.first + i) / GROUP; }
__device__ inline int head_of(const rows &r, int i) { return r.head * GROUP + (r.first + i) % GROUP; }

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

/* The scores of N eights of keys become weights; as raise(). */
template <bool MASK, int N> __device__ inline bool soften(state &s, int t, float (&d)[N][4], int key0, float (&scale)[2])
{
	float most[2] = {-INFINITY, -INFINITY};
	int last[2], first[2];                             /* that the row sees, from the lane's first key on */
	for (int i = 0; i < 2; i++) {
		last[i] = s.pos[t][i] - key0 - threadIdx.x % 4 * 2;
		first[i] = last[i] - s.pos[t][i] + first_seen(s.pos[t][i]);
	}
#pragma unroll
	for (int j = 0; j < N; j++)
		for (int i = 0; i < 4; i++) {
			int key = j * 8 + i % 2;
			if (!PLAIN)
				d[j][i] = exponent(d[j][i], s.slope[t][i / 2], key - last[i / 2]);
			if (MASK && (key > last[i / 2] || (WINDOW > 0 && key < first[i / 2])))
				d[j][i] = -INFINITY;
			most[i / 2] = fmaxf(most[i / 2], d[j][i]);
		}
	bool grows = raise(s, t, most, scale);
	for (int i = 0; i < 2; i++)
		most[i] = -s.most[t][i] * FACTOR;
#pragma unroll
	for (int j = 0; j < N; j++)
		for (int i = 0; i < 4; i++) {
			d[j][i] = exp2_fast(fmaf(d[j][i], FACTOR, most[i / 2]));
			s.sum[t][i / 2] += d[j][i];
		}
	return grows;
}

/* Words i and k of each lane: the lane whose bit `by` is set takes both k's, the other both i's. */
__device__ inline void exchange(unsigned &i, unsigned &k, int by)
{
	bool upper = threadIdx.x & by;
	unsigned other = __shfl_xor_sync(~0u, upper ? i : k, by);
	(upper ? i : k) = other;
}

/* Lane c's word m becomes lane m's word c, of four neighbours. */
__device__ inline void transpose(unsigned (&w)[4])
{
	exchange(w[0], w[1], 1);
	exchange(w[2], w[3], 1);
	exchange(w[0], w[2], 2);
	exchange(w[1], w[3], 2);
}

/* Row i of a lane, eights k to k+3: sixteen bytes a lane where they are whole. */
__device__ inline void write_eights(const state &s, int t, int i, int k, float by, XTYPE *y, bool has)
{
	int c = threadIdx.x % 4;
	if constexpr (sizeof(XTYPE) == 2 && VDIM % 32 == 0) {
		unsigned w[4];
		for (int m = 0; m < 4; m++)
			w[m] = pack2(s.o[t][k + m][2 * i] * by, s.o[t][k + m][2 * i + 1] * by, XTYPE{});
		transpose(w);
		if (has)
			*(uint4 *)(y + 8 * (k + c)) = make_uint4(w[0], w[1], w[2], w[3]);
	} else {
		for (int m = k; has && m < at_most(k + 4, VDIM / 8); m++) {
			float low = s.o[t][m][2 * i] * by, high = s.o[t][m][2 * i + 1] * by;
			if constexpr (sizeof(XTYPE) == 2)
				*(unsigned *)(y + 8 * m + 2 * c) = pack2(low, high, XTYPE{});
			else
				*(float2 *)(y + 8 * m + 2 * c) = make_float2(low, high);
		}
	}
}

__device__ inline void close(const args &p, const rows &r, state &s)
{
#pragma unroll
	for (int t = 0; t < TILES; t++)
		for (int i = 0; i < 2; i++) {
			int row = row_of(t, i), head = head_of(r, row);
			bool has = r.first + row < r.n;
			float sum = s.sum[t][i];
			sum += __shfl_xor_sync(~0u, sum, 1);
			sum += __shfl_xor_sync(~0u, sum, 2);
#if SINKS
			sum += exp2f(to_float(p.sinks[head]) * LOG2E - s.most[t][i] * FACTOR);
#endif
			XTYPE *y = p.y + ((size_t)(r.token0 + (r.first + row) / GROUP) * HEADS + head) * VDIM;
			float by = 1 / sum;
#pragma unroll
			for (int k = 0; k < VDIM / 8; k += 4)
				write_eights(s, t, i, k, by, y, has);
		}
}
#endif
