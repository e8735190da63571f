/* See image_file.h. */
#include "image_file.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum fb_status fb_images_init(struct fb_images *images, int64_t count, struct fb_arena *arena,
                              struct fb_error *error)
{
    images->count = count;
    images->labels = fb_arena_alloc(arena, (size_t)count, 1, error);
    images->pixels =
        images->labels ? fb_arena_alloc(arena, (size_t)count, FB_IMAGE_PIXELS, error) : NULL;
    return images->pixels ? FB_OK : FB_ERROR_MEMORY;
}

static void to_grey(const uint8_t *planes, uint8_t *grey)
{
    const uint8_t *red = planes, *green = red + FB_IMAGE_PIXELS, *blue = green + FB_IMAGE_PIXELS;
    for (int i = 0; i < FB_IMAGE_PIXELS; i++)
        grey[i] =
            (uint8_t)(255.5 * (0.2989 * red[i] + 0.5870 * green[i] + 0.1140 * blue[i]) / 255.0);
}

static enum fb_status read_records(FILE *file, struct fb_images *images, int64_t first,
                                   int64_t records, int64_t record_bytes, int classes,
                                   const char *path, struct fb_error *error)
{
    uint8_t record[FB_IMAGE_COLOUR_BYTES];
    for (int64_t i = 0; i < records; i++) {
        if (fread(record, 1, (size_t)record_bytes, file) != (size_t)record_bytes)
            return fb_error_set(error, FB_ERROR_IO, "cannot read record %" PRId64 " of '%s'", i + 1,
                                path);
        if (record[0] >= classes)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s: record %" PRId64 " is labelled %d; classes are 0 to %d: the "
                                "file is damaged or of another format",
                                path, i + 1, record[0], classes - 1);
        images->labels[first + i] = record[0];
        uint8_t *pixels = images->pixels + (first + i) * FB_IMAGE_PIXELS;
        if (record_bytes == FB_IMAGE_COLOUR_BYTES)
            to_grey(record + 1, pixels);
        else
            memcpy(pixels, record + 1, FB_IMAGE_PIXELS);
    }
    return FB_OK;
}

enum fb_status fb_images_read(struct fb_images *images, int64_t first, int64_t records,
                              int64_t record_bytes, int classes, const char *path,
                              struct fb_error *error)
{
    struct stat info;
    assert(record_bytes == FB_IMAGE_GREY_BYTES || record_bytes == FB_IMAGE_COLOUR_BYTES);
    assert(first >= 0 && first + records <= images->count);
    FILE *file = fopen(path, "rbe");
    if (!file)
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(errno));
    enum fb_status status;
    if (fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode))
        status =
            fb_error_set(error, FB_ERROR_IO, "cannot read '%s': it is not a regular file", path);
    else if (info.st_size != records * record_bytes)
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "'%s' has %" PRId64 " bytes, not %" PRId64 " records of %" PRId64
                              ": it is truncated after record %" PRId64 ", or of another format",
                              path, (int64_t)info.st_size, records, record_bytes,
                              (int64_t)info.st_size / record_bytes);
    else
        status = read_records(file, images, first, records, record_bytes, classes, path, error);
    (void)fclose(file);
    return status;
}
