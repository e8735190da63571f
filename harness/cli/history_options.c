/* argp for `flowbench history`: see history_options.h. */
#include "history_options.h"

#include "nearest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_DB = 256,
    KEY_CASE,
    KEY_FILTER,
    KEY_MACHINE,
    KEY_SINCE,
    KEY_WINDOW,
    KEY_METRIC,
    KEY_FORMAT,
    KEY_PLOT,
    KEY_STRICT,
    KEY_COLOR
};

static const char *const verbs[FB_HISTORY_VERB_COUNT] = {"add", "show", "check", "import",
                                                         "export"};

enum {
    SHOW = 1u << FB_HISTORY_SHOW,
    CHECK = 1u << FB_HISTORY_CHECK,
    EXPORT = 1u << FB_HISTORY_EXPORT
};

/* Which verbs an option belongs to. */
static const struct {
    int key;
    unsigned verbs;
} belongs[] = {
    {KEY_CASE, SHOW | CHECK},
    {KEY_FILTER, SHOW | CHECK},
    {KEY_MACHINE, SHOW | CHECK},
    {KEY_SINCE, SHOW | CHECK},
    {KEY_WINDOW, SHOW | CHECK},
    {KEY_METRIC, SHOW},
    {KEY_FORMAT, SHOW | CHECK},
    {KEY_PLOT, SHOW},
    {KEY_STRICT, CHECK},
    {KEY_COLOR, SHOW | CHECK},
    {'o', EXPORT},
};
enum { BELONGS_COUNT = sizeof belongs / sizeof belongs[0] };

static const struct argp_option table[] = {
    {"db", KEY_DB, "FILE.sqlite", 0, "The history, instead of results/history.sqlite", 0},
    {"case", KEY_CASE, "ID", 0, "show, check: only cases whose case_id begins so", 0},
    {"filter", KEY_FILTER, "EXPR", 0,
     "show, check: only rows that match, e.g. 'mechanism=flow|linear,seq_len<=4096'; any column of "
     "results.csv",
     0},
    {"machine", KEY_MACHINE, "NAME", 0,
     "show, check: only runs of this machine, by name or identity", 0},
    {"since", KEY_SINCE, "COMMIT", 0,
     "show, check: only runs from this commit's first one on: what was slower before, and what was "
     "faster, no longer counts",
     0},
    {"window", KEY_WINDOW, "N", 0, "show, check: the newest N runs of each case (200)", 0},
    {"metric", KEY_METRIC, "time|instructions|memory", 0, "show: what is followed (time)", 0},
    {"format", KEY_FORMAT, "text|csv|json", 0, "show, check: how it is printed (text)", 0},
    {"plot", KEY_PLOT, "FILE.svg", 0, "show: also draw a picture, as .svg or .png", 0},
    {"strict", KEY_STRICT, NULL, 0,
     "check: exit with 4 when a case stays ambiguous or cannot be compared", 0},
    {"output", 'o', "FILE.csv", 0, "export: write to this file instead of standard output", 0},
    {"color", KEY_COLOR, "auto|always|never", 0,
     "show, check: colours on a terminal (auto, default), always or never; NO_COLOR is respected",
     0},
    {0}};

static const char help[] =
    "Keeps finished runs in one file and follows every case over the commits."
    "\v"
    "Actions:\n"
    "  add RUN...     stores finished runs; the same run twice is one\n"
    "  show           the trend of every case, its best level and last change\n"
    "  check          is the newest run slower, hungrier or wrong?\n"
    "  import FILE    adds the runs of an exported CSV, all or none\n"
    "  export         the whole history as CSV\n"
    "\n"
    "Examples:\n"
    "  flowbench history add results/ci/20261124T031500Z-laptop\n"
    "  flowbench history show --filter 'mechanism=flow'\n"
    "  flowbench history show --case 8c1d5f --plot trend.svg\n"
    "  flowbench history check --window 50\n"
    "  flowbench history export -o history.csv\n"
    "  flowbench history import history.csv --db copy.sqlite\n"
    "\n"
    "check compares the newest run with the best level that two or more runs of the same machine "
    "and case have held within the window, so that small steps add up. Machines are never mixed.\n"
    "\n"
    "Exit codes: 0 fine; 1 the tool failed (no permission, no disk); 2 a run that is unfinished or "
    "cannot be read, a file that is no history or damaged, a bad line; 3 check: a regression, a "
    "wrong result, or a run with nothing to compare; 4 only with --strict.";

static enum fb_history_format read_format(const char *text, const struct argp_state *state)
{
    if (strcmp(text, "csv") == 0)
        return FB_HISTORY_CSV;
    if (strcmp(text, "json") == 0)
        return FB_HISTORY_JSON;
    if (strcmp(text, "text") != 0)
        argp_error(state, "--format '%s' is none of text, csv, json", text);
    return FB_HISTORY_TEXT;
}

