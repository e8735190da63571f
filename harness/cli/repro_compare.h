/* A stored row beside the same case measured again: what agrees, what differs, and why. */
#ifndef FB_REPRO_COMPARE_H
#define FB_REPRO_COMPARE_H

#include "repro_row.h"

#include <stdio.h>

/* Intervals of the time that come this near to each other count as overlapping. */
#define FB_REPRO_TIME_TOLERANCE 0.05

struct fb_repro_verdict {
    bool agrees;    /* the result is the same; time has no say */
    char text[512]; /* one sentence */
};

/* then: of repro; now: measured again on a machine of this name. Pure. */
void fb_repro_judge(const struct fb_repro_row *repro, const struct fb_row *now,
                    struct fb_repro_verdict *verdict);

/* The table of both, then the verdict. */
void fb_repro_print(FILE *out, const struct fb_repro_row *repro, const struct fb_row *now,
                    const struct fb_machine *here, const struct fb_repro_verdict *verdict);

#endif
