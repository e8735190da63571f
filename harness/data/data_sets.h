/*
 * The data sets of the training tasks in a data folder: what belongs to each, whether it is there,
 * how it gets there. One table; a data set has the name of its task.
 */
#ifndef FB_DATA_SETS_H
#define FB_DATA_SETS_H

#include "task.h"

#include <stdbool.h>
#include <stdint.h>

enum { FB_DATA_FILES_MAX = 6, FB_DATA_PATH_SIZE = 1024, FB_DATA_SUM_SIZE = 65 };
enum { FB_DATA_DIR_MAX = 512, FB_DATA_LABEL_SIZE = 256 }; /* a data folder's path; FOLDER/FILE */

enum fb_data_unpack {
    FB_UNPACK_MADE, /* there is no archive: `data make` writes the files */
    FB_UNPACK_FILE, /* what is downloaded is the file */
    FB_UNPACK_TAR,
    FB_UNPACK_ZIP
};

struct fb_data_set {
    const char *name;   /* of the task, too */
    const char *folder; /* in the data folder */
    /* In the folder, ended by NULL: files, or folders with reviews. sums: SHA-256, NULL: unknown.
     */
    const char *files[FB_DATA_FILES_MAX + 1], *sums[FB_DATA_FILES_MAX];
    enum fb_data_unpack unpack;
    const char *url, *archive_sum;  /* archive_sum NULL: unknown; recorded when first fetched */
    const char *size;               /* of the download, or of what is made, in words */
    int64_t counts[FB_SPLIT_COUNT]; /* examples without a cut; 0: not checked */
};

size_t fb_data_set_count(void);
const struct fb_data_set *fb_data_set_at(size_t index);
const struct fb_data_set *fb_data_set_find(const char *name); /* NULL when there is none */

enum fb_data_state { FB_DATA_MISSING, FB_DATA_PARTIAL, FB_DATA_COMPLETE };
/* Whether everything that belongs to the set is there; *bytes: on disk, of plain files. */
enum fb_data_state fb_data_set_state(const struct fb_data_set *set, const char *data_dir,
                                     int64_t *bytes);

/* The data folder: the one named, else $FLOWBENCH_DATA, else ./data. */
const char *fb_data_dir(const char *named);

/* Creates a folder and those above it. */
enum fb_status fb_data_create_folder(const char *path, struct fb_error *error) FB_MUST_CHECK;

/* Writes the files of a set that is generated, those that are not yet there; resumes where it was
 * interrupted. Remarks go to stderr. */
enum fb_status fb_data_make(const struct fb_data_set *set, const char *data_dir,
                            struct fb_error *error) FB_MUST_CHECK;

/* Downloads (with curl, resuming), verifies and unpacks a set that is not complete. url NULL: its
 * home. Nothing that is there is replaced before the whole download has been verified and unpacked.
 */
enum fb_status fb_data_fetch(const struct fb_data_set *set, const char *data_dir, const char *url,
                             struct fb_error *error) FB_MUST_CHECK;

/* Verifies sums, reads every example as its task does, and compares their counts. */
enum fb_status fb_data_check(const struct fb_data_set *set, const char *data_dir,
                             struct fb_error *error) FB_MUST_CHECK;

/* ---- SHA-256 sums, by the program sha256sum -------------------------------------------------- */

enum fb_status fb_data_sum(const char *path, char sum[FB_DATA_SUM_SIZE],
                           struct fb_error *error) FB_MUST_CHECK;
/* Sums that were recorded in data_dir/recorded.sha256 under a name; false: none. */
bool fb_data_sum_recorded(const char *data_dir, const char *name, char sum[FB_DATA_SUM_SIZE]);
/* Adds or replaces a record. */
enum fb_status fb_data_sum_record(const char *data_dir, const char *name, const char *sum,
                                  struct fb_error *error) FB_MUST_CHECK;

#endif
