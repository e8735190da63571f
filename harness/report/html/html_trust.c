/* What the reader has to know before believing the numbers: evidence of disturbance, and what a run
 * of this kind cannot show. */
#include "html_page.h"

#include "missing.h"
#include "quantity.h"
#include "run_json.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

struct evidence {
    size_t ok, watched, switched, few_processes, throttled, counted;
    int64_t switches_max;
    double steal_s, steal_share_max; /* of the time of the row's own samples */
    double freq_min, freq_max;
};

static void gather(const struct fb_results *results, struct evidence *evidence)
{
    *evidence = (struct evidence){.freq_min = (double)NAN, .freq_max = (double)NAN};
    for (size_t i = 0; i < results->rows_count; i++) {
        const struct fb_row *row = &results->rows[i];
        if (strcmp(row->status, "ok") != 0) {
            continue;
        }
        evidence->ok++;
        /* A count of instructions is the same in every process. */
        bool counted = row->instructions != FB_ROW_NONE;
        evidence->counted += counted;
        evidence->few_processes += !counted && row->processes < FB_CLAIM_PROCESSES_MIN;
        evidence->watched += row->ctx_involuntary != FB_ROW_NONE;
        evidence->throttled += strcmp(row->throttled, "true") == 0;
        if (row->ctx_involuntary != FB_ROW_NONE && row->ctx_involuntary > 0) {
            evidence->switched++;
            evidence->switches_max = row->ctx_involuntary > evidence->switches_max
                                         ? row->ctx_involuntary
                                         : evidence->switches_max;
        }
        if (row->steal_s > 0) {
            double share = row->steal_s / (row->time_median_s * (double)row->iterations);
            evidence->steal_s += row->steal_s;
            evidence->steal_share_max = fmax(evidence->steal_share_max, share);
        }
        evidence->freq_min = fmin(evidence->freq_min, row->freq_hz);
        evidence->freq_max = fmax(evidence->freq_max, row->freq_hz);
    }
}

static void say_processes(FILE *out, const struct evidence *evidence)
{
    if (evidence->few_processes == 0) {
        return;
    }
    fb_html_printf(out,
                   "<li>%zu of %zu cases were measured in fewer than %d processes. Their intervals "
                   "describe the samples taken; they do not say what the next run will "
                   "give.</li>\n",
                   evidence->few_processes, evidence->ok - evidence->counted,
                   (int)FB_CLAIM_PROCESSES_MIN);
}

static void say_disturbance(FILE *out, const struct evidence *evidence)
{
    if (evidence->switched > 0) {
        fb_html_printf(out,
                       "<li>The operating system took the processor away during %zu of %zu cases, "
                       "up to %lld times in one.</li>\n",
                       evidence->switched, evidence->watched, (long long)evidence->switches_max);
    } else if (evidence->watched > 0) {
        (void)fputs("<li>No case lost its processor to other work.</li>\n", out);
    }
    if (evidence->steal_s > 0) {
        char text[FB_QUANTITY_SIZE];
        fb_html_printf(out, "<li>A hypervisor gave %s to other guests while samples were taken",
                       fb_html_time(evidence->steal_s, text));
        fb_html_printf(out, ", in the worst case %s\xc2\xa0%% of the case\xe2\x80\x99s own time",
                       fb_quantity_ratio(100 * evidence->steal_share_max, text));
        (void)fputs(" (summed over processors).</li>\n", out);
    }
    if (evidence->throttled > 0) {
        fb_html_printf(out, "<li>%zu cases ran throttled.</li>\n", evidence->throttled);
    }
    double spread = evidence->freq_max / evidence->freq_min - 1;
    if (spread > 0.05) {
        fb_html_printf(out,
                       "<li>The clock moved between %.2f and %.2f GHz from case to case.</li>\n",
                       evidence->freq_min / 1e9, evidence->freq_max / 1e9);
    }
}

static void say_provenance(FILE *out, const struct fb_html_source *source)
{
    const char *state = fb_html_source_text(source, "state");
    if (!source->document) {
        (void)fputs("<li>There is no run.json beside these rows: machine, compiler and commit are "
                    "unknown.</li>\n",
                    out);
        return;
    }
    if (state[0] && strcmp(state, "finished") != 0) {
        fb_html_printf(out, "<li>The run is not finished (%s): rows are missing.</li>\n", state);
    }
    if (json_is_true(fb_run_json_at(source->document, "build.git_dirty"))) {
        (void)fputs("<li>It was built from sources with changes that no commit holds.</li>\n", out);
    }
    const json_t *warnings = fb_run_json_at(source->document, "machine_warnings");
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        const json_t *warning = json_array_get(warnings, i);
        const char *text = json_string_value(json_object_get(warning, "text"));
        if (text) {
            const char first[2] = {(char)toupper((unsigned char)text[0]), '\0'};
            bool ascii = text[0] > ' ';
            fb_html_printf(out, "<li>%s%s.</li>\n", ascii ? first : "", text + ascii);
        }
    }
}

void fb_html_trust(const struct fb_html_page *page)
{
    FILE *out = page->out;
    (void)fputs("<h3>How far to trust it</h3>\n", out);
    if (page->sources->several_machines) {
        (void)fputs("<p>The runs come from different machines, or from machines that are not known "
                    "to be the same. Seconds of different machines are never set against each "
                    "other here, only ratios.</p>\n",
                    out);
    }
    for (size_t r = 0; r < page->sources->count; r++) {
        struct evidence evidence;
        gather(&page->sources->results[r], &evidence);
        if (page->sources->count > 1) {
            fb_html_printf(out, "<h4>Run %zu</h4>\n", r + 1);
        }
        (void)fputs("<ul class=\"trust\">\n", out);
        say_processes(out, &evidence);
        say_disturbance(out, &evidence);
        say_provenance(out, &page->sources->items[r]);
        (void)fputs("</ul>\n", out);
    }
}
