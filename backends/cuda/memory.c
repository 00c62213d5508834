/* memory.c - three allocations: weights, work, KV pages; added up and compared before anything is loaded.
 *
 * work holds the activations as placed, the outputs in f32, scratch shared by all kernels (they run one
 * after the other), cuBLASLt's workspace and the binding table. */
#include "backends/cuda/cuda.h"

#ifdef WF_CUDA

#include <string.h>

enum { ALIGN = 256 };

static size_t take(size_t *at, size_t bytes)
{
	size_t start = *at;

	*at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
	return start;
}

static size_t constant_bytes(const wf_tensor *t)
{
	return wf_row_bytes(t->dtype, wf_last(t)) * (size_t)wf_rows(t);
}

static int list_constants(struct cuda_exec *e)
{
	const wf_plan *plan = e->base.plan;
	struct memory *m = &e->memory;

	m->constant = wf_alloc_n(e->arena, (size_t)plan->g->nnode + 1, sizeof *m->constant);
	m->item = wf_alloc_n(e->arena, (size_t)plan->g->nnode + 1, sizeof *m->item);
	if (!m->constant || !m->item)
		return wf_fail(e->base.err, "cuda: out of memory");
	for (int k = 0; k < plan->nkernel; k++)
		for (int i = 0; i < plan->kernel[k].nin; i++) {
			wf_tensor *t = plan->kernel[k].in[i];
			if (!t->constant || m->constant[t->id])
				continue;
			m->constant[t->id] = 1 + take(&m->weights_bytes, constant_bytes(t));
			m->item[m->nitem++] = (struct load_item){.t = t, .bytes = constant_bytes(t)};
		}
	return 0;
}

struct needs { size_t rows, product, unpacked, parts, counters; bool blas; };

static size_t most(size_t a, size_t b)
{
	return a > b ? a : b;
}

static struct needs count_needs(const struct cuda_exec *e)
{
	struct needs n = {0};

	for (int k = 0; k < e->base.plan->nkernel; k++)
		for (int i = 0; i < e->pages.kernel[k].nvariant; i++) {
			const struct variant *v = &e->pages.kernel[k].variant[i];
			n.rows = most(n.rows, (size_t)(v->rows * v->work.row_bytes));
			n.product = most(n.product, (size_t)(v->rows * v->work.product_bytes));
			n.unpacked = most(n.unpacked, (size_t)v->work.unpacked_bytes);
			n.parts = most(n.parts, (size_t)v->work.part_bytes);
			n.counters = most(n.counters, (size_t)v->work.counters * 4);
			for (int j = 0; j < v->work.n; j++)
				n.blas |= !v->work.launch[j].source;
		}
	return n;
}

/* Offsets first; addresses once there is an allocation to add. */
static int lay_out_work(struct cuda_exec *e)
{
	const wf_plan *plan = e->base.plan;
	struct memory *m = &e->memory;
	struct needs n = count_needs(e);
	size_t at = 0;

	m->output = wf_alloc_n(e->arena, (size_t)plan->g->nout + 1, sizeof *m->output);
	if (!m->output)
		return wf_fail(e->base.err, "cuda: out of memory");
	take(&at, (size_t)plan->arena_bytes);
	for (int i = 0; i < plan->g->nout; i++) {
		size_t bytes = (size_t)wf_nelem(plan->g->out[i].t) * sizeof(float);
		m->output[i] = take(&at, bytes);
		e->out_bytes = most(e->out_bytes, bytes);
	}
	m->rows = take(&at, n.rows);
	m->product = take(&at, n.product);
	m->unpacked = take(&at, n.unpacked);
	m->parts = take(&at, n.parts);
	m->counter_bytes = n.counters;
	m->counters = take(&at, n.counters);
	m->chosen = take(&at, (size_t)plan->opt.max_rows * 4);
	m->workspace = n.blas ? take(&at, CUDA_WORKSPACE) : 0;
	m->table_bytes = bind_bytes(plan, e->opt.slab, e->opt.ctx);
	m->table = take(&at, m->table_bytes);
	m->work_bytes = at;
	return 0;
}

static void lay_out_kv(struct cuda_exec *e)
{
	const wf_slab *slab = e->opt.slab;

	for (int c = 0; c < wf_slab_nclass(slab); c++)
		e->memory.kv_base[c] = take(&e->memory.kv_bytes, (size_t)wf_slab_npage(slab, c) *
			slab_page_bytes(wf_slab_class(slab, c), wf_slab_page_tokens(slab)));
}

