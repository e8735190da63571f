/* argp for `flowbench run`: see run_options.h. */
#include "run_options.h"

#include "commands.h"
#include "data_sets.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_OUT = 256, KEY_LIST, KEY_DRY_RUN, KEY_RESUME, KEY_DATA_DIR };

static const struct argp_option table[] = {
    {"out", KEY_OUT, "DIR", 0, "Write to exactly this folder instead of results/SUITE/TIME-MACHINE",
     0},
    {"data-dir", KEY_DATA_DIR, "DIR", 0,
     "Where the data of tasks are (default: $FLOWBENCH_DATA, else ./data); suites of kind: "
     "training only",
     0},
    {"list", KEY_LIST, NULL, 0, "Print the cases and measure nothing", 0},
    {"dry-run", KEY_DRY_RUN, NULL, 0,
     "Print the cases with their predicted bytes and times and measure no case", 0},
    {"resume", KEY_RESUME, "DIR", 0,
     "Continue the run in this folder: cases that have a row keep it, the others are measured. "
     "Stands alone (beside --quiet, --color and --data-dir), since suite, filter and budget come "
     "from "
     "DIR/run.json; only on the machine that started the run",
     0},
    {0}};

static const char help[] =
    "Measures every case of the suites and leaves rows, samples, provenance and plots in a folder."
    "\v"
    "Examples:\n"
    "  flowbench suites/scaling.yaml             the word run may be left out\n"
    "  flowbench run suites/scaling.yaml --dry-run\n"
    "  flowbench run suites/scaling.yaml --filter 'seq_len<=4096,mechanism=flow'\n"
    "  flowbench run suites/heads.yaml --set defaults.isa=avx2 --budget 5m\n"
    "  flowbench run suites/ci.yaml --set measure.counter=valgrind\n"
    "  flowbench run suites/accuracy/quick.yaml --data-dir ~/data\n"
    "  flowbench run --resume results/scaling/20261124T031500Z-laptop\n"
    "\n"
    "Rows are written one by one. Ctrl-C finishes the row at hand, prints the command that "
    "continues the run and exits with 130; a run that was killed is continued in the same way. "
    "--budget counts from the start, over all suites of the command; when it is spent, the case at "
    "hand is finished, and the rest get a row that says skipped, which --resume does not measure "
    "later.\n"
    "\n"
    "Exit codes: 0 fine (cases skipped, timed out or out of memory included), 1 the tool failed, 2 "
    "usage or suite error, 3 a claim failed, a result is wrong or a case crashed, 4 ambiguous "
    "(only "
    "with --strict), 130 and 143 interrupted.";

struct parsing {
    struct fb_run_options *options;
    const char **suites; /* room for argc */
};

static void check_together(const struct fb_run_options *o, struct argp_state *state)
{
    if (o->resume_dir != NULL &&
        (o->suites_count > 0 || o->shared.sets_count > 0 || o->shared.filter != NULL ||
         o->out_dir != NULL || o->shared.budget_s > 0 || o->list || o->dry_run || o->shared.strict))
        argp_error(state, "--resume DIR stands alone (beside --quiet, --color and --data-dir): the "
                          "suite and its options come from DIR/run.json");
    if (o->resume_dir == NULL && o->suites_count == 0)
        argp_error(state, "which suite? e.g. suites/quick.yaml");
    if (o->out_dir != NULL && o->suites_count > 1)
        argp_error(state, "--out is the folder of one run, but %zu suites are given",
                   o->suites_count);
    if (o->list && o->dry_run)
        argp_error(state, "--list and --dry-run exclude each other: --dry-run lists too");
}

static void add_suite(const struct parsing *parsing, const char *suite)
{
    parsing->suites[parsing->options->suites_count++] = suite;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct parsing *parsing = state->input;
    struct fb_run_options *o = parsing->options;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->shared;
        return 0;
    case KEY_OUT:
        o->out_dir = argument;
        return 0;
    case KEY_DATA_DIR:
        o->data_dir = argument;
        return 0;
    case KEY_LIST:
        o->list = true;
        return 0;
    case KEY_DRY_RUN:
        o->dry_run = true;
        return 0;
    case KEY_RESUME:
        o->resume_dir = argument;
        return 0;
    case ARGP_KEY_ARG:
        add_suite(parsing, argument);
        return 0;
    case ARGP_KEY_END:
        check_together(o, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp fb_argp_run = {
    .options = table,
    .parser = parse_option,
    .args_doc = "SUITE.yaml...\n--resume DIR",
    .doc = help,
    .children = fb_shared_options_children,
};

/* The folder that `data` fills; NULL where nobody named one and the usual one is not there. */
static const char *default_data_dir(void)
{
    const char *folder = fb_data_dir(NULL);
    return getenv("FLOWBENCH_DATA") != NULL || access(folder, F_OK) == 0 ? folder : NULL;
}

enum fb_status fb_run_options_parse(int argc, char **argv, struct fb_arena *arena,
                                    struct fb_run_options *options, struct fb_error *error)
{
    struct parsing parsing = {
        .options = options,
        .suites = fb_arena_alloc(arena, (size_t)argc + 1, sizeof *parsing.suites, error),
    };

    memset(options, 0, sizeof *options);
    options->data_dir = default_data_dir();
    if (parsing.suites == NULL ||
        fb_shared_options_init(&options->shared, argc, arena, error) != FB_OK)
        return FB_ERROR_MEMORY;
    options->suites = parsing.suites;
    options->argc = argc;
    options->argv = argv;
    if (argp_parse(&fb_argp_run, argc, argv, 0, NULL, &parsing) != 0)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the command line");
    return FB_OK;
}
