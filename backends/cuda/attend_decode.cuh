/* attend_decode.cuh - attention of one new token per sequence over its cached pages (flash-decoding).
 *
 * All keys and values of all (sequence, head) pairs, in runs of 16 tokens, form one list; every thread
 * block takes an equal part of it, so one long sequence fills the machine as well as many short ones
 * (of sequences as long as each other, parts that end where pairs do).
 * A block's warps take runs in turn, each with a ring of its own in shared memory, and put their
 * results together at the end of a pair.  A pair that crosses blocks goes through `work`, and
 * the block that arrives last puts its parts together: no second kernel.
 *
 * The query heads that share a key head are one matrix operand: S^T[16 tokens][8 heads] = K Q^T, then
 * O^T[16 dims][8 heads] += V^T P^T.  Groups of more than 16 heads are split (HEAD_UNITS).
 * Old pages are requested before grid_wait(); only the run that holds this step's token waits.
 *
 * Parameters, beside attend.cuh's:  WARPS STAGES as in gemv.cuh.
 * Launch: any number of blocks, best one per multiprocessor; WARPS * 32 threads; DECODE_SMEM bytes;
 * work: blocks * WORK_FLOATS floats; counter: sequences * HEAD_UNITS words. */
#include "attend.cuh"

#ifndef WARPS
#define WARPS  8
#endif
#ifndef STAGES
#define STAGES 2
#endif

enum {
	THREADS = WARPS * 32,
	RUN = 16,                                          /* tokens a warp takes at a time */
	TILES = GROUP > 8 ? 2 : 1,                         /* of eight heads */
	SPLITS = ceil_div(GROUP, TILES * 8),
	HEAD_UNITS = KVHEADS * SPLITS,
	UNIT_HEADS = at_most(GROUP, TILES * 8),
	KSTEPS = ceil_div(KDIM, 16), VSTEPS = ceil_div(VDIM, 16),
	/* Rows of an odd number of 16-byte columns meet different banks. */
	KROW = (KSTEPS * 16 * KVBYTES / 16 | 1) * 16, VROW = (VSTEPS * 16 * KVBYTES / 16 | 1) * 16,
	STAGE = RUN * (KROW + VROW),
	PARTIAL = VDIM + 2,                                /* values, maximum, sum */
	AT_PARTS = WARPS * STAGES * STAGE,
	AT_WORD = AT_PARTS + WARPS * UNIT_HEADS * PARTIAL * 4,
	DECODE_SMEM = AT_WORD + 16,
	WORK_FLOATS = 2 * UNIT_HEADS * PARTIAL
};
static_assert(PAGE % RUN == 0 && KDIM % 8 == 0 && VDIM % 8 == 0, "whole runs of 16 bytes");

/* ---- the list of runs ----------------------------------------------------------------------------------- */

/* Runs [first, end) of a sequence are the ones its new token sees. */
struct span { int first, end, len; };

__device__ inline span span_of(const args &p, int seq)
{
	int len = p.table->seq_len[seq];
	if (MIXED && new_tokens(p, seq) != 1)
		return {};
	return {first_seen(len - 1) / RUN, ceil_div(len, RUN), len};
}

__device__ inline int token_of(const args &p, int seq) { return MIXED ? p.table->seq_start[seq] : seq; }

struct cursor {
	int seq, unit, run;                                /* run counts within the sequence */
	span in;
	int left;                                          /* runs to the end of this block's part */
};

__device__ inline int runs_of(const args &p, int seq)
{
	span s = seq < p.table->nseq ? span_of(p, seq) : span{};
	return s.end - s.first;
}

/* All sequences' runs, of one head unit; the sequences that have any, and the most one has. */
struct runs { int sum, seqs, most; };