static int prove(struct cuda_exec *e)
{
	const struct memory *m = &e->memory;
	size_t free_bytes, total, need = m->weights_bytes + m->work_bytes + m->kv_bytes;
	const double GiB = 1 << 30;

	if (CU(e->base.err, cuMemGetInfo(&free_bytes, &total)))
		return -1;
	if (need > free_bytes)
		return wf_fail(e->base.err, "cuda: needs %.2f GiB (weights %.2f, activations and scratch %.2f, KV %.2f); "
			"%s has %.2f of %.2f GiB free", (double)need / GiB, (double)m->weights_bytes / GiB,
			(double)m->work_bytes / GiB, (double)m->kv_bytes / GiB, e->gpu.name, (double)free_bytes / GiB,
			(double)total / GiB);
	return 0;
}

static int allocate(struct cuda_exec *e)
{
	struct memory *m = &e->memory;

	if (CU(e->base.err, cuMemAlloc(&m->weights, most(m->weights_bytes, ALIGN))) ||
	    CU(e->base.err, cuMemAlloc(&m->work, m->work_bytes)) ||
	    CU(e->base.err, cuMemAlloc(&m->kv, most(m->kv_bytes, ALIGN))))
		return -1;
	for (int i = 0; i < m->nitem; i++) {
		CUdeviceptr *at = &m->constant[m->item[i].t->id];
		*at += m->weights - 1;
		m->item[i].at = *at;
	}
	for (int i = 0; i < e->base.plan->g->nout; i++)
		m->output[i] += m->work;
	for (int c = 0; c < wf_slab_nclass(e->opt.slab); c++)
		m->kv_base[c] += m->kv;
	m->rows += m->work;
	m->product += m->work;
	m->unpacked += m->work;
	m->parts += m->work;
	m->counters += m->work;
	m->chosen += m->work;
	m->workspace = m->workspace ? m->workspace + m->work : 0;
	m->table += m->work;
	return CU(e->base.err, cuMemsetD8Async(m->table, 0, m->table_bytes, e->stream)) ||
		(m->counter_bytes && CU(e->base.err, cuMemsetD8Async(m->counters, 0, m->counter_bytes, e->stream))) ? -1 : 0;
}

int memory_open(struct cuda_exec *e)
{
	if (list_constants(e) || lay_out_work(e))
		return -1;
	lay_out_kv(e);
	return prove(e) || allocate(e) ? -1 : 0;
}

void memory_close(struct cuda_exec *e)
{
	if (e->memory.weights)
		cuda_driver.cuMemFree(e->memory.weights);
	if (e->memory.work)
		cuda_driver.cuMemFree(e->memory.work);
	if (e->memory.kv)
		cuda_driver.cuMemFree(e->memory.kv);
}

/* ---- what a kernel is given -------------------------------------------------------------------------------- */

static uint64_t value_at(const struct cuda_exec *e, const wf_tensor *t)
{
	const wf_plan *plan = e->base.plan;
	const wf_tensor *base = plan_storage(plan, t);

	for (int i = 0; i < plan->g->nout; i++)
		if (plan->g->out[i].t == base)
			return e->memory.output[i];
	return e->memory.work + (uint64_t)plan->value[base->id].offset;
}

static uint64_t layer_at(const struct cuda_exec *e, const wf_tensor *cache)
{
	const wf_slab *slab = e->opt.slab;
	int layer, c = kv_find(slab, cache, &layer);

	return c < 0 ? 0 : (uint64_t)layer * slab_layer_bytes(wf_slab_class(slab, c), wf_slab_page_tokens(slab));
}

uint64_t memory_resolve(const struct cuda_exec *e, const wf_kernel *kernel, const struct page_arg *arg)
{
	const struct memory *m = &e->memory;

	switch (arg->from) {
	case PAGE_TABLE:    return m->table;
	case PAGE_VALUE:    return value_at(e, page_arg_tensor(kernel, arg));
	case PAGE_CONSTANT: return m->constant[page_arg_tensor(kernel, arg)->id];
	case PAGE_KV:       return layer_at(e, page_arg_tensor(kernel, arg));
	case PAGE_ROWS:     return m->rows;
	case PAGE_PRODUCT:  return m->product;
	case PAGE_UNPACKED: return m->unpacked;
	case PAGE_PARTS:    return m->parts;
	case PAGE_COUNTERS: return m->counters;
	case PAGE_CHOSEN:   return m->chosen;
	}
	return 0;
}

#endif
