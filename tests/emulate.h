/* emulate.h - CUDA's words for a C++ compiler: a thread block as fibers of one CPU thread.
 *
 * Pages compile with this in front instead of ptx.cuh and of wgmma.cuh's assembler.  Blocks run one after
 * the other, threads until they wait for each other, so what a kernel computes is tested, what it races
 * for only in part.  Copies into shared memory and Hopper's products happen when they are waited for,
 * never before; with EMULATE_EAGER=1 at once.  Shared memory starts as NaNs (templates' variables do
 * not), and what lies behind the launch's share may not change; vectors at the wrong address end the
 * process (-fsanitize=alignment).
 *
 * C's headers as they are: C++'s own take most of a page's compilation. */
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS 1
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define __CUDACC__ 1
#define __device__
#define __host__
#define __global__
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static __attribute__((section("emu_shared")))
#define PTX_CUH
#define WGMMA_PTX

typedef unsigned char byte;
typedef unsigned long long wide;
struct half { unsigned short bits; };
struct bf16 { unsigned short bits; };
struct uint2 { unsigned x, y; } __align__(8);
struct int2 { int x, y; } __align__(8);
struct uint4 { unsigned x, y, z, w; } __align__(16);
struct int4 { int x, y, z, w; } __align__(16);
struct float2 { float x, y; } __align__(8);
struct float4 { float x, y, z, w; } __align__(16);
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

enum { EMU_SMEM = 232448, EMU_REDZONE = 4096, EMU_BASE = 1024 + 128, EMU_STACK = 64 << 10, EMU_PATIENCE = 200000000 };
__align__(1024) byte smem[EMU_SMEM + EMU_REDZONE];
static __attribute__((section("emu_shared"), used)) int emu_shared_word;    /* there is such a section */
extern "C" byte __start_emu_shared[], __stop_emu_shared[];

/* ---- fibers: the stack pointer and what the ABI keeps ---- */

struct emu_dim { unsigned x, y, z; };
struct emu_copy { void *to; const void *from; int n; unsigned group; wide *arrival; };     /* arrival: not a copy, but at that barrier */
struct emu_product { float *d; int columns; const unsigned *a; wide at, b; bool more, half; unsigned group; };

template <typename T> struct emu_queue {      /* what was asked for and has not happened; groups that were closed */
	T *item;
	int n, room;
	unsigned group;

	void add(T x)
	{
		if (n == room)
			item = (T *)realloc(item, sizeof(T) * (room = room * 2 + 64));
		x.group = group;
		item[n++] = x;
	}
	template <typename F> void take(int most, F happens)
	{
		for (int k = 0; k < most; k++)
			happens(item[k]);
		memmove(item, item + most, sizeof(T) * (n -= most));
	}
	template <typename F> void wait(int most, F happens)
	{
		int k = 0;
		while (k < n && (int)(group - item[k].group) > most)
			k++;
		take(k, happens);
	}
};

struct emu_fiber {
	void *sp;
	emu_dim id;
	bool done;
	const unsigned *until;                /* NULL, or it waits until this has come so far */
	unsigned value;
	unsigned met;                         /* how often its warp has come together */
	emu_queue<emu_copy> copies;
	emu_queue<emu_product> products;
	char *stack;
};

struct emu_warp { unsigned come[2]; wide data[2][32][8]; };

static emu_dim blockIdx, gridDim, blockDim;
static emu_fiber emu_fibers[1024];
static emu_warp emu_warps[32];
static unsigned emu_threads, emu_bytes;
static bool emu_eager;
static emu_fiber *emu_now;
static void *emu_main;
static unsigned emu_waiting, emu_alive, emu_barriers;
static unsigned long emu_idle;
static struct { unsigned come, times; } emu_named[16];
static void (*emu_body)(const void *);
static const void *emu_params;
#define threadIdx (emu_now->id)

extern "C" void emu_switch(void **from, void *to);
asm(".text\n.local emu_switch\nemu_switch:\n push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
	" mov %rsp,(%rdi)\n mov %rsi,%rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");

static void emu_die(const char *why)
{
	fprintf(stderr, "emulated kernel: %s (thread %u of block %u,%u)\n", why, threadIdx.x, blockIdx.x, blockIdx.y);
	abort();
}

