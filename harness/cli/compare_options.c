/* argp for `flowbench compare`: see compare_options.h. */
#include "compare_options.h"

#include "commands.h"
#include "nearest.h"

#include <argp.h>
#include <errno.h>
#include <string.h>

enum { KEY_FORMAT = 256, KEY_AB, KEY_AB_GIT, KEY_LAYOUT, KEY_APRIME };

static const struct argp_option table[] = {
    {"ab", KEY_AB, NULL, 0,
     "Measure two flowbench programs against each other, now, in interleaved pairs of processes",
     0},
    {"ab-git", KEY_AB_GIT, NULL, 0,
     "The same of two commits of the checkout at hand: both are built first, and kept in "
     "~/.cache/flowbench",
     0},
    {"layout", KEY_LAYOUT, NULL, 0,
     "With --ab-git: also link the old commit in another order; what that alone moves is tolerated",
     0},
    {"aprime", KEY_APRIME, "PROGRAM", 0,
     "With --ab: the old program relinked in another order; what that alone moves is tolerated", 0},
    {"format", KEY_FORMAT, "text|markdown|json|junit|github", 0,
     "How the verdicts are written: a table (default), a Markdown page, JSON, JUnit XML, or GitHub "
     "annotations with a job summary in $GITHUB_STEP_SUMMARY",
     0},
    {"output", 'o', "FILE", 0,
     "Write the format to this file; the table still goes to standard output", 0},
    {0}};

static const char help[] =
    "Decides case by case whether NEW is slower, hungrier or wrong where BASE was not. BASE and "
    "NEW "
    "are stored runs: folders or results.csv files. Cases are joined by case_id; worst first. With "
    "--ab two programs are measured instead: every case is screened with 10 pairs of fresh "
    "processes, "
    "and what looks different is confirmed with 30 to 60 fresh pairs. --filter, --set and --budget "
    "choose and bound these measurements."
    "\v"
    "Examples:\n"
    "  flowbench compare results/ci/monday results/ci/tuesday\n"
    "  flowbench compare before.csv after.csv --format markdown\n"
    "  flowbench compare base new --format junit -o verdicts.xml\n"
    "  flowbench compare --ab old/flowbench new/flowbench suites/ci.yaml\n"
    "  flowbench compare --ab-git main HEAD suites/ci.yaml --layout\n"
    "\n"
    "Verdicts: PASS; FASTER; FAIL (slower beyond what is tolerated, more than 1 % more memory, or "
    "a "
    "wrong result whatever the speed); AMBIGUOUS (neither shown nor refuted); INCOMPARABLE "
    "(another "
    "machine or problem, missing, or not measured on one side).\n"
    "\n"
    "Exit codes: 0 no case failed, 1 the tool failed, 2 usage, or a run that cannot be read, 3 a "
    "case failed, or broke where BASE had measured it, or nothing could be compared, 4 ambiguous "
    "(only with --strict), 130 and 143 interrupted: nothing is decided.";

enum { ARGUMENTS_MAX = 3 };

struct parsing {
    struct fb_compare_options *options;
    const char *arguments[ARGUMENTS_MAX];
    size_t arguments_count;
};

static error_t parse_format(const char *text, struct argp_state *state,
                            struct fb_compare_options *options)
{
    const char *names[FB_COMPARISON_FORMAT_COUNT];

    for (int i = 0; i < FB_COMPARISON_FORMAT_COUNT; i++) {
        names[i] = fb_comparison_format_name((enum fb_comparison_format)i);
        if (strcmp(text, names[i]) == 0) {
            options->format = (enum fb_comparison_format)i;
            return 0;
        }
    }
    const char *near = fb_nearest_name(text, names, FB_COMPARISON_FORMAT_COUNT);
    argp_error(state, "--format '%s' is none of text, markdown, json, junit, github%s%s%s", text,
               near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
               near != NULL ? "'?" : "");
    return EINVAL;
}

