/* The tables of a training run: cells made once, printed as text and as markdown. */
#ifndef FB_ACCURACY_TABLE_H
#define FB_ACCURACY_TABLE_H

#include "accuracy_group.h"
#include "text_table.h"

enum fb_status fb_accuracy_table_print(const struct fb_accuracy_groups *groups, const char *title,
                                       struct fb_text_mode mode, FILE *out, struct fb_arena *arena,
                                       struct fb_error *error) FB_MUST_CHECK;

/* "adder, recipe same, small model, at most 400 steps, cpu f32". */
void fb_accuracy_block_title(const struct fb_accuracy_row *row, char *text, size_t text_size);

#endif