__device__ inline runs count_runs(const args &p)
{
	runs all = {};
	for (int i = threadIdx.x % 32; i < p.table->nseq; i += 32) {
		int n = runs_of(p, i);
		all = {all.sum + n, all.seqs + (n > 0), at_least(all.most, n)};
	}
	for (int i = 16; i; i >>= 1)
		all = {all.sum + __shfl_xor_sync(~0u, all.sum, i), all.seqs + __shfl_xor_sync(~0u, all.seqs, i),
			at_least(all.most, __shfl_xor_sync(~0u, all.most, i))};
	return all;
}

/* How many blocks share the list.  Where all pairs are as long, a number that gives a block whole pairs or a pair
 * whole blocks, unless that is SHARED runs more for a block than all blocks would have: about what it takes to
 * put a pair together that crosses blocks. */
__device__ inline int blocks_for(const runs &all, long long total)
{
	enum { SHARED = 8 };
	int blocks = gridDim.x < total ? (int)gridDim.x : (int)total, pairs = all.seqs * HEAD_UNITS;
	if (all.sum == 0 || all.sum != all.seqs * all.most)
		return blocks;
	int most = (int)((total + blocks - 1) / blocks) + SHARED;
	int each = ceil_div(pairs, blocks), parts = at_most(blocks / pairs, all.most);
	if (pairs % each == 0 && each * all.most <= most)
		return pairs / each;
	return parts > 1 && ceil_div(all.most, parts) <= most ? pairs * parts : blocks;
}

__device__ inline void skip(const args &p, cursor &at, int n)
{
	at.left -= n;
	at.run += n;
	while (at.left > 0 && at.run >= at.in.end) {
		at.run += at.in.first - at.in.end;
		if (++at.unit == HEAD_UNITS) {
			at.run -= at.in.first;
			at.unit = 0;
			do
				at.in = span_of(p, ++at.seq);
			while (MIXED && at.in.end == 0);
			at.run += at.in.first;
		}
	}
}

/* The part of n runs that begins with run number `from`.  A warp passes over 32 sequences at a time. */
__device__ inline cursor part_of(const args &p, long long from, int n)
{
	int lane = threadIdx.x % 32, seq = 0;
	if (n <= 0)
		return {};
	for (;; seq += 32) {
		long long upto = (long long)runs_of(p, seq + lane) * HEAD_UNITS;
		for (int i = 1; i < 32; i *= 2) {
			long long before = __shfl_up_sync(~0u, upto, i);
			upto += lane >= i ? before : 0;
		}
		int passed = __popc(__ballot_sync(~0u, upto <= from));
		long long before = __shfl_sync(~0u, upto, passed ? passed - 1 : 0);
		from -= passed ? before : 0;
		seq += passed;
		if (passed < 32)
			break;
		seq -= 32;
	}
	span in = span_of(p, seq);
	int each = in.end - in.first;
	return {seq, (int)(from / each), in.first + (int)(from % each), in, n};
}

/* ---- requests ---------------------------------------------------------------------------------------------- */

__device__ inline bool is_new(const cursor &at) { return at.run == at.in.end - 1; }

/* RUN rows of DIM values each, those seen; rows of the stage are ROW bytes apart. */
template <int DIM, int ROW> __device__ inline void request_rows(byte *to, const byte *from, int low, int high)
{
	enum { COLUMNS = DIM * KVBYTES / 16, COPIES = ceil_div(RUN * COLUMNS, 32) };
	int lane = threadIdx.x % 32;
#pragma unroll
	for (int j = 0; j < COPIES; j++) {
		int i = lane + 32 * j, r = i / COLUMNS, column = i % COLUMNS;
		if (RUN * COLUMNS % 32 && i >= RUN * COLUMNS)
			break;
		if (low <= 0 && high >= RUN)
			copy16(shared_at(to + r * ROW + column * 16), from + i * 16);
		else
			copy16(shared_at(to + r * ROW + column * 16), from + i * 16, r >= low && r < high ? 16 : 0);
	}
}