/* What only makes sense where something is measured. */
static const char *measuring_option(const struct fb_compare_options *o)
{
    return o->layout                  ? "--layout"
           : o->aprime != NULL        ? "--aprime"
           : o->shared.filter != NULL ? "--filter"
           : o->shared.sets_count > 0 ? "--set"
           : o->shared.budget_s > 0   ? "--budget"
                                      : NULL;
}

static void take_arguments(struct parsing *parsing, struct argp_state *state)
{
    struct fb_compare_options *o = parsing->options;
    const size_t wanted = o->mode == FB_COMPARE_RUNS ? 2 : 3;

    if (parsing->arguments_count > wanted)
        argp_error(state, "'%s' is one argument too many", parsing->arguments[wanted]);
    if (parsing->arguments_count < wanted)
        argp_error(state, "%s",
                   o->mode == FB_COMPARE_RUNS
                       ? "which runs? Give BASE and NEW: folders or results.csv files"
                   : o->mode == FB_COMPARE_BINARIES
                       ? "what is to be measured? Give OLD_BINARY, NEW_BINARY and SUITE.yaml"
                       : "what is to be measured? Give OLD_REV, NEW_REV and SUITE.yaml");
    if (o->mode == FB_COMPARE_BINARIES && o->layout)
        argp_error(state, "--layout belongs to --ab-git, which builds; give --ab its relinked "
                          "program by --aprime");
    if (o->mode == FB_COMPARE_COMMITS && o->aprime != NULL)
        argp_error(state, "--aprime belongs to --ab; --layout makes --ab-git build one");
    if (o->mode == FB_COMPARE_RUNS && measuring_option(o) != NULL)
        argp_error(state, "%s belongs to --ab and --ab-git: stored runs are not measured again",
                   measuring_option(o));
    o->base = parsing->arguments[0];
    o->fresh = parsing->arguments[1];
    o->suite = parsing->arguments[2];
}

static error_t parse_measuring(int key, const char *argument, struct argp_state *state)
{
    struct parsing *parsing = state->input;
    struct fb_compare_options *o = parsing->options;

    switch (key) {
    case KEY_AB:
    case KEY_AB_GIT:
        if (o->mode != FB_COMPARE_RUNS)
            argp_error(state, "--ab and --ab-git exclude each other, and stand once");
        o->mode = key == KEY_AB ? FB_COMPARE_BINARIES : FB_COMPARE_COMMITS;
        return 0;
    case KEY_LAYOUT:
        o->layout = true;
        return 0;
    case KEY_APRIME:
        o->aprime = argument;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct parsing *parsing = state->input;
    struct fb_compare_options *o = parsing->options;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->shared;
        return 0;
    case KEY_FORMAT:
        return parse_format(argument, state, o);
    case 'o':
        o->output = argument;
        return 0;
    case ARGP_KEY_ARG:
        if (parsing->arguments_count == ARGUMENTS_MAX)
            argp_error(state, "'%s' is one argument too many", argument);
        parsing->arguments[parsing->arguments_count++] = argument;
        return 0;
    case ARGP_KEY_END:
        take_arguments(parsing, state);
        return 0;
    default:
        return parse_measuring(key, argument, state);
    }
}

const struct argp fb_argp_compare = {
    .options = table,
    .parser = parse_option,
    .args_doc = "BASE NEW\n--ab OLD_BINARY NEW_BINARY SUITE.yaml\n"
                "--ab-git OLD_REV NEW_REV SUITE.yaml",
    .doc = help,
    .children = fb_shared_options_children,
};

enum fb_status fb_compare_options_parse(int argc, char **argv, struct fb_arena *arena,
                                        struct fb_compare_options *options, struct fb_error *error)
{
    struct parsing parsing = {
        .options = options,
    };

    memset(options, 0, sizeof *options);
    if (fb_shared_options_init(&options->shared, argc, arena, error) != FB_OK)
        return FB_ERROR_MEMORY;
    if (argp_parse(&fb_argp_compare, argc, argv, 0, NULL, &parsing) != 0)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the command line");
    return FB_OK;
}