static bool emu_ready(const emu_fiber *f)
{
	return !f->done && (!f->until || (int)(*f->until - f->value) >= 0);
}

static void emu_go(emu_fiber *f)
{
	emu_fiber *me = emu_now;

	if (f == me)
		return;
	emu_now = f;
	emu_switch(&me->sp, f->sp);
}

/* Whoever waits for its warp lets that go on, all others whoever is next. */
static void emu_next()
{
	emu_fiber *me = emu_now;
	unsigned at = me->id.x;
	void *gone;

	if (me->until && me->until != &emu_barriers)
		for (unsigned k = 1; k < 32; k++)
			if (emu_ready(&emu_fibers[at / 32 * 32 + (at + k) % 32]))
				return emu_go(&emu_fibers[at / 32 * 32 + (at + k) % 32]);
	for (unsigned k = 0; k < emu_threads; k++) {
		at = at + 1 < emu_threads ? at + 1 : 0;
		if (emu_ready(&emu_fibers[at]))
			return emu_go(&emu_fibers[at]);
	}
	if (emu_alive)
		emu_die("all wait for each other");
	emu_switch(&gone, emu_main);
}

static void emu_wait(const unsigned *until, unsigned value)
{
	emu_now->until = until;
	emu_now->value = value;
	emu_next();
	emu_now->until = nullptr;
}

static void emu_spin()
{
	if (++emu_idle > EMU_PATIENCE)
		emu_die("it waits for ever");
	emu_next();
}

static void emu_release()
{
	emu_waiting = 0;
	emu_barriers++;
	emu_idle = 0;
}

static void emu_entry()
{
	emu_body(emu_params);
	emu_now->done = true;
	if (--emu_alive && emu_waiting == emu_alive)
		emu_release();
	emu_next();
	abort();
}

static void emu_start(emu_fiber *f, unsigned i)
{
	if (!f->stack)
		f->stack = (char *)aligned_alloc(64, EMU_STACK);
	void **sp = (void **)(f->stack + EMU_STACK - 64);

	*--sp = nullptr;
	*--sp = (void *)emu_entry;
	for (int k = 0; k < 6; k++)
		*--sp = nullptr;
	f->sp = sp;
	f->id = {i, 0, 0};
	f->done = false;
	f->until = nullptr;
	f->met = 0;
	f->copies.n = f->products.n = 0;
}

static void emu_block()
{
	memset(smem, 0xff, emu_bytes + EMU_REDZONE);
	memset(__start_emu_shared, 0xff, __stop_emu_shared - __start_emu_shared);
	memset(emu_warps, 0, sizeof emu_warps);
	memset(emu_named, 0, sizeof emu_named);
	for (unsigned i = 0; i < emu_threads; i++)
		emu_start(&emu_fibers[i], i);
	emu_waiting = 0;
	emu_alive = emu_threads;
	emu_idle = 0;
	emu_now = &emu_fibers[0];
	emu_switch(&emu_main, emu_now->sp);
	for (unsigned i = 0; i < EMU_REDZONE; i++)
		if (smem[emu_bytes + i] != 0xff)
			emu_die("it wrote past its shared memory");
}

template <typename A> struct emu_kernel {
	static void (*f)(A);
	static void body(const void *params) { A a; memcpy(&a, params, sizeof a); f(a); }
};
template <typename A> void (*emu_kernel<A>::f)(A);

template <typename A> static void emu_run(void (*f)(A), const void *params, const unsigned *grid, const unsigned *block, unsigned bytes)
{
	emu_kernel<A>::f = f;
	emu_body = emu_kernel<A>::body;
	emu_params = params;
	emu_eager = getenv("EMULATE_EAGER") != nullptr;
	emu_threads = block[0];
	emu_bytes = bytes;
	gridDim = {grid[0], grid[1], 1};
	blockDim = {block[0], 1, 1};
	for (unsigned y = 0; y < grid[1]; y++)
		for (unsigned x = 0; x < grid[0]; x++) {
			blockIdx = {x, y, 0};
			emu_block();
		}
}

/* ---- between threads ---- */