static size_t read_window(const char *text, const struct argp_state *state)
{
    char *end;
    const long value = strtol(text, &end, 10);

    if (end == text || *end != '\0' || value < FB_SEGMENTS_POINTS_MIN ||
        value > FB_SEGMENTS_POINTS_MAX)
        argp_error(state, "--window '%s' is no number of runs from %d to %d", text,
                   (int)FB_SEGMENTS_POINTS_MIN, (int)FB_SEGMENTS_POINTS_MAX);
    return (size_t)value;
}

static size_t read_metric(const char *text, const struct argp_state *state)
{
    const size_t metric = fb_history_metric_find(text);

    if (metric == SIZE_MAX)
        argp_error(state, "--metric '%s' is none of time, instructions, memory", text);
    return metric;
}

static const char *read_picture(const char *text, const struct argp_state *state)
{
    const size_t length = strlen(text);

    if (length < 5 ||
        (strcmp(text + length - 4, ".svg") != 0 && strcmp(text + length - 4, ".png") != 0))
        argp_error(state, "--plot '%s': the name of a picture ends in .svg or .png", text);
    return text;
}

static int find_verb(const char *text, const struct argp_state *state)
{
    for (int v = 0; v < FB_HISTORY_VERB_COUNT; v++) {
        if (strcmp(verbs[v], text) == 0)
            return v;
    }
    const char *near = fb_nearest_name(text, verbs, FB_HISTORY_VERB_COUNT);
    argp_error(
        state, "there is no action '%s'%s%s%s: there are add, show, check, import and export", text,
        near != NULL ? "; did you mean '" : "", near != NULL ? near : "", near != NULL ? "'?" : "");
    return -1;
}

static const char *option_name(int key)
{
    for (size_t i = 0; table[i].name != NULL; i++) {
        if (table[i].key == key)
            return table[i].name;
    }
    return "";
}

/* An option that its verb does not know would be ignored: refused instead. */
static void check_together(const struct fb_history_options *o, const struct argp_state *state)
{
    if (o->verb < 0) {
        argp_error(state, "what shall be done? add, show, check, import or export");
        return;
    }
    for (size_t i = 0; i < BELONGS_COUNT; i++) {
        if ((o->given & 1u << i) != 0 && (belongs[i].verbs & 1u << o->verb) == 0)
            argp_error(state, "--%s has no meaning for %s", option_name(belongs[i].key),
                       verbs[o->verb]);
    }
    if (o->verb == FB_HISTORY_ADD && o->arguments_count == 0)
        argp_error(state, "add which run? Give its folder");
    if (o->verb == FB_HISTORY_IMPORT && o->arguments_count != 1)
        argp_error(state, "import which file? One CSV, as export writes it");
    if (o->verb != FB_HISTORY_ADD && o->verb != FB_HISTORY_IMPORT && o->arguments_count > 0)
        argp_error(state, "%s takes no argument '%s'", verbs[o->verb], o->arguments[0]);
}

static error_t take_argument(struct fb_history_options *o, const char *argument,
                             const struct argp_state *state)
{
    if (o->verb < 0) {
        o->verb = find_verb(argument, state);
    } else if (o->arguments_count == FB_HISTORY_ARGUMENTS_MAX) {
        argp_error(state, "at most %d runs at a time", (int)FB_HISTORY_ARGUMENTS_MAX);
        return EINVAL;
    } else {
        o->arguments[o->arguments_count++] = argument;
    }
    return 0;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct fb_history_options *o = state->input;

    for (size_t i = 0; i < BELONGS_COUNT; i++)
        o->given |= belongs[i].key == key ? 1u << i : 0u;
    switch (key) {
    case KEY_DB:
        o->db = argument;
        return 0;
    case KEY_CASE:
        o->case_prefix = argument;
        return 0;
    case KEY_FILTER:
        o->filter = argument;
        return 0;
    case KEY_MACHINE:
        o->machine = argument;
        return 0;
    case KEY_SINCE:
        if (strlen(argument) < 4)
            argp_error(state, "--since '%s': give at least four digits of the commit", argument);
        o->since = argument;
        return 0;
    case KEY_WINDOW:
        o->window = read_window(argument, state);
        return 0;
    case KEY_METRIC:
        o->metric = read_metric(argument, state);
        return 0;
    case KEY_FORMAT:
        o->format = read_format(argument, state);
        return 0;
    case KEY_PLOT:
        o->plot = read_picture(argument, state);
        return 0;
    case KEY_STRICT:
        o->strict = true;
        return 0;
    case KEY_COLOR:
        if (!fb_color_parse(argument, &o->color))
            argp_error(state, "--color '%s' is none of auto, always, never", argument);
        return 0;
    case 'o':
        o->output = argument;
        return 0;
    case ARGP_KEY_ARG:
        return take_argument(o, argument, state);
    case ARGP_KEY_END:
        check_together(o, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

void fb_history_options_init(struct fb_history_options *options)
{
    *options = (struct fb_history_options){
        .verb = -1, .db = "results/history.sqlite", .window = FB_HISTORY_WINDOW};
}

const struct argp fb_argp_history = {
    .options = table,
    .parser = parse_option,
    .args_doc = "add|show|check|import|export [RUN|FILE.csv...]",
    .doc = help,
};
