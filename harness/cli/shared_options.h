/* The options that every command that measures has: which cases, how changed, for how long, and how
 * it tells. An argp of its own, so that they read alike everywhere; run and compare take it as a
 * child whose input is the struct. */
#ifndef FB_SHARED_OPTIONS_H
#define FB_SHARED_OPTIONS_H

#include "arena.h"
#include "progress.h"

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>

struct fb_shared_options {
    const char *filter; /* NULL: every case */
    const char **sets;  /* of --set, in order */
    size_t sets_count;
    double budget_s; /* 0: none */
    bool strict, quiet;
    enum fb_color color;
};

/* As a child of a command's argp, which gives it the struct: state->child_inputs[0]. */
extern const struct argp_child fb_shared_options_children[];

/* Nothing given yet; argc bounds the number of --set. The list lives in the arena. */
enum fb_status fb_shared_options_init(struct fb_shared_options *options, int argc,
                                      struct fb_arena *arena, struct fb_error *error) FB_MUST_CHECK;

/* "90s", "5m", "1h30m" in seconds; false when it is none of that or not positive. */
bool fb_duration_parse(const char *text, double *seconds);

#endif
