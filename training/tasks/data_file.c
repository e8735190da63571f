/* See data_file.h. */
#include "data_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX ((int64_t)1 << 33)

static enum fb_status read_all(FILE *from, struct fb_data_file *file, struct fb_arena *arena,
                               struct fb_error *error)
{
    struct stat info;
    if (fstat(fileno(from), &info) != 0 || !S_ISREG(info.st_mode))
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': it is not a regular file",
                            file->path);
    if (info.st_size > FILE_BYTES_MAX)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "'%s' is larger than 8 GiB, the limit of a data file", file->path);
    char *bytes = fb_arena_alloc(arena, (size_t)info.st_size + 1, 1, error);
    if (!bytes)
        return FB_ERROR_MEMORY;
    file->bytes = bytes;
    file->size = (int64_t)fread(bytes, 1, (size_t)info.st_size, from);
    if (ferror(from))
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", file->path,
                            strerror(errno));
    return FB_OK;
}

enum fb_status fb_data_file_read(struct fb_data_file *file, const char *path,
                                 struct fb_arena *arena, struct fb_error *error)
{
    *file = (struct fb_data_file){.path = path};
    FILE *from = fopen(path, "rbe");
    if (!from)
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(errno));
    const enum fb_status status = read_all(from, file, arena, error);
    (void)fclose(from);
    return status;
}

bool fb_data_line_next(struct fb_data_lines *lines, const char **text, int64_t *length)
{
    const struct fb_data_file *file = lines->file;
    if (lines->at >= file->size)
        return false;
    const char *start = file->bytes + lines->at;
    const char *end = memchr(start, '\n', (size_t)(file->size - lines->at));
    const int64_t whole = end ? end - start : file->size - lines->at;
    lines->at += whole + (end ? 1 : 0);
    lines->number++;
    *text = start;
    *length = whole > 0 && start[whole - 1] == '\r' ? whole - 1 : whole;
    return true;
}

enum fb_status fb_data_line_bad(const struct fb_data_lines *lines, struct fb_error *error,
                                const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return fb_error_set(error, FB_ERROR_INPUT, "%s:%" PRId64 ": %s", lines->file->path,
                        lines->number, text);
}
