/* argp for the options of run and compare: see shared_options.h. */
#include "shared_options.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_FILTER = 512, KEY_SET, KEY_BUDGET, KEY_STRICT, KEY_COLOR };

static const struct argp_option table[] = {
    {"filter", KEY_FILTER, "EXPR", 0,
     "Only the cases that match, e.g. 'seq_len<=4096,mechanism=flow|softmax'", 0},
    {"set", KEY_SET, "KEY=VALUE", 0,
     "Override a value of the suite, e.g. defaults.isa=avx2; may be repeated", 0},
    {"budget", KEY_BUDGET, "TIME", 0,
     "Start no measurement after this time (90s, 5m, 1h30m); what is left over does not change the "
     "exit code: run records it as skipped, compare as ambiguous",
     0},
    {"strict", KEY_STRICT, NULL, 0, "Exit with 4 when a claim or a case stays ambiguous", 0},
    {"quiet", 'q', NULL, 0, "No progress; run tells only what failed", 0},
    {"color", KEY_COLOR, "auto|always|never", 0,
     "Colours on a terminal (auto, default), always or never; NO_COLOR is respected", 0},
    {0}};

bool fb_duration_parse(const char *text, double *seconds)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"ms", 1e-3}, {"min", 60}, {"s", 1}, {"m", 60}, {"h", 3600}};
    double total = 0;

    if (*text == '\0')
        return false;
    while (*text != '\0') {
        char *end;
        bool known = false;
        if (*text == '-' || *text == '+')
            return false;
        const double value = strtod(text, &end);
        if (end == text)
            return false;
        while (*end == ' ')
            end++;
        for (size_t i = 0; i < sizeof units / sizeof units[0] && !known; i++) {
            const size_t length = strlen(units[i].name);
            if (strncmp(end, units[i].name, length) == 0) {
                total += value * units[i].seconds;
                text = end + length;
                known = true;
            }
        }
        if (!known)
            return false;
        while (*text == ' ')
            text++;
    }
    *seconds = total;
    return total > 0 && total < 1e9;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct fb_shared_options *o = state->input;

    switch (key) {
    case KEY_FILTER:
        o->filter = argument;
        return 0;
    case KEY_SET:
        o->sets[o->sets_count++] = argument;
        return 0;
    case KEY_BUDGET:
        if (!fb_duration_parse(argument, &o->budget_s))
            argp_error(state, "--budget '%s' is not a time such as 90s, 5m or 1h30m", argument);
        return 0;
    case KEY_STRICT:
        o->strict = true;
        return 0;
    case 'q':
        o->quiet = true;
        return 0;
    case KEY_COLOR:
        if (!fb_color_parse(argument, &o->color))
            argp_error(state, "--color '%s' is none of auto, always, never", argument);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp shared = {.options = table, .parser = parse_option};

const struct argp_child fb_shared_options_children[] = {{&shared, 0, NULL, 0}, {0}};

enum fb_status fb_shared_options_init(struct fb_shared_options *options, int argc,
                                      struct fb_arena *arena, struct fb_error *error)
{
    *options = (struct fb_shared_options){
        .sets = fb_arena_alloc(arena, (size_t)argc + 1, sizeof *options->sets, error)};
    return options->sets == NULL ? FB_ERROR_MEMORY : FB_OK;
}