__device__ inline void request(const args &p, const table::table_pages &kv, const cursor &at, byte *stage)
{
	int h = at.unit / SPLITS, token = at.run * RUN, low = first_seen(at.in.len - 1) - token, high = at.in.len - token;
	const byte *page = kv.base + kv.page[(size_t)at.seq * kv.stride + token / PAGE] * kv.bytes + p.layer;
	request_rows<KDIM, KROW>(stage, page + ((size_t)h * PAGE + token % PAGE) * (KDIM * KVBYTES), low, high);
	request_rows<VDIM, VROW>(stage + RUN * KROW, page + (size_t)KVHEADS * (PAGE * KDIM * KVBYTES) +
		((size_t)h * PAGE + token % PAGE) * (VDIM * KVBYTES), low, high);
}

/* ---- one warp's running result for a head unit ------------------------------------------------------------------ */

__device__ inline int head_of(int unit, int i) { return unit / SPLITS * GROUP + unit % SPLITS * (TILES * 8) + i; }
__device__ inline bool has_head(int unit, int i) { return unit % SPLITS * (TILES * 8) + i < GROUP; }

#if MMA
struct state {
	unsigned q[TILES][KSTEPS][2];                      /* operand B: head g, dims 2c.. and 2c+8.. of each 16 */
	float o[TILES][VSTEPS][4];                         /* dims g, g+8 of each 16; heads 2c, 2c+1 */
	float most[TILES][2], sum[TILES][2], slope[TILES][2];
};

/* Two queries, as they lie where they are 16 bits wide; then as the keys are. */
__device__ inline unsigned load_two(const XTYPE *q)
{
	if constexpr (sizeof(XTYPE) == 2)
		return *(const unsigned *)q;
	else
		return pack2(to_float(q[0]), to_float(q[1]), KVTYPE{});
}

__device__ inline unsigned of_keys(unsigned two)
{
	const XTYPE *q = (const XTYPE *)&two;
	if constexpr (sizeof(XTYPE) == 2 && !same<XTYPE, KVTYPE>::value)
		return pack2(to_float(q[0]), to_float(q[1]), KVTYPE{});
	return two;
}

/* meanwhile() is called when the queries are under way: whatever it asks for comes after them. */
template <typename F> __device__ inline void open(const args &p, state &s, const cursor &at, F meanwhile)
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
	for (int t = 0; t < TILES; t++) {
		const XTYPE *q = p.q + (size_t)token_of(p, at.seq) * QSTRIDE + head_of(at.unit, t * 8 + g) * KDIM + 2 * c;
		for (int k = 0; k < KSTEPS; k++)
			for (int i = 0; i < 2; i++)
				s.q[t][k][i] = has_head(at.unit, t * 8 + g) && k * 16 + i * 8 < KDIM ?
					load_two(q + k * 16 + i * 8) : 0;
	}
	meanwhile();
	for (int t = 0; t < TILES; t++) {
		for (int k = 0; k < KSTEPS; k++)
			for (int i = 0; i < 2; i++)
				s.q[t][k][i] = of_keys(s.q[t][k][i]);
		for (int k = 0; k < VSTEPS; k++)
			for (int i = 0; i < 4; i++)
				s.o[t][k][i] = 0;
		for (int i = 0; i < 2; i++) {
			s.most[t][i] = -INFINITY;
			s.sum[t][i] = 0;
			s.slope[t][i] = ALIBI > 0 ? slope_of(head_of(at.unit, t * 8 + 2 * c + i)) : 0;
		}
	}
}

/* Scores of tokens g and g+8 become weights: d[0..1] and d[2..3], of heads 2c and 2c+1. */
__device__ inline void soften(state &s, int t, const cursor &at, float (&d)[4])
{
	int g = threadIdx.x % 32 / 4, pos = at.in.len - 1;
	for (int i = 0; i < 4; i++) {
		int token = at.run * RUN + g + i / 2 * 8;
		bool seen = token <= pos && token >= first_seen(pos);
		d[i] = seen ? exponent(d[i], s.slope[t][i % 2], token - pos) : -INFINITY;
	}
	for (int i = 0; i < 2; i++) {
		float most = fmaxf(d[i], d[i + 2]);
		for (int k = 4; k < 32; k *= 2)
			most = fmaxf(most, __shfl_xor_sync(~0u, most, k));
		most = fmaxf(most, s.most[t][i]);
		float scale = exp2_fast(s.most[t][i] - most);
		s.most[t][i] = most;
		d[i] = exp2_fast(d[i] - most);
		d[i + 2] = exp2_fast(d[i + 2] - most);
		s.sum[t][i] = s.sum[t][i] * scale + d[i] + d[i + 2];
		for (int k = 0; k < VSTEPS; k++) {
			s.o[t][k][i] *= scale;
			s.o[t][k][i + 2] *= scale;
		}
	}
}

