/*
 * Training steps per second against the number of tokens: of tasks whose examples serve times alone
 * (struct fb_task, times_only). Blocks of groups that differ in the length of their sequences make
 * a set, named by the first of them.
 */
#ifndef FB_ACCURACY_SPEED_H
#define FB_ACCURACY_SPEED_H

#include "accuracy_group.h"
#include "text_table.h"

enum { FB_SPEED_LENGTHS_MAX = FB_TABLE_COLUMNS_MAX - 1 };

/* Whether a block belongs to such a set: its metric says nothing. */
bool fb_accuracy_is_timed(const struct fb_accuracy_groups *groups, size_t block);

/* Whether it is the first block of its set. */
bool fb_accuracy_leads_speed(const struct fb_accuracy_groups *groups, size_t block);

/* The distinct lengths of a set, ascending; the longest FB_SPEED_LENGTHS_MAX of them. */
size_t fb_accuracy_speed_lengths(const struct fb_accuracy_groups *groups, size_t block,
                                 int64_t lengths[FB_SPEED_LENGTHS_MAX]);

/* Whether groups->items[index] is the first of its mechanism in the set. */
bool fb_accuracy_speed_starts(const struct fb_accuracy_groups *groups, size_t block, size_t index);

/* The group of the set with that label and length; NULL: none, or none that has a result. */
const struct fb_accuracy_group *fb_accuracy_speed_at(const struct fb_accuracy_groups *groups,
                                                     size_t block, const char *label,
                                                     int64_t length);

/* "bytes, recipe same, 8 steps, batches of 1, cpu f32" */
void fb_accuracy_speed_title(const struct fb_accuracy_groups *groups, size_t block, char *text,
                             size_t text_size);

/* The tables of all sets: mechanisms by lengths, median and interval; nothing without a set. As
 * text for people, and as markdown. */
enum fb_status fb_accuracy_speed_print(const struct fb_accuracy_groups *groups,
                                       struct fb_text_mode mode, FILE *out, struct fb_arena *arena,
                                       struct fb_error *error) FB_MUST_CHECK;
void fb_accuracy_speed_markdown(const struct fb_accuracy_groups *groups, FILE *out);

/* One cell: "12.3 (12.1 to 12.6)", "12.3" of a single seed, "-" where fb_accuracy_speed_at is NULL.
 */
void fb_accuracy_speed_cell(const struct fb_accuracy_groups *groups, size_t block,
                            const char *label, int64_t length, char *text, size_t text_size);

/* What the numbers mean, for people. */
extern const char fb_accuracy_speed_legend[];

#endif
