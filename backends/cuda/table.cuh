/* table.cuh - the binding table: what the kernels of a step find in device memory.  C and CUDA.
 *
 * Kernels get its address; batches, page moves, preemption and prefix sharing change what it holds,
 * never a kernel's parameters.  All arrays are device memory, written before the step's first kernel. */
#ifndef TABLE_CUH
#define TABLE_CUH

enum { TABLE_MAXCLASS = 8 };

struct table {
	int ntoken, nseq, nrow;
	int page_tokens;
	const int *token;             /* [ntoken] ids */
	const int *pos;               /* [ntoken] position in its sequence */
	const int *seq;               /* [ntoken] its sequence in this batch */
	const int *row;               /* [nrow] tokens whose logits are wanted */
	const int *seq_start;         /* [nseq + 1] first token of each sequence in this batch */
	const int *seq_len;           /* [nseq] tokens cached once this step is done */
	struct table_pages {
		unsigned char *base;          /* the class's slab */
		const int *page;              /* [nseq][stride] page of each block of page_tokens */
		unsigned long long bytes;     /* of a page, all layers */
		int stride;
	} kv[TABLE_MAXCLASS];
};

#ifdef __CUDACC__
__device__ inline unsigned char *page_at(const struct table &t, int cls, int seq, int block)
{
	const auto &kv = t.kv[cls];
	return kv.base + kv.page[(size_t)seq * kv.stride + block] * kv.bytes;
}

/* Where value i of head h of a token's key goes, as a count of values from its page's layer. */
__device__ inline size_t key_at(int page, int dim, int h, int pos) { return ((size_t)h * page + pos % page) * dim; }
#endif

#endif
