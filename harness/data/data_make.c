/*
 * Generated data sets: ListOps as the benchmark's own TSV, Pathfinder as records. A file is written
 * beside its place and renamed when it is whole. Everything follows from one seed, so an
 * interrupted run goes on with the record at which it was, and two machines make the same bytes.
 */
#include "data_sets.h"
#include "distinct.h"
#include "image_file.h"
#include "listops_file.h"
#include "pathfinder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SEED = 1, IMAGES_AT_ONCE = 2000 };
#define ATTEMPT_STREAMS (UINT64_C(1) << 40) /* a duplicate is drawn again from another stream */

struct making {
    const struct fb_data_set *set;
    const char *data_dir;
    struct fb_arena *arena;
    struct fb_error *error;
    char path[FB_DATA_PATH_SIZE], part[FB_DATA_PATH_SIZE];
    struct timespec start;
    int64_t first; /* records that were there when this run began */
};

static void set_paths(struct making *m, const char *file)
{
    (void)snprintf(m->path, sizeof m->path, "%s/%s/%s", m->data_dir, m->set->folder, file);
    (void)snprintf(m->part, sizeof m->part, "%s/%s/.%s.part", m->data_dir, m->set->folder, file);
    (void)clock_gettime(CLOCK_MONOTONIC, &m->start);
    m->first = 0;
}

/* One line that is overwritten on a terminal; elsewhere only its last state is printed. */
static void show_progress(const struct making *m, int64_t done, int64_t all)
{
    struct timespec now;
    if (!isatty(STDERR_FILENO) && done < all)
        return;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    const double elapsed_s =
        (double)(now.tv_sec - m->start.tv_sec) + 1e-9 * (double)(now.tv_nsec - m->start.tv_nsec);
    const double left_s =
        done > m->first ? elapsed_s * (double)(all - done) / (double)(done - m->first) : 0.0;
    (void)fprintf(stderr, "%s%s: %" PRId64 " of %" PRId64 ", %.0f s left%s",
                  isatty(STDERR_FILENO) ? "\r\033[K" : "", m->path, done, all, left_s,
                  done == all ? "\n" : "");
}

static enum fb_status cannot_write(const struct making *m)
{
    return fb_error_set(m->error, FB_ERROR_IO,
                        "cannot write '%s': %s; './bench data make %s' goes "
                        "on from there",
                        m->part, strerror(errno), m->set->name);
}

/* Whole on disk, in its place, its sum on record. */
static enum fb_status finish(const struct making *m, FILE *file, const char *name)
{
    char sum[FB_DATA_SUM_SIZE], label[FB_DATA_LABEL_SIZE];
    const bool synced = fflush(file) == 0 && fsync(fileno(file)) == 0;
    if (fclose(file) != 0 || !synced || rename(m->part, m->path) != 0)
        return cannot_write(m);
    (void)snprintf(label, sizeof label, "%s/%s", m->set->folder, name);
    const enum fb_status status = fb_data_sum(m->path, sum, m->error);
    return status == FB_OK ? fb_data_sum_record(m->data_dir, label, sum, m->error) : status;
}

/* ---- ListOps ------------------------------------------------------------------------------- */

static enum fb_status write_trees(struct making *m, const uint64_t *streams, int64_t count,
                                  const char *name)
{
    FILE *file = fopen(m->part, "we");
    if (!file || fputs("Source\tTarget\n", file) < 0) {
        const enum fb_status status = cannot_write(m);
        if (file)
            (void)fclose(file);
        return status;
    }
    for (int64_t i = 0; i < count; i++) {
        uint8_t tokens[FB_LISTOPS_LENGTH_MAX];
        char text[FB_LISTOPS_TEXT_SIZE];
        int value = 0;
        const int length = fb_listops_redraw(SEED, streams[i], tokens);
        if (!fb_listops_evaluate(tokens, length, &value) ||
            fb_listops_write(tokens, length, text) == 0 ||
            fprintf(file, "%s\t%d\n", text, value) < 0) {
            const enum fb_status status = cannot_write(m);
            (void)fclose(file);
            return status;
        }
        if (i % 1000 == 999 || i + 1 == count)
            show_progress(m, i + 1, count);
    }
    return finish(m, file, name);
}

