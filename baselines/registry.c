/*
 * The table of mechanisms and variants; see registry.h. To add a mechanism, include its header and
 * add one line to each table below (docs/adding-a-mechanism.md).
 */
#include "registry.h"

#include "flow.h"
#include "linear.h"
#include "local.h"
#include "performer.h"
#include "softmax.h"

#include <string.h>

static const struct fb_mechanism *const mechanisms[] = {
    &fb_flow, &fb_softmax, &fb_linear, &fb_performer, &fb_local,
};

/* One entry per instruction set that the compiler was asked for. */
#if defined(FB_BUILT_AVX512)
#define ISA_AVX512(name) &name##_avx512,
#else
#define ISA_AVX512(name)
#endif
#if defined(FB_BUILT_AVX2)
#define ISA_AVX2(name) &name##_avx2,
#else
#define ISA_AVX2(name)
#endif
#if defined(FB_BUILT_NEON)
#define ISA_NEON(name) &name##_neon,
#else
#define ISA_NEON(name)
#endif
#define EVERY_ISA(name) ISA_AVX512(name) ISA_AVX2(name) ISA_NEON(name) & name##_scalar

/* A mechanism's first variant is its default. */
static const struct fb_attention *const attentions[] = {
    EVERY_ISA(fb_flow_fused),
    EVERY_ISA(fb_softmax_tiled),
    EVERY_ISA(fb_linear_fused),
    EVERY_ISA(fb_performer_fused),
    EVERY_ISA(fb_local_tiled),
#if defined(FB_HAVE_CUDA)
    &fb_flow_fused_cuda,
    &fb_softmax_tiled_cuda,
    &fb_softmax_cudnn,
    &fb_linear_fused_cuda,
    &fb_performer_fused_cuda,
    &fb_local_tiled_cuda,
#endif
#if defined(FB_HAVE_OPENBLAS)
    &fb_flow_plain,
    &fb_softmax_plain,
#endif
};

size_t fb_mechanism_count(void)
{
    return sizeof mechanisms / sizeof mechanisms[0];
}

const struct fb_mechanism *fb_mechanism_at(size_t index)
{
    return index < fb_mechanism_count() ? mechanisms[index] : NULL;
}

const struct fb_mechanism *fb_mechanism_find(const char *name)
{
    for (size_t i = 0; i < fb_mechanism_count(); i++) {
        if (strcmp(mechanisms[i]->name, name) == 0) {
            return mechanisms[i];
        }
    }
    return NULL;
}

size_t fb_attention_count(void)
{
    return sizeof attentions / sizeof attentions[0];
}

const struct fb_attention *fb_attention_at(size_t index)
{
    return index < fb_attention_count() ? attentions[index] : NULL;
}

const struct fb_attention *fb_attention_find(const struct fb_mechanism *mechanism,
                                             const char *variant, enum fb_backend backend,
                                             enum fb_isa isa)
{
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *a = attentions[i];
        if (a->mechanism == mechanism && a->backend == backend &&
            (a->isa == isa || a->isa == FB_ISA_ANY) &&
            (variant == NULL || strcmp(a->variant, variant) == 0)) {
            return a;
        }
    }
    return NULL;
}
