/* flowbench report: stored runs as one page to read. Prints the path of what it wrote on stdout. */
#include "commands.h"
#include "html_report.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>

enum { RUNS_MAX = 64, SEED = 1 };

struct report_options {
    const char *runs[RUNS_MAX];
    size_t runs_count;
    const char *out_path; /* NULL: report.html in the first run's folder */
    bool force;
};

static error_t add_run(struct report_options *options, const char *path,
                       const struct argp_state *state)
{
    if (options->runs_count == RUNS_MAX) {
        argp_error(state, "at most %d runs fit into one report", (int)RUNS_MAX);
        return EINVAL;
    }
    options->runs[options->runs_count++] = path;
    return 0;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct report_options *options = state->input;
    switch (key) {
    case 'o':
        options->out_path = argument;
        return 0;
    case 'f':
        options->force = true;
        return 0;
    case ARGP_KEY_ARG:
        return add_run(options, argument, state);
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "name the folder of a run, or its results.csv");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options_table[] = {
    {"output", 'o', "FILE.html", 0,
     "The file to write (report.html in the folder of the first run)", 0},
    {"force", 'f', NULL, 0, "Replace FILE.html even if it is no report", 0},
    {0},
};

const struct argp fb_argp_report = {
    .options = options_table,
    .parser = parse_option,
    .args_doc = "RUN...",
    .doc = "Writes stored runs (folders or results.csv files) as one HTML page that needs nothing "
           "else: what was found, in words; machine, compiler and commit; claims with their "
           "verdicts; figures; tables to sort and filter; and for each row the command that "
           "measures it again. Several runs share the page. Prints the path of the file.\v"
           "Examples:\n"
           "  flowbench report results/scaling/20261124T031500Z-laptop\n"
           "  flowbench report -o both.html laptop/results.csv server\n"
           "\n"
           "Exit codes: 0 written (a missing gnuplot costs only the figures); 1 the file cannot be "
           "written; 2 a run that cannot be read, or a FILE.html that is no report.",
};

int fb_cmd_report(int argc, char **argv)
{
    struct report_options options = {.runs_count = 0};
    if (argp_parse(&fb_argp_report, argc, argv, 0, NULL, &options) != 0) {
        return FB_EXIT_USAGE;
    }
    struct fb_arena arena;
    struct fb_error error = {FB_OK, ""};
    struct fb_html_made made;
    const struct fb_html_request request = {.runs = options.runs,
                                            .runs_count = options.runs_count,
                                            .out_path = options.out_path,
                                            .force = options.force,
                                            .seed = SEED};
    fb_arena_init(&arena, 0);
    int code = FB_EXIT_OK;
    if (fb_html_report_write(&request, &arena, &made, &error) != FB_OK) {
        code = fb_exit_report("report", &error);
    } else {
        (void)printf("%s\n", made.path);
        if (made.why_missing[0]) {
            (void)fprintf(stderr, "flowbench report: warning: figures are missing: %s\n",
                          made.why_missing);
        }
    }
    fb_arena_free(&arena);
    return code;
}
