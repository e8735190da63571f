/* What was found, in words: failures first, then claims, then what each mechanism does. Every
 * sentence is made of the rows; docs/reporting.md says how. */
#include "html_page.h"

#include "missing.h"
#include "quantity.h"

#include <math.h>
#include <string.h>

enum { SENTENCES_MAX = 12, FAILURES_MAX = 12 };

/* ---- how many cases
 * ------------------------------------------------------------------------------ */

struct tally {
    size_t rows, ok, failed, missing, checked;
    double worst_share; /* of the error budget; NaN when nothing was checked */
    const struct fb_row *worst;
};

static void count_rows(const struct fb_html_page *page, struct tally *tally)
{
    *tally = (struct tally){.worst_share = (double)NAN};
    for (size_t r = 0; r < page->sources->count; r++) {
        const struct fb_results *results = &page->sources->results[r];
        for (size_t i = 0; i < results->rows_count; i++) {
            const struct fb_row *row = &results->rows[i];
            bool ok = strcmp(row->status, "ok") == 0, failed = fb_status_is_failure(row->status);
            double share = row->err_rel / row->err_budget;
            tally->rows++;
            tally->ok += ok;
            tally->failed += failed;
            tally->missing += !ok && !failed;
            if (ok && !isnan(share)) {
                tally->checked++;
                if (isnan(tally->worst_share) || share > tally->worst_share) {
                    tally->worst_share = share;
                    tally->worst = row;
                }
            }
        }
    }
}

static void tile(FILE *out, const char *tone, const char *number, const char *what)
{
    fb_html_printf(out, "<li class=\"%s\"><b>%s</b> %s</li>\n", tone, number, what);
}

static void write_tiles(const struct fb_html_page *page, const struct tally *tally)
{
    char text[64];
    size_t held = 0, failed = 0, judged = 0, claims = 0;
    FILE *out = page->out;
    (void)fputs("<ul class=\"tiles\">\n", out);
    (void)snprintf(text, sizeof text, "%zu of %zu", tally->ok, tally->rows);
    tile(out, "plain", text, tally->rows == 1 ? "case measured" : "cases measured");
    (void)snprintf(text, sizeof text, "%zu", tally->failed);
    tile(out, tally->failed ? "bad" : "good", text, "wrong or crashed");
    if (tally->missing > 0) {
        (void)snprintf(text, sizeof text, "%zu", tally->missing);
        tile(out, "warn", text, "without a time, each with its reason");
    }
    for (size_t r = 0; r < page->sources->count; r++) {
        for (size_t i = 0; i < page->claims[r].count; i++) {
            claims++;
            judged += page->claims[r].items[i].verdict != FB_CLAIM_REPORTED_ONLY;
            held += page->claims[r].items[i].verdict == FB_CLAIM_HELD;
            failed += page->claims[r].items[i].verdict == FB_CLAIM_FAILED;
        }
    }
    if (judged > 0) {
        (void)snprintf(text, sizeof text, "%zu of %zu", held, judged);
        tile(out, failed ? "bad" : held == judged ? "good" : "plain", text, "judged claims held");
    } else if (claims > 0) {
        (void)snprintf(text, sizeof text, "%zu", claims);
        tile(out, "plain", text, "claims reported, not judged");
    }
    (void)fputs("</ul>\n", out);
}

/* ---- failures and correctness
 * -------------------------------------------------------------------- */

static void say_failure(const struct fb_html_page *page, size_t run, const struct fb_missing *group)
{
    char name[FB_HTML_LABEL_SIZE], from[FB_QUANTITY_SIZE], to[FB_QUANTITY_SIZE];
    fb_html_name_mechanism(group->row, name);
    (void)fputs("<li class=\"bad\">", page->out);
    fb_html_tag(page->out, "bad", group->row->status);
    fb_html_printf(page->out, " <strong>%s</strong>%s, N %s",
                   group->one_name ? name : "Several mechanisms",
                   group->one_causal && strcmp(group->row->causal, "true") == 0 ? ", causal" : "",
                   fb_quantity_count((double)group->seq_len_min, from));
    if (group->seq_len_max != group->seq_len_min) {
        fb_html_printf(page->out, " to %s", fb_quantity_count((double)group->seq_len_max, to));
    }
    fb_html_name_run(page, run, name);
    fb_html_printf(page->out, "%s%s (%zu case%s): %s</li>\n", name[0] ? ", " : "", name,
                   group->count, group->count == 1 ? "" : "s",
                   group->row->reason[0] ? group->row->reason : "no reason recorded");
}

static enum fb_status say_failures(const struct fb_html_page *page, struct fb_error *error)
{
    size_t said = 0;
    for (size_t r = 0; r < page->sources->count; r++) {
        struct fb_missing *groups = NULL;
        size_t count = 0;
        enum fb_status status =
            fb_missing_collect(&page->sources->results[r], page->arena, &groups, &count, error);
        if (status != FB_OK) {
            return status;
        }
        for (size_t i = 0; i < count; i++) {
            if (groups[i].failure && said++ < FAILURES_MAX) {
                say_failure(page, r, &groups[i]);
            }
        }
    }
    if (said > FAILURES_MAX) {
        fb_html_printf(page->out,
                       "<li class=\"bad\">%zu further causes: see <a href=\"#missing\">what has no "
                       "time</a>.</li>\n",
                       said - FAILURES_MAX);
    }
    return FB_OK;
}

