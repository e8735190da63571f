/* Inputs as files: see fuzz_input.h. memfd_create is Linux. */
#define _GNU_SOURCE
#include "fuzz_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LINKS_MAX = 4 };

static char folder[] = "/tmp/fb_fuzz_XXXXXX";
static char links[LINKS_MAX][FUZZ_PATH_SIZE];
static size_t links_count;

void fuzz_check(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "fuzz_check: %s\n", what);
        abort();
    }
}

void fuzz_check_refusal(enum fb_status status, const struct fb_error *error)
{
    fuzz_check(status == error->code, "the error's code is not the status returned");
    fuzz_check(status == FB_ERROR_INPUT || status == FB_ERROR_USAGE || status == FB_ERROR_MEMORY ||
                   status == FB_ERROR_UNSUPPORTED || status == FB_ERROR_IO,
               "a malformed input gave a status that blames somebody else");
    fuzz_check(error->text[0] != '\0', "a failure without a word");
    fuzz_check(memchr(error->text, '\0', sizeof error->text) != NULL, "an error text without end");
}

void fuzz_file_set(struct fuzz_file *file, const void *bytes, size_t count)
{
    if (file->fd == 0) {
        file->fd = memfd_create("fuzz", MFD_CLOEXEC);
        fuzz_check(file->fd > 0, "no file in memory");
        (void)snprintf(file->path, sizeof file->path, "/proc/%ld/fd/%d", (long)getpid(), file->fd);
    }
    fuzz_check(ftruncate(file->fd, 0) == 0, "cannot empty the file in memory");
    fuzz_check(pwrite(file->fd, bytes, count, 0) == (ssize_t)count, "cannot fill it");
}

static void remove_folder(void)
{
    for (size_t i = 0; i < links_count; i++)
        (void)unlink(links[i]);
    (void)rmdir(folder);
}

const char *fuzz_folder(void)
{
    if (strstr(folder, "XXXXXX") != NULL) {
        fuzz_check(mkdtemp(folder) != NULL, "no temporary folder");
        (void)atexit(remove_folder);
    }
    return folder;
}

void fuzz_folder_link(const struct fuzz_file *file, const char *name)
{
    fuzz_check(links_count < LINKS_MAX, "too many links");
    char *path = links[links_count++];
    (void)snprintf(path, FUZZ_PATH_SIZE, "%s/%s", fuzz_folder(), name);
    fuzz_check(symlink(file->path, path) == 0, "cannot link the file into the folder");
}
