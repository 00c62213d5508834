/* pack.c - rows of a file to panels (panel.c has the layout).
 *
 * A quantised block is first split: quants as one byte each, scales as the file's own numbers.  Then
 * both are put into the panel, the quants a word (4 columns of a row) at a time. */
#include "backends/cpu/cpu.h"

#include <string.h>

/* One block of the file, 32 or 256 values. */
struct split {
	uint8_t q[256];
	uint16_t d, min;                  /* f16 bits */
	uint8_t sub[16], submin[16];      /* per 16 or 32 values, types of 256 */
};

static uint16_t half(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

/* 16 bytes: low nibbles are values 0-15, high nibbles 16-31. */
static void nibbles(uint8_t *q, const uint8_t *in)
{
	for (int i = 0; i < 16; i++) {
		q[i] = in[i] & 15;
		q[i + 16] = in[i] >> 4;
	}
}

static void fifth_bits(uint8_t *q, const uint8_t *in)
{
	for (int i = 0; i < 32; i++)
		q[i] |= (uint8_t)((in[i / 8] >> i % 8 & 1) << 4);
}

static void split_q4_0(const uint8_t *b, struct split *s)
{
	s->d = half(b);
	nibbles(s->q, b + 2);
}

static void split_q4_1(const uint8_t *b, struct split *s)
{
	s->d = half(b);
	s->min = half(b + 2);
	nibbles(s->q, b + 4);
}

static void split_q5_0(const uint8_t *b, struct split *s)
{
	s->d = half(b);
	nibbles(s->q, b + 6);
	fifth_bits(s->q, b + 2);
}

static void split_q5_1(const uint8_t *b, struct split *s)
{
	s->d = half(b);
	s->min = half(b + 2);
	nibbles(s->q, b + 8);
	fifth_bits(s->q, b + 4);
}

static void split_q8_0(const uint8_t *b, struct split *s)
{
	s->d = half(b);
	for (int i = 0; i < 32; i++)
		s->q[i] = b[2 + i] ^ 0x80;
}

static void two_bits(uint8_t *q, const uint8_t *in)
{
	for (int i = 0; i < 256; i++)
		q[i] = in[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

static void split_q2_k(const uint8_t *b, struct split *s)
{
	two_bits(s->q, b + 16);
	for (int i = 0; i < 16; i++) {
		s->sub[i] = b[i] & 15;
		s->submin[i] = b[i] >> 4;
	}
	s->d = half(b + 80);
	s->min = half(b + 82);
}

static void split_q3_k(const uint8_t *b, struct split *s)
{
	const uint8_t *high = b, *scale = b + 96;

	two_bits(s->q, b + 32);
	for (int i = 0; i < 256; i++)
		s->q[i] |= (uint8_t)((high[i % 32] >> i / 32 & 1) << 2);
	for (int i = 0; i < 16; i++) {
		int low = scale[i % 8] >> (i / 8 * 4) & 15, top = scale[8 + i % 4] >> (i / 4 * 2) & 3;
		s->sub[i] = (uint8_t)((low | top << 4) - 32);
	}
	s->d = half(b + 108);
}

/* 8 scales and 8 minima of 6 bits in 12 bytes, of q4_k and q5_k. */
static void six_bits(const uint8_t *in, struct split *s)
{
	for (int i = 0; i < 4; i++) {
		s->sub[i] = in[i] & 63;
		s->submin[i] = in[i + 4] & 63;
		s->sub[i + 4] = (uint8_t)((in[i + 8] & 15) | in[i] >> 6 << 4);
		s->submin[i + 4] = (uint8_t)(in[i + 8] >> 4 | in[i + 4] >> 6 << 4);
	}
}

static void nibble_rows(uint8_t *q, const uint8_t *in)
{
	for (int i = 0; i < 256; i++)
		q[i] = in[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
}

static void split_q4_k(const uint8_t *b, struct split *s)
{
	s->d = half(b);
	s->min = half(b + 2);
	six_bits(b + 4, s);
	nibble_rows(s->q, b + 16);
}

static void split_q5_k(const uint8_t *b, struct split *s)
{
	const uint8_t *high = b + 16;

	s->d = half(b);
	s->min = half(b + 2);
	six_bits(b + 4, s);
	nibble_rows(s->q, b + 48);
	for (int i = 0; i < 256; i++)
		s->q[i] |= (uint8_t)((high[i % 32] >> i / 32 & 1) << 4);
}

static void split_q6_k(const uint8_t *b, struct split *s)
{
	const uint8_t *high = b + 128;

	for (int i = 0; i < 256; i++) {
		int low = b[i / 128 * 64 + i % 64] >> (i / 64 % 2 * 4) & 15;
		s->q[i] = (uint8_t)(low | (high[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) << 4);
	}
	memcpy(s->sub, b + 192, 16);
	s->d = half(b + 208);
}

static void split_iq4_xs(const uint8_t *b, struct split *s)
{
	int high = half(b + 2);

	s->d = half(b);
	for (int i = 0; i < 8; i++) {
		int low = b[4 + i / 2] >> (i % 2 * 4) & 15;
		s->sub[i] = (uint8_t)((low | (high >> 2 * i & 3) << 4) - 32);
		nibbles(s->q + 32 * i, b + 8 + 16 * i);
	}
}

static void (*const split_of[WF_NDTYPE])(const uint8_t *, struct split *) = {
	[WF_Q4_0] = split_q4_0, [WF_Q4_1] = split_q4_1, [WF_Q5_0] = split_q5_0, [WF_Q5_1] = split_q5_1,
	[WF_Q8_0] = split_q8_0, [WF_Q2_K] = split_q2_k, [WF_Q3_K] = split_q3_k, [WF_Q4_K] = split_q4_k,
	[WF_Q5_K] = split_q5_k, [WF_Q6_K] = split_q6_k, [WF_IQ4_NL] = split_q4_0, [WF_IQ4_XS] = split_iq4_xs,
};

/* ---- into the panel -------------------------------------------------------------------------------- */

static uint32_t word(const uint8_t *q, int g)
{
	uint32_t w;
	memcpy(&w, q + 4 * g, 4);
	return w;
}

static void put_word(uint8_t *line, int r, uint32_t w) { memcpy(line + 4 * r, &w, 4); }

/* `bits` bits of each quant from bit `low` on: what a line's byte holds of its groups, g the first,
 * `step` the distance to the next. */
static uint32_t gather(const uint8_t *q, int low, int bits, int g, int step)
{
	uint32_t out = 0, mask = 0x01010101u * ((1u << bits) - 1);

	for (int i = 0; i < 8 / bits; i++)
		out |= (word(q, g + i * step) >> low & mask) << i * bits;
	return out;
}

/* 32 quants of row r. */
static void put_quants(uint8_t *line, int bits, int r, const uint8_t *q)
{
	int low = 0;

	if (bits == 8) {
		for (int g = 0; g < 8; g++)
			put_word(line + 64 * g, r, word(q, g));
		return;
	}
	if (bits & 4) {
		for (int g = 0; g < 4; g++, line += 64)
			put_word(line, r, gather(q, 0, 4, g, 4));
		low = 4;
	}
	if (bits & 2) {
		for (int i = 0; i < 2; i++, line += 64)
			put_word(line, r, gather(q, low, 2, 4 * i, 1));
		low += 2;
	}
	if (bits & 1)
		put_word(line, r, gather(q, low, 1, 0, 1));
}

static void put_half(uint8_t *to, int r, uint16_t h) { memcpy(to + 2 * r, &h, 2); }

/* Scales of row r, block b of the file. */
static void put_scales(uint8_t *to, const struct cpu_format *f, int64_t b, int r, const struct split *s)
{
	bool has_min = f->scale == SCALE_F16_MIN || f->scale == SCALE_SUPER_MIN;
	bool super = f->scale == SCALE_SUPER || f->scale == SCALE_SUPER_MIN;
	int width = PANEL * (has_min ? 2 : 1), nsub = super ? 256 / f->block : 0;

	to += b * (2 + nsub) * width;
	put_half(to, r, s->d);
	if (has_min)
		put_half(to + 2 * PANEL, r, s->min);
	to += 2 * width;
	for (int i = 0; i < nsub; i++, to += width) {
		to[r] = s->sub[i];
		if (has_min)
			to[PANEL + r] = s->submin[i];
	}
}

static void pack_quants(const struct cpu_mat *m, uint8_t *panel, int r, const uint8_t *row)
{
	const struct cpu_format *f = &cpu_formats[m->type];
	int n = wf_dtypes[m->type].block, bytes = wf_dtypes[m->type].bytes;
	uint8_t *line = panel + m->scale_bytes;
	struct split s;

	for (int64_t b = 0; b < m->cols / n; b++, row += bytes) {
		split_of[m->type](row, &s);
		put_scales(panel, f, b, r, &s);
		for (int i = 0; i < n; i += 32, line += 64 * f->bits)
			put_quants(line, f->bits, r, s.q + i);
	}
}

static void pack_floats(const struct cpu_mat *m, uint8_t *panel, int r, const uint8_t *row)
{
	for (int64_t k = 0; k < m->cols; k++)
		if (m->type == WF_F32)
			memcpy(panel + 4 * (k * PANEL + r), row + 4 * k, 4);
		else if (m->type == WF_F16)
			memcpy(panel + 2 * (k * PANEL + r), row + 2 * k, 2);
		else
			memcpy(panel + 2 * (k / 2 * 2 * PANEL + 2 * r + k % 2), row + 2 * k, 2);
}

void cpu_mat_pack(const struct cpu_mat *m, int64_t p, const void *const row[PANEL])
{
	uint8_t *panel = m->data + (size_t)p * m->panel_bytes;

	memset(panel, 0, m->panel_bytes);
	for (int r = 0; r < PANEL; r++)
		if (row[r] && cpu_formats[m->type].bits)
			pack_quants(m, panel, r, row[r]);
		else if (row[r])
			pack_floats(m, panel, r, row[r]);
}
