/*
 * What a command line names, found in the registry. What is not there is refused with
 * FB_ERROR_USAGE, what is valid and, where one is near, a "did you mean".
 */
#ifndef FB_MECHANISM_CHOICE_H
#define FB_MECHANISM_CHOICE_H

#include "attention.h"

enum fb_status fb_choose_mechanism(const char *name, const struct fb_mechanism **mechanism,
                                   struct fb_error *error) FB_MUST_CHECK;

/* "features=128", "phi=relu", "allocation=false": sets the parameter's place in params; *index
 * (may be NULL) gets that place. */
enum fb_status fb_choose_param(const struct fb_mechanism *mechanism, const char *text,
                               double params[FB_PARAMS_MAX], int *index,
                               struct fb_error *error) FB_MUST_CHECK;

/* variant NULL: the mechanism's default; isa NULL: the best that this machine has and the variant
 * is built for. */
enum fb_status fb_choose_attention(const struct fb_mechanism *mechanism, const char *variant,
                                   enum fb_backend device, const char *isa,
                                   const struct fb_attention **attention,
                                   struct fb_error *error) FB_MUST_CHECK;

#endif
