/* pick.cuh - the next token of each wanted row, from its logits, on the device.
 *
 * As the host's sampler does it (models/engine/sampler.c): penalties, top-k, top-p, min-p, temperature,
 * one draw of splitmix64; the same seed gives the same tokens.  The best few are found by a radix
 * select over (logit, lower id first) and sorted; without top-k the cuts look at the best MOST.
 *
 * Parameters:  VOCAB  logits of a row, at most 2^20
 * Args: table, logits [rows][VOCAB], chosen [rows] for the next step's tokens.
 * Launch: one block a row, THREADS threads, no dynamic shared memory. */
#ifndef PICK_CUH
#define PICK_CUH
#include "common.cuh"
#include "table.cuh"

#ifndef VOCAB
#define VOCAB 32000
#endif

enum {
	THREADS = 1024,
	MOST = 1024,                                       /* candidates the cuts can see */
	ID_BITS = 20, BITS = 11, BINS = 1 << BITS,
	KEY_BITS = 32 + ID_BITS
};
static_assert(VOCAB <= 1 << ID_BITS, "ids fit their bits");

#ifndef ARGS
struct args {
	const struct table *table;
	float *logits;
	int *chosen;
};
#endif

struct shared {
	unsigned bins[BINS];
	wide key[MOST];
	double sum[THREADS / 32];
	wide best;
	float saved[TABLE_MAXCOUNT];
	int n, bin, first;
};

