/*
 * What a run shows while it works. On a terminal: one line that is rewritten between cases (never
 * during one: a redraw would disturb the measurement). Elsewhere: one plain line per finished case,
 * without control characters. Everything goes to stderr.
 */
#ifndef FB_PROGRESS_H
#define FB_PROGRESS_H

#include "row.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum fb_color { FB_COLOR_AUTO, FB_COLOR_ALWAYS, FB_COLOR_NEVER };

struct fb_progress {
    FILE *out;     /* NULL: nothing at all */
    bool terminal; /* out is one: rewrite the line */
    bool color;
    bool quiet; /* only cases that failed */
    size_t rows_total, rows_done;
    int width;      /* columns of the terminal */
    bool line_open; /* the rewritten line stands on the screen */
};

/* "auto", "always", "never"; false for anything else. */
bool fb_color_parse(const char *text, enum fb_color *color);

/* Whether to colour what goes to `file`: --color decides, else NO_COLOR and whether it is a
 * terminal (TERM=dumb is none). */
bool fb_color_wanted(enum fb_color choice, FILE *file);

void fb_progress_init(struct fb_progress *progress, FILE *out, enum fb_color color, bool quiet);
void fb_progress_start(struct fb_progress *progress, size_t rows_total, size_t rows_done);

/* A case begins; eta_s is what is left of the whole run, NaN when unknown. */
void fb_progress_case(struct fb_progress *progress, const char *description, double eta_s);

/* A row was written. */
void fb_progress_row(struct fb_progress *progress, const struct fb_row *row,
                     const char *description, double eta_s);

/* The same for any kind of row: what came of it, why, and what was found in words. */
struct fb_progress_outcome {
    const char *status, *reason, *finding;
};
void fb_progress_outcome(struct fb_progress *progress, const struct fb_progress_outcome *outcome,
                         const char *description, double eta_s);

/* `count` rows were written for one reason that was known beforehand. */
void fb_progress_skipped(struct fb_progress *progress, size_t count, const char *reason);

/* A line of its own, also under --quiet: warnings and instructions. */
void fb_progress_say(struct fb_progress *progress, const char *text);

/* Removes the rewritten line. */
void fb_progress_end(struct fb_progress *progress);

/* "7.21 ms", "3m12s", "1.5 GB": for people. Return text. */
char *fb_human_time(double seconds, char *text, size_t text_size);
char *fb_human_duration(double seconds, char *text, size_t text_size);
char *fb_human_bytes(double bytes, char *text, size_t text_size);
char *fb_human_instructions(int64_t count, char *text, size_t text_size);

#endif