__device__ inline void take(state &s, const cursor &at, const byte *stage)
{
	int lane = threadIdx.x % 32;
	unsigned keys = shared_at(stage) + lane % 16 * KROW + lane / 16 * 16, a[4], weight[TILES][2];
	unsigned values = shared_at(stage) + RUN * KROW + (lane % 8 + lane / 16 * 8) * VROW + lane / 8 % 2 * 16;
	float d[TILES][4] = {}, odd[TILES][4] = {};        /* two sums: products need not wait for each other */
	for (int k = 0; k < KSTEPS; k++) {
		ldmatrix4(a, keys + k * 32);
		for (int t = 0; t < TILES; t++)
			mma(k % 2 ? odd[t] : d[t], a, s.q[t][k][0], s.q[t][k][1], KVTYPE{});
	}
	for (int t = 0; t < TILES; t++) {
		for (int i = 0; i < 4; i++)
			d[t][i] += odd[t][i];
		soften(s, t, at, d[t]);
		for (int i = 0; i < 2; i++)
			weight[t][i] = transpose8x8(pack2(d[t][2 * i], d[t][2 * i + 1], KVTYPE{}));
	}
	for (int k = 0; k < VSTEPS; k++) {
		ldmatrix4_transposed(a, values + k * 32);
		for (int t = 0; t < TILES; t++)
			mma(s.o[t][k], a, weight[t][0], weight[t][1], KVTYPE{});
	}
}

__device__ inline void leave(state &s, float *part)
{
	int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
	for (int t = 0; t < TILES; t++)
		for (int i = 0; i < 2; i++) {
			float sum = s.sum[t][i], *row = part + (t * 8 + 2 * c + i) * PARTIAL;
			for (int k = 4; k < 32; k *= 2)
				sum += __shfl_xor_sync(~0u, sum, k);
			if (t * 8 + 2 * c + i >= UNIT_HEADS)
				continue;
			for (int k = 0; k < VSTEPS; k++)
				for (int j = 0; j < 2; j++)
					if (k * 16 + g + 8 * j < VDIM)
						row[k * 16 + g + 8 * j] = s.o[t][k][i + 2 * j];
			if (g == 0) {
				row[VDIM] = s.most[t][i];
				row[VDIM + 1] = sum;
			}
		}
}
#else
enum { LANE_DIMS = ceil_div(VDIM, 32) };

struct state { float o[UNIT_HEADS][LANE_DIMS], most[UNIT_HEADS], sum[UNIT_HEADS]; const XTYPE *q; };

template <typename F> __device__ inline void open(const args &p, state &s, const cursor &at, F meanwhile)
{
	meanwhile();
	s.q = p.q + (size_t)token_of(p, at.seq) * QSTRIDE + head_of(at.unit, 0) * KDIM;
	for (int h = 0; h < UNIT_HEADS; h++) {
		s.most[h] = -INFINITY;
		s.sum[h] = 0;
		for (int k = 0; k < LANE_DIMS; k++)
			s.o[h][k] = 0;
	}
}

