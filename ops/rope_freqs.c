/* rope_freqs.c - the rotary frequencies of n values, and the ways of stretching them.
 * float32 throughout, like the references whose logits are compared: a frequency off in the last
 * bit turns into a visible angle thousands of tokens later. */
#include "ops/ops.h"
#include <string.h>

enum { N, TYPE, THETA, FACTOR, LOW, HIGH, ORIG, TRUNCATE };
enum { PLAIN, LINEAR, LLAMA3, YARN };

static int shape(wf_graph *g, wf_tensor *y)
{
	double n = y->attr[N];

	if (n < 1 || n > 65536 || y->attr[THETA] <= 0)
		return wf_fail(g->err, "rope_freqs: n=%g theta=%g, expected n of 1 to 65536 and a positive base (%s)",
			n, y->attr[THETA], g->scope);
	if (y->attr[TYPE] != PLAIN && y->attr[FACTOR] <= 0)
		return wf_fail(g->err, "rope_freqs: factor=%g, expected a positive one (%s)", y->attr[FACTOR], g->scope);
	y->ndim = 1;
	y->dim[0] = ((int64_t)n + 1) / 2;
	return 0;
}

/* Llama 3: long waves slowed by the factor, short ones kept, a ramp between. */
static float llama3(float freq, const double *a)
{
	float wavelength = 6.2831853071795864769f / freq;
	float low = (float)(a[ORIG] / a[LOW]), high = (float)(a[ORIG] / a[HIGH]);

	if (wavelength > low)
		return freq / (float)a[FACTOR];
	if (wavelength < high)
		return freq;
	float smooth = ((float)a[ORIG] / wavelength - (float)a[LOW]) / (float)(a[HIGH] - a[LOW]);
	return (1 - smooth) * (freq / (float)a[FACTOR]) + smooth * freq;
}

/* YaRN: the value at which a wave turns `turns` times within the original context. */
static double yarn_dim(double turns, const double *a)
{
	return a[N] * log(a[ORIG] / (turns * 2 * M_PI)) / (2 * log(a[THETA]));
}

static float yarn(float freq, int64_t i, const double *a)
{
	double low = yarn_dim(a[HIGH], a), high = yarn_dim(a[LOW], a);

	if (a[TRUNCATE] != 0) {
		low = floor(low);
		high = ceil(high);
	}
	low = fmax(low, 0);
	high = fmin(high, a[N] - 1);
	/* backwards where the original context is shorter than a turn: then no wave is slowed */
	double ramp = ((double)i - low) / (high != low ? high - low : 0.001);

	ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
	return (float)(freq / a[FACTOR] * ramp + freq * (1 - ramp));
}

static void eval(wf_tensor *y)
{
	const double *a = y->attr;
	float *o = y->data;

	for (int64_t i = 0; i < wf_nelem(y); i++) {
		float freq = 1 / powf((float)a[THETA], (float)(2 * i) / (float)a[N]);
		switch ((int)a[TYPE]) {
		case LINEAR: freq /= (float)a[FACTOR]; break;
		case LLAMA3: freq = llama3(freq, a); break;
		case YARN:   freq = yarn(freq, i, a); break;
		}
		o[i] = freq;
	}
}

const wf_op wf_op_rope_freqs = {
	.name   = "rope_freqs",
	.doc    = "y[i] = theta^(-2i/n), i up to half of n, rounded up; stretched: type 0 not, 1 linear, 2 llama3, 3 yarn (low, high: its slow and fast beta; truncate: to whole dims)",
	.source = "Su et al. 2021, arXiv 2104.09864; YaRN, arXiv 2309.00071",
	.kind   = WF_LEAF,
	.attr   = "n# type#=0 theta=10000 factor=0 low=0 high=0 orig=0 truncate#=1",
	.shape  = shape,
	.eval   = eval,
	.cost   = no_cost,
	.tol    = 1e-12f,
	.test   = TESTS(
		"(rope_freqs n=4 theta=10000)", "[1 0.01]",
		"(rope_freqs n=3 theta=1000)", "[1 0.01]",
		"(rope_freqs n=4 type=1 theta=10000 factor=4)", "[0.25 0.0025]",
		"(rope_freqs n=4 type=2 theta=10000 factor=8 low=1 high=4 orig=128)", "[1 0.00125]",
		"(rope_freqs n=4 type=3 theta=10000 factor=4 low=1 high=32 orig=4096)", "[1 0.00625]",
		"(rope_freqs n=4 type=3 theta=10 factor=4 low=1 high=32 orig=0.01)", "[1 0.316227766]"),
};

wf_tensor *wf_rope_freqs(wf_graph *g, int n, const struct wf_rope_freqs *f)
{
	return wf_node(g, &wf_op_rope_freqs, NULL, 0, (double[WF_MAXATTR]){
		n, f->type, f->theta, f->factor, f->low, f->high, f->orig_ctx, !f->keep_fractions});
}
