/* attend.cuh - what the attention kernels share: where keys and values lie, what becomes of a score.
 *
 * Pages hold PAGE tokens of every layer of a class: [layer][K|V][head][token][dim] (graph.h, slab).
 *
 * Parameters:  HEADS KVHEADS KDIM VDIM   heads of queries, of keys; dims multiples of 8 up to 256
 *              PAGE KV_CLASS             tokens of a page, a multiple of 16; index in table.kv
 *              KVTYPE                    half bf16 float
 *              XTYPE QSTRIDE             queries, and values between two tokens of them
 *              SCALE WINDOW SOFTCAP      of q k^T; tokens seen, 0 all; 0 none
 *              ALIBI NHEAD HEAD0         max bias, 0 none; heads of the whole model, the first one here
 *              SINKS                     1: args has sinks [HEADS], of any type of numbers
 *              MMA                       1: matrix units, KVTYPE has 16 bits; 0: float arithmetic
 *              MIXED                     1: sequences of several new tokens may stand in the step: attend_prefill
 *                                        takes those, attend_decode the others
 * The kernel's one parameter is struct args, below. */
#ifndef ATTEND_CUH
#define ATTEND_CUH
#include "common.cuh"
#include "table.cuh"

#ifndef HEADS
#define HEADS    32
#define KVHEADS  32
#define KDIM     128
#define VDIM     128
#endif
#ifndef PAGE
#define PAGE     64
#endif
#ifndef KV_CLASS
#define KV_CLASS 0
#endif
#ifndef KVTYPE
#define KVTYPE   half
#endif
#ifndef XTYPE
#define XTYPE    half
#endif
#ifndef QSTRIDE
#define QSTRIDE  (HEADS * KDIM)
#endif
#ifndef SCALE
#define SCALE    0.0883883476f
#endif
#ifndef WINDOW
#define WINDOW   0
#endif
#ifndef SOFTCAP
#define SOFTCAP  0
#endif
#ifndef ALIBI
#define ALIBI    0
#endif
#ifndef NHEAD
#define NHEAD    HEADS
#endif
#ifndef HEAD0
#define HEAD0    0
#endif
#ifndef SINKS
#define SINKS    0
#endif
#ifndef MMA
#define MMA      1
#endif
#ifndef MIXED
#define MIXED    0
#endif

#ifndef ARGS
struct args {
	const struct table *table;
	const XTYPE *q;               /* [tokens] rows of QSTRIDE */
	XTYPE *y;                     /* [tokens][HEADS][VDIM] */
	wide layer;                   /* byte offset of this layer within a page */
	float *work;                  /* attend_decode's WORK_FLOATS for each block; else unused */
	unsigned *counter;            /* [sequences * HEAD_UNITS], zero before the first step; else unused */
	const float *sinks;
};
#endif

enum { GROUP = HEADS / KVHEADS, KVBYTES = sizeof(KVTYPE) };

#define LOG2E 1.44269504f

/* Head h's first key in the page of a block of PAGE positions, and its first value. */
__device__ inline const byte *page_keys(const args &p, int seq, int block, int h)
{
	return page_at(*p.table, KV_CLASS, seq, block) + p.layer + (size_t)h * (PAGE * KDIM * KVBYTES);
}

__device__ inline const byte *page_values(const byte *keys, int h)
{
	return keys + (size_t)(KVHEADS - h) * (PAGE * KDIM * KVBYTES) + (size_t)h * (PAGE * VDIM * KVBYTES);
}

__device__ inline int new_tokens(const args &p, int seq) { return p.table->seq_start[seq + 1] - p.table->seq_start[seq]; }

/* First position a query at pos sees. */
__device__ inline int first_seen(int pos) { return WINDOW > 0 && pos >= WINDOW ? pos - WINDOW + 1 : 0; }

/* ALiBi's slope of head h of this rank: powers of 2^(-bias/m), m the largest power of two in NHEAD, then the
 * odd powers of the next finer series. */
__device__ inline float slope_of(int h)
{
	int m = 1;
	h += HEAD0;
	while (2 * m <= NHEAD)
		m *= 2;
	return h < m ? exp2f(-(float)ALIBI * (h + 1) / m) : exp2f(-(float)ALIBI * (2 * (h - m) + 1) / (2.0f * m));
}

/* A raw product's exponent to base 2; distance = key position - query position. */
__device__ inline float exponent(float s, float slope, int distance)
{
	if (!(SOFTCAP > 0) && !(ALIBI > 0))
		return s * (float)(SCALE * LOG2E);
	s *= (float)SCALE;
	if (SOFTCAP > 0)
		s = (float)SOFTCAP * tanhf(s / (float)(SOFTCAP > 0 ? SOFTCAP : 1));
	if (ALIBI > 0)
		s += slope * distance;
	return s * LOG2E;
}

#endif