static inline void __syncthreads()
{
	if (++emu_waiting == emu_alive)
		emu_release();
	else
		emu_wait(&emu_barriers, emu_barriers + 1);
}

static inline emu_warp *emu_meet(const void *p, int bytes)
{
	emu_fiber *me = emu_now;
	emu_warp *w = &emu_warps[me->id.x / 32];
	unsigned side = me->met & 1, want = (me->met / 2 + 1) * 32;

	me->met++;
	if (bytes)
		memcpy(w->data[side][me->id.x % 32], p, bytes);
	if (++w->come[side] < want)
		emu_wait(&w->come[side], want);
	emu_idle = 0;
	return w;
}

static inline void __syncwarp(unsigned = ~0u) { emu_meet(nullptr, 0); }

template <typename T> static inline T emu_from(T x, int lane)
{
	unsigned side = emu_now->met & 1;
	T y;

	memcpy(&y, emu_meet(&x, sizeof x)->data[side][lane & 31], sizeof y);
	return y;
}

static inline int emu_lane() { return emu_now->id.x % 32; }
template <typename T> static inline T __shfl_sync(unsigned, T x, int lane) { return emu_from(x, lane); }
template <typename T> static inline T __shfl_xor_sync(unsigned, T x, int by) { return emu_from(x, emu_lane() ^ by); }
template <typename T> static inline T __shfl_up_sync(unsigned, T x, int by) { return emu_from(x, emu_lane() < by ? emu_lane() : emu_lane() - by); }
template <typename T> static inline T __shfl_down_sync(unsigned, T x, int by) { return emu_from(x, emu_lane() + by > 31 ? emu_lane() : emu_lane() + by); }

static inline unsigned __match_any_sync(unsigned, unsigned x)
{
	unsigned side = emu_now->met & 1, same = 0;
	emu_warp *w = emu_meet(&x, sizeof x);

	for (int i = 0; i < 32; i++)
		same |= (unsigned)(memcmp(w->data[side][i], &x, sizeof x) == 0) << i;
	return same;
}

static inline unsigned __ballot_sync(unsigned, int p)
{
	unsigned side = emu_now->met & 1, votes = 0, x = p != 0;
	emu_warp *w = emu_meet(&x, sizeof x);

	for (int i = 0; i < 32; i++)
		votes |= (unsigned)(w->data[side][i][0] & 1) << i;
	return votes;
}

static inline bool __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
static inline bool __all_sync(unsigned m, int p) { return __ballot_sync(m, p) == ~0u; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <typename T, typename U> static inline T atomicAdd(T *p, U v) { T was = *p; *p += v; return was; }
template <typename T, typename U> static inline T atomicMax(T *p, U v) { T was = *p; *p = (T)v > was ? (T)v : was; return was; }
template <typename T, typename U> static inline T atomicMin(T *p, U v) { T was = *p; *p = (T)v < was ? (T)v : was; return was; }
template <typename T, typename U> static inline T atomicExch(T *p, U v) { T was = *p; *p = v; return was; }
template <typename T, typename U> static inline T atomicOr(T *p, U v) { T was = *p; *p |= v; return was; }
static inline unsigned arrive(unsigned *counter) { return (*counter)++; }

/* A barrier in shared memory: arrivals wanted, arrivals still to come, phase. */
static inline void barrier_init(wide *b, int n) { *b = (wide)n << 32 | (wide)n << 1; }
static inline void barrier_arrive(wide *b)
{
	wide n = *b >> 32, left = (*b >> 1 & 0x7fffffff) - 1, phase = *b & 1;
	*b = left ? n << 32 | left << 1 | phase : n << 32 | n << 1 | !phase;
	emu_idle = 0;
}
static void emu_deliver(const wide *b);
static inline void barrier_wait(wide *b, int parity)
{
	while ((int)(*b & 1) == (parity & 1)) {
		emu_deliver(b);
		if ((int)(*b & 1) == (parity & 1))
			emu_spin();
	}
}

/* A numbered barrier of some threads. */
static inline unsigned named_arrive(int id, unsigned n)
{
	unsigned now = emu_named[id].times;

	if (++emu_named[id].come == n) {
		emu_named[id].come = 0;
		emu_named[id].times++;
		emu_idle = 0;
	}
	return now;
}
static inline void named_sync(int id, unsigned n)
{
	unsigned now = named_arrive(id, n);

	if (emu_named[id].times == now)
		emu_wait(&emu_named[id].times, now + 1);
}

/* ---- numbers ---- */

static inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
static inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
static inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
static inline int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
static inline float __fmul_rn(float a, float b) { volatile float y = a * b; return y; }
static inline float __fsub_rn(float a, float b) { volatile float y = a - b; return y; }
static inline float __fadd_rn(float a, float b) { volatile float y = a + b; return y; }
static inline float __fdividef(float a, float b) { return a / b; }
#define __expf expf
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((wide)a * b >> 32); }
template <typename T> static inline T __ldg(const T *p) { return *p; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned pick)
{
	wide both = (wide)b << 32 | a;
	unsigned y = 0;

	for (int i = 0; i < 4; i++)
		y |= (unsigned)(both >> 8 * (pick >> 4 * i & 7) & 255) << 8 * i;
	return y;
}