/* Larger is better; 0 can never be drawn. */
__device__ inline wide key_of(float logit, int id)
{
	if (!(logit >= -3.402823466e38f))
		return 0;
	unsigned bits = __float_as_uint(fminf(logit, 3.402823466e38f));
	bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
	return (wide)bits << ID_BITS | ((1u << ID_BITS) - 1 - id);
}
__device__ inline int id_of(wide key) { return (1 << ID_BITS) - 1 - (int)(key & ((1u << ID_BITS) - 1)); }
__device__ inline float logit_of(wide key)
{
	unsigned bits = (unsigned)(key >> ID_BITS);
	return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

__device__ inline double block_sum(shared &s, double x)
{
	for (int i = 16; i; i >>= 1)
		x += __shfl_xor_sync(~0u, x, i);
	if (threadIdx.x % 32 == 0)
		s.sum[threadIdx.x / 32] = x;
	__syncthreads();
	x = s.sum[threadIdx.x % 32];
	for (int i = 16; i; i >>= 1)
		x += __shfl_xor_sync(~0u, x, i);
	__syncthreads();
	return x;
}

/* Running sums, this thread's value included. */
__device__ inline double block_scan(shared &s, double x)
{
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	for (int i = 1; i < 32; i *= 2) {
		double below = __shfl_up_sync(~0u, x, i);
		x += lane >= i ? below : 0;
	}
	if (lane == 31)
		s.sum[warp] = x;
	__syncthreads();
	double before = 0;
	for (int i = 0; i < warp; i++)
		before += s.sum[i];
	__syncthreads();
	return before + x;
}

/* The smallest i for which `found` holds, n when for none. */
__device__ inline int block_first(shared &s, bool found, int n)
{
	if (threadIdx.x == 0)
		s.first = n;
	__syncthreads();
	if (found && (int)threadIdx.x < n)
		atomicMin(&s.first, (int)threadIdx.x);
	__syncthreads();
	int first = s.first;
	__syncthreads();
	return first;
}

/* ---- penalties: in place, taken back afterwards -------------------------------------------------- */

__device__ inline void penalise(shared &s, const table_pick &pick, float *row)
{
	for (int i = threadIdx.x; i < pick.ncount; i += THREADS) {
		int id = pick.count[2 * i];
		float logit = row[id];
		s.saved[i] = logit;
		double scaled = logit > 0 ? logit / pick.repeat : logit * pick.repeat;
		row[id] = (float)(scaled - pick.count[2 * i + 1] * pick.frequency - pick.presence);
	}
	__syncthreads();
}

__device__ inline void restore(shared &s, const table_pick &pick, float *row)
{
	__syncthreads();
	for (int i = threadIdx.x; i < pick.ncount; i += THREADS)
		row[pick.count[2 * i]] = s.saved[i];
}

/* ---- selection ------------------------------------------------------------------------------------- */

__device__ inline int greedy(shared &s, const float *row)
{
	wide best = 0;
	if (threadIdx.x == 0)
		s.best = 0;
	__syncthreads();
	for (int i = threadIdx.x; i < VOCAB; i += THREADS) {
		wide key = key_of(row[i], i);
		best = key > best ? key : best;
	}
	for (int i = 16; i; i >>= 1) {
		wide other = __shfl_xor_sync(~0u, best, i);
		best = other > best ? other : best;
	}
	if (threadIdx.x % 32 == 0)
		atomicMax(&s.best, best);
	__syncthreads();
	return s.best ? id_of(s.best) : 0;
}

/* The key of the k-th best: digit by digit from the top, until a digit's bin is wanted whole. */
__device__ inline wide threshold(shared &s, const float *row, int k)
{
	wide prefix = 0;
	for (int shift = KEY_BITS - BITS, width = BITS;; ) {
		for (int i = threadIdx.x; i < BINS; i += THREADS)
			s.bins[i] = 0;
		__syncthreads();
		for (int i = threadIdx.x; i < VOCAB; i += THREADS) {
			wide key = key_of(row[i], i);
			if (key >> (shift + width) == prefix)
				atomicAdd(&s.bins[key >> shift & ((1 << width) - 1)], 1);
		}
		__syncthreads();
		if (threadIdx.x == 0) {
			int bin = (1 << width) - 1, left = k;
			while (bin > 0 && (int)s.bins[bin] < left)
				left -= s.bins[bin--];
			s.bin = bin;
			s.n = left;
		}
		__syncthreads();
		prefix = prefix << width | s.bin;
		bool whole = (int)s.bins[s.bin] <= s.n;
		k = s.n;
		__syncthreads();
		if (whole || shift == 0)
			return prefix << shift;
		width = at_most(BITS, shift);
		shift -= width;
	}
}

/* The k best into s.key, best first; how many can be drawn at all. */
__device__ inline int gather(shared &s, const float *row, int k)
{
	wide least = threshold(s, row, k);
	least = least ? least : 1;
	s.key[threadIdx.x] = 0;
	if (threadIdx.x == 0)
		s.n = 0;
	__syncthreads();
	for (int i = threadIdx.x; i < VOCAB; i += THREADS) {
		wide key = key_of(row[i], i);
		if (key >= least) {
			int at = atomicAdd(&s.n, 1);
			if (at < MOST)
				s.key[at] = key;
		}
	}
	__syncthreads();
	for (int size = 2; size <= MOST; size *= 2)
		for (int step = size / 2; step; step /= 2) {
			int i = threadIdx.x, j = i ^ step;
			wide a = s.key[i], b = s.key[j];
			bool down = (i & size) == 0, first = i < j;
			__syncthreads();
			s.key[i] = (a > b) == (first == down) ? a : b;
			__syncthreads();
		}
	return at_most(s.n, at_most(k, MOST));
}

__device__ inline double total_weight(shared &s, const float *row, float top)
{
	double sum = 0;
	for (int i = threadIdx.x; i < VOCAB; i += THREADS)
		if (key_of(row[i], i))
			sum += exp((double)fminf(row[i], 3.402823466e38f) - top);
	return block_sum(s, sum);
}

/* How many of the n best top-p and min-p keep. */
__device__ inline int cut(shared &s, const table_pick &pick, const float *row, int n, bool whole)
{
	float top = logit_of(s.key[0]);
	bool in = (int)threadIdx.x < n;
	double weight = in ? exp((double)logit_of(s.key[threadIdx.x]) - top) : 0, total = 0;
	int kept = block_first(s, threadIdx.x > 0 && weight < pick.min_p, n);
	if (pick.top_p < 1) {
		total = whole ? total_weight(s, row, top) : block_sum(s, weight);
		double sum = block_scan(s, weight);
		kept = at_most(kept, block_first(s, sum >= pick.top_p * total, n - 1) + 1);
	}
	return kept;
}

__device__ inline int draw(shared &s, const table_pick &pick, int kept)
{
	wide z = pick.draw + 0x9e3779b97f4a7c15ull;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	double at = (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
	double weight = (int)threadIdx.x < kept ?
		exp(((double)logit_of(s.key[threadIdx.x]) - logit_of(s.key[0])) / pick.temp) : 0;
	double sum = block_scan(s, weight), all = block_sum(s, weight);
	int i = block_first(s, sum > at * all, kept);
	return id_of(s.key[i < kept ? i : 0]);
}

__device__ inline int sample(shared &s, const table_pick &pick, const float *row)
{
	bool whole = pick.top_k <= 0 || pick.top_k >= VOCAB;
	int n = gather(s, row, whole ? at_most(MOST, VOCAB) : at_most(pick.top_k, MOST));
	return n ? draw(s, pick, cut(s, pick, row, n, whole)) : 0;
}

extern "C" __global__ void __launch_bounds__(THREADS) pick(const __grid_constant__ args p)
{
	__shared__ shared s;
	int r = blockIdx.x;
	grid_launch_next();
	grid_wait();
	if (r >= p.table->nrow || !p.table->pick)
		return;
	const table_pick how = p.table->pick[r];
	float *row = p.logits + (size_t)r * VOCAB;
	penalise(s, how, row);
	int id = how.temp <= 0 ? greedy(s, row) : sample(s, how, row);
	restore(s, how, row);
	if (threadIdx.x == 0) {
		p.chosen[r] = id;
		p.table->ring[r] = id;
	}
}

#endif