/* Half a warp to the first dims of 16 tokens' keys, half to the rest; then every lane to its dims of the values. */
__device__ inline void take(state &s, const cursor &at, const byte *stage)
{
	int lane = threadIdx.x % 32, pos = at.in.len - 1, token = at.run * RUN + lane % 16;
	bool seen = token <= pos && token >= first_seen(pos);
	const KVTYPE *key = (const KVTYPE *)(stage + lane % 16 * KROW);
	for (int h = 0; h < UNIT_HEADS; h++) {
		if (!has_head(at.unit, h))
			continue;
		float d = 0;
		for (int k = lane / 16 * (KDIM / 2); k < (lane / 16 + 1) * (KDIM / 2); k++)
			d = fmaf(to_float(key[k]), to_float(s.q[h * KDIM + k]), d);
		d += __shfl_xor_sync(~0u, d, 16);
		d = seen ? exponent(d, ALIBI > 0 ? slope_of(head_of(at.unit, h)) : 0, token - pos) : -INFINITY;
		float most = fmaxf(s.most[h], warp_max(d)), scale = exp2_fast(s.most[h] - most), weight = exp2_fast(d - most);
		s.most[h] = most;
		s.sum[h] = s.sum[h] * scale + warp_sum(lane < 16 ? weight : 0);
		for (int k = 0; k < LANE_DIMS; k++)
			s.o[h][k] *= scale;
		for (int r = 0; r < RUN; r++) {
			float w = __shfl_sync(~0u, weight, r);
			const KVTYPE *value = (const KVTYPE *)(stage + RUN * KROW + r * VROW);
			for (int k = 0; k < LANE_DIMS; k++)
				if (k * 32 + lane < VDIM)
					s.o[h][k] = fmaf(w, to_float(value[k * 32 + lane]), s.o[h][k]);
		}
	}
}

__device__ inline void leave(state &s, float *part)
{
	int lane = threadIdx.x % 32;
	for (int h = 0; h < UNIT_HEADS; h++, part += PARTIAL) {
		for (int k = 0; k < LANE_DIMS; k++)
			if (k * 32 + lane < VDIM)
				part[k * 32 + lane] = s.o[h][k];
		if (lane == 0) {
			part[VDIM] = s.most[h];
			part[VDIM + 1] = s.sum[h];
		}
	}
}
#endif

/* ---- putting parts together -------------------------------------------------------------------------------------- */

/* Value `dim` of head i over n parts, part k at part + place(k), with its maximum and sum.  Four parts are read
 * at once: they may be a trip to memory away. */
struct merged { float value, most, sum; };

template <typename F> __device__ inline merged merge(const float *part, int n, F place, int i, int dim)
{
	merged r = {0, -1e30f, 0};
	for (int k = 0; k < n; k += 4) {
		float most[4], sum[4], value[4], top = r.most;
#pragma unroll
		for (int j = 0; j < 4; j++) {
			const float *row = part + place(at_most(k + j, n - 1)) + i * PARTIAL;
			most[j] = k + j < n ? row[VDIM] : -INFINITY;
			sum[j] = row[VDIM + 1];
			value[j] = row[dim];
		}
		for (int j = 0; j < 4; j++)
			top = fmaxf(top, most[j]);
		float scale = exp2_fast(r.most - top);
		r = {r.value * scale, top, r.sum * scale};
		for (int j = 0; j < 4; j++) {
			scale = exp2_fast(most[j] - top);
			r.value += scale * value[j];
			r.sum += scale * sum[j];
		}
	}
	return r;
}

__device__ inline void write(const args &p, const cursor &at, int i, int dim, merged r)
{
	int h = head_of(at.unit, i);
	if (!has_head(at.unit, i))
		return;
#if SINKS
	r.sum += exp2f(to_float(p.sinks[h]) * LOG2E - r.most);
#endif
	p.y[((size_t)token_of(p, at.seq) * HEADS + h) * VDIM + dim] = from_float<XTYPE>(r.value / r.sum);
}

/* The n thread blocks that share a pair.  Each has two places in `work`: the second for the pair that
 * begins in it, the first for one that began before; so the parts after the first lie 2 UNIT apart. */
struct shares { int first, n; };