static void say_correctness(const struct fb_html_page *page, const struct tally *tally)
{
    char name[FB_HTML_LABEL_SIZE], count[FB_QUANTITY_SIZE];
    FILE *out = page->out;
    if (!tally->worst) {
        (void)fputs("<li class=\"warn\">No answer was compared with the float64 oracle: the times "
                    "say nothing about correctness.</li>\n",
                    out);
        return;
    }
    fb_html_name_mechanism(tally->worst, name);
    if (tally->checked == tally->ok) {
        (void)fputs("<li class=\"good\">Every measured answer agrees with the float64 oracle", out);
    } else {
        fb_html_printf(out,
                       "<li class=\"warn\">Only %zu of %zu measured answers were compared with the "
                       "float64 oracle",
                       tally->checked, tally->ok);
    }
    fb_html_printf(
        out, ". The largest error is %.2g, %.2g\xc2\xa0%% of its budget: %s, N\xc2\xa0%s.</li>\n",
        tally->worst->err_rel, 100 * tally->worst_share, name,
        fb_quantity_count((double)tally->worst->seq_len, count));
}

/* Cases that count instructions have no time. */
static void say_counted(const struct fb_html_page *page)
{
    size_t counted = 0;
    const char *counter = "";
    for (size_t r = 0; r < page->sources->count; r++) {
        const struct fb_results *results = &page->sources->results[r];
        for (size_t i = 0; i < results->rows_count; i++) {
            if (results->rows[i].instructions != FB_ROW_NONE) {
                counted++;
                counter = results->rows[i].counter;
            }
        }
    }
    if (counted > 0) {
        fb_html_printf(page->out,
                       "<li class=\"plain\">%zu cases have the instructions of a call in place of "
                       "its time, counted by %s: see <a href=\"#all\">all cases</a>.</li>\n",
                       counted, counter[0] ? counter : "an unnamed counter");
    }
}

static void say_claims(const struct fb_html_page *page)
{
    size_t verdicts[4] = {0}, total = 0;
    for (size_t r = 0; r < page->sources->count; r++) {
        for (size_t i = 0; i < page->claims[r].count; i++) {
            verdicts[page->claims[r].items[i].verdict]++;
            total++;
        }
    }
    if (total == 0) {
        return;
    }
    fb_html_printf(page->out, "<li class=\"%s\">The suite's <a href=\"#claims\">claims</a>: ",
                   verdicts[FB_CLAIM_FAILED] ? "bad" : "plain");
    const char *separator = "";
    static const enum fb_claim_verdict order[] = {FB_CLAIM_FAILED, FB_CLAIM_HELD,
                                                  FB_CLAIM_AMBIGUOUS, FB_CLAIM_REPORTED_ONLY};
    for (size_t v = 0; v < 4; v++) {
        if (verdicts[order[v]] > 0) {
            fb_html_printf(page->out, "%s%zu %s", separator, verdicts[order[v]],
                           fb_claim_verdict_name(order[v]));
            separator = ", ";
        }
    }
    (void)fputs(verdicts[FB_CLAIM_REPORTED_ONLY] == total
                    ? ": a verdict takes at least 5 processes for each case.</li>\n"
                    : ".</li>\n",
                page->out);
}

/* ---- one mechanism
 * ------------------------------------------------------------------------------- */

static const char *say_exponent(FILE *out, const struct fb_html_series *found)
{
    char from[FB_QUANTITY_SIZE], to[FB_QUANTITY_SIZE];
    const struct fb_scaling *scaling = &found->scaling;
    if (scaling->count == 0) {
        return "";
    }
    fb_quantity_count(scaling->sizes[0], from);
    fb_quantity_count(scaling->sizes[scaling->count - 1], to);
    if (fb_scaling_is_constant(found->series, scaling)) {
        fb_html_printf(out, "one token takes the same time from N\xc2\xa0%s to %s (\xc3\x97%.2f)",
                       from, to, scaling->values[scaling->count - 1] / scaling->values[0]);
        return "; ";
    }
    switch (scaling->verdict) {
    case FB_SCALING_TOO_FEW:
        return "";
    case FB_SCALING_NONE:
        if (scaling->fixed_cost_dominates) {
            (void)fputs("its time follows no single power of N: a fixed cost dominates", out);
            return "; ";
        }
        fb_html_printf(out,
                       "its time follows no single power of N: the slope is %.2f from %s to "
                       "%s and %.2f elsewhere",
                       scaling->slopes[scaling->break_index],
                       fb_quantity_count(scaling->sizes[scaling->break_index], from),
                       fb_quantity_count(scaling->sizes[scaling->break_index + 1], to),
                       scaling->typical_slope);
        return "; ";
    case FB_SCALING_SINGLE:
        break;
    }
    fb_html_printf(out, "time grows as <span class=\"power\">N<sup>%.2f</sup></span>",
                   scaling->fit.p);
    if (scaling->p.kind != FB_SPREAD_NONE) {
        fb_html_printf(out, " [%.2f, %.2f]", scaling->p.low, scaling->p.high);
    }
    fb_html_printf(out, " from %s to %s", fb_quantity_count(scaling->sizes[scaling->first], from),
                   to);
    return "; ";
}

