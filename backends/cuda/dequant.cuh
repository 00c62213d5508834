/* dequant.cuh - what the blocks of GGUF's quantised types stand for, eight values at a time.
 *
 * decode8(block, i, v, type): values 8i..8i+7 of a block that begins at any even address, in shared or
 * global memory.  Eight neighbours always share a scale.  The order of the float operations is part
 * of the format (the intrinsics keep the compiler from joining them), so v equals the host's decoder
 * to the bit; graph/quant.c has the layouts in words. */
#ifndef DEQUANT_CUH
#define DEQUANT_CUH
#include "common.cuh"

struct q4_0; struct q4_1; struct q5_0; struct q5_1; struct q8_0; struct iq4_nl;
struct q2_k; struct q3_k; struct q4_k; struct q5_k; struct q6_k; struct iq4_xs;

/* Values and bytes of a block. */
template <typename W> struct format;
template <> struct format<half>   { static constexpr int LEN = 1, BYTES = 2; };
template <> struct format<bf16>   { static constexpr int LEN = 1, BYTES = 2; };
template <> struct format<float>  { static constexpr int LEN = 1, BYTES = 4; };
template <> struct format<q4_0>   { static constexpr int LEN = 32, BYTES = 18; };
template <> struct format<q4_1>   { static constexpr int LEN = 32, BYTES = 20; };
template <> struct format<q5_0>   { static constexpr int LEN = 32, BYTES = 22; };
template <> struct format<q5_1>   { static constexpr int LEN = 32, BYTES = 24; };
template <> struct format<q8_0>   { static constexpr int LEN = 32, BYTES = 34; };
template <> struct format<iq4_nl> { static constexpr int LEN = 32, BYTES = 18; };
template <> struct format<q2_k>   { static constexpr int LEN = 256, BYTES = 84; };
template <> struct format<q3_k>   { static constexpr int LEN = 256, BYTES = 110; };
template <> struct format<q4_k>   { static constexpr int LEN = 256, BYTES = 144; };
template <> struct format<q5_k>   { static constexpr int LEN = 256, BYTES = 176; };
template <> struct format<q6_k>   { static constexpr int LEN = 256, BYTES = 210; };
template <> struct format<iq4_xs> { static constexpr int LEN = 256, BYTES = 136; };

__device__ inline float scale_at(const byte *p) { return to_float(half{*(const unsigned short *)p}); }

/* Eight bytes from an even address, four to a word. */
__device__ inline uint2 bytes8(const byte *p)
{
	const unsigned short *h = (const unsigned short *)p;
	return make_uint2(h[0] | (unsigned)h[1] << 16, h[2] | (unsigned)h[3] << 16);
}

__device__ inline int byte_of(uint2 x, int i) { return (i < 4 ? x.x >> 8 * i : x.y >> 8 * (i - 4)) & 255; }

__device__ inline uint2 nibbles(uint2 x, int high)
{
	return make_uint2(x.x >> 4 * high & 0x0f0f0f0fu, x.y >> 4 * high & 0x0f0f0f0fu);
}

__device__ inline float times_less(float scale, int q, float offset)
{
	return __fsub_rn(__fmul_rn(scale, (float)q), offset);
}

__device__ inline float iq4_value(int nibble)
{
	/* -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113 */
	const unsigned low[2] = {0xbfad9881u, 0xf6eaddcfu}, high[2] = {0x26190d01u, 0x71594535u};
	unsigned word = nibble & 8 ? nibble & 4 ? high[1] : high[0] : nibble & 4 ? low[1] : low[0];
	return (float)(signed char)(word >> 8 * (nibble & 3));
}

/* ---- runs of 32: low nibbles are values 0-15, high ones 16-31 ----------------------------------- */

__device__ inline uint2 run32(const byte *q, int i) { return nibbles(bytes8(q + i % 2 * 8), i / 2); }

