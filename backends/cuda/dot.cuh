/* dot.cuh - what the matrix product kernels share: hooks, and the stream of a warp's weights.
 *
 * A weight is [ROWS][COLS], row-major, blocks of a quantised type whole within a row.  A warp takes
 * 16 rows by CHUNK columns at a time, by asynchronous copies into a ring of its own in shared memory:
 * bytes under way then cost no registers, no block-wide barrier stands between request and use, and
 * every request covers whole sectors.
 *
 * Which rows form a tile is the hooks' choice.  A unit is one output row, or with PAIR two rows whose
 * results meet in one thread: the halves of a rotated head, or a gate and what it gates, without the
 * weights being rearranged (prompts read the same weights through cuBLASLt).
 *
 * Parameters:  ROWS COLS  the matrix            WTYPE  its type: half bf16 float q4_0 ... iq4_xs
 *              PAIR       1: two rows a unit    UNITS  ROWS, or pairs of rows
 *              XTYPE YTYPE  activations read and written
 *              MMA 1      matrix units: 16-bit activations of type MTYPE (the weight's own if it has
 *                         16 bits); 0: float arithmetic on float activations
 * Hooks (generated text; HOOKS says they are there):
 *   struct args          the kernel's one parameter, pointers in the host's order
 *   row_at(p, unit, side)             address of a row; matrices begin at multiples of 16 bytes
 *   x8(p, token, k, v)                activations k..k+7 of a token, zero past COLS
 *   store(p, unit, token, a, b, extra)   the epilogue
 *   fetch(p, unit, token)             with FETCH: what store gets as extra; called before the weights are there
 *   count(p)                          tokens of this step
 */
#ifndef DOT_CUH
#define DOT_CUH
#include "common.cuh"
#include "dequant.cuh"
#include "table.cuh"

#ifndef ROWS
#define ROWS  12288
#define COLS  4096
#endif
#ifndef WTYPE
#define WTYPE half
#endif
#ifndef XTYPE
#define XTYPE half
#endif
#ifndef YTYPE
#define YTYPE XTYPE
#endif
#ifndef PAIR
#define PAIR  0
#endif
#ifndef UNITS
#define UNITS (PAIR ? ROWS / 2 : ROWS)
#endif
#ifndef MMA
#define MMA   1
#endif
#ifndef MTYPE
#define MTYPE half
#endif

enum { WLEN = format<WTYPE>::LEN, WBYTES = format<WTYPE>::BYTES };
enum : long long { ROW_BYTES = (long long)COLS / WLEN * WBYTES };
enum { XALIGNED = COLS * sizeof(XTYPE) % 16 == 0, YALIGNED = ROWS * sizeof(YTYPE) % 16 == 0 };

#ifndef HOOKS
struct args { const struct table *table; const byte *w; const XTYPE *x; YTYPE *y; };

__device__ inline int count(const args &p) { return p.table->ntoken; }
__device__ inline const byte *row_at(const args &p, int unit, int side)
{
	return p.w + (PAIR ? 2 * unit + side : unit) * ROW_BYTES;
}
__device__ inline void x8(const args &p, int token, int k, float (&v)[8])
{
	load8_of<XALIGNED>(p.x + (size_t)token * COLS, k, COLS, v);
}
__device__ inline void store(const args &p, int unit, int token, float a, float b, float)
{
	YTYPE *y = p.y + (size_t)token * ROWS;
	y[PAIR ? 2 * unit : unit] = from_float<YTYPE>(a);
	if (PAIR)
		y[2 * unit + 1] = from_float<YTYPE>(b);
}
#endif

/* ---- the stream of weights ------------------------------------------------------------------------- */

enum {
	DENSE = WLEN == 1,
	CHUNK = DENSE ? 64 : 256,                          /* columns a warp takes at a time */
	CHUNKS = (COLS + CHUNK - 1) / CHUNK,
	PIECE = CHUNK / WLEN * WBYTES,                     /* bytes of one row in a chunk */
	SNUG = ROW_BYTES % 16 == 0 && PIECE % 16 == 0,     /* every piece begins at a multiple of 16 */
	SLOT = (SNUG || DENSE ? PIECE : PIECE + 29) / 16 * 16, /* room for it as it lies, with its neighbours' bytes */
	STAGE = 16 * SLOT,
	COPIES = ceil_div(SLOT, 32),                       /* 16-byte copies of a lane per chunk */
	UNIT_ROWS = PAIR ? 8 : 16                          /* units of 16 rows */
};
static_assert(!DENSE || SNUG || ROW_BYTES % 2 == 0, "rows of whole values");
static_assert(COLS % WLEN == 0, "rows hold whole blocks");

/* Rows 0-15 of a tile are units first.., with PAIR their first rows and then their second ones; past the last
 * unit its rows again. */
