/* wgmma.cuh - Hopper's matrix products: 64 rows of a warpgroup, operands in shared memory or registers.
 *
 * Assembler, as in ptx.cuh.  Panels are rows of 128 bytes (64 values), their sixteen-byte columns
 * exchanged by the low three bits of the row, at multiples of 1024 bytes.  The products run by
 * themselves from commit to wait; what cp.async or stores brought is theirs to see after panel_fence()
 * by the thread that waited for it, and a barrier.  PTX ISA, asynchronous warpgroup instructions. */
#ifndef WGMMA_CUH
#define WGMMA_CUH
#include "common.cuh"

/* Where column c (0-7) of sixteen bytes of row r lies in a panel. */
__device__ inline int panel_place(int r, int c) { return r * 128 + (c ^ (r & 7)) * 16; }

/* A panel from column k on, a multiple of 16: rows of the operand are rows of the panel. */
__device__ inline wide panel_at(unsigned shared, int k)
{
	return (wide)((shared + 2 * k) >> 4 & 0x3fff) | (wide)1 << 16 | (wide)(1024 >> 4) << 32 | (wide)1 << 62;
}

/* Panels from a row on, `next` bytes apart, whose rows are the operand's columns: 64 of them in each. */
__device__ inline wide panels_across(unsigned shared, int next)
{
	return (wide)(shared >> 4 & 0x3fff) | (wide)(next >> 4 & 0x3fff) << 16 | (wide)(1024 >> 4) << 32 | (wide)1 << 62;
}

/* The operand so many bytes on, a multiple of 16: one addition, where a new descriptor takes five steps. */
__device__ inline wide panel_after(wide d, int bytes) { return d >> 32 << 32 | (unsigned)((unsigned)d + bytes / 16); }

#ifndef WGMMA_PTX                                  /* the assembler */
#define WGMMA_PTX
__device__ inline void panel_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
/* Before the first product, and after registers it uses were written. */
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Until at most N groups are under way. */
template <int N> __device__ inline void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(N) : "memory"); }

/* Registers of each thread of the warpgroup from here on: fewer, or more once others have given theirs. */
template <int N> __device__ inline void registers_give() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(N)); }
template <int N> __device__ inline void registers_take() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(N)); }

/* Barrier `id` of n threads, those that wait for the others and those that do not. */
__device__ inline void named_sync(int id, int n) { asm volatile("bar.sync %0, %1;" :: "r"(id), "r"(n) : "memory"); }
__device__ inline void named_arrive(int id, int n) { asm volatile("bar.arrive %0, %1;" :: "r"(id), "r"(n) : "memory"); }

/* The compiler takes the sums for changed here: put after a wait, before they are read. */
template <int N> __device__ inline void wgmma_arrived(float (&d)[N][4])
{
#pragma unroll
	for (int i = 0; i < N; i++)
		asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3]) :: "memory");
}

#define WGMMA_4(d, j)    "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define WGMMA_16(d, j)   WGMMA_4(d, j), WGMMA_4(d, j + 1), WGMMA_4(d, j + 2), WGMMA_4(d, j + 3)
#define WGMMA_SUMS64(d)  WGMMA_16(d, 0), WGMMA_16(d, 4)
#define WGMMA_SUMS128(d) WGMMA_SUMS64(d), WGMMA_16(d, 8), WGMMA_16(d, 12)
#define WGMMA_LIST64 \
	"%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_LIST128 WGMMA_LIST64 \
	",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60" \
	",%61,%62,%63"

/* d (+)= a b for a[64][16], b[N][16], N 64 or 128; d as mma's of a warp's 16 rows, 8 columns at a time; more 0: d is new. */
#define WGMMA_SHARED(N, A, B, MORE, TYPE, NAME) \
__device__ inline void wgmma(float (&d)[N / 8][4], wide a, wide b, int more, TYPE) \
{ \
	asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #MORE ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME \
		" {" WGMMA_LIST##N "}, %" #A ", %" #B ", p, 1, 1, 0, 0; }" : WGMMA_SUMS##N(d) : "l"(a), "l"(b), "r"(more)); \
}
WGMMA_SHARED(64, 32, 33, 34, half, "f16")
WGMMA_SHARED(64, 32, 33, 34, bf16, "bf16")
WGMMA_SHARED(128, 64, 65, 66, half, "f16")
WGMMA_SHARED(128, 64, 65, 66, bf16, "bf16")

/* d += a b with a in registers, a warp's 16 rows as mma's, and b[16][N] from panels across. */
#define WGMMA_ACROSS(N, A0, A1, A2, A3, B, TYPE, NAME) \
__device__ inline void wgmma(float (&d)[N / 8][4], const unsigned (&a)[4], wide b, TYPE) \
{ \
	asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" WGMMA_LIST##N \
		"}, {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", 1, 1, 1, 1;" : WGMMA_SUMS##N(d) \
		: "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)); \
}
WGMMA_ACROSS(64, 32, 33, 34, 35, 36, half, "f16")
WGMMA_ACROSS(64, 32, 33, 34, 35, 36, bf16, "bf16")
WGMMA_ACROSS(128, 64, 65, 66, 67, 68, half, "f16")
WGMMA_ACROSS(128, 64, 65, 66, 67, 68, bf16, "bf16")

#endif
#endif
