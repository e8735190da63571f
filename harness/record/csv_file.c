/* Appending to CSV files durably, and repairing what a killed run left: see csv_file.h. */
#include "csv_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum fb_status fail_io(const char *verb, const char *path, struct fb_error *error)
{
    const int reason = errno;
    const char *advice = "";

    if (reason == ENOSPC || reason == EDQUOT)
        advice = "; free some space, then continue with `./bench run --resume`: the rows written "
                 "so far are intact";
    return fb_error_set(error, FB_ERROR_IO, "cannot %s '%s': %s%s", verb, path, strerror(reason),
                        advice);
}

/* Appends a piece in one write and syncs it; on failure the file gets its old length back, so that
 * no half line stays behind. */
static enum fb_status append_synced(int fd, const char *path, const char *data, size_t length,
                                    struct fb_error *error)
{
    const off_t before = lseek(fd, 0, SEEK_END);
    enum fb_status status = FB_OK;

    if (before < 0)
        return fail_io("write", path, error);
    ssize_t written;
    do {
        written = write(fd, data, length);
    } while (written < 0 && errno == EINTR);
    if (written >= 0 && (size_t)written < length) {
        /* A short write to a file means that there is no room for the rest. */
        errno = ENOSPC;
        status = fail_io("write", path, error);
    } else if (written < 0) {
        status = fail_io("write", path, error);
    } else if (fsync(fd) != 0 && errno != EINVAL && errno != EROFS) {
        status = fail_io("sync", path, error);
    }
    if (status != FB_OK && ftruncate(fd, before) != 0)
        (void)fb_error_prefix(error, "'%s' may end in a cut line, which resuming repairs", path);
    return status;
}

enum fb_status fb_csv_file_append(int fd, const char *path, const struct fb_csv_line *line,
                                  struct fb_error *error)
{
    if (line->failed)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a line of '%s'", path);
    return line->length == 0 ? FB_OK : append_synced(fd, path, line->data, line->length, error);
}

/* Rows are written as single lines, so what a kill leaves is a piece of one. A record that is open
 * over several lines is damage of another kind, and cutting it would take finished rows along. */
static enum fb_status check_cut(const struct fb_csv_record *record, const char *text,
                                const char *path, struct fb_error *error)
{
    if (!record->cut || memchr(text + record->begin, '\n', record->end - record->begin) == NULL)
        return FB_OK;
    return fb_error_set(error, FB_ERROR_INPUT,
                        "%s:%zu: damaged: a quote opens here and never closes; restore the file, "
                        "or delete the lines from here on, and resume again",
                        path, record->line_number);
}

enum fb_status fb_csv_file_whole(const char *path, struct fb_arena *arena, size_t *length,
                                 struct fb_csv_record *header, struct fb_error *error)
{
    struct fb_csv_reader reader;
    struct fb_csv_record record;
    char *text;
    size_t bytes;

    *length = 0;
    memset(header, 0, sizeof *header);
    enum fb_status status = fb_csv_load(path, arena, &text, &bytes, error);
    if (status != FB_OK)
        return status;
    fb_csv_reader_init(&reader, text, bytes, path);
    for (;;) {
        status = fb_csv_next(&reader, arena, &record, error);
        if (status == FB_OK)
            status = check_cut(&record, text, path, error);
        if (status != FB_OK || record.cells_count == 0 || record.cut)
            return status;
        if (header->cells_count == 0)
            *header = record;
        *length = record.end;
    }
}

enum fb_status fb_csv_file_open(const char *path, const char *header, size_t header_length,
                                size_t whole_length, int *fd, struct fb_error *error)
{
    struct stat info;

    *fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (*fd < 0)
        return fail_io("write", path, error);
    if (fstat(*fd, &info) != 0)
        return fail_io("read", path, error);
    if (info.st_size > (off_t)whole_length &&
        (ftruncate(*fd, (off_t)whole_length) != 0 || fsync(*fd) != 0))
        return fail_io("repair", path, error);
    if (whole_length == 0)
        return append_synced(*fd, path, header, header_length, error);
    return FB_OK;
}