/* The fifth bits of values 8i..8i+7 are a byte of their own. */
__device__ inline int with_fifth(uint2 x, int high, int k) { return byte_of(x, k) | (high >> k & 1) << 4; }

__device__ inline void decode8(const byte *b, int i, float (&v)[8], q4_0 *)
{
	float d = scale_at(b);
	uint2 x = run32(b + 2, i);
	for (int k = 0; k < 8; k++)
		v[k] = (float)(byte_of(x, k) - 8) * d;
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], q4_1 *)
{
	float d = scale_at(b), m = scale_at(b + 2);
	uint2 x = run32(b + 4, i);
	for (int k = 0; k < 8; k++)
		v[k] = times_less(d, byte_of(x, k), -m);
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], q5_0 *)
{
	float d = scale_at(b);
	uint2 x = run32(b + 6, i);
	for (int k = 0; k < 8; k++)
		v[k] = (float)(with_fifth(x, b[2 + i], k) - 16) * d;
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], q5_1 *)
{
	float d = scale_at(b), m = scale_at(b + 2);
	uint2 x = run32(b + 8, i);
	for (int k = 0; k < 8; k++)
		v[k] = times_less(d, with_fifth(x, b[4 + i], k), -m);
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], q8_0 *)
{
	float d = scale_at(b);
	uint2 x = bytes8(b + 2 + 8 * i);
	for (int k = 0; k < 8; k++)
		v[k] = (float)(signed char)byte_of(x, k) * d;
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], iq4_nl *)
{
	float d = scale_at(b);
	uint2 x = run32(b + 2, i);
	for (int k = 0; k < 8; k++)
		v[k] = d * iq4_value(byte_of(x, k));
}

/* ---- runs of 256: 16 or 8 runs with small scales of their own ------------------------------------ */

/* Two bits of 16-value run `run`: 32 bytes serve four runs of 32. */
__device__ inline uint2 pairs_of(const byte *q, int run, int i)
{
	uint2 x = bytes8(q + run / 8 * 32 + run % 2 * 16 + i % 2 * 8);
	int shift = run % 8 / 2 * 2;
	return make_uint2(x.x >> shift & 0x03030303u, x.y >> shift & 0x03030303u);
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], q2_k *)
{
	int run = i / 2;
	float scale = scale_at(b + 80) * (float)(b[run] & 15), offset = scale_at(b + 82) * (float)(b[run] >> 4);
	uint2 x = pairs_of(b + 16, run, i);
	for (int k = 0; k < 8; k++)
		v[k] = times_less(scale, byte_of(x, k), offset);
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], q3_k *)
{
	int run = i / 2;
	const byte *s = b + 96;
	int low = run < 8 ? s[run] & 15 : s[run - 8] >> 4;
	float scale = scale_at(b + 108) * (float)((low | (s[8 + run % 4] >> run / 4 * 2 & 3) << 4) - 32);
	uint2 x = pairs_of(b + 32, run, i), third = bytes8(b + run % 2 * 16 + i % 2 * 8);
	for (int k = 0; k < 8; k++)
		v[k] = scale * (float)(byte_of(x, k) - (byte_of(third, k) >> run / 2 & 1 ? 0 : 4));
}

