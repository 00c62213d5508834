/* pick.c - which kernels this machine runs, and what they read activations as. */
#include "backends/cpu/cpu.h"

#include <string.h>

extern const struct cpu_kernels cpu_kernels_avx512, cpu_kernels_avx2, cpu_kernels_plain;

#if defined __x86_64__
static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
	return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
		__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}

/* vdpbf16ps issues every other cycle on Intel's cores, so that two f32 products are as fast
 * (1.2 against 4.8 G instructions/s on Emerald Rapids; on Zen 5 7.0 against 7.5). */
static bool slow_bf16(void) { return __builtin_cpu_is("intel"); }
#else
static bool slow_bf16(void) { return true; }
#endif

const struct cpu_kernels *cpu_kernels_pick(const char *name)
{
#if defined __x86_64__
	__builtin_cpu_init();
	if (has_avx512() && (!name || !strcmp(name, "avx512")))
		return &cpu_kernels_avx512;
	if (has_avx2() && (!name || !strcmp(name, "avx2")))
		return &cpu_kernels_avx2;
#endif
	return !name || !strcmp(name, "plain") ? &cpu_kernels_plain : NULL;
}

enum cpu_act cpu_act_for(const struct cpu_kernels *k, wf_dtype weight, wf_dtype compute)
{
	if (compute == WF_F32)
		return ACT_F32;
	if (cpu_formats[weight].bits)   /* bytes put an error of 1e-3 (NMSE) into a small model's logits */
		return compute == WF_Q8_0 ? ACT_I8 : ACT_I16;
	return weight == WF_BF16 && k->bf16_dot && !slow_bf16() ? ACT_BF16 : ACT_F32;
}

/* A stride of a multiple of 4096 would put the rows of a tile into one cache set. */
size_t cpu_act_bytes(enum cpu_act act, int64_t n)
{
	size_t count = (size_t)n, bytes = act == ACT_F32 ? count * 4 : act == ACT_BF16 ? count * 2 + 2 :
		(count + 31) / 32 * (act == ACT_I8 ? X8_BYTES : X16_BYTES);

	bytes = (bytes + 63) & ~(size_t)63;
	return bytes % 4096 ? bytes : bytes + 64;
}

size_t cpu_attend_scratch(int kdim, int vdim)
{
	size_t k = ((size_t)kdim + PANEL - 1) / PANEL * PANEL, v = ((size_t)vdim + PANEL - 1) / PANEL * PANEL;

	return (2 * k + 2 * v + ATTEND_ROWS) * ATTEND_ROWS * sizeof(float);
}
