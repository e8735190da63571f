/* What `flowbench history` is asked for. */
#ifndef FB_HISTORY_OPTIONS_H
#define FB_HISTORY_OPTIONS_H

#include "history_show.h"
#include "progress.h"

#include <argp.h>

enum fb_history_verb {
    FB_HISTORY_ADD,
    FB_HISTORY_SHOW,
    FB_HISTORY_CHECK,
    FB_HISTORY_IMPORT,
    FB_HISTORY_EXPORT,
    FB_HISTORY_VERB_COUNT
};

enum { FB_HISTORY_ARGUMENTS_MAX = 1024, FB_HISTORY_WINDOW = 200 };

struct fb_history_options {
    int verb; /* -1: none yet */
    const char *db;
    const char *arguments[FB_HISTORY_ARGUMENTS_MAX];
    size_t arguments_count;
    const char *case_prefix, *filter, *machine, *since, *plot, *output; /* NULL: not given */
    size_t window;
    size_t metric;
    enum fb_history_format format;
    enum fb_color color;
    bool strict;
    unsigned given; /* which options, by their place in the table */
};

void fb_history_options_init(struct fb_history_options *options);

extern const struct argp fb_argp_history;

#endif
