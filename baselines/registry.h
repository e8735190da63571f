/*
 * The one table of every mechanism and every variant. A mechanism is added here, and every test,
 * suite and command finds it.
 */
#ifndef FB_REGISTRY_H
#define FB_REGISTRY_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

size_t fb_mechanism_count(void);
const struct fb_mechanism *fb_mechanism_at(size_t index);
/* NULL when there is none of this name. */
const struct fb_mechanism *fb_mechanism_find(const char *name);

/* Every variant compiled in, also those whose instruction set this machine lacks. The first variant
 * listed for a mechanism is its default. */
size_t fb_attention_count(void);
const struct fb_attention *fb_attention_at(size_t index);

/* The variant (NULL: the default) of a mechanism on a backend for an instruction set. A variant
 * that is compiled once (FB_ISA_ANY) serves every instruction set. NULL when there is none. */
const struct fb_attention *fb_attention_find(const struct fb_mechanism *mechanism,
                                             const char *variant, enum fb_backend backend,
                                             enum fb_isa isa);

#ifdef __cplusplus
}
#endif
#endif
