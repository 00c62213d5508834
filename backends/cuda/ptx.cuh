/* ptx.cuh - our own PTX prelude: conversions, matrix products, asynchronous copies, launch order.
 *
 * The only file with assembler in it.  No toolkit header is used: cuda_fp16.h needs a toolkit at run
 * time, cuda/ptx and cooperative_groups cost a second each.  From sm_80 on; what only newer chips
 * have becomes nothing, or the older way, on the rest. */
#ifndef PTX_CUH
#define PTX_CUH

#if defined __CUDA_ARCH__ && __CUDA_ARCH__ < 800
#error "weft needs compute capability 8.0 or later"
#endif

typedef unsigned char byte;
typedef unsigned long long wide;

struct half { unsigned short bits; };
struct bf16 { unsigned short bits; };

/* ---- numbers --------------------------------------------------------------------------------- */

__device__ inline float to_float(half x)
{
	float y;
	asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
	return y;
}

/* Two values in a word, the first in the low half; rounded to nearest even.  What f16 cannot hold becomes the largest it
 * can: an infinity would be NaN in the next norm. */
__device__ inline unsigned pack2(float low, float high, half)
{
	unsigned y;
	asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
	return y;
}

__device__ inline unsigned pack2(float low, float high, bf16)
{
	unsigned y;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
	return y;
}

__device__ inline float exp2_fast(float x)
{
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

__device__ inline float tanh_fast(float x)
{
	float y;
	asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

/* Two halves at a time. */
__device__ inline unsigned add2(unsigned a, unsigned b)
{
	unsigned y;
	asm("add.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
	return y;
}

__device__ inline unsigned mul2(unsigned a, unsigned b)
{
	unsigned y;
	asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
	return y;
}

__device__ inline unsigned fma2(unsigned a, unsigned b, unsigned c)
{
	unsigned y;
	asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(c));
	return y;
}

/* ---- matrix products ---------------------------------------------------------------------------- */

/* d += a b for a[16][16], b[16][8].  Lane 4g+c holds a[g][2c..], a[g+8][2c..], a[g][2c+8..],
 * a[g+8][2c+8..]; b[2c..][g], b[2c+8..][g]; d[g][2c..], d[g+8][2c..]. */
__device__ inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, half)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		: "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, bf16)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		: "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline unsigned shared_at(const void *p)
{
	return (unsigned)__cvta_generic_to_shared(p);
}

/* Four 8x8 blocks of 16-bit values; lane i gives the address of row i%8 of block i/8. */
__device__ inline void ldmatrix4(unsigned (&r)[4], unsigned at)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
		: "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

__device__ inline void ldmatrix4_transposed(unsigned (&r)[4], unsigned at)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
		: "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

/* An 8x8 block of 16-bit values in registers, as ldmatrix leaves it. */
__device__ inline unsigned transpose8x8(unsigned x)
{
	unsigned y;
	asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
	return y;
}

/* ---- asynchronous copies into shared memory ------------------------------------------------------ */

/* 16 bytes of which the first n are read, the rest zero; both addresses multiples of 16.
 * No cache policy: with one, ptxas 13.0 makes an instruction that sm_90 refuses. */
__device__ inline void copy16(unsigned to, const void *from, int n)
{
	asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
		:: "r"(to), "l"(__cvta_generic_to_global(from)), "r"(n) : "memory");
}

__device__ inline void copy16(unsigned to, const void *from)
{
	asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
		:: "r"(to), "l"(__cvta_generic_to_global(from)) : "memory");
}

__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Until at most N of this thread's groups are under way; __syncwarp or __syncthreads shows it to others. */
template <int N> __device__ inline void copy_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }

/* Its line is then in the first level cache.  A load that nothing uses would not do: the assembler drops it. */
__device__ inline void touch(const void *p)
{
	asm volatile("prefetch.global.L1 [%0];" :: "l"(__cvta_generic_to_global(p)));
}

/* ---- between threads ---------------------------------------------------------------------------- */

/* A barrier in shared memory that n arrivals complete, again and again; waiting for its completion
 * number 0, 1, ... takes that number's parity.  What was written before an arrival is seen after the wait. */
__device__ inline void barrier_init(wide *b, int n)
{
	asm volatile("mbarrier.init.shared.b64 [%0], %1;" :: "r"(shared_at(b)), "r"(n) : "memory");
}

__device__ inline void barrier_arrive(wide *b)
{
	asm volatile("{\n\t.reg .b64 state;\n\tmbarrier.arrive.shared.b64 state, [%0];\n\t}" :: "r"(shared_at(b)) : "memory");
}

__device__ inline void barrier_wait(wide *b, int parity)
{
	unsigned done;
	do
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 900
		asm volatile("{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}"
			: "=r"(done) : "r"(shared_at(b)), "r"(parity) : "memory");
#else
		asm volatile("{\n\t.reg .pred p;\n\tmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}"
			: "=r"(done) : "r"(shared_at(b)), "r"(parity) : "memory");
#endif
	while (!done);
}

/* An arrival when all copies this thread has asked for are there. */
__device__ inline void copy_arrive(wide *b)
{
	asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" :: "r"(shared_at(b)) : "memory");
}

/* Adds 1; what was written before, by this block, is seen by whoever finds its own addition the last. */
__device__ inline unsigned arrive(unsigned *counter)
{
	unsigned before;
	asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
		: "=r"(before) : "l"(__cvta_generic_to_global(counter)) : "memory");
	return before;
}

/* ---- launch order -------------------------------------------------------------------------------- */

/* Everything before this may run while the kernel before is still at work: only what no kernel of
 * the step writes may be read there.  Every block must come past it. */
__device__ inline void grid_wait()
{
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel's blocks may come as soon as all of ours have said this. */
__device__ inline void grid_launch_next()
{
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;");
#endif
}

#endif
