/* The tables of a training run: cells made once, printed as text and as markdown. */
#ifndef FB_ACCURACY_TABLE_H
#define FB_ACCURACY_TABLE_H

#include "accuracy_group.h"
#include "text_table.h"

#include <stdbool.h>

enum { FB_ACCURACY_COLUMNS_SHOWN = 10, FB_ACCURACY_VERDICT_COLUMN = 7 };

/* Headings and one group's cells, in the order of the columns. */
extern const char *const fb_accuracy_headings[FB_ACCURACY_COLUMNS_SHOWN];
void fb_accuracy_cells(const struct fb_accuracy_group *group,
                       char cells[FB_ACCURACY_COLUMNS_SHOWN][FB_ACCURACY_LABEL_SIZE]);
bool fb_accuracy_column_is_number(size_t column);

/* "flow/fused against linear/fused: +0.40 points, 95 % -0.20 to +1.00, p 0.31 (Holm), 5 seeds". */
void fb_accuracy_pair_text(const struct fb_accuracy_groups *groups,
                           const struct fb_accuracy_pair *pair, char *text, size_t text_size);

/* What the columns mean, for people. */
extern const char fb_accuracy_legend[];

/* The first group of a block. */
const struct fb_accuracy_group *fb_accuracy_block(const struct fb_accuracy_groups *groups,
                                                  size_t block);

enum fb_status fb_accuracy_table_print(const struct fb_accuracy_groups *groups, const char *title,
                                       struct fb_text_mode mode, FILE *out, struct fb_arena *arena,
                                       struct fb_error *error) FB_MUST_CHECK;

/* "adder, recipe same, small model, 400 steps, batches of 64, cpu f32". */
void fb_accuracy_block_title(const struct fb_accuracy_row *row, char *text, size_t text_size);

#endif
