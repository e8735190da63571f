/* Processor features at run time; see cpu_features.h. */
#include "cpu_features.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#include <stdatomic.h>

/* Conversions of f16; clang's builtin does not know the name. Asked once, for on a virtual machine
 * the instruction leaves it, which takes as long as a small problem. */
static bool has_f16c(void)
{
    enum { UNKNOWN, NO, YES };
    static atomic_int known = UNKNOWN;
    if (atomic_load_explicit(&known, memory_order_relaxed) == UNKNOWN) {
        unsigned int a, b, c, d;
        const bool has = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & (unsigned int)bit_F16C) != 0;
        atomic_store_explicit(&known, has ? YES : NO, memory_order_relaxed);
    }
    return atomic_load_explicit(&known, memory_order_relaxed) == YES;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
static bool has_avx2(void)
{
    return false;
}

static bool has_avx512(void)
{
    return false;
}
#endif

bool fb_cpu_has(enum fb_isa isa)
{
    switch (isa) {
    case FB_ISA_ANY:
    case FB_ISA_SCALAR:
        return true;
    case FB_ISA_NEON:
#if defined(__aarch64__)
        return true;
#else
        return false;
#endif
    case FB_ISA_AVX2:
        return has_avx2();
    case FB_ISA_AVX512:
        return has_avx512();
    default:
        return false;
    }
}

enum fb_isa fb_cpu_best_isa(void)
{
    for (int isa = FB_ISA_COUNT - 1; isa > FB_ISA_SCALAR; isa--) {
        if (fb_cpu_has((enum fb_isa)isa)) {
            return (enum fb_isa)isa;
        }
    }
    return FB_ISA_SCALAR;
}
