/* flowbench plot: the pictures of stored runs. Prints the paths of what it drew on stdout. */
#include "accuracy_report.h"
#include "commands.h"
#include "nearest.h"
#include "plots.h"
#include "results.h"
#include "run_json.h"
#include "suite.h"

#include <argp.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RUNS_MAX = 64 };

struct plot_options {
    const char *runs[RUNS_MAX];
    size_t runs_count;
    const char *out_dir; /* NULL: plots/ of the only run, or of the working folder */
    enum fb_plot_kind kinds[FB_PLOT_KIND_COUNT];
    size_t kinds_count;
};

static void add_kind(struct plot_options *options, const char *name, const struct argp_state *state)
{
    const char *names[FB_PLOT_KIND_COUNT];
    for (int kind = 0; kind < FB_PLOT_KIND_COUNT; kind++) {
        names[kind] = fb_plot_kind_name((enum fb_plot_kind)kind);
        if (strcmp(names[kind], name) == 0) {
            for (size_t i = 0; i < options->kinds_count; i++) {
                if (options->kinds[i] == (enum fb_plot_kind)kind) {
                    return;
                }
            }
            options->kinds[options->kinds_count++] = (enum fb_plot_kind)kind;
            return;
        }
    }
    const char *near = fb_nearest_name(name, names, FB_PLOT_KIND_COUNT);
    argp_error(state, "there is no picture '%s'%s%s%s; see --help for the kinds", name,
               near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct plot_options *options = state->input;
    switch (key) {
    case 'o':
        options->out_dir = argument;
        return 0;
    case 'k':
        add_kind(options, argument, state);
        return 0;
    case ARGP_KEY_ARG:
        if (options->runs_count == RUNS_MAX) {
            argp_error(state, "at most %d runs fit into one picture", (int)RUNS_MAX);
            return EINVAL;
        }
        options->runs[options->runs_count++] = argument;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "which run? Give its folder or its results.csv");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The pictures that the first run's own suite asks for; without a run.json, or with a suite that
 * asks for none, every kind that the rows can fill (kinds_count stays 0). */
static enum fb_status kinds_of_suite(const struct fb_results *results, struct fb_arena *arena,
                                     struct plot_options *options, struct fb_error *error)
{
    char path[4096];
    if (!results->dir || snprintf(path, sizeof path, "%s/run.json", results->dir) < 0 ||
        access(path, F_OK) != 0) {
        return FB_OK;
    }
    json_t *document = NULL;
    struct fb_run_resume resume;
    struct fb_suite suite;
    enum fb_status status = fb_run_json_read(results->dir, arena, &document, &resume, error);
    if (status != FB_OK) {
        return status;
    }
    status = fb_suite_parse(resume.suite_yaml, strlen(resume.suite_yaml), resume.suite_path, NULL,
                            arena, &suite, error);
    json_decref(document);
    if (status != FB_OK) {
        return fb_error_prefix(error, "%s: the stored suite", path);
    }
    for (size_t i = 0; i < suite.plots_count && i < FB_PLOT_KIND_COUNT; i++) {
        options->kinds[options->kinds_count++] = suite.plots[i];
    }
    return FB_OK;
}

static enum fb_status read_runs(struct plot_options *options, struct fb_arena *arena,
                                struct fb_results *runs, struct fb_error *error)
{
    size_t rows = 0;
    for (size_t i = 0; i < options->runs_count; i++) {
        enum fb_status status = fb_results_read(options->runs[i], arena, &runs[i], error);
        if (status != FB_OK) {
            /* A path that cannot be read is a mistake on the command line. */
            return status == FB_ERROR_IO ? (error->code = FB_ERROR_INPUT) : status;
        }
        rows += runs[i].rows_count;
    }
    if (rows == 0) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s holds no rows: there is nothing to draw; finish the run with "
                            "`flowbench run --resume`",
                            options->runs[0]);
    }
    return options->kinds_count > 0 ? FB_OK : kinds_of_suite(&runs[0], arena, options, error);
}

/* A training run: its tables and pictures again, beside its rows. */
static enum fb_status draw_training(const struct plot_options *options, struct fb_arena *arena,
                                    struct fb_error *error)
{
    struct fb_accuracy accuracy;
    struct fb_report_verdict verdict;
    const struct fb_report_options report = {.out = stdout,
                                             .messages = stderr,
                                             .make_plots = true,
                                             .plots_dir = options->out_dir,
                                             .seed = 1};
    if (options->runs_count > 1 || options->kinds_count > 0) {
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%s' is a training run: plot it alone, without --kind",
                            options->runs[0]);
    }
    const enum fb_status status = fb_accuracy_read(options->runs[0], arena, &accuracy, error);
    return status == FB_OK ? fb_accuracy_report(&accuracy, NULL, &report, &verdict, error) : status;
}

