/*
 * What the fuzz targets share: an input as a file, for readers that take a path, and a check that
 * stays on in every build. A target is a function LLVMFuzzerTestOneInput; README.md says how they
 * are run.
 */
#ifndef FB_FUZZ_INPUT_H
#define FB_FUZZ_INPUT_H

#include "status.h"

#include <stddef.h>
#include <stdint.h>

enum { FUZZ_PATH_SIZE = 128 };

/* A file in memory; its path is good for open() in this process. */
struct fuzz_file {
    int fd;
    char path[FUZZ_PATH_SIZE];
};

/* Replaces what the file holds; makes the file the first time (fd 0: not made yet). */
void fuzz_file_set(struct fuzz_file *file, const void *bytes, size_t count);

/* A folder that lives until this process ends. In it, `name` shows what the file holds. */
const char *fuzz_folder(void);
void fuzz_folder_link(const struct fuzz_file *file, const char *name);

/* Ends the process with a report when something that always holds does not. */
void fuzz_check(int holds, const char *what);

/* A failure came with its code and with words. */
void fuzz_check_refusal(enum fb_status status, const struct fb_error *error);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

#endif
