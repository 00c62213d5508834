/* route.cuh - which experts each token goes to, and how much each of them counts; a warp a token.
 *
 * Scores and gates are doubles, as in the ops' definitions, so that near ties fall the same way; of equal
 * scores the lower number wins.  A lane keeps the best of its own every 32nd expert and looks through
 * them again only when that one was taken.
 *
 * Parameters:  EXPERTS CHOSEN   experts, and how many each token gets
 *              CHOOSE 1         choose: SIGMOID, GROUPS of which GROUPK count by GROUPBEST scores (0: no groups), BIAS 1
 *              WEIGH 1          gates of the chosen: MODE (0 softmax over all, 1 sigmoid), NORM, SCALE
 *              STORE 1          the choice is written (it is read when CHOOSE is 0)
 * Hooks (HOOKS says they are there):  struct args { logits, bias, ids, gates }, count(p)
 * Launch: one block of 32 threads a token. */
#include "common.cuh"
#include "table.cuh"

#ifndef HOOKS
#define EXPERTS 128
#define CHOSEN  8
#define CHOOSE  1
#define SIGMOID 1
#define GROUPS  8
#define GROUPK  4
#define GROUPBEST 2
#define BIAS    1
#define WEIGH   1
#define MODE    1
#define NORM    1
#define SCALE   2.5f
#define STORE   1
struct args { const struct table *table; const half *logits; const float *bias; int *ids; half *gates; };
__device__ inline int count(const args &p) { return p.table->ntoken; }
#endif

struct best { double score; int at; };                     /* at below 0: none */

__device__ inline bool beats(const best &a, const best &b)
{
	return b.at < 0 || (a.at >= 0 && (a.score > b.score || (a.score == b.score && a.at < b.at)));
}

/* The best of this lane's entries that are not taken. */
__device__ inline best best_of(const double *score, const bool *taken, int n)
{
	best b = {0, -1};
	for (int i = threadIdx.x; i < n; i += 32) {
		best x = {score[i], i};
		if (!taken[i] && beats(x, b))
			b = x;
	}
	return b;
}

__device__ inline int best_of_warp(best b)
{
	for (int i = 16; i; i >>= 1) {
		best other = {__shfl_xor_sync(~0u, b.score, i), __shfl_xor_sync(~0u, b.at, i)};
		if (beats(other, b))
			b = other;
	}
	return __shfl_sync(~0u, b.at, 0);
}

/* The k best entries of n, in order; each is taken. */
__device__ inline void take_best(const double *score, bool *taken, int n, int k, int *chosen)
{
	best own = best_of(score, taken, n);
	for (int i = 0; i < k; i++) {
		int at = best_of_warp(own);
		if (threadIdx.x == 0)
			chosen[i] = at;
		if (threadIdx.x == at % 32) {
			taken[at] = true;
			own = best_of(score, taken, n);
		}
	}
	__syncwarp();
}

#if CHOOSE
#if GROUPS > 1
enum { EACH_GROUP = EXPERTS / GROUPS };

/* A group is as good as its two best, or its best. */
__device__ inline double group_score(const double *score)
{
	double first = -INFINITY, second = -INFINITY;
	for (int i = 0; i < EACH_GROUP; i++) {
		if (score[i] > first) {
			second = first;
			first = score[i];
		} else if (score[i] > second)
			second = score[i];
	}
	return GROUPBEST > 1 && EACH_GROUP > 1 ? first + second : first;
}

__device__ inline void keep_groups(double *score, int *chosen)
{
	__shared__ double group[GROUPS];
	__shared__ bool kept[GROUPS];
	for (int i = threadIdx.x; i < GROUPS; i += 32) {
		group[i] = group_score(score + i * EACH_GROUP);
		kept[i] = false;
	}
	__syncwarp();
	take_best(group, kept, GROUPS, GROUPK, chosen);
	for (int i = threadIdx.x; i < EXPERTS; i += 32)
		if (!kept[i / EACH_GROUP])
			score[i] = -INFINITY;
	__syncwarp();
}
#endif

template <typename T> __device__ inline void choose(const args &p, const T *logits, int *chosen)
{
	__shared__ double score[EXPERTS];
	__shared__ bool taken[EXPERTS];
	__shared__ int groups[GROUPS > 1 ? GROUPK : 1];
	for (int i = threadIdx.x; i < EXPERTS; i += 32) {
		float x = to_float(logits[i]);
		score[i] = SIGMOID ? 1 / (1 + (float)exp(-(double)x)) : x;
#if BIAS
		score[i] += to_float(p.bias[i]);
#endif
		taken[i] = false;
	}
	__syncwarp();
#if GROUPS > 1
	keep_groups(score, groups);
#endif
	take_best(score, taken, EXPERTS, CHOSEN, chosen);
}
#endif

#if WEIGH
__device__ inline double warp_sum(double x)
{
	for (int i = 16; i; i >>= 1)
		x += __shfl_xor_sync(~0u, x, i);
	return x;
}

template <typename T> __device__ inline double softmax_sum(const T *logits, float *most)
{
	double sum = 0;
	*most = -INFINITY;
	for (int i = threadIdx.x; i < EXPERTS; i += 32)
		*most = fmaxf(*most, to_float(logits[i]));
	*most = warp_max(*most);
	for (int i = threadIdx.x; i < EXPERTS; i += 32)
		sum += exp((double)to_float(logits[i]) - (double)*most);
	return warp_sum(sum);
}

template <typename T, typename Y> __device__ inline void weigh(const T *logits, const int *chosen, Y *gates)
{
	float most = 0;
	double sum = MODE ? 1 : softmax_sum(logits, &most), total = 0;
	for (int i = threadIdx.x; i < CHOSEN; i += 32) {
		double x = to_float(logits[chosen[i]]);
		total += MODE ? 1 / (1 + exp(-x)) : exp(x - most) / sum;
	}
	total = warp_sum(total);
	double factor = SCALE / (NORM ? total + (MODE ? 1e-20 : 0) : 1.0);
	for (int i = threadIdx.x; i < CHOSEN; i += 32) {
		double x = to_float(logits[chosen[i]]);
		gates[i] = from_float<Y>((float)((float)(MODE ? 1 / (1 + exp(-x)) : exp(x - most) / sum) * factor));
	}
}
#endif

extern "C" __global__ void __launch_bounds__(32) route(const __grid_constant__ args p)
{
	__shared__ int chosen[CHOSEN];
	size_t token = blockIdx.x;
	grid_launch_next();
	grid_wait();
	if ((int)token >= count(p))
		return;
	const auto *logits = p.logits + token * EXPERTS;
#if CHOOSE
	choose(p, logits, chosen);
#else
	for (int i = threadIdx.x; i < CHOSEN; i += 32)
		chosen[i] = p.ids[token * CHOSEN + i];
	__syncwarp();
#endif
#if CHOOSE && STORE
	for (int i = threadIdx.x; i < CHOSEN; i += 32)
		p.ids[token * CHOSEN + i] = chosen[i];
#endif
#if WEIGH
	weigh(logits, chosen, p.gates + token * CHOSEN);
#endif
}
