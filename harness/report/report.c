/* What a run says at its end. See report.h. */
#include "report.h"

#include "claims.h"
#include "missing.h"
#include "plots.h"
#include "summary.h"
#include "text_table.h"

#include <errno.h>
#include <string.h>

static int count_failed(const struct fb_results *results)
{
    int count = 0;
    for (size_t i = 0; i < results->rows_count; i++) {
        count += fb_status_is_failure(results->rows[i].status);
    }
    return count;
}

static enum fb_status judge(const struct fb_summary_job *job, const struct fb_suite *suite,
                            struct fb_claim_results *claims, struct fb_report_verdict *verdict,
                            struct fb_error *error)
{
    struct fb_series_set set;
    claims->count = 0;
    if (!suite || suite->claims_count == 0 || job->results->rows_count == 0) {
        return FB_OK;
    }
    enum fb_status status =
        fb_series_collect(job->results, 1, FB_AXIS_SEQ_LEN, job->arena, &set, error);
    if (status == FB_OK) {
        status = fb_claims_judge(suite->claims, suite->claims_count, &set, job->seed, job->arena,
                                 claims, error);
    }
    for (size_t i = 0; status == FB_OK && i < claims->count; i++) {
        verdict->claims_held += claims->items[i].verdict == FB_CLAIM_HELD;
        verdict->claims_failed += claims->items[i].verdict == FB_CLAIM_FAILED;
        verdict->claims_ambiguous += claims->items[i].verdict == FB_CLAIM_AMBIGUOUS;
        verdict->claims_reported_only += claims->items[i].verdict == FB_CLAIM_REPORTED_ONLY;
    }
    return status;
}

/* A suite about floors draws them or claims something of them. */
static bool is_about_floors(const struct fb_suite *suite)
{
    for (size_t i = 0; suite && i < suite->plots_count; i++) {
        if (suite->plots[i] == FB_PLOT_FLOOR_RATIO_VS_SEQ_LEN) {
            return true;
        }
    }
    for (size_t i = 0; suite && i < suite->claims_count; i++) {
        if (suite->claims[i].metric == FB_METRIC_FLOOR_RATIO ||
            suite->claims[i].metric == FB_METRIC_FLOOR_RATIO_WORST) {
            return true;
        }
    }
    return false;
}

static enum fb_status print_all(const struct fb_summary_job *job, const struct fb_suite *suite,
                                const struct fb_claim_results *claims, bool quiet,
                                struct fb_error *error)
{
    enum fb_status status = quiet ? FB_OK : fb_summary_print_results(job, error);
    if (status == FB_OK && !quiet && is_about_floors(suite)) {
        status = fb_summary_print_floors(job, error);
    }
    if (status == FB_OK && !quiet) {
        status = fb_summary_print_peers(job, error);
    }
    if (status == FB_OK) {
        status = fb_summary_print_missing(job, quiet, error);
    }
    if (status == FB_OK) {
        fb_summary_print_claims(job, claims, quiet);
    }
    return status;
}

/* Draws; a gnuplot that is missing or fails costs the pictures, never the run. */
static enum fb_status draw(const struct fb_summary_job *job, const struct fb_suite *suite,
                           const struct fb_report_options *options,
                           struct fb_report_verdict *verdict, struct fb_error *error)
{
    struct fb_error why = {FB_OK, ""};
    struct fb_plots_made made;
    const char *dir = options->plots_dir;
    if (!dir) {
        dir = fb_arena_printf(job->arena, error, "%s/plots",
                              job->results->dir ? job->results->dir : ".");
    }
    if (!dir) {
        return FB_ERROR_MEMORY;
    }
    struct fb_plots_request request = {.runs = job->results,
                                       .runs_count = 1,
                                       .kinds = suite ? suite->plots : NULL,
                                       .kinds_count = suite ? suite->plots_count : 0,
                                       .dir = dir,
                                       .seed = options->seed};
    enum fb_status status = fb_plots_make(&request, job->arena, &made, &why);
    if (status == FB_ERROR_MEMORY) {
        return fb_error_set(error, status, "%s", why.text);
    }
    verdict->plots_made = (int)made.pictures_count;
    verdict->plots_skipped = status != FB_OK;
    if (status != FB_OK && options->messages) {
        (void)fprintf(options->messages, "flowbench: warning: no pictures: %s\n", why.text);
    }
    if (made.empty_kinds[0] && options->messages) {
        (void)fprintf(options->messages,
                      "flowbench: warning: no picture for %s: nothing measured at two or more "
                      "places of that axis\n",
                      made.empty_kinds);
    }
    if (options->out && !options->quiet && made.paths_count > 0) {
        (void)fputs("\npictures:\n", options->out);
        for (size_t i = 0; i < made.paths_count; i++) {
            (void)fprintf(options->out, "  %s\n", made.paths[i]);
        }
    }
    return FB_OK;
}

static enum fb_status report(const struct fb_summary_job *job, const struct fb_suite *suite,
                             const struct fb_report_options *options,
                             struct fb_report_verdict *verdict, struct fb_error *error)
{
    struct fb_claim_results claims;
    enum fb_status status = judge(job, suite, &claims, verdict, error);
    if (status == FB_OK && options->out) {
        status = print_all(job, suite, &claims, options->quiet, error);
    }
    /* Before the pictures, whose warnings go elsewhere. */
    if (status == FB_OK && options->out && (fflush(options->out) != 0 || ferror(options->out))) {
        status = fb_error_set(error, FB_ERROR_IO, "the summary could not be written: %s",
                              strerror(errno));
    }
    bool wanted =
        options->make_plots && job->results->rows_count > 0 && (!suite || suite->plots_count > 0);
    if (status == FB_OK && wanted) {
        status = draw(job, suite, options, verdict, error);
    }
    return status;
}

enum fb_status fb_report_run(const struct fb_results *results, const struct fb_suite *suite,
                             const struct fb_report_options *options,
                             struct fb_report_verdict *verdict, struct fb_error *error)
{
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    *verdict = (struct fb_report_verdict){.cases_failed = count_failed(results)};
    struct fb_summary_job job = {.results = results,
                                 .title = suite ? suite->title : NULL,
                                 .seed = options->seed,
                                 .mode = {options->color, fb_text_locale_is_utf8()},
                                 .out = options->out,
                                 .arena = &arena};
    enum fb_status status = report(&job, suite, options, verdict, error);
    fb_arena_free(&arena);
    return status;
}
