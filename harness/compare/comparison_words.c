/* Words and numbers that the formats share: see comparison_print.h. */
#include "comparison_print.h"

#include "progress.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

const char *fb_comparison_format_name(enum fb_comparison_format format)
{
    static const char *const names[FB_COMPARISON_FORMAT_COUNT] = {
        [FB_COMPARISON_TEXT] = "text",     [FB_COMPARISON_MARKDOWN] = "markdown",
        [FB_COMPARISON_JSON] = "json",     [FB_COMPARISON_JUNIT] = "junit",
        [FB_COMPARISON_GITHUB] = "github",
    };
    return names[format];
}

enum fb_status fb_comparison_print(const struct fb_comparison *comparison,
                                   const struct fb_comparison_output *output,
                                   struct fb_error *error)
{
    switch (output->format) {
    case FB_COMPARISON_MARKDOWN:
        fb_comparison_print_markdown(comparison, output->out);
        return FB_OK;
    case FB_COMPARISON_JSON:
        return fb_comparison_print_json(comparison, output->out, error);
    case FB_COMPARISON_JUNIT:
        fb_comparison_print_junit(comparison, output->strict, output->out);
        return FB_OK;
    case FB_COMPARISON_GITHUB:
        fb_comparison_print_github(comparison, output->strict, output->out);
        return FB_OK;
    default:
        return fb_comparison_print_text(comparison, output, error);
    }
}

void fb_comparison_append(char *text, size_t text_size, const char *format, ...)
{
    const size_t used = strlen(text);
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text + used, text_size - used, format, arguments);
    va_end(arguments);
}

char *fb_compare_change_text(double fraction, char *text, size_t text_size)
{
    if (!isfinite(fraction))
        (void)snprintf(text, text_size, "-");
    else
        (void)snprintf(text, text_size, "%+.1f %%", 100.0 * fraction);
    return text;
}

char *fb_compare_interval_text(double low, double high, char *text, size_t text_size)
{
    if (!isfinite(low) || !isfinite(high))
        (void)snprintf(text, text_size, "-");
    else
        (void)snprintf(text, text_size, "[%+.1f, %+.1f] %%", 100.0 * low, 100.0 * high);
    return text;
}

char *fb_compared_value_text(const struct fb_compared *one, const struct fb_row *row, char *text,
                             size_t text_size)
{
    if (row == NULL)
        (void)snprintf(text, text_size, "-");
    else if (one->unit == FB_UNIT_COUNTS)
        (void)snprintf(text, text_size, "%.4g M", 1e-6 * (double)row->instructions);
    else
        (void)fb_human_time(row->time_median_s, text, text_size);
    return text;
}

char *fb_compared_count_text(const struct fb_compared *one, char *text, size_t text_size)
{
    if (one->unit == FB_UNIT_NONE)
        (void)snprintf(text, text_size, "-");
    else if (one->unit == FB_UNIT_COUNTS)
        (void)snprintf(text, text_size, "counts");
    else if (one->unit != FB_UNIT_PAIRS)
        (void)snprintf(text, text_size, "%zu/%zu %s", one->base_count, one->fresh_count,
                       fb_compare_unit_name(one->unit));
    else if (one->fresh_ratios_count == 0)
        (void)snprintf(text, text_size, "%zu pairs", one->screen_ratios_count);
    else
        (void)snprintf(text, text_size, "%zu+%zu pairs", one->screen_ratios_count,
                       one->fresh_ratios_count);
    return text;
}

char *fb_comparison_counts_text(const struct fb_comparison *comparison, char *text,
                                size_t text_size)
{
    static const enum fb_verdict order[] = {FB_VERDICT_FAIL, FB_VERDICT_AMBIGUOUS,
                                            FB_VERDICT_INCOMPARABLE, FB_VERDICT_FASTER,
                                            FB_VERDICT_PASS};
    const char *between = ": ";

    (void)snprintf(text, text_size, "%zu case%s", comparison->cases_count,
                   comparison->cases_count == 1 ? "" : "s");
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        const size_t count = comparison->counts[order[i]];
        if (count == 0)
            continue;
        fb_comparison_append(text, text_size, "%s%zu %s", between, count,
                             fb_verdict_name(order[i]));
        if (order[i] == FB_VERDICT_INCOMPARABLE && comparison->broken_count > 0)
            fb_comparison_append(text, text_size, " (%zu of them fail only in new)",
                                 comparison->broken_count);
        between = ", ";
    }
    return text;
}