static inline float emu_half(unsigned short h)
{
	float y = __uint_as_float((unsigned)(h & 0x7fff) << 13) * 0x1p112f;

	y = (h & 0x7c00) == 0x7c00 ? h & 0x3ff ? NAN : INFINITY : y;
	return h >> 15 ? -y : y;
}

/* beyond: what becomes of more than a half can hold. */
static inline unsigned short emu_to_half(float x, unsigned beyond)
{
	unsigned u = __float_as_uint(x), sign = u >> 31 << 15;

	if (x != x)
		return 0x7fff;
	x = fabsf(x);
	if (x >= 65520)
		return sign | beyond;
	if (x < 0x1p-14f)                     /* a multiple of the least half there is */
		return sign | (unsigned)nearbyintf(x * 0x1p24f);
	u = __float_as_uint(x) - (112u << 23);
	return sign | (u + 0xfff + (u >> 13 & 1)) >> 13;
}

static inline unsigned short emu_to_bf16(float x)
{
	unsigned u = __float_as_uint(x);

	return x != x ? 0x7fff : (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float to_float(half x) { return emu_half(x.bits); }
static inline float emu_number(unsigned x, half) { return emu_half((unsigned short)x); }
static inline float emu_number(unsigned x, bf16) { return __uint_as_float(x << 16); }
static inline unsigned emu_pack(float a, float b, unsigned beyond) { return emu_to_half(a, beyond) | (unsigned)emu_to_half(b, beyond) << 16; }
static inline unsigned pack2(float a, float b, half) { return emu_pack(a, b, 0x7bff); }
static inline unsigned pack2(float a, float b, bf16) { return emu_to_bf16(a) | (unsigned)emu_to_bf16(b) << 16; }
static inline float exp2_fast(float x) { return exp2f(x); }
static inline float tanh_fast(float x) { return tanhf(x); }

template <typename F> static inline unsigned emu_both(unsigned a, unsigned b, unsigned c, F f)
{
	half h{};
	return emu_pack(f(emu_number(a & 0xffff, h), emu_number(b & 0xffff, h), emu_number(c & 0xffff, h)),
		f(emu_number(a >> 16, h), emu_number(b >> 16, h), emu_number(c >> 16, h)), 0x7c00);
}
static inline unsigned add2(unsigned a, unsigned b) { return emu_both(a, b, 0, [](float x, float y, float) { return x + y; }); }
static inline unsigned mul2(unsigned a, unsigned b) { return emu_both(a, b, 0, [](float x, float y, float) { return x * y; }); }
static inline unsigned fma2(unsigned a, unsigned b, unsigned c) { return emu_both(a, b, c, [](float x, float y, float z) { return fmaf(x, y, z); }); }

/* ---- matrix products ---- */

template <typename T> static inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, T type)
{
	unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1}, side = emu_now->met & 1;
	emu_warp *w = emu_meet(mine, sizeof mine);
	int g = emu_lane() / 4, c = emu_lane() % 4;
	auto word = [&](int lane, int r) { unsigned u; memcpy(&u, (char *)w->data[side][lane] + 4 * r, 4); return u; };
	auto number = [&](unsigned u, int k) { return emu_number(k % 2 ? u >> 16 : u & 0xffff, type); };

	for (int i = 0; i < 4; i++) {
		int row = g + i / 2 * 8, col = 2 * c + i % 2;
		float sum = d[i];
		for (int k = 0; k < 16; k++)
			sum += number(word(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2), k) * number(word(col * 4 + k % 8 / 2, 4 + k / 8), k);
		d[i] = sum;
	}
}

