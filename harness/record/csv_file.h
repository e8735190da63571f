/*
 * CSV files that grow row by row and survive a kill at any moment: a piece is appended in one write
 * and synced; what a killed run left behind the last whole line is cut off when the file is opened
 * again.
 */
#ifndef FB_CSV_FILE_H
#define FB_CSV_FILE_H

#include "csv.h"
#include "row.h"

/* Where the whole lines of a file end, and its header's cells. FB_ERROR_INPUT when the file is
 * damaged in another way than by a kill. */
enum fb_status fb_csv_file_whole(const char *path, struct fb_arena *arena, size_t *length,
                                 struct fb_csv_record *header,
                                 struct fb_error *error) FB_MUST_CHECK;

/* Opens for appending and cuts the file to whole_length; a file with nothing whole in it starts
 * with the header. */
enum fb_status fb_csv_file_open(const char *path, const char *header, size_t header_length,
                                size_t whole_length, int *fd, struct fb_error *error) FB_MUST_CHECK;

/* Opens a table whose header names the columns, to go on after the rows that are whole in it. Where
 * the last of the columns are missing an older version began it: they are added, empty in its rows.
 * Other columns are refused: FB_ERROR_INPUT. */
enum fb_status fb_csv_file_resume(const char *path, size_t column_count,
                                  const struct fb_column *(*column_at)(size_t index),
                                  struct fb_arena *arena, int *fd,
                                  struct fb_error *error) FB_MUST_CHECK;

/* Appends whole lines. On failure the file gets its old length back, so that no half line stays
 * behind. */
enum fb_status fb_csv_file_append(int fd, const char *path, const struct fb_csv_line *line,
                                  struct fb_error *error) FB_MUST_CHECK;

#endif
