/* emulate.h - CUDA's words for a C++ compiler: a thread block as fibers of one CPU thread.
 *
 * Pages compile with this in front instead of ptx.cuh.  Blocks run one after the other, threads until
 * they wait for each other, so what a kernel computes is tested, what it races for is not.  Copies into
 * shared memory arrive when they are waited for, never before; shared memory starts as NaNs; vectors at
 * the wrong address end the process (-fsanitize=alignment). */
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __CUDACC__ 1
#define __device__
#define __host__
#define __global__
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__
#define PTX_CUH

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

enum { EMU_SMEM = 232448, EMU_STACK = 64 << 10, EMU_PATIENCE = 200000000 };
__align__(1024) byte smem[EMU_SMEM];

/* ---- fibers: the stack pointer and what the ABI keeps ---- */

struct emu_dim { unsigned x, y, z; };
struct emu_copy { void *to; const void *from; int n; };

struct emu_fiber {
	void *sp;
	emu_dim id;
	bool done;
	unsigned met;                         /* how often its warp has come together */
	std::vector<std::vector<emu_copy>> group;
	std::vector<emu_copy> open;
};

struct emu_warp { unsigned come[2]; wide data[2][32][8]; };

static emu_dim blockIdx, gridDim, blockDim;
static std::vector<emu_fiber> emu_fibers;
static std::vector<emu_warp> emu_warps;
static emu_fiber *emu_now;
static void *emu_main;
static unsigned emu_waiting, emu_alive, emu_barriers;
static unsigned long emu_idle;
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

static void emu_next()
{
	emu_fiber *me = emu_now;
	size_t n = emu_fibers.size();
	void *gone;

	for (size_t k = 1; k <= n; k++) {
		emu_fiber *f = &emu_fibers[(me->id.x + k) % n];
		if (f->done)
			continue;
		if (f != me) {
			emu_now = f;
			emu_switch(&me->sp, f->sp);
		}
		return;
	}
	emu_switch(&gone, emu_main);
}

static void emu_spin()
{
	if (++emu_idle > EMU_PATIENCE)
		emu_die("it waits for ever");
	emu_next();
}

static void emu_entry()
{
	emu_body(emu_params);
	emu_now->done = true;
	emu_alive--;
	emu_next();
	abort();
}

static void emu_start(emu_fiber *f, char *stack)
{
	void **sp = (void **)(stack + EMU_STACK - 64);

	*--sp = nullptr;
	*--sp = (void *)emu_entry;
	for (int i = 0; i < 6; i++)
		*--sp = nullptr;
	f->sp = sp;
}

static void emu_block(unsigned threads)
{
	static std::vector<char *> stacks;

	memset(smem, 0xff, sizeof smem);
	emu_fibers.assign(threads, emu_fiber());
	emu_warps.assign((threads + 31) / 32, emu_warp());
	while (stacks.size() < threads)
		stacks.push_back((char *)aligned_alloc(64, EMU_STACK));
	for (unsigned i = 0; i < threads; i++) {
		emu_fibers[i].id = {i, 0, 0};
		emu_start(&emu_fibers[i], stacks[i]);
	}
	emu_waiting = 0;
	emu_alive = threads;
	emu_idle = 0;
	emu_now = &emu_fibers[0];
	emu_switch(&emu_main, emu_now->sp);
}

template <typename A> struct emu_kernel {
	static void (*f)(A);
	static void body(const void *params) { A a; memcpy(&a, params, sizeof a); f(a); }
};
template <typename A> void (*emu_kernel<A>::f)(A);

template <typename A> static void emu_run(void (*f)(A), const void *params, const unsigned *grid, const unsigned *block)
{
	emu_kernel<A>::f = f;
	emu_body = emu_kernel<A>::body;
	emu_params = params;
	gridDim = {grid[0], grid[1], 1};
	blockDim = {block[0], 1, 1};
	for (unsigned y = 0; y < grid[1]; y++)
		for (unsigned x = 0; x < grid[0]; x++) {
			blockIdx = {x, y, 0};
			emu_block(block[0]);
		}
}

/* ---- between threads ---- */

static inline void __syncthreads()
{
	unsigned before = emu_barriers;

	emu_waiting++;
	while (emu_barriers == before && emu_waiting < emu_alive)
		emu_spin();
	if (emu_barriers == before) {
		emu_waiting = 0;
		emu_barriers++;
		emu_idle = 0;
	}
}

