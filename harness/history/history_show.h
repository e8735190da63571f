/*
 * What `history show` and `history check` say: as text for the terminal, as CSV and as JSON.
 */
#ifndef FB_HISTORY_SHOW_H
#define FB_HISTORY_SHOW_H

#include "history_check.h"
#include "series_label.h"
#include "text_table.h"

#include <stdio.h>

enum fb_history_format { FB_HISTORY_TEXT, FB_HISTORY_CSV, FB_HISTORY_JSON };

struct fb_history_view {
    const struct fb_series_book *book;
    size_t metric;
    enum fb_history_format format;
    struct fb_text_mode mode;
    FILE *out;
    struct fb_arena *arena;
};

/* A series with its trend, as show and plot have it. */
struct fb_series_view {
    const struct fb_book_series *series;
    struct fb_trend trend;
    const size_t *points; /* of the trend -> of the series */
    size_t points_count;
    char label[FB_SERIES_LABEL_SIZE];
};

/* All series of the book in order: machines as they first appear, cases by label. */
enum fb_status fb_series_views_make(const struct fb_series_book *book, size_t metric,
                                    struct fb_arena *arena, struct fb_series_view **views,
                                    struct fb_error *error) FB_MUST_CHECK;

enum fb_status fb_history_show(const struct fb_history_view *view,
                               struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_history_check_show(const struct fb_history_view *view,
                                     const struct fb_history_check *check,
                                     struct fb_error *error) FB_MUST_CHECK;

/* ---- shared by the files that show ---------------------------------------------------------- */

enum { FB_CHANGE_TEXT_SIZE = 128 };
/* "+12.3 % at 1a2b3c4d5e6f (after 0f9e8d7c6b5a)" */
const char *fb_change_text(const struct fb_series_book *book, const struct fb_book_series *series,
                           const size_t *points, const struct fb_change *change, char *text);
/* Another compiler on the two sides of a change is a suspect, too. */
bool fb_change_is_of_compilers(const struct fb_series_book *book,
                               const struct fb_book_series *series, const size_t *points,
                               const struct fb_change *change);

enum fb_status fb_history_show_json(const struct fb_history_view *view,
                                    const struct fb_series_view *views,
                                    struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_history_check_json(const struct fb_history_view *view,
                                     const struct fb_history_check *check,
                                     struct fb_error *error) FB_MUST_CHECK;

#endif
