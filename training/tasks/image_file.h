/*
 * Grey images of 32 x 32 bytes with a label, read from files of equal records: one label byte, then
 * 1024 bytes of grey, or, as CIFAR-10's binary batches have it (Krizhevsky 2009), 3072 bytes in
 * planes of red, green and blue.
 */
#ifndef FB_IMAGE_FILE_H
#define FB_IMAGE_FILE_H

#include "arena.h"

#include <stdint.h>

enum { FB_IMAGE_PIXELS = 1024, FB_IMAGE_GREY_BYTES = 1025, FB_IMAGE_COLOUR_BYTES = 3073 };

struct fb_images {
    int64_t count;
    uint8_t *labels; /* [count] */
    uint8_t *pixels; /* [count, FB_IMAGE_PIXELS], row by row */
};

/* Room for `count` images, none read. */
enum fb_status fb_images_init(struct fb_images *images, int64_t count, struct fb_arena *arena,
                              struct fb_error *error) FB_MUST_CHECK;

/* Reads a file of exactly `records` records of `record_bytes` (one of the two above) into images
 * first .. first + records - 1. Colour becomes grey as the Long Range Arena has it:
 * trunc(255.5 (0.2989 R + 0.5870 G + 0.1140 B) / 255). Errors name file and record. */
enum fb_status fb_images_read(struct fb_images *images, int64_t first, int64_t records,
                              int64_t record_bytes, int classes, const char *path,
                              struct fb_error *error) FB_MUST_CHECK;

#endif
