/*
 * `flowbench repro RESULTS.csv:ROW`: the stored row, and all that measuring it again needs.
 */
#ifndef FB_REPRO_ROW_H
#define FB_REPRO_ROW_H

#include "arena.h"
#include "machine.h"
#include "plan.h"
#include "results.h"
#include "suite.h"

#include <stdbool.h>

/* Where a row comes from, compared with where it is measured now. */
struct fb_repro_origin {
    bool known;                  /* there is a run.json */
    bool same_machine;           /* the same kind: models, counts, sizes */
    bool same_build;             /* version, commit, compiler, flags, OpenBLAS */
    char machine[96], build[96]; /* of the row, for people */
    char difference[256];        /* what differs, in words; "" when nothing does */
};

struct fb_repro_row {
    const char *path; /* as given, without the row */
    size_t number;    /* from 1 */
    struct fb_row row;
    struct fb_suite suite; /* measure, limits, oracle: of run.json, else the defaults */
    struct fb_case item;
    struct fb_repro_origin origin;
};

/* FB_ERROR_USAGE: no such row, or one that cannot be measured here; FB_ERROR_INPUT: the files are
 * damaged. Everything lives in the arena. */
enum fb_status fb_repro_row_read(const char *argument, const struct fb_machine *here,
                                 struct fb_arena *arena, struct fb_repro_row *repro,
                                 struct fb_error *error) FB_MUST_CHECK;

#endif
