/* See series_label.h. */
#include "series_label.h"

#include "row_factor.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Which run and which machine is said elsewhere. */
static bool is_told(int factor)
{
    return factor != FB_FACTOR_RUN && factor != FB_FACTOR_DEVICE_NAME;
}

static bool differs(const struct fb_row *a, const struct fb_row *b, enum fb_factor factor)
{
    char x[FB_FACTOR_TEXT_SIZE], y[FB_FACTOR_TEXT_SIZE];

    fb_factor_value(a, factor, x);
    fb_factor_value(b, factor, y);
    return *x != '\0' && *y != '\0' && strcmp(x, y) != 0;
}

static bool same_kernel(const struct fb_row *a, const struct fb_row *b)
{
    return strcmp(a->mechanism, b->mechanism) == 0 && strcmp(a->variant, b->variant) == 0;
}

/* Parameters are a mechanism's own: they tell apart only what is the same otherwise. */
static bool params_vary(const struct fb_series_book *book, size_t machine, size_t at)
{
    for (size_t j = 0; j < at; j++) {
        const struct fb_row *row = &book->series[at]->row, *other = &book->series[j]->row;
        if ((machine == SIZE_MAX || book->series[j]->machine == machine) &&
            same_kernel(row, other) && differs(row, other, FB_FACTOR_PARAMS))
            return true;
    }
    return false;
}

void fb_series_labels_init(struct fb_series_labels *labels, const struct fb_series_book *book,
                           size_t machine)
{
    assert(FB_FACTOR_COUNT <= FB_SERIES_FACTORS_MAX);
    memset(labels, 0, sizeof *labels);
    for (size_t i = 0; i < book->series_count; i++) {
        const struct fb_row *row = &book->series[i]->row;
        if (machine != SIZE_MAX && book->series[i]->machine != machine)
            continue;
        if (labels->first == NULL)
            labels->first = row;
        for (int f = 0; f < FB_FACTOR_COUNT; f++) {
            if (f != FB_FACTOR_PARAMS && is_told(f))
                labels->varies[f] |= differs(row, labels->first, (enum fb_factor)f);
        }
        if (!labels->varies[FB_FACTOR_PARAMS])
            labels->varies[FB_FACTOR_PARAMS] = params_vary(book, machine, i);
    }
}

static void append(char *text, size_t text_size, const char *between, const char *piece)
{
    const size_t used = strlen(text);

    if (*piece != '\0')
        (void)snprintf(text + used, text_size - used, "%s%s", used > 0 ? between : "", piece);
}

const char *fb_series_label(const struct fb_series_labels *labels,
                            const struct fb_book_series *series, char *text)
{
    const struct fb_row *row = &series->row;

    (void)snprintf(text, FB_SERIES_LABEL_SIZE, "%s%s%s%s", row->mechanism,
                   *row->variant != '\0' ? "/" : "", row->variant,
                   strcmp(row->causal, "true") == 0 ? " causal" : "");
    for (int f = 0; f < FB_FACTOR_COUNT; f++) {
        char phrase[FB_FACTOR_TEXT_SIZE];
        if (!labels->varies[f] || fb_factor_is_plain(row, (enum fb_factor)f))
            continue;
        fb_factor_phrase(row, (enum fb_factor)f, phrase);
        append(text, FB_SERIES_LABEL_SIZE, " ", phrase);
    }
    return text;
}

const char *fb_series_common(const struct fb_series_labels *labels, char *text, size_t text_size)
{
    *text = '\0';
    if (labels->first == NULL)
        return text;
    const struct fb_row *row = labels->first;
    for (int f = 0; f < FB_FACTOR_COUNT; f++) {
        char phrase[FB_FACTOR_TEXT_SIZE];
        if (!is_told(f) || labels->varies[f] || f == FB_FACTOR_PARAMS || f == FB_FACTOR_SEED ||
            fb_factor_is_plain(row, (enum fb_factor)f))
            continue;
        fb_factor_phrase(row, (enum fb_factor)f, phrase);
        append(text, text_size, ", ", phrase);
    }
    return text;
}
