/* A data file in memory, and its lines. */
#ifndef FB_DATA_FILE_H
#define FB_DATA_FILE_H

#include "arena.h"

#include <stdbool.h>
#include <stdint.h>

struct fb_data_file {
    const char *path;
    const char *bytes; /* followed by a NUL that does not count */
    int64_t size;
};

/* Reads a regular file of at most 8 GiB into the arena. */
enum fb_status fb_data_file_read(struct fb_data_file *file, const char *path,
                                 struct fb_arena *arena, struct fb_error *error) FB_MUST_CHECK;

/* A cursor over lines: without the line end, whether it is \n or \r\n. */
struct fb_data_lines {
    const struct fb_data_file *file;
    int64_t at, number; /* number: of the last line given, from 1 */
};
bool fb_data_line_next(struct fb_data_lines *lines, const char **text, int64_t *length);

/* FB_ERROR_INPUT: "path:line: text". */
enum fb_status fb_data_line_bad(const struct fb_data_lines *lines, struct fb_error *error,
                                const char *format, ...) FB_PRINTF(3, 4);

#endif
