/* ring.c - chosen tokens on their way to the host: pinned memory the kernel writes, an event a step.
 *
 * The host may queue the next steps before it reads: their tokens refer to choices it has not seen. */
#include "backends/cuda/cuda.h"

#ifdef WF_CUDA

static size_t slot_words(const struct cuda_exec *e)
{
	return (size_t)e->base.plan->opt.max_rows;
}

int ring_open(struct cuda_exec *e)
{
	if (e->pages.head < 0)
		return 0;
	if (CU(e->base.err, cuMemHostAlloc((void **)&e->ring.token, WF_AHEAD * slot_words(e) * sizeof(int), 0)))
		return -1;
	for (int i = 0; i < WF_AHEAD; i++)
		if (CU(e->base.err, cuEventCreate(&e->ring.done[i], CU_EVENT_DISABLE_TIMING)))
			return -1;
	return 0;
}

void ring_close(struct cuda_exec *e)
{
	for (int i = 0; i < WF_AHEAD; i++)
		if (e->ring.done[i])
			cuda_driver.cuEventDestroy(e->ring.done[i]);
	if (e->ring.token)
		cuda_driver.cuMemFreeHost(e->ring.token);
}

/* Pinned memory has one address on the host and the device. */
int *ring_slot(const struct cuda_exec *e)
{
	return e->ring.token + (size_t)(e->ring.asked % WF_AHEAD) * slot_words(e);
}

int ring_sent(struct cuda_exec *e)
{
	return CU(e->base.err, cuEventRecord(e->ring.done[e->ring.asked++ % WF_AHEAD], e->stream));
}

const int32_t *ring_read(struct cuda_exec *e)
{
	int64_t slot = e->ring.read % WF_AHEAD;

	if (e->ring.read == e->ring.asked) {
		wf_fail(e->base.err, "cuda: no step has chosen a token that was not read");
		return NULL;
	}
	if (CU(e->base.err, cuEventSynchronize(e->ring.done[slot])))
		return NULL;
	e->ring.read++;
	return e->ring.token + (size_t)slot * slot_words(e);
}

#endif