static enum fb_status make_listops(struct making *m)
{
    const int64_t *counts = m->set->counts;
    const uint64_t *streams = NULL;
    enum fb_status status = FB_OK;
    int64_t before = 0;
    for (int split = 0; split < FB_SPLIT_COUNT && status == FB_OK; split++) {
        set_paths(m, m->set->files[split]);
        if (access(m->path, F_OK) != 0) {
            if (!streams)
                streams =
                    fb_listops_choose(counts[0] + counts[1] + counts[2], SEED, m->arena, m->error);
            if (!streams)
                return FB_ERROR_MEMORY;
            status = write_trees(m, streams + before, counts[split], m->set->files[split]);
        }
        before += counts[split];
    }
    return status;
}

/* ---- Pathfinder ---------------------------------------------------------------------------- */

/* Draws `count` images from `first` on that are not among those seen. */
static void draw_images(const struct fb_pathfinder *tables, struct fb_distinct *seen, int64_t first,
                        int64_t count, uint8_t *records)
{
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = 0; i < count; i++) {
        uint8_t *record = records + i * FB_IMAGE_GREY_BYTES;
        fb_pathfinder_draw(tables, SEED, (uint64_t)(first + i), record + 1, record);
    }
    for (int64_t i = 0; i < count; i++) {
        uint8_t *record = records + i * FB_IMAGE_GREY_BYTES;
        for (uint64_t attempt = 1; !fb_distinct_add(seen, record + 1, FB_IMAGE_PIXELS); attempt++)
            fb_pathfinder_draw(tables, SEED, (uint64_t)(first + i) + attempt * ATTEMPT_STREAMS,
                               record + 1, record);
    }
}

/* Takes up what an interrupted run has left: whole records only. */
static enum fb_status resume(struct making *m, FILE *file, struct fb_distinct *seen)
{
    uint8_t record[FB_IMAGE_GREY_BYTES];
    while (fread(record, sizeof record, 1, file) == 1) {
        (void)fb_distinct_add(seen, record + 1, FB_IMAGE_PIXELS);
        m->first++;
    }
    const off_t end = (off_t)m->first * FB_IMAGE_GREY_BYTES;
    if (ftruncate(fileno(file), end) != 0 || fseeko(file, end, SEEK_SET) != 0)
        return cannot_write(m);
    return FB_OK;
}

static enum fb_status write_images(struct making *m, FILE *file, struct fb_distinct *seen,
                                   int64_t count)
{
    const struct fb_pathfinder *tables = fb_pathfinder_new(m->arena, m->error);
    uint8_t *records =
        tables ? fb_arena_alloc(m->arena, IMAGES_AT_ONCE, FB_IMAGE_GREY_BYTES, m->error) : NULL;
    if (!records)
        return FB_ERROR_MEMORY;
    for (int64_t done = m->first; done < count;) {
        const int64_t left = count - done, now = left < IMAGES_AT_ONCE ? left : IMAGES_AT_ONCE;
        draw_images(tables, seen, done, now, records);
        if (fwrite(records, FB_IMAGE_GREY_BYTES, (size_t)now, file) != (size_t)now ||
            fflush(file) != 0)
            return cannot_write(m);
        done += now;
        show_progress(m, done, count);
    }
    return FB_OK;
}

static enum fb_status make_pathfinder(struct making *m)
{
    const int64_t *counts = m->set->counts, count = counts[0] + counts[1] + counts[2];
    struct fb_distinct seen;
    set_paths(m, m->set->files[0]);
    if (access(m->path, F_OK) == 0)
        return FB_OK;
    enum fb_status status = fb_distinct_init(&seen, count, m->arena, m->error);
    if (status != FB_OK)
        return status;
    FILE *file = fopen(m->part, "ab+e");
    if (!file)
        return cannot_write(m);
    rewind(file);
    status = resume(m, file, &seen);
    if (status == FB_OK)
        status = write_images(m, file, &seen, count);
    if (status == FB_OK)
        return finish(m, file, m->set->files[0]);
    (void)fclose(file);
    return status;
}

enum fb_status fb_data_make(const struct fb_data_set *set, const char *data_dir,
                            struct fb_error *error)
{
    struct fb_arena arena;
    char folder[FB_DATA_PATH_SIZE];
    struct making m = {.set = set, .data_dir = data_dir, .arena = &arena, .error = error};
    if (set->unpack != FB_UNPACK_MADE)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "%s is not generated: './bench data fetch %s' downloads it", set->name,
                            set->name);
    (void)snprintf(folder, sizeof folder, "%s/%s", data_dir, set->folder);
    enum fb_status status = fb_data_create_folder(folder, error);
    if (status != FB_OK)
        return status;
    fb_arena_init(&arena, 0);
    status = strcmp(set->name, "listops") == 0 ? make_listops(&m) : make_pathfinder(&m);
    fb_arena_free(&arena);
    return status;
}
