/*
 * Mistakes in a text file, each reported as
 *
 *     file:line:column: error: what is wrong; did you mean 'this'?
 *         the source line
 *             ^
 *
 * Blocks are collected in the text of one struct fb_error for as long as they fit; the rest is
 * counted.
 */
#ifndef FB_DIAGNOSTICS_H
#define FB_DIAGNOSTICS_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>

/* A text that marks point into: a file, or the argument of --set. */
struct fb_source {
    const char *name;
    const char *text; /* not necessarily ended by NUL */
    size_t length;
};

/* A place in a source. Lines and columns count from 0; columns count code points. */
struct fb_mark {
    const struct fb_source *source;
    size_t line, column;
};

struct fb_diagnostics {
    struct fb_error *error;
    size_t used;    /* bytes of error->text */
    size_t count;   /* mistakes reported */
    size_t unshown; /* of them, without room in the text */
    bool out_of_memory;
};

/* Error must not be NULL and must outlive the diagnostics. */
void fb_diagnostics_init(struct fb_diagnostics *diagnostics, struct fb_error *error);

/* Adds a block. The message may quote the source: control characters are shown as '?'. */
void fb_diagnose(struct fb_diagnostics *diagnostics, struct fb_mark mark, const char *format, ...)
    FB_PRINTF(3, 4);

/* Adds `name: error: message` for mistakes that have no place in a text (a missing file). */
void fb_diagnose_file(struct fb_diagnostics *diagnostics, const char *name, const char *format, ...)
    FB_PRINTF(3, 4);

/* Remembers that the arena was exhausted; the error text is the arena's. */
void fb_diagnose_memory(struct fb_diagnostics *diagnostics, const struct fb_error *error);

bool fb_diagnostics_failed(const struct fb_diagnostics *diagnostics);

/* FB_OK, FB_ERROR_USAGE or FB_ERROR_MEMORY; ends the text with how many mistakes are not shown. */
enum fb_status fb_diagnostics_finish(struct fb_diagnostics *diagnostics) FB_MUST_CHECK;

#endif