__device__ inline const byte *tile_row(const args &p, int first, int last, int r)
{
	int unit = first + (PAIR ? r & 7 : r);
	return row_at(p, unit < last ? unit : last - 1, PAIR ? r >> 3 : 0);
}

/* Dense columns change places within a row: whether eight neighbouring rows are read at one column or two
 * rows at four columns, they meet different banks. */
__device__ inline int swizzle(int r) { return DENSE ? (r & 1) << 2 | (r >> 1 & 3) : 0; }

struct stream { const byte *from[COPIES]; };             /* where this lane's next copies begin */

__device__ inline void stream_open(const args &p, stream &s, int first, int last, int chunk)
{
	for (int i = 0; i < COPIES; i++) {
		int u = threadIdx.x % 32 + 32 * i, r = at_most(u / (SLOT / 16), 15);
		s.from[i] = tile_row(p, first, last, r) + (long long)chunk * PIECE + (SNUG ? u % (SLOT / 16) * 16 : 0);
	}
}

/* 16 bytes of a piece into its slot.  `from` is where they lie if every piece is SNUG, else where the piece
 * begins; `left` bytes of the row are left from there. */
__device__ inline void copy_column(byte *to, const byte *from, int column, int left)
{
	enum { WHOLE = SNUG && COLS % CHUNK == 0 };
	if (WHOLE)
		copy16(shared_at(to), from);
	else if (SNUG)
		copy16(shared_at(to), from, at_least(0, at_most(16, left - column * 16)));
	else if (DENSE)
		for (int k = 0; k < 16; k += 2)
			*(unsigned short *)(to + k) = column * 16 + k < left ? *(const unsigned short *)(from + column * 16 + k) : 0;
	else {
		int skew = (int)((size_t)from & 15);
		copy16(shared_at(to), from - skew + column * 16, at_least(0, at_most(16, left + skew - column * 16)));
	}
}

__device__ inline int bytes_left(int chunk)
{
	long long left = ROW_BYTES - (long long)chunk * PIECE;
	return left < PIECE ? (int)left : PIECE;
}

/* Ask for a chunk, and go on to the one `stride` further. */
__device__ inline void stream_request(stream &s, byte *stage, int chunk, int stride)
{
	for (int i = 0; i < COPIES; i++) {
		int u = threadIdx.x % 32 + 32 * i, r = u / (SLOT / 16), column = u % (SLOT / 16);
		if (SLOT % 32 && r > 15)
			break;
		copy_column(stage + r * SLOT + (column ^ swizzle(r)) * 16, s.from[i], column, bytes_left(chunk));
		s.from[i] += stride * PIECE;
	}
}

/* Where row r's piece begins past the slot's start: the low bits of its address. */
__device__ inline unsigned skew_of(const byte *row, int chunk)
{
	return SNUG || DENSE ? 0 : (unsigned)((size_t)row + (size_t)chunk * PIECE) & 15;
}

/* Dense 16-bit weights go from the stage to the matrix units as they are. */
enum { DIRECT = MMA && DENSE && WBYTES == 2 && SNUG && same<WTYPE, MTYPE>::value };

/* Columns 8i..8i+7 of row r in a stage. */
__device__ inline void piece8(const byte *stage, int r, unsigned skew, int i, float (&v)[8])
{
	const byte *slot = stage + r * SLOT;
	if constexpr (!DENSE) {
		weights8(slot + skew, 8 * i, v, (WTYPE *)0);
	} else if constexpr (WBYTES == 4) {
		float4 a = *(const float4 *)(slot + (2 * i ^ swizzle(r)) * 16), b = *(const float4 *)(slot + (2 * i + 1 ^ swizzle(r)) * 16);
		v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
		v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
	} else
		unpack8<WTYPE>(*(const uint4 *)(slot + (i ^ swizzle(r)) * 16), v);
}

/* The same, as operand of a matrix product. */
__device__ inline uint4 piece8_packed(const byte *stage, int r, unsigned skew, int i)
{
	if constexpr (same<WTYPE, MTYPE>::value) {
		return *(const uint4 *)(stage + r * SLOT + (i ^ swizzle(r)) * 16);
	} else if constexpr (!DENSE) {
		return packed8(stage + r * SLOT + skew + 8 * i / WLEN * WBYTES, 8 * i % WLEN / 8, (WTYPE *)0, MTYPE{});
	} else {
		float v[8];
		piece8(stage, r, skew, i, v);
		return pack8<MTYPE>(v);
	}
}

/* Which piece lane c of a row's four takes m-th.  Where low and high nibbles of eight bytes are pieces two
 * apart, a lane takes both, one after the other. */
__device__ inline int lane_piece(int c, int m)
{
	return WLEN == 32 && WBYTES < 32 ? 4 * (m / 2 * 2 + c / 2) + c % 2 + m % 2 * 2 : c + 4 * m;
}

#endif