/* Whether a header's cells are the first of the columns. */
static bool has_columns(const struct fb_csv_record *header, size_t column_count,
                        const struct fb_column *(*column_at)(size_t index))
{
    bool same = header->cells_count <= column_count;
    for (size_t i = 0; same && i < header->cells_count; i++)
        same = strcmp(header->cells[i], column_at(i)->name) == 0;
    return same;
}

/* Writes data into a file beside, which then takes the place of the old one whole. */
static enum fb_status replace(const char *path, const char *data, size_t length,
                              struct fb_arena *arena, struct fb_error *error)
{
    const char *beside = fb_arena_printf(arena, error, "%s.new", path);
    int fd = -1;
    if (!beside)
        return FB_ERROR_MEMORY;
    (void)unlink(beside);
    enum fb_status status = fb_csv_file_open(beside, data, length, 0, &fd, error);
    if (fd >= 0)
        (void)close(fd);
    if (status == FB_OK && rename(beside, path) != 0)
        status = fail_io("write", path, error);
    return status;
}

/* Columns that came with a younger version stand at the end; rows from before leave them empty. */
static enum fb_status add_columns(const char *path, const char *header, size_t header_length,
                                  size_t missing, struct fb_arena *arena, size_t *whole,
                                  struct fb_error *error)
{
    struct fb_csv_reader reader;
    struct fb_csv_record record = {0};
    char *text;
    size_t bytes, rows = 0;
    enum fb_status status = fb_csv_load(path, arena, &text, &bytes, error);
    if (status != FB_OK)
        return status;
    for (size_t i = 0; i < *whole; i++)
        rows += text[i] == '\n';
    char *grown = fb_arena_alloc(arena, header_length + *whole + rows * missing, 1, error);
    if (!grown)
        return FB_ERROR_MEMORY;
    size_t used = header_length;
    memcpy(grown, header, header_length);
    fb_csv_reader_init(&reader, text, bytes, path);
    status = fb_csv_next(&reader, arena, &record, error); /* the old header */
    while (status == FB_OK && record.end < *whole) {
        status = fb_csv_next(&reader, arena, &record, error);
        const size_t length = record.end - record.begin - 1; /* without the line end it was given */
        memcpy(grown + used, text + record.begin, length);
        memset(grown + used + length, ',', missing);
        used += length + missing;
        grown[used++] = '\n';
    }
    *whole = used;
    return status == FB_OK ? replace(path, grown, used, arena, error) : status;
}

enum fb_status fb_csv_file_resume(const char *path, size_t column_count,
                                  const struct fb_column *(*column_at)(size_t index),
                                  struct fb_arena *arena, int *fd, struct fb_error *error)
{
    struct fb_csv_record found;
    struct fb_csv_line header;
    size_t whole = 0;
    enum fb_status status = FB_OK;
    if (access(path, F_OK) == 0)
        status = fb_csv_file_whole(path, arena, &whole, &found, error);
    if (status == FB_OK && whole > 0 && !has_columns(&found, column_count, column_at))
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "%s:1: other columns than this flowbench writes (it was made by "
                              "another version): resume with that version, or start a new run",
                              path);
    if (status != FB_OK)
        return status;
    fb_csv_line_init(&header);
    for (size_t i = 0; i < column_count; i++)
        fb_csv_add_text(&header, column_at(i)->name);
    fb_csv_end_line(&header);
    if (header.failed)
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for the header");
    if (status == FB_OK && whole > 0 && found.cells_count < column_count)
        status = add_columns(path, header.data, header.length, column_count - found.cells_count,
                             arena, &whole, error);
    if (status == FB_OK)
        status = fb_csv_file_open(path, header.data, header.length, whole, fd, error);
    fb_csv_line_free(&header);
    return status;
}