static const char *say_crossover(FILE *out, const struct fb_html_series *found,
                                 const char *separator)
{
    char text[FB_QUANTITY_SIZE], low[FB_QUANTITY_SIZE];
    const struct fb_crossover *crossover = &found->crossover;
    double ratio = (double)NAN;
    if (crossover->kind == FB_CROSSOVER_NONE) {
        return separator;
    }
    for (size_t i = 0; i < found->series->points_count; i++) {
        double here = fb_html_speedup(found, &found->series->points[i]);
        ratio = isnan(here) ? ratio : here;
    }
    const char *variant = found->softmax->key->variant;
    if (crossover->size_min == crossover->size_max) {
        fb_html_printf(out, "%s%s times as fast as softmax (%s) at N\xc2\xa0%s", separator,
                       fb_quantity_ratio(ratio, low), variant,
                       fb_quantity_count(crossover->size_max, text));
        return "; ";
    }
    if (crossover->kind == FB_CROSSOVER_INSIDE) {
        fb_html_printf(out, "%sovertakes softmax (%s) at N\xc2\xa0\xe2\x89\x88\xc2\xa0%.0f",
                       separator, variant, crossover->size);
        if (crossover->interval.low > 0 && isfinite(crossover->interval.high)) {
            fb_html_printf(out, " [%.0f, %.0f]", crossover->interval.low, crossover->interval.high);
        }
    } else if (crossover->kind == FB_CROSSOVER_BELOW) {
        fb_html_printf(out, "%sfaster than softmax (%s) at every size measured", separator,
                       variant);
    } else {
        fb_html_printf(out, "%sslower than softmax (%s) at N\xc2\xa0%s, the largest size of both",
                       separator, variant, fb_quantity_count(crossover->size_max, text));
        fb_html_printf(out, " (%.2f times its time)", 1 / ratio);
        return "; ";
    }
    fb_html_printf(out, ", %s times as fast at N\xc2\xa0%s", fb_quantity_ratio(ratio, low),
                   fb_quantity_count(crossover->size_max, text));
    return "; ";
}

static void say_series(const struct fb_html_page *page, const struct fb_html_series *found)
{
    char label[FB_HTML_LABEL_SIZE], ratio[FB_QUANTITY_SIZE], size[FB_QUANTITY_SIZE];
    const struct fb_point *last = fb_series_last_ok(found->series);
    FILE *out = page->out;
    fb_html_name_series(page, found->series, label);
    fb_html_printf(out, "<li class=\"plain\"><strong>%s</strong>: ", label);
    const char *separator = say_exponent(out, found);
    separator = say_crossover(out, found, separator);
    if (!isnan(last->row->floor_ratio)) {
        fb_html_printf(out, "%s%s times this machine\xe2\x80\x99s floor at N\xc2\xa0%s", separator,
                       fb_quantity_ratio(last->row->floor_ratio, ratio),
                       fb_quantity_count(last->x, size));
    } else if (separator[0] == '\0') {
        fb_html_printf(out, "%s at N\xc2\xa0%s", fb_html_time(last->row->time_median_s, ratio),
                       fb_quantity_count(last->x, size));
    }
    (void)fputs(".</li>\n", out);
}

/* Flow-Attention's default variant first, then the others' defaults, then the rest. */
static int importance(const struct fb_series *series)
{
    bool is_flow = strcmp(series->key->mechanism, "flow") == 0;
    return fb_series_is_default(series) ? (is_flow ? 0 : 1) : 2;
}

static void say_mechanisms(const struct fb_html_page *page)
{
    size_t said = 0, measured = 0;
    for (int rank = 0; rank <= 2; rank++) {
        for (size_t i = 0; i < page->set.count; i++) {
            const struct fb_series *series = page->series[i].series;
            if (series->ok_count == 0 || importance(series) != rank) {
                continue;
            }
            measured++;
            if (said < SENTENCES_MAX) {
                say_series(page, &page->series[i]);
                said++;
            }
        }
    }
    if (measured > said) {
        fb_html_printf(page->out,
                       "<li class=\"plain\">%zu further series stand in the tables below.</li>\n",
                       measured - said);
    }
}

enum fb_status fb_html_findings(const struct fb_html_page *page, struct fb_error *error)
{
    struct tally tally;
    count_rows(page, &tally);
    fb_html_section(page->out, "findings", "What was found");
    write_tiles(page, &tally);
    (void)fputs("<ul class=\"findings\">\n", page->out);
    enum fb_status status = say_failures(page, error);
    if (tally.ok > 0) {
        say_correctness(page, &tally);
    }
    say_counted(page);
    say_claims(page);
    say_mechanisms(page);
    (void)fputs("</ul>\n", page->out);
    fb_html_trust(page);
    (void)fputs("</section>\n", page->out);
    return status;
}
