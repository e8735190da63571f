/* The table of the columns of accuracy.csv, made from the one list in accuracy_row.h. */
#include "accuracy_row.h"

#include "cell.h"

#include <string.h>

#define COLUMN(field, type, bytes) {#field, type, offsetof(struct fb_accuracy_row, field), bytes},
#define COLUMN_TEXT(field, bytes)  COLUMN(field, FB_COLUMN_TEXT, bytes)
#define COLUMN_INT(field)          COLUMN(field, FB_COLUMN_INT, sizeof(int64_t))
#define COLUMN_REAL(field)         COLUMN(field, FB_COLUMN_REAL, sizeof(double))

static const struct fb_column columns[] = {
    FB_ACCURACY_COLUMNS(COLUMN_TEXT, COLUMN_INT, COLUMN_REAL)};

size_t fb_accuracy_column_count(void)
{
    return sizeof columns / sizeof columns[0];
}

const struct fb_column *fb_accuracy_column_at(size_t index)
{
    return index < fb_accuracy_column_count() ? &columns[index] : NULL;
}

void fb_accuracy_row_init(struct fb_accuracy_row *row)
{
    memset(row, 0, sizeof *row);
    fb_cells_clear(row, columns, fb_accuracy_column_count());
}