/* Six-bit scale and offset of 32-value run `run` in 12 bytes. */
__device__ inline int2 scale_offset(const byte *s, int run)
{
	if (run < 4)
		return make_int2(s[run] & 63, s[run + 4] & 63);
	return make_int2((s[run + 4] & 15) | s[run - 4] >> 6 << 4, s[run + 4] >> 4 | s[run] >> 6 << 4);
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], q4_k *)
{
	int run = i / 4;
	int2 so = scale_offset(b + 4, run);
	float scale = scale_at(b) * (float)so.x, offset = scale_at(b + 2) * (float)so.y;
	uint2 x = nibbles(bytes8(b + 16 + run / 2 * 32 + i % 4 * 8), run % 2);
	for (int k = 0; k < 8; k++)
		v[k] = times_less(scale, byte_of(x, k), offset);
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], q5_k *)
{
	int run = i / 4;
	int2 so = scale_offset(b + 4, run);
	float scale = scale_at(b) * (float)so.x, offset = scale_at(b + 2) * (float)so.y;
	uint2 x = nibbles(bytes8(b + 48 + run / 2 * 32 + i % 4 * 8), run % 2), fifth = bytes8(b + 16 + i % 4 * 8);
	for (int k = 0; k < 8; k++)
		v[k] = times_less(scale, byte_of(x, k) + (byte_of(fifth, k) >> run & 1) * 16, offset);
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], q6_k *)
{
	int run = i / 2, part = run % 8 / 2, at = run % 2 * 16 + i % 2 * 8;
	float scale = scale_at(b + 208) * (float)(signed char)b[192 + run];
	uint2 x = nibbles(bytes8(b + run / 8 * 64 + part % 2 * 32 + at), part / 2), high = bytes8(b + 128 + run / 8 * 32 + at);
	for (int k = 0; k < 8; k++)
		v[k] = scale * (float)((byte_of(x, k) | (byte_of(high, k) >> part * 2 & 3) << 4) - 32);
}

__device__ inline void decode8(const byte *b, int i, float (&v)[8], iq4_xs *)
{
	int run = i / 4;
	int low = b[4 + run / 2] >> run % 2 * 4 & 15, high = b[2 + run / 4] >> run % 4 * 2 & 3;
	float scale = scale_at(b) * (float)((low | high << 4) - 32);
	uint2 x = run32(b + 8 + run * 16, i % 4);
	for (int k = 0; k < 8; k++)
		v[k] = scale * iq4_value(byte_of(x, k));
}

/* ---- operands of matrix products -------------------------------------------------------------------- */

/* packed8(block, i, type, half): the same values in 16 bits, for the matrix units, without a detour through
 * float: a small whole number q is the half 1024 + q but for its upper byte, and less 1024 it is exact.
 * A scale that is a product is rounded once more than above. */
template <typename W, typename M> __device__ inline uint4 packed8(const byte *b, int i, W *tag, M)
{
	float v[8];
	decode8(b, i, v, tag);
	return pack8<M>(v);
}

/* Bytes 0 and 1 of x, or 2 and 3, as halves 1024 + q, and what `less` (twice a half) takes off. */
__device__ inline unsigned low_two(unsigned x, unsigned less) { return add2(__byte_perm(x, 0x64646464u, 0x4140), less); }
__device__ inline unsigned high_two(unsigned x, unsigned less) { return add2(__byte_perm(x, 0x64646464u, 0x4342), less); }
__device__ inline unsigned twice(unsigned short x) { return x | (unsigned)x << 16; }
enum : unsigned { LESS_1024 = 0xe400e400u, LESS_1032 = 0xe408e408u, LESS_1056 = 0xe420e420u, LESS_1152 = 0xe480e480u };

__device__ inline uint4 scaled(uint2 x, unsigned less, unsigned scale)
{
	return make_uint4(mul2(low_two(x.x, less), scale), mul2(high_two(x.x, less), scale), mul2(low_two(x.y, less), scale),
		mul2(high_two(x.y, less), scale));
}

__device__ inline uint4 scaled_plus(uint2 x, unsigned scale, unsigned offset)
{
	return make_uint4(fma2(low_two(x.x, LESS_1024), scale, offset), fma2(high_two(x.x, LESS_1024), scale, offset),
		fma2(low_two(x.y, LESS_1024), scale, offset), fma2(high_two(x.y, LESS_1024), scale, offset));
}

__device__ inline uint4 packed8(const byte *b, int i, q4_0 *, half)
{
	return scaled(run32(b + 2, i), LESS_1032, twice(*(const unsigned short *)b));
}

