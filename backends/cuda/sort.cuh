/* sort.cuh - a step's choices put in the experts' order: a counting sort by one block.
 *
 * Parameters: choices.cuh's.
 * Hooks (HOOKS says they are there):  struct args { ids, list }, count(p)
 * Launch: one block of 1024 threads. */
#include "common.cuh"
#include "table.cuh"
#include "choices.cuh"

#ifndef HOOKS
struct args { const struct table *table; const int *ids; int *list; };
__device__ inline int count(const args &p) { return p.table->ntoken; }
#endif

enum { THREADS = 1024, OWN = ceil_div(EXPERTS, THREADS) };     /* experts of a thread, neighbours */

/* For each pair, call f(pair, expert, pairs of that expert in the warp, this lane's place among them). */
template <typename F> __device__ inline void each_pair(const args &p, int n, F f)
{
	for (int i = threadIdx.x; i - (int)threadIdx.x < n; i += THREADS) {
		int expert = i < n ? p.ids[i] : -1;
		unsigned same = __match_any_sync(~0u, expert);
		f(i, expert, same);
	}
}

__device__ inline int warp_sum_of(int x)
{
	for (int i = 16; i; i >>= 1)
		x += __shfl_xor_sync(~0u, x, i);
	return x;
}

/* Sum of what the threads before have; *total: of all. */
__device__ inline int sum_before(int x, int *total)
{
	__shared__ int warps[THREADS / 32];
	int lane = threadIdx.x % 32, sum = x;
	for (int i = 1; i < 32; i <<= 1) {
		int other = __shfl_up_sync(~0u, sum, i);
		sum += lane >= i ? other : 0;
	}
	if (lane == 31)
		warps[threadIdx.x / 32] = sum;
	__syncthreads();
	int others = warps[lane], before = warp_sum_of(lane < (int)threadIdx.x / 32 ? others : 0);
	*total = warp_sum_of(others);
	__syncthreads();
	return before + sum - x;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) sort(const __grid_constant__ args p)
{
	__shared__ int size[OWN * THREADS], place[OWN * THREADS];
	int lane = threadIdx.x % 32, own = threadIdx.x * OWN, pairs = 0, segments = 0, total, unused;
	grid_launch_next();
	for (int i = threadIdx.x; i < OWN * THREADS; i += THREADS)
		size[i] = 0;
	grid_wait();
	int n = count(p) * CHOSEN;
	__syncthreads();
	each_pair(p, n, [&](int, int expert, unsigned same) {
		if (expert >= 0 && expert < EXPERTS && lane == __ffs(same) - 1)
			atomicAdd(&size[expert], __popc(same));
	});
	__syncthreads();
	for (int i = 0; i < OWN; i++) {
		pairs += size[own + i];
		segments += (size[own + i] + TOKENS - 1) / TOKENS;
	}
	int at = sum_before(pairs, &unused), base = sum_before(segments, &total);
	if (threadIdx.x == 0)
		p.list[0] = total;
	for (int i = 0; i < OWN; i++) {
		int here = size[own + i], parts = (here + TOKENS - 1) / TOKENS;
		place[own + i] = at;
		for (int k = 0; k < parts; k++)
			segments_in(p.list)[base + k] = {own + i, at + k * TOKENS, at_most(TOKENS, here - k * TOKENS), base, parts};
		at += here;
		base += parts;
	}
	__syncthreads();
	each_pair(p, n, [&](int pair, int expert, unsigned same) {
		bool valid = expert >= 0 && expert < EXPERTS;
		int first = __ffs(same) - 1, start = 0;
		if (valid && lane == first)
			start = atomicAdd(&place[expert], __popc(same));
		start = __shfl_sync(~0u, start, first);
		if (valid)
			order_in(p.list)[start + __popc(same & (1u << lane) - 1)] = pair;
	});
}
