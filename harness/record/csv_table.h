/* A whole CSV file in memory: a header and rows of its width. */
#ifndef FB_CSV_TABLE_H
#define FB_CSV_TABLE_H

#include "csv.h"

struct fb_csv_table {
    const char *path;
    struct fb_csv_record header;
    struct fb_csv_record *records;
    size_t count;
};

/* FB_ERROR_INPUT when a row has another width than the header or the last line is cut. */
enum fb_status fb_csv_table_read(const char *path, struct fb_arena *arena,
                                 struct fb_csv_table *table, struct fb_error *error) FB_MUST_CHECK;

#endif