static enum fb_status draw(struct plot_options *options, struct fb_arena *arena,
                           struct fb_error *error)
{
    struct fb_results runs[RUNS_MAX];
    struct fb_plots_made made;
    if (fb_accuracy_is_run(options->runs[0])) {
        return draw_training(options, arena, error);
    }
    enum fb_status status = read_runs(options, arena, runs, error);
    if (status != FB_OK) {
        return status;
    }
    const char *dir = options->out_dir;
    if (!dir) {
        dir = options->runs_count == 1 && runs[0].dir
                  ? fb_arena_printf(arena, error, "%s/plots", runs[0].dir)
                  : "plots-of-runs";
    }
    if (!dir) {
        return FB_ERROR_MEMORY;
    }
    struct fb_plots_request request = {.runs = runs,
                                       .runs_count = options->runs_count,
                                       .kinds = options->kinds_count ? options->kinds : NULL,
                                       .kinds_count = options->kinds_count,
                                       .dir = dir,
                                       .seed = 1};
    status = fb_plots_make(&request, arena, &made, error);
    for (size_t i = 0; i < made.paths_count; i++) {
        (void)printf("%s\n", made.paths[i]);
    }
    if (status == FB_OK && made.empty_kinds[0] && made.pictures_count > 0) {
        (void)fprintf(stderr,
                      "flowbench plot: warning: no picture for %s: nothing was measured at "
                      "two or more places of that axis\n",
                      made.empty_kinds);
    }
    if (status == FB_OK && made.pictures_count == 0) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s: no row can be drawn: a picture needs a mechanism measured (status "
                            "ok) at two or more places of its axis",
                            options->runs[0]);
    }
    return status;
}

static const struct argp_option options_table[] = {
    {"output", 'o', "DIR", 0,
     "The folder for the pictures (RUN/plots for one run, ./plots-of-runs for several)", 0},
    {"kind", 'k', "KIND", 0, "Draw this picture only; may be repeated", 0},
    {0},
};

/* The kinds stand in one table, which no constant text can quote. */
static char *list_kinds(int key, const char *text, void *input)
{
    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC || text == NULL) {
        return (char *)(uintptr_t)text;
    }
    const size_t size = strlen(text) + 64 + (size_t)FB_PLOT_KIND_COUNT * 64;
    char *full = malloc(size);
    if (full == NULL) {
        return (char *)(uintptr_t)text;
    }
    size_t used = (size_t)snprintf(full, size, "Kinds:");
    for (int kind = 0; kind < FB_PLOT_KIND_COUNT && used < size; kind++) {
        used += (size_t)snprintf(full + used, size - used, "%s %s", kind > 0 ? "," : "",
                                 fb_plot_kind_name((enum fb_plot_kind)kind));
    }
    if (used < size) {
        (void)snprintf(full + used, size - used, ".\n\n%s", text);
    }
    return full;
}

const struct argp fb_argp_plot = {
    .options = options_table,
    .parser = parse_option,
    .args_doc = "RUN...",
    .doc =
        "Draws stored runs (folders or results.csv files) as SVG and PNG: the pictures that the "
        "run's suite asks for, or all that its rows can fill. Several runs share the pictures and "
        "are told apart by their lines. Prints the paths of what it drew.\v"
        "Examples:\n"
        "  flowbench plot results/scaling/20261124T031500Z-laptop\n"
        "  flowbench plot -k time_vs_seq_len -o both laptop/results.csv server\n"
        "\n"
        "Exit codes: 0 drawn; 1 gnuplot is missing or failed; 2 a run that cannot be read or holds "
        "nothing to draw.",
    .help_filter = list_kinds,
};

int fb_cmd_plot(int argc, char **argv)
{
    struct plot_options options = {.runs_count = 0};
    if (argp_parse(&fb_argp_plot, argc, argv, 0, NULL, &options) != 0) {
        return FB_EXIT_USAGE;
    }
    struct fb_arena arena;
    struct fb_error error = {FB_OK, ""};
    fb_arena_init(&arena, 0);
    enum fb_status status = draw(&options, &arena, &error);
    int code = FB_EXIT_OK;
    if (status == FB_ERROR_UNSUPPORTED) {
        (void)fb_exit_report("plot",
                             &error); /* gnuplot is missing: the tool failed, not the user */
        code = FB_EXIT_FAILED;
    } else if (status != FB_OK) {
        code = fb_exit_report("plot", &error);
    }
    fb_arena_free(&arena);
    return code;
}