static inline emu_warp *emu_meet(const void *p, int bytes)
{
	emu_fiber *me = emu_now;
	emu_warp *w = &emu_warps[me->id.x / 32];
	unsigned side = me->met & 1, want = (me->met / 2 + 1) * 32;

	me->met++;
	if (bytes)
		memcpy(w->data[side][me->id.x % 32], p, bytes);
	w->come[side]++;
	while (w->come[side] < want)
		emu_spin();
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
static inline void barrier_wait(wide *b, int parity)
{
	while ((int)(*b & 1) == (parity & 1))
		emu_spin();
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
	int e = h >> 10 & 31, m = h & 1023;
	float y = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpf(1 + m / 1024.f, e - 15) : ldexpf(m / 1024.f, -14);

	return h >> 15 ? -y : y;
}

static inline unsigned short emu_to_half(float x)
{
	unsigned short sign = std::signbit(x) ? 0x8000 : 0;
	int e;

	if (x != x)
		return 0x7fff;
	x = fabsf(x);
	if (x >= 65520)
		return sign | 0x7c00;
	if (x == 0)
		return sign;
	frexpf(x, &e);
	e = e - 1 < -14 ? -14 : e - 1;
	unsigned m = (unsigned)nearbyintf(ldexpf(x, 10 - e));
	return sign | (unsigned short)(e == -14 ? m : ((e + 15) << 10) + (m - 1024));
}

static inline unsigned short emu_to_bf16(float x)
{
	unsigned u = __float_as_uint(x);

	return x != x ? 0x7fff : (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float to_float(half x) { return emu_half(x.bits); }
static inline float emu_number(unsigned x, half) { return emu_half((unsigned short)x); }
static inline float emu_number(unsigned x, bf16) { return __uint_as_float(x << 16); }
static inline unsigned pack2(float a, float b, half) { return emu_to_half(a) | (unsigned)emu_to_half(b) << 16; }
static inline unsigned pack2(float a, float b, bf16) { return emu_to_bf16(a) | (unsigned)emu_to_bf16(b) << 16; }
static inline float exp2_fast(float x) { return exp2f(x); }
static inline float tanh_fast(float x) { return tanhf(x); }

template <typename F> static inline unsigned emu_both(unsigned a, unsigned b, unsigned c, F f)
{
	half h{};
	return pack2(f(emu_number(a & 0xffff, h), emu_number(b & 0xffff, h), emu_number(c & 0xffff, h)),
		f(emu_number(a >> 16, h), emu_number(b >> 16, h), emu_number(c >> 16, h)), h);
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

static inline size_t __cvta_generic_to_shared(const void *p) { return (const byte *)p - smem; }
static inline size_t __cvta_generic_to_global(const void *p) { return (size_t)p; }
static inline unsigned shared_at(const void *p) { return (unsigned)((const byte *)p - smem); }

static inline void emu_ldmatrix(unsigned (&r)[4], unsigned at, bool turned)
{
	unsigned side = emu_now->met & 1;
	int g = emu_lane() / 4, c = emu_lane() % 4;

	if (at % 16 || at > EMU_SMEM - 16)
		emu_die("ldmatrix at a wrong address");
	emu_warp *w = emu_meet(&at, sizeof at);
	for (int m = 0; m < 4; m++) {
		auto row = [&](int i) { unsigned u; memcpy(&u, w->data[side][m * 8 + i], 4); return (unsigned short *)(smem + u); };
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

/* ---- copies into shared memory ---- */

static inline void copy16(unsigned to, const void *from, int n)
{
	if (to % 16 || to > EMU_SMEM - 16 || n < 0 || n > 16 || (n && (size_t)from % 16))
		emu_die("a copy to or from a wrong address");
	emu_now->open.push_back({smem + to, from, n});
}

static inline void copy16(unsigned to, const void *from) { copy16(to, from, 16); }

static inline void copy_commit()
{
	emu_now->group.push_back(emu_now->open);
	emu_now->open.clear();
}

template <int N> static inline void copy_wait()
{
	auto &group = emu_now->group;

	for (; (int)group.size() > N; group.erase(group.begin()))
		for (const emu_copy &c : group[0]) {
			byte bytes[16] = {0};
			if (c.n)
				memcpy(bytes, c.from, (size_t)c.n);
			memcpy(c.to, bytes, 16);
		}
}

static inline void touch(int) {}
static inline void touch(float) {}
static inline void grid_wait() {}
static inline void grid_launch_next() {}
