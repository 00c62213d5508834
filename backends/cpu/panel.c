/* panel.c - how 16 rows of a matrix lie in memory.
 *
 * floats      [k][16]; bf16 as pairs of k, [k / 2][16][2], an odd last k padded with zero
 * quantised   first the scales of the whole panel, padded to 64 bytes, then per block of 32 columns
 *             `bits` lines of 64 bytes.  Byte 4r + j of a line belongs to row r and columns
 *             4g + j of the groups g = 0..7 it holds:
 *
 *               8 bits   line g:     the quant of group g
 *               4 bits   line g < 4: group g low nibble, group g + 4 high nibble
 *               2 bits   line i < 2: groups 4i ... 4i + 3 from low to high
 *               1 bit    one line:   group g in bit g
 *
 *             5, 6 and 3 bits are 4 + 1, 4 + 2 and 2 + 1, low bits first.  Scales per 256 columns
 *             keep the file's integer sub-scales, so no type grows by more than what q2_k gains:
 *
 *             bits per value   q4_0 q4_1 q5_0 q5_1 q8_0 q2_k  q3_k  q4_k  q5_k  q6_k  iq4_nl iq4_xs
 *             in the file      4.5  5    5.5  6    8.5  2.625 3.44  4.5   5.5   6.56  4.5    4.25
 *             in a panel       4.5  5    5.5  6    8.5  3.125 3.56  4.625 5.625 6.56  4.5    4.31 */
#include "backends/cpu/cpu.h"

#define ROW(type, bits, block, scale, zero, lut) [WF_##type] = {bits, block, scale, zero, lut},
const struct cpu_format cpu_formats[WF_NDTYPE] = { CPU_QUANTS(ROW) };

static bool has_min(const struct cpu_format *f)
{
	return f->scale == SCALE_F16_MIN || f->scale == SCALE_SUPER_MIN;
}

/* Bytes of a panel's scales for 256 columns. */
static int64_t scale_bytes(const struct cpu_format *f)
{
	int64_t super = f->scale == SCALE_SUPER || f->scale == SCALE_SUPER_MIN;
	int64_t width = PANEL * (has_min(f) ? 2 : 1), nblock = 256 / f->block;

	return super ? 2 * width + nblock * width : 2 * width * nblock;
}

static bool times(int64_t a, int64_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }

static bool quant_sizes(struct cpu_mat *m, const struct cpu_format *f)
{
	size_t scale, quant;

	if (!times((m->cols + 31) / 32, scale_bytes(f) / 8, &scale) || scale > SIZE_MAX - 63)
		return false;
	m->scale_bytes = (scale + 63) & ~(size_t)63;
	return times(m->cols / 32, f->bits * 64, &quant) &&
		!__builtin_add_overflow(m->scale_bytes, quant, &m->panel_bytes);
}

static bool float_sizes(struct cpu_mat *m)
{
	int64_t cols = m->cols + (m->type == WF_BF16 && m->cols & 1);
	size_t bytes;

	if (!times(cols, PANEL * (m->type == WF_F32 ? 4 : 2), &bytes) || bytes > SIZE_MAX - 63)
		return false;
	m->panel_bytes = (bytes + 63) & ~(size_t)63;
	return true;
}

int cpu_mat_init(struct cpu_mat *m, wf_dtype type, int64_t rows, int64_t cols, wf_error *err)
{
	const char *name = wf_dtypes[type].name;
	const struct cpu_format *f = &cpu_formats[type];

	*m = (struct cpu_mat){.type = type, .rows = rows, .cols = cols};
	if (!f->bits && type != WF_F32 && type != WF_F16 && type != WF_BF16)
		return wf_fail(err, "expected a matrix of floats or of a quantised type, found %s", name);
	if (rows < 1 || cols < 1 || rows > INT64_MAX - PANEL || cols > INT64_MAX / 64 || cols % wf_dtypes[type].block)
		return wf_fail(err, "expected rows of a multiple of %d values of %s, found [%lld, %lld]",
			wf_dtypes[type].block, name, (long long)rows, (long long)cols);
	m->npanel = (rows + PANEL - 1) / PANEL;
	if (!(f->bits ? quant_sizes(m, f) : float_sizes(m)) ||
			__builtin_mul_overflow(m->npanel, m->panel_bytes, &m->bytes))
		return wf_fail(err, "a matrix [%lld, %lld] of %s does not fit in memory",
			(long long)rows, (long long)cols, name);
	return 0;
}
