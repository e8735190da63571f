/*
 * The folder of one run: results/<suite>/<UTC time>-<machine>/, created once, locked while a run
 * lives in it.
 */
#ifndef FB_RUN_FOLDER_H
#define FB_RUN_FOLDER_H

#include "arena.h"

#include <stdbool.h>
#include <time.h>

enum { FB_RUN_ID_SIZE = 96, FB_UTC_SIZE = 24 };

struct fb_run_folder {
    const char *path;            /* in the arena */
    char run_id[FB_RUN_ID_SIZE]; /* "20261124T031500Z-laptop": what the column `run` holds */
    int lock_fd;                 /* -1: not locked */
};

/* "2026-11-24T03:15:00Z". */
void fb_utc_text(time_t when, char *text, size_t text_size);

/* Creates root/<suite>/<time>-<machine>/ with its parents and locks it. Two runs that start in the
 * same second get two folders ("-2", "-3", ...). Characters of `machine` other than [a-z0-9-] are
 * replaced. */
enum fb_status fb_run_folder_create(const char *root, const char *suite, const char *machine,
                                    struct fb_arena *arena, struct fb_run_folder *folder,
                                    struct fb_error *error) FB_MUST_CHECK;

/* Takes exactly `path` (--out): created when absent, accepted when it is an empty folder. A folder
 * of an earlier run, or one with other files in it, is refused with FB_ERROR_USAGE. */
enum fb_status fb_run_folder_take(const char *path, const char *machine, struct fb_arena *arena,
                                  struct fb_run_folder *folder,
                                  struct fb_error *error) FB_MUST_CHECK;

/* Opens the folder of an earlier run (--resume) and locks it; the caller sets run_id from run.json.
 * FB_ERROR_USAGE when it is not the folder of a run or another run lives in it (names its PID). */
enum fb_status fb_run_folder_open(const char *path, struct fb_arena *arena,
                                  struct fb_run_folder *folder,
                                  struct fb_error *error) FB_MUST_CHECK;

/* Unlocks; the folder stays. */
void fb_run_folder_close(struct fb_run_folder *folder);

/* Creates every missing folder on the way to path, path excluded; path is written to and restored.
 * `option` is what an error advises: "--out DIR". */
enum fb_status fb_folder_make_parents(char *path, const char *option,
                                      struct fb_error *error) FB_MUST_CHECK;

/* Makes names created in the folder durable. */
enum fb_status fb_folder_sync(const char *path, struct fb_error *error) FB_MUST_CHECK;

#endif
