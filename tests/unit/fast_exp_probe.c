/* fb_vf_exp_fast behind a plain function, once per instruction set, for the tests. */
#include "fast_exp_probe.h"

#include "fast_exp.h"

void FB_ISA_SYMBOL(probe_exp_fast)(const float *x, float *y, int64_t count)
{
    for (int64_t i = 0; i < count; i += FB_VW) {
        const int64_t rest = count - i < FB_VW ? count - i : FB_VW;
        fb_vf_store_part(y + i, fb_vf_exp_fast(fb_vf_load_part(x + i, rest)), rest);
    }
}