__device__ inline void close(const args &p, const cursor &at, shares in, unsigned *word)
{
	enum { UNIT = UNIT_HEADS * PARTIAL };
	__syncthreads();
	for (int i = threadIdx.x; i < UNIT_HEADS * VDIM; i += THREADS) {
		int head = i / VDIM, dim = i % VDIM;
		merged r = merge((const float *)(smem + AT_PARTS), WARPS, [](int k) { return k * UNIT; }, head, dim);
		if (in.n == 1) {
			write(p, at, head, dim, r);
			continue;
		}
		float *row = p.work + ((size_t)blockIdx.x * 2 + ((int)blockIdx.x == in.first)) * UNIT + head * PARTIAL;
		row[dim] = r.value;
		if (dim == 0) {
			row[VDIM] = r.most;
			row[VDIM + 1] = r.sum;
		}
	}
	if (in.n > 1 && arrives_last(p.counter + at.seq * HEAD_UNITS + at.unit, in.n, word)) {
		const float *first = p.work + ((size_t)in.first * 2 + 1) * UNIT;
		for (int i = threadIdx.x; i < UNIT_HEADS * VDIM; i += THREADS)
			write(p, at, i / VDIM, i % VDIM,
				merge(first, in.n, [](int k) { return k ? (2 * k - 1) * UNIT : 0; }, i / VDIM, i % VDIM));
	}
	__syncthreads();
}

/* ---- the kernel ----------------------------------------------------------------------------------------------------- */

extern "C" __global__ void __launch_bounds__(THREADS, 1) attend_decode(const __grid_constant__ args p)
{
	int warp = threadIdx.x / 32, next = 0, requested = 0;
	byte *ring = smem + warp * STAGES * STAGE;
	float *part = (float *)(smem + AT_PARTS) + warp * UNIT_HEADS * PARTIAL;
	table::table_pages kv = p.table->kv[KV_CLASS];
	runs all = count_runs(p);
	long long total = (long long)all.sum * HEAD_UNITS, blocks = blocks_for(all, total), b = blockIdx.x;
	long long from = b < blocks ? total * b / blocks : total, to = b < blocks ? total * (b + 1) / blocks : total;
	cursor block = part_of(p, from, (int)(to - from)), asked = block;
	skip(p, asked, warp);
	cursor at = asked;

	if (KDIM % 16) {
		for (int i = threadIdx.x; i < AT_PARTS / 16; i += THREADS)
			((uint4 *)smem)[i] = make_uint4(0, 0, 0, 0);
		__syncthreads();
	}
	for (; requested < STAGES && !(asked.left > 0 && is_new(asked)); requested++) {
		if (asked.left > 0)
			request(p, kv, asked, ring + requested * STAGE);
		copy_commit();
		skip(p, asked, WARPS);
	}
	grid_launch_next();                                /* its block takes the place of one that leaves, ours or before */
	grid_wait();
	state s;
	if (block.left > 0)
		open(p, s, block, [&]() {
			for (; requested < STAGES; requested++) {
				if (asked.left > 0)
					request(p, kv, asked, ring + requested * STAGE);
				copy_commit();
				skip(p, asked, WARPS);
			}
		});
	while (block.left > 0) {
		int here = at_most(block.left, block.in.end - block.run);
		long long begin = from - (block.run - block.in.first), end = begin + (block.in.end - block.in.first);
		shares in;
		in.first = (int)(((begin + 1) * blocks - 1) / total);
		in.n = (int)((end * blocks - 1) / total) - in.first + 1;
		while (at.left > block.left - here) {
			copy_wait<STAGES - 1>();
			__syncwarp();
			take(s, at, ring + next * STAGE);
			__syncwarp();
			if (asked.left > 0)
				request(p, kv, asked, ring + next * STAGE);
			copy_commit();
			skip(p, asked, WARPS);
			skip(p, at, WARPS);
			next = next + 1 == STAGES ? 0 : next + 1;
		}
		leave(s, part);
		from += here;
		cursor done = block;
		skip(p, block, here);
		if (block.left > 0)
			open(p, s, block, []() {});
		close(p, done, in, (unsigned *)(smem + AT_WORD));
	}
}