/* Addresses in shared memory: smem's first is a multiple of what its declaration says and of no more. */
static inline unsigned shared_at(const void *p) { return (unsigned)((const byte *)p - smem) + EMU_BASE; }
static inline byte *emu_shared(unsigned at, unsigned bytes)
{
	if (at % bytes || at < EMU_BASE || at - EMU_BASE + bytes > emu_bytes)
		emu_die("a wrong address in shared memory");
	return smem + (at - EMU_BASE);
}

static inline void emu_ldmatrix(unsigned (&r)[4], unsigned at, bool turned)
{
	unsigned side = emu_now->met & 1;
	int g = emu_lane() / 4, c = emu_lane() % 4;

	emu_shared(at, 16);
	emu_warp *w = emu_meet(&at, sizeof at);
	for (int m = 0; m < 4; m++) {
		auto row = [&](int i) { unsigned u; memcpy(&u, w->data[side][m * 8 + i], 4); return (unsigned short *)emu_shared(u, 16); };
		r[m] = turned ? row(2 * c)[g] | (unsigned)row(2 * c + 1)[g] << 16 : row(g)[2 * c] | (unsigned)row(g)[2 * c + 1] << 16;
	}
	emu_meet(nullptr, 0);
}

static inline void ldmatrix4(unsigned (&r)[4], unsigned at) { emu_ldmatrix(r, at, false); }
static inline void ldmatrix4_transposed(unsigned (&r)[4], unsigned at) { emu_ldmatrix(r, at, true); }

static inline unsigned transpose8x8(unsigned x)
{
	unsigned side = emu_now->met & 1;
	emu_warp *w = emu_meet(&x, sizeof x);
	int g = emu_lane() / 4, c = emu_lane() % 4;
	auto at = [&](int row, int col) { unsigned u; memcpy(&u, w->data[side][row * 4 + col / 2], 4); return col % 2 ? u >> 16 : u & 0xffff; };

	return at(2 * c, g) | at(2 * c + 1, g) << 16;
}

/* ---- Hopper's: 64 rows of four warps, operands in shared memory or registers ---- */

/* Where a value of an operand lies: its descriptor's address, eight rows of 128 bytes after another, and as the
 * hardware does it for panels of 128 bytes, bits 4-6 of the address exchanged by bits 7-9. */
static inline float emu_operand(wide d, unsigned at, bool half_type)
{
	unsigned address = ((unsigned)(d & 0x3fff) << 4) + at;
	unsigned short bits;

	address ^= address >> 3 & 0x70;
	if (d >> 62 != 1 || (d >> 49 & 7))
		emu_die("panels of another form");
	memcpy(&bits, emu_shared(address, 2), 2);
	return half_type ? emu_number(bits, half{}) : emu_number(bits, bf16{});
}

/* Row r, column k; or row k, column r where rows are the operand's columns. */
static inline unsigned emu_along(wide d, int r, int k) { return r / 8 * ((unsigned)(d >> 32 & 0x3fff) << 4) + r % 8 * 128 + k * 2; }
static inline unsigned emu_across(wide d, int r, int k)
{
	return r / 64 * ((unsigned)(d >> 16 & 0x3fff) << 4) + k / 8 * ((unsigned)(d >> 32 & 0x3fff) << 4) + k % 8 * 128 + r % 64 * 2;
}