char *fb_compare_side_text(const struct fb_compare_side *side, char *text, size_t text_size)
{
    const char *between = " (";

    (void)snprintf(text, text_size, "%s", side->label);
    if (side->version != NULL && side->version[0] != '\0') {
        fb_comparison_append(text, text_size, "%sflowbench %s", between, side->version);
        between = ", ";
    }
    if (side->git_sha != NULL && side->git_sha[0] != '\0') {
        fb_comparison_append(text, text_size, "%s%.12s", between, side->git_sha);
        between = ", ";
    }
    if (side->machine_name != NULL && side->machine_name[0] != '\0') {
        fb_comparison_append(text, text_size, "%son %s", between, side->machine_name);
        between = ", ";
    }
    if (between[0] == ',')
        fb_comparison_append(text, text_size, ")");
    return text;
}

char *fb_compare_control_text(const struct fb_comparison *comparison,
                              const struct fb_compare_control *control, char *text,
                              size_t text_size)
{
    const char *where = "";

    for (size_t i = 0; i < comparison->cases_count; i++) {
        if (comparison->cases[i].base == control->largest_case)
            where = comparison->cases[i].name;
    }
    (void)snprintf(text, text_size,
                   "%zu case%s x %zu pairs, largest median %.1f %% (%s), noise of a process "
                   "%.1f %%, %zu would have been suspected",
                   control->cases, control->cases == 1 ? "" : "s", control->pairs,
                   100.0 * control->largest, where, 100.0 * control->spread, control->candidates);
    return text;
}

char *fb_comparison_rule_text(const struct fb_comparison *comparison, char *text, size_t text_size)
{
    const struct fb_gate_rule *rule = &comparison->rule;

    if (comparison->live)
        (void)snprintf(text, text_size,
                       "tolerated: %.3g %% of time, 1 %% of memory and of counted instructions; a "
                       "slow-down is confirmed by "
                       "fresh pairs (signed rank, Holm, alpha %.3g); intervals at %.3g %%",
                       100.0 * rule->threshold, rule->alpha, 100.0 * (1.0 - rule->alpha));
    else
        (void)snprintf(text, text_size,
                       "tolerated: %.3g %% of time with 6 or more processes a side, else %.3g %%; "
                       "1 %% of memory and of counted instructions; intervals at %.3g %%",
                       100.0 * rule->threshold, 100.0 * comparison->sample_floor,
                       100.0 * (1.0 - rule->alpha));
    return text;
}

char *fb_compared_sentence(const struct fb_compared *one, char *text, size_t text_size)
{
    char change[FB_CHANGE_SIZE];
    char interval[FB_CHANGE_SIZE];
    char detectable[FB_CHANGE_SIZE];
    char before[32];
    char after[32];

    (void)snprintf(text, text_size, "%s", fb_verdict_name(one->verdict));
    if (one->reason[0] != '\0')
        fb_comparison_append(text, text_size, ": %s", one->reason);
    if (isfinite(one->change))
        fb_comparison_append(text, text_size, "; %s %s (%s to %s)",
                             one->unit == FB_UNIT_COUNTS ? "instructions" : "time",
                             fb_compare_change_text(one->change, change, sizeof change),
                             fb_compared_value_text(one, one->base, before, sizeof before),
                             fb_compared_value_text(one, one->fresh, after, sizeof after));
    if (one->unit == FB_UNIT_COUNTS)
        return text; /* which are exact */
    if (isfinite(one->change_low) && isfinite(one->change_high))
        fb_comparison_append(
            text, text_size, ", interval %s",
            fb_compare_interval_text(one->change_low, one->change_high, interval, sizeof interval));
    if (isfinite(one->detectable))
        fb_comparison_append(
            text, text_size, ", detects %s",
            fb_compare_change_text(one->detectable, detectable, sizeof detectable));
    return text;
}