__device__ inline uint4 packed8(const byte *b, int i, q4_1 *, half)
{
	const unsigned short *h = (const unsigned short *)b;
	return scaled_plus(run32(b + 4, i), twice(h[0]), twice(h[1]));
}

__device__ inline uint4 packed8(const byte *b, int i, q8_0 *, half)
{
	uint2 x = bytes8(b + 2 + 8 * i);
	return scaled(make_uint2(x.x ^ 0x80808080u, x.y ^ 0x80808080u), LESS_1152, twice(*(const unsigned short *)b));
}

/* Scale and negative offset of a run from the 16 bytes a block of q4_k or q5_k begins with. */
__device__ inline uint2 run_scale(uint4 head, int run)
{
	unsigned s[3] = {head.y, head.z, head.w}, low, high;
	if (run < 4) {
		low = s[0] >> 8 * run & 63;
		high = s[1] >> 8 * run & 63;
	} else {
		low = (s[2] >> 8 * (run - 4) & 15) | (s[0] >> (8 * (run - 4) + 6) & 3) << 4;
		high = (s[2] >> (8 * (run - 4) + 4) & 15) | (s[1] >> (8 * (run - 4) + 6) & 3) << 4;
	}
	unsigned both = mul2(add2((low | high << 16) | 0x64006400u, LESS_1024), head.x ^ 0x80000000u);
	return make_uint2(__byte_perm(both, both, 0x1010), __byte_perm(both, both, 0x3232));
}

/* Blocks of whole 16 bytes, in rows that begin at such. */
__device__ inline uint4 packed8(const byte *b, int i, q4_k *, half)
{
	int run = i / 4;
	uint2 s = run_scale(*(const uint4 *)b, run), x = *(const uint2 *)(b + 16 + run / 2 * 32 + i % 4 * 8);
	return scaled_plus(nibbles(x, run % 2), s.x, s.y);
}

__device__ inline uint4 packed8(const byte *b, int i, q5_k *, half)
{
	int run = i / 4;
	uint2 s = run_scale(*(const uint4 *)b, run), x = *(const uint2 *)(b + 48 + run / 2 * 32 + i % 4 * 8);
	uint2 fifth = *(const uint2 *)(b + 16 + i % 4 * 8), q = nibbles(x, run % 2);
	q.x |= (fifth.x >> run & 0x01010101u) << 4;
	q.y |= (fifth.y >> run & 0x01010101u) << 4;
	return scaled_plus(q, s.x, s.y);
}

__device__ inline uint4 packed8(const byte *b, int i, q6_k *, half)
{
	int run = i / 2, part = run % 8 / 2, at = run % 2 * 16 + i % 2 * 8;
	float scale = scale_at(b + 208) * (float)(signed char)b[192 + run];
	uint2 x = nibbles(bytes8(b + run / 8 * 64 + part % 2 * 32 + at), part / 2), high = bytes8(b + 128 + run / 8 * 32 + at);
	x.x |= (high.x >> part * 2 & 0x03030303u) << 4;
	x.y |= (high.y >> part * 2 & 0x03030303u) << 4;
	return scaled(x, LESS_1056, twice(from_float<half>(scale).bits));
}

/* ---- any type: values k..k+7 of a row, k a multiple of 8 ------------------------------------------- */

template <typename W> __device__ inline void weights8(const byte *row, int k, float (&v)[8], W *tag)
{
	decode8(row + k / format<W>::LEN * format<W>::BYTES, k % format<W>::LEN / 8, v, tag);
}
__device__ inline void weights8(const byte *row, int k, float (&v)[8], half *) { load8((const half *)row + k, v); }
__device__ inline void weights8(const byte *row, int k, float (&v)[8], bf16 *) { load8((const bf16 *)row + k, v); }
__device__ inline void weights8(const byte *row, int k, float (&v)[8], float *) { load8((const float *)row + k, v); }

#endif
