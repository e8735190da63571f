/* The table of the columns of results.csv, made from the one list in row.h. */
#include "row.h"

#include "cell.h"

#include <string.h>

#define COLUMN_TEXT(field, bytes) {#field, FB_COLUMN_TEXT, offsetof(struct fb_row, field), bytes},
#define COLUMN_INT(field)         {#field, FB_COLUMN_INT, offsetof(struct fb_row, field), sizeof(int64_t)},
#define COLUMN_REAL(field)        {#field, FB_COLUMN_REAL, offsetof(struct fb_row, field), sizeof(double)},

static const struct fb_column columns[] = {FB_ROW_COLUMNS(COLUMN_TEXT, COLUMN_INT, COLUMN_REAL)};

const char *const fb_row_statuses[] = {"ok",    "skipped", "oom",   "timeout",
                                       "crash", "wrong",   "error", NULL};

size_t fb_column_count(void)
{
    return sizeof columns / sizeof columns[0];
}

const struct fb_column *fb_column_at(size_t index)
{
    return index < fb_column_count() ? &columns[index] : NULL;
}

const struct fb_column *fb_column_find(const char *name)
{
    for (size_t i = 0; i < fb_column_count(); i++) {
        if (strcmp(columns[i].name, name) == 0)
            return &columns[i];
    }
    return NULL;
}

void fb_row_init(struct fb_row *row)
{
    memset(row, 0, sizeof *row);
    fb_cells_clear(row, columns, fb_column_count());
}
