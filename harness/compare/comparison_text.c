/* A comparison on the terminal: see comparison_print.h. */
#include "comparison_print.h"

#include "text_table.h"

enum table_column {
    COLUMN_VERDICT,
    COLUMN_CASE,
    COLUMN_BASE,
    COLUMN_NEW,
    COLUMN_CHANGE,
    COLUMN_INTERVAL,
    COLUMN_DETECTS,
    COLUMN_FROM,
    COLUMN_WHY,
    COLUMN_COUNT
};

static const struct {
    const char *header;
    bool right;
} columns[COLUMN_COUNT] = {
    [COLUMN_VERDICT] = {"verdict", false}, [COLUMN_CASE] = {"case", false},
    [COLUMN_BASE] = {"base", true},        [COLUMN_NEW] = {"new", true},
    [COLUMN_CHANGE] = {"change", true},    [COLUMN_INTERVAL] = {"interval", true},
    [COLUMN_DETECTS] = {"detects", true},  [COLUMN_FROM] = {"from", false},
    [COLUMN_WHY] = {"why", false},
};

static enum fb_text_style style_of(const struct fb_compared *one)
{
    static const enum fb_text_style styles[FB_VERDICT_COUNT] = {
        [FB_VERDICT_PASS] = FB_TEXT_PLAIN,         [FB_VERDICT_FASTER] = FB_TEXT_GOOD,
        [FB_VERDICT_FAIL] = FB_TEXT_BAD,           [FB_VERDICT_AMBIGUOUS] = FB_TEXT_WARNING,
        [FB_VERDICT_INCOMPARABLE] = FB_TEXT_FAINT,
    };
    return one->broken ? FB_TEXT_BAD : styles[one->verdict];
}

static enum fb_status add_row(struct fb_text_table *table, const struct fb_compared *one,
                              struct fb_error *error)
{
    char before[32];
    char after[32];
    char change[FB_CHANGE_SIZE];
    char interval[FB_CHANGE_SIZE];
    char detects[FB_CHANGE_SIZE];
    char from[FB_CHANGE_SIZE];
    const char *const cells[COLUMN_COUNT] = {
        [COLUMN_VERDICT] = fb_verdict_name(one->verdict),
        [COLUMN_CASE] = one->name,
        [COLUMN_BASE] = fb_compared_value_text(one, one->base, before, sizeof before),
        [COLUMN_NEW] = fb_compared_value_text(one, one->fresh, after, sizeof after),
        [COLUMN_CHANGE] = fb_compare_change_text(one->change, change, sizeof change),
        [COLUMN_INTERVAL] =
            fb_compare_interval_text(one->change_low, one->change_high, interval, sizeof interval),
        [COLUMN_DETECTS] = fb_compare_change_text(one->detectable, detects, sizeof detects),
        [COLUMN_FROM] = fb_compared_count_text(one, from, sizeof from),
        [COLUMN_WHY] = one->reason,
    };

    enum fb_status status = fb_text_table_row(table, error);
    for (size_t i = 0; i < COLUMN_COUNT && status == FB_OK; i++) {
        const char *text = fb_arena_strdup(table->arena, cells[i], error);
        if (text == NULL)
            return FB_ERROR_MEMORY;
        fb_text_table_set(table, i, text,
                          i == COLUMN_VERDICT || i == COLUMN_CHANGE ? style_of(one)
                                                                    : FB_TEXT_PLAIN);
    }
    return status;
}

static void print_context(const struct fb_comparison *comparison, FILE *out)
{
    char text[1024];

    (void)fprintf(out, "base  %s\n", fb_compare_side_text(&comparison->base, text, sizeof text));
    (void)fprintf(out, "new   %s\n", fb_compare_side_text(&comparison->fresh, text, sizeof text));
    if (comparison->common[0] != '\0')
        (void)fprintf(out, "all   %s\n", comparison->common);
    if (comparison->same.cases > 0)
        (void)fprintf(out, "A/A   base against itself: %s\n",
                      fb_compare_control_text(comparison, &comparison->same, text, sizeof text));
    if (comparison->layout.cases > 0)
        (void)fprintf(out, "A/A'  base against its shuffled relink: %s\n",
                      fb_compare_control_text(comparison, &comparison->layout, text, sizeof text));
    (void)fputc('\n', out);
}

enum fb_status fb_comparison_print_text(const struct fb_comparison *comparison,
                                        const struct fb_comparison_output *output,
                                        struct fb_error *error)
{
    struct fb_text_table table;
    char text[1024];
    enum fb_status status = FB_OK;

    print_context(comparison, output->out);
    fb_text_table_init(&table, output->arena);
    for (size_t i = 0; i < COLUMN_COUNT; i++)
        (void)fb_text_table_column(&table, columns[i].header, columns[i].right);
    for (size_t i = 0; i < comparison->cases_count && status == FB_OK; i++)
        status = add_row(&table, &comparison->cases[i], error);
    if (status != FB_OK)
        return status;
    fb_text_table_print(&table, (struct fb_text_mode){output->color, output->unicode}, output->out);
    (void)fprintf(output->out, "\n%s\n", fb_comparison_counts_text(comparison, text, sizeof text));
    (void)fprintf(output->out, "%s\n", fb_comparison_rule_text(comparison, text, sizeof text));
    if (fb_comparison_outcome(comparison) == FB_COMPARISON_NOTHING)
        (void)fprintf(output->out, "nothing could be compared\n");
    return FB_OK;
}
