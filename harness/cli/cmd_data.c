/* flowbench data: the data sets of the training tasks. Tables and paths go to stdout. */
#include "commands.h"
#include "data_sets.h"
#include "nearest.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NAMES_MAX = 32 };

enum verb { VERB_LIST, VERB_MAKE, VERB_CHECK, VERB_FETCH, VERB_COUNT, VERB_NONE = -1 };
static const char *const verbs[VERB_COUNT] = {"list", "make", "check", "fetch"};

struct data_options {
    int verb;
    const char *data_dir, *url;
    const struct fb_data_set *sets[NAMES_MAX];
    size_t count;
};

static int find_verb(const char *name, const struct argp_state *state)
{
    for (int i = 0; i < VERB_COUNT; i++)
        if (strcmp(verbs[i], name) == 0)
            return i;
    const char *near = fb_nearest_name(name, verbs, VERB_COUNT);
    argp_error(state, "there is no 'data %s'%s%s%s", name, near ? "; did you mean '" : "",
               near ? near : "", near ? "'?" : "");
    return VERB_NONE;
}

static void add_set(struct data_options *options, const char *name, const struct argp_state *state)
{
    const char *names[NAMES_MAX];
    const struct fb_data_set *set = fb_data_set_find(name);
    for (size_t i = 0; i < fb_data_set_count(); i++)
        names[i] = fb_data_set_at(i)->name;
    if (!set) {
        const char *near = fb_nearest_name(name, names, fb_data_set_count());
        argp_error(state, "there is no data set '%s'%s%s%s; 'flowbench data list' shows them", name,
                   near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    } else if (options->count == NAMES_MAX) {
        argp_error(state, "at most %d data sets at a time", (int)NAMES_MAX);
    } else {
        options->sets[options->count++] = set;
    }
}

static void check_usage(const struct data_options *options, const struct argp_state *state)
{
    if (options->verb == VERB_NONE)
        argp_error(state, "say what to do: list, make, check or fetch");
    if (options->verb == VERB_FETCH && options->count == 0)
        argp_error(state, "name the data sets to download; 'flowbench data list' shows them");
    if (options->url && (options->verb != VERB_FETCH || options->count != 1))
        argp_error(state, "--url names the home of one data set: data fetch NAME --url URL");
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct data_options *options = state->input;
    switch (key) {
    case 'd':
        options->data_dir = argument;
        return 0;
    case 'u':
        options->url = argument;
        return 0;
    case ARGP_KEY_ARG:
        if (options->verb == VERB_NONE)
            options->verb = find_verb(argument, state);
        else
            add_set(options, argument, state);
        return 0;
    case ARGP_KEY_END:
        check_usage(options, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options_table[] = {
    {"data-dir", 'd', "DIR", 0, "The data folder (default: $FLOWBENCH_DATA, else ./data)", 0},
    {"url", 'u', "URL", 0, "fetch: another home of the download; file:// works, too", 0},
    {0},
};

const struct argp fb_argp_data = {
    .options = options_table,
    .parser = parse_option,
    .args_doc = "list|make|check|fetch [DATASET...]",
    .doc = "The data sets of the training tasks, in one folder: 'list' shows which are there and "
           "how to get the others, 'make' writes those that are generated (ListOps, Pathfinder; "
           "it goes on where it was interrupted), 'fetch' downloads one with curl, verifies and "
           "unpacks it, 'check' verifies checksums, reads every example and counts them. A file is "
           "written whole or not at all.\v"
           "Examples:\n"
           "  flowbench data list\n"
           "  flowbench data make pathfinder --data-dir /scratch/data\n"
           "  flowbench data fetch JapaneseVowels text\n"
           "  flowbench data check\n"
           "\n"
           "Exit codes: 0 done; 1 a file cannot be written or downloaded; 2 a data set that is "
           "wrong, incomplete or unknown.",
};

static void print_bytes(int64_t bytes)
{
    if (bytes >= 1000000)
        (void)printf(" %8.1f MB", (double)bytes * 1e-6);
    else
        (void)printf(" %8.1f kB", (double)bytes * 1e-3);
}

static void list_sets(const struct data_options *options, const char *data_dir)
{
    static const char *const states[] = {"missing", "partial", "complete"};
    (void)printf("%-21s %-9s %11s  %s\n", "data set", "state", "on disk", "how to get it");
    for (size_t i = 0; i < options->count; i++) {
        const struct fb_data_set *set = options->sets[i];
        int64_t bytes = 0;
        const enum fb_data_state state = fb_data_set_state(set, data_dir, &bytes);
        (void)printf("%-21s %-9s", set->name, states[state]);
        if (bytes > 0)
            print_bytes(bytes);
        else
            (void)printf(" %11s", "-");
        (void)printf("  data %s %s%s%s%s\n", set->unpack == FB_UNPACK_MADE ? "make" : "fetch",
                     set->name, set->size ? " (" : "", set->size ? set->size : "",
                     set->size ? ")" : "");
    }
    (void)fprintf(stderr, "data folder: %s\n", data_dir);
}

static enum fb_status get_set(const struct data_options *options, const struct fb_data_set *set,
                              const char *data_dir, struct fb_error *error)
{
    const enum fb_status status = options->verb == VERB_MAKE
                                      ? fb_data_make(set, data_dir, error)
                                      : fb_data_fetch(set, data_dir, options->url, error);
    if (status == FB_OK)
        (void)printf("%s/%s\n", data_dir, set->folder);
    return status;
}

/* Every set is checked, whatever the others are like. */
static int check_sets(const struct data_options *options, const char *data_dir, bool named)
{
    int code = FB_EXIT_OK;
    for (size_t i = 0; i < options->count; i++) {
        struct fb_error error = {.text = ""};
        int64_t bytes;
        if (!named && fb_data_set_state(options->sets[i], data_dir, &bytes) == FB_DATA_MISSING)
            continue;
        if (fb_data_check(options->sets[i], data_dir, &error) == FB_OK) {
            (void)printf("%-21s fine\n", options->sets[i]->name);
            (void)fflush(stdout);
            continue;
        }
        (void)printf("%-21s wrong\n", options->sets[i]->name);
        (void)fflush(stdout);
        const int found = fb_exit_report("data", &error);
        code = code == FB_EXIT_OK || found == FB_EXIT_FAILED ? found : code;
    }
    return code;
}

/* Without names: all that the verb can do something about. */
static void choose_all(struct data_options *options)
{
    for (size_t i = 0; i < fb_data_set_count(); i++) {
        const struct fb_data_set *set = fb_data_set_at(i);
        if (options->verb != VERB_MAKE || set->unpack == FB_UNPACK_MADE)
            options->sets[options->count++] = set;
    }
}

int fb_cmd_data(int argc, char **argv)
{
    struct data_options options = {.verb = VERB_NONE};
    struct fb_error error = {.text = ""};
    const error_t parsed = argp_parse(&fb_argp_data, argc, argv, 0, NULL, &options);
    if (parsed != 0) {
        (void)fprintf(stderr, "flowbench data: error: %s\n", strerror(parsed));
        return FB_EXIT_USAGE;
    }
    const char *data_dir = fb_data_dir(options.data_dir);
    const bool named = options.count > 0;
    if (strlen(data_dir) > FB_DATA_DIR_MAX) {
        (void)fprintf(stderr,
                      "flowbench data: error: the data folder's path is longer than %d bytes\n",
                      (int)FB_DATA_DIR_MAX);
        return FB_EXIT_USAGE;
    }
    if (!named)
        choose_all(&options);
    if (options.verb == VERB_LIST) {
        list_sets(&options, data_dir);
        return FB_EXIT_OK;
    }
    if (options.verb == VERB_CHECK)
        return check_sets(&options, data_dir, named);
    for (size_t i = 0; i < options.count; i++)
        if (get_set(&options, options.sets[i], data_dir, &error) != FB_OK)
            return fb_exit_report("data", &error);
    return FB_EXIT_OK;
}
