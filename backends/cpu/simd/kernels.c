/* kernels.c - this instruction set's table. */
#include "simd.h"

const struct cpu_kernels CAT(cpu_kernels) = {
#if defined ISA_avx512
	.name         = "avx512",
	.bf16_dot     = true,
#elif defined ISA_avx2
	.name         = "avx2",
#else
	.name         = "plain",
#endif
	.dot          = CAT(cpu_dot),
	.quantize     = CAT(cpu_quantize),
	.attend       = CAT(cpu_attend),
	.attend_merge = CAT(cpu_attend_merge),
	.rmsnorm      = CAT(cpu_rmsnorm),
	.layernorm    = CAT(cpu_layernorm),
	.softmax      = CAT(cpu_softmax),
	.silu         = CAT(cpu_silu),
	.gelu         = CAT(cpu_gelu),
	.silu_mul     = CAT(cpu_silu_mul),
	.gelu_mul     = CAT(cpu_gelu_mul),
	.rope         = CAT(cpu_rope),
	.store        = CAT(cpu_store),
	.load         = CAT(cpu_load),
};
