/* common.cuh - what every kernel uses: numbers, runs of eight values, reductions. */
#ifndef COMMON_CUH
#define COMMON_CUH
#include "ptx.cuh"

#ifndef INFINITY                                   /* NVRTC's -minimal leaves it out */
#define INFINITY __int_as_float(0x7f800000)
#endif

extern __shared__ __align__(128) byte smem[];

template <typename A, typename B> struct same { static constexpr bool value = false; };
template <typename A> struct same<A, A> { static constexpr bool value = true; };

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int at_most(int a, int b) { return a < b ? a : b; }
__host__ __device__ constexpr int at_least(int a, int b) { return a > b ? a : b; }

/* ---- numbers --------------------------------------------------------------------------------- */

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }

template <typename T> __device__ inline T from_float(float x) { return T{(unsigned short)pack2(x, 0, T{})}; }
template <> __device__ inline float from_float<float>(float x) { return x; }

__device__ inline float low_of(unsigned x, half) { return to_float(half{(unsigned short)x}); }
__device__ inline float high_of(unsigned x, half) { return to_float(half{(unsigned short)(x >> 16)}); }
__device__ inline float low_of(unsigned x, bf16) { return __uint_as_float(x << 16); }
__device__ inline float high_of(unsigned x, bf16) { return __uint_as_float(x & 0xffff0000u); }

/* sin and cos in full float precision without the library's slow path, whose stack frame every kernel
 * would pay for: the quadrant is taken off in three pieces of pi/2.  |x| < 1e6. */
__device__ inline void sin_cos(float x, float *s, float *c)
{
	float k = rintf(x * 0.636619772f);
	float r = fmaf(-k, 1.57079601e+00f, x);
	r = fmaf(-k, 3.13916473e-07f, r);
	r = fmaf(-k, 5.39030253e-15f, r);
	float q = r * r;
	float sine = fmaf(fmaf(fmaf(-1.95152959e-4f, q, 8.33216087e-3f), q, -1.66666546e-1f) * q, r, r);
	float cosine = fmaf(fmaf(fmaf(2.44331571e-5f, q, -1.38873162e-3f), q, 4.16666457e-2f) * q, q,
		fmaf(-0.5f, q, 1.0f));
	int quadrant = (int)k;
	float a = quadrant & 1 ? cosine : sine, b = quadrant & 1 ? sine : cosine;
	*s = quadrant & 2 ? -a : a;
	*c = (quadrant + 1) & 2 ? -b : b;
}

/* ---- memory: runs of eight values --------------------------------------------------------------- */

template <typename T> __device__ inline void unpack8(uint4 x, float (&v)[8])
{
	v[0] = low_of(x.x, T{}); v[1] = high_of(x.x, T{});
	v[2] = low_of(x.y, T{}); v[3] = high_of(x.y, T{});
	v[4] = low_of(x.z, T{}); v[5] = high_of(x.z, T{});
	v[6] = low_of(x.w, T{}); v[7] = high_of(x.w, T{});
}

template <typename T> __device__ inline uint4 pack8(const float (&v)[8])
{
	return make_uint4(pack2(v[0], v[1], T{}), pack2(v[2], v[3], T{}), pack2(v[4], v[5], T{}), pack2(v[6], v[7], T{}));
}

/* p at a multiple of 16 bytes. */
template <typename T> __device__ inline void load8(const T *p, float (&v)[8]) { unpack8<T>(*(const uint4 *)p, v); }
__device__ inline void load8(const float *p, float (&v)[8])
{
	float4 a = ((const float4 *)p)[0], b = ((const float4 *)p)[1];
	v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
	v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}

template <typename T> __device__ inline void store8(T *p, const float (&v)[8]) { *(uint4 *)p = pack8<T>(v); }
__device__ inline void store8(float *p, const float (&v)[8])
{
	((float4 *)p)[0] = make_float4(v[0], v[1], v[2], v[3]);
	((float4 *)p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

/* What no kernel of the step writes: the compiler may move and share these loads. */
template <typename T> __device__ inline void constant8(const T *p, float (&v)[8]) { unpack8<T>(__ldg((const uint4 *)p), v); }
__device__ inline void constant8(const float *p, float (&v)[8])
{
	float4 a = __ldg((const float4 *)p), b = __ldg((const float4 *)p + 1);
	v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w;
	v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}

/* Values k..k+7 of a row of n, those past its end zero; k is a multiple of 8 below n.  ALIGNED: rows are multiples
 * of 16 bytes. */
template <bool ALIGNED, typename T> __device__ inline void load8_of(const T *row, int k, int n, float (&v)[8])
{
	if (ALIGNED && (n % 8 == 0 || k + 8 <= n)) {
		load8(row + k, v);
		return;
	}
	for (int i = 0; i < 8; i++)
		v[i] = k + i < n ? to_float(row[k + i]) : 0;
}

template <bool ALIGNED, typename T> __device__ inline void constant8_of(const T *row, int k, int n, float (&v)[8])
{
	if (ALIGNED && (n % 8 == 0 || k + 8 <= n))
		constant8(row + k, v);
	else
		load8_of<false>(row, k, n, v);
}

template <bool ALIGNED, typename T> __device__ inline void store8_of(T *row, int k, int n, const float (&v)[8])
{
	if (ALIGNED && (n % 8 == 0 || k + 8 <= n)) {
		store8(row + k, v);
		return;
	}
	for (int i = 0; i < 8; i++)
		if (k + i < n)
			row[k + i] = from_float<T>(v[i]);
}

/* All threads of a block: n bytes that no kernel of the step writes come near. */
__device__ inline void touch_all(const void *p, int n)
{
	for (int i = threadIdx.x * 128; i < n; i += blockDim.x * 128)
		touch((const byte *)p + i);
}

/* ---- reductions -------------------------------------------------------------------------------- */

__device__ inline float warp_sum(float x)
{
	for (int i = 16; i; i >>= 1)
		x += __shfl_xor_sync(~0u, x, i);
	return x;
}

__device__ inline float warp_max(float x)
{
	for (int i = 16; i; i >>= 1)
		x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
	return x;
}

/* True in the thread block that comes last of n to this counter, which is zero again afterwards.
 * What the others wrote before is then visible to all threads of that block.  All threads call it. */
__device__ inline bool arrives_last(unsigned *counter, unsigned n, unsigned *shared_word)
{
	__syncthreads();
	if (threadIdx.x == 0) {
		*shared_word = arrive(counter) == n - 1;
		if (*shared_word)
			*counter = 0;
	}
	__syncthreads();
	return *shared_word != 0;
}

#endif