static void emu_multiply(const emu_product &p)
{
	int g = emu_lane() / 4, c = emu_lane() % 4, row0 = emu_now->id.x / 32 % 4 * 16;
	float a[2][16], b;

	if (p.a) {
		unsigned side = emu_now->met & 1;
		emu_warp *w = emu_meet(p.a, 16);
		for (int i = 0; i < 32; i++) {
			unsigned u;
			memcpy(&u, (char *)w->data[side][g * 4 + i % 8 / 2] + 4 * (i / 16 + i % 16 / 8 * 2), 4);
			u = i % 2 ? u >> 16 : u & 0xffff;
			a[i / 16][i % 16] = p.half ? emu_number(u, half{}) : emu_number(u, bf16{});
		}
	} else {
		for (int i = 0; i < 32; i++)
			a[i / 16][i % 16] = emu_operand(p.at, emu_along(p.at, row0 + g + i / 16 * 8, i % 16), p.half);
	}
	for (int n = 0; n < p.columns; n += 8)
		for (int j = 0; j < 2; j++) {
			float *d = p.d + n / 8 * 4 + j;
			double sum[2] = {p.more ? d[0] : 0, p.more ? d[2] : 0};
			for (int k = 0; k < 16; k++) {
				b = emu_operand(p.b, p.a ? emu_across(p.b, n + 2 * c + j, k) : emu_along(p.b, n + 2 * c + j, k), p.half);
				sum[0] += a[0][k] * b;
				sum[1] += a[1][k] * b;
			}
			d[0] = (float)sum[0];
			d[2] = (float)sum[1];
		}
}

static inline void emu_ask(emu_product p)
{
	if (emu_eager) {
		emu_multiply(p);
		__syncwarp();
	} else {
		emu_now->products.add(p);
	}
}

template <int N> static inline void wgmma(float (&d)[N][4], wide a, wide b, int more, half) { emu_ask({d[0], N * 8, nullptr, a, b, more != 0, true}); }
template <int N> static inline void wgmma(float (&d)[N][4], wide a, wide b, int more, bf16) { emu_ask({d[0], N * 8, nullptr, a, b, more != 0, false}); }
template <int N> static inline void wgmma(float (&d)[N][4], const unsigned (&a)[4], wide b, half) { emu_ask({d[0], N * 8, a, 0, b, true, true}); }
template <int N> static inline void wgmma(float (&d)[N][4], const unsigned (&a)[4], wide b, bf16) { emu_ask({d[0], N * 8, a, 0, b, true, false}); }
static inline void panel_fence() {}
template <int N> static inline void registers_give() {}
template <int N> static inline void registers_take() {}
static inline void wgmma_fence() { __syncwarp(); }
static inline void wgmma_commit() { emu_now->products.group++; }
template <int N> static inline void wgmma_wait() { emu_now->products.wait(N, emu_multiply); __syncwarp(); }
template <int N> static inline void wgmma_arrived(float (&)[N][4]) { asm volatile("" ::: "memory"); }

/* ---- copies into shared memory ---- */

static void emu_arrive(const emu_copy &c)
{
	if (c.arrival)
		return barrier_arrive(c.arrival);
	memcpy(c.to, c.from, (size_t)c.n);
	memset((byte *)c.to + c.n, 0, (size_t)(16 - c.n));
}

static inline void copy16(unsigned to, const void *from, int n)
{
	emu_copy c = {emu_shared(to, 16), from, n, 0, nullptr};

	if (n < 0 || n > 16 || (n && (size_t)from % 16))
		emu_die("a copy from a wrong address");
	if (emu_eager)
		emu_arrive(c);
	else
		emu_now->copies.add(c);
}

static inline void copy16(unsigned to, const void *from) { copy16(to, from, 16); }
static inline void copy_commit() { emu_now->copies.group++; }
template <int N> static inline void copy_wait() { emu_now->copies.wait(N, emu_arrive); }
static inline void copy_arrive(wide *b)
{
	if (emu_eager)
		barrier_arrive(b);
	else
		emu_now->copies.add({nullptr, nullptr, 0, 0, b});
}

/* Somebody waits at the barrier: what is to arrive there does. */
static void emu_deliver(const wide *b)
{
	for (unsigned i = 0; i < emu_threads; i++) {
		auto &copies = emu_fibers[i].copies;
		for (int k = 0; k < copies.n; k++)
			if (copies.item[k].arrival == b) {
				copies.take(k + 1, emu_arrive);
				break;
			}
	}
}

static inline void touch(const void *p) { (void)*(volatile const byte *)p; }
static inline void grid_wait() {}
static inline void grid_launch_next() {}
