/* choices.cuh - a step's (token, expert) pairs in the experts' order, cut into segments.
 *
 * Pair i is choice i % CHOSEN of token i / CHOSEN.  A segment is up to TOKENS pairs of one expert: what a
 * kernel multiplies that expert's weights with at a time.  Where the pairs of an expert lie among each
 * other changes nothing: each is computed on its own.
 *
 * Parameters:  EXPERTS CHOSEN TOKENS   MAXPAIRS of a step
 *              EACH 1  activations are of each pair, 0 of each token
 * In memory:   number of segments | order[MAXPAIRS] | segments */
#ifndef CHOICES_CUH
#define CHOICES_CUH
#include "common.cuh"

#ifndef EXPERTS
#define EXPERTS  8
#define CHOSEN   2
#define MAXPAIRS 64
#define EACH     0
#endif
#ifndef TOKENS
#define TOKENS   4
#endif

struct segment {
	int expert, first, n;                              /* its pairs: order[first .. first + n) */
	int base, count;                                   /* the expert's segments: the first one, how many */
};

enum { MAXSEGMENTS = MAXPAIRS < EXPERTS + MAXPAIRS / TOKENS ? MAXPAIRS : EXPERTS + MAXPAIRS / TOKENS,
	CHOICE_BYTES = 4 * (1 + MAXPAIRS) + (int)sizeof(segment) * MAXSEGMENTS };

__device__ inline int *order_in(int *list) { return list + 1; }
__device__ inline segment *segments_in(int *list) { return (segment *)(list + 1 + MAXPAIRS); }
__device__ inline const int *order_in(const int *list) { return list + 1; }
__device__ inline const segment *segments_in(const int *list) { return (const segment *)(list + 1 + MAXPAIRS); }

template <typename T> __device__ inline void put(T *y, float v) { *y = from_float<T>(v); }

/* Which row of the activations a pair reads. */
__device__ inline int row_of_pair(int pair) { return EACH ? pair : pair / CHOSEN; }

#endif
