/* table.cuh - the binding table: what the kernels of a step find in device memory.  C and CUDA.
 *
 * Kernels get its address; batches, page moves, preemption and prefix sharing change what it holds,
 * never a kernel's parameters.  All arrays are device memory, written before the step's first kernel. */
#ifndef TABLE_CUH
#define TABLE_CUH

enum { TABLE_MAXCLASS = 8, TABLE_MAXCOUNT = 4096 };

/* How a wanted row's next token is chosen: graph.h's wf_pick. */
struct table_pick {
	double temp, top_p, min_p, repeat, presence, frequency;
	unsigned long long draw;      /* splitmix64's state before this draw */
	int top_k, ncount;
	const int *count;             /* [ncount][2] token, times it stands in the window */
};

struct table {
	int ntoken, nseq, nrow;
	int page_tokens;
	const int *token;             /* [ntoken] ids; below 0: ~row whose token the step before chose */
	const int *pos;               /* [ntoken] position in its sequence */
	const int *seq;               /* [ntoken] its sequence in this batch */
	const int *row;               /* [nrow] tokens whose logits are wanted */
	const int *seq_start;         /* [nseq + 1] first token of each sequence in this batch */
	const int *seq_len;           /* [nseq] tokens cached once this step is done */
	struct table_pages {
		unsigned char *base;          /* the class's slab */
		const int *page;              /* [nseq][stride] page of each block of page_tokens; not there: what none sees */
		unsigned long long bytes;     /* of a page, all layers */
		int stride;
	} kv[TABLE_MAXCLASS];
	const int *chosen;            /* [rows] of the step before */
	const struct table_pick *pick;        /* [nrow]; NULL: no token is chosen */
	int *ring;                    /* [nrow] where the host reads this step's tokens */
};

#ifdef __CUDACC__
__device__ inline int token_at(const struct table &t, int i)
{
	int id = t.token[i];
	return id < 0 ? t.chosen[~id] : id;
}

__device__ inline unsigned char *page_at(const struct table &t, int cls, int seq, int block)
{
	const auto &kv = t.kv[cls];
	return kv.base + kv.page[(size_t)seq * kv.stride + block] * kv.bytes;
}

/* Where value i of head h of a token's key goes, as a count of values from its page's layer. */
__device__ inline size_t key_at(int page, int dim, int h, int pos) { return ((size_t)h * page + pos % page) * dim; }
#endif

#endif
