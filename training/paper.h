/*
 * The numbers that the Flowformer paper prints (training/paper_tables.csv), beside ours.
 */
#ifndef FB_PAPER_H
#define FB_PAPER_H

#include "recipe.h"

/* How a number of the paper's came about, as far as it concerns a comparison with ours. */
enum fb_paper_protocol {
    FB_PAPER_NONE,      /* the paper has no number for this */
    FB_PAPER_RELEASED,  /* made by the released code, whose recipe ours repeats: comparable */
    FB_PAPER_COPIED,    /* copied from an older leaderboard, with other models */
    FB_PAPER_DIFFERENT, /* made by the paper, but our case is trained or selected in another way */
    FB_PAPER_PROTOCOL_COUNT
};

struct fb_paper_number {
    enum fb_paper_protocol protocol;
    char model[64]; /* the row of the paper's table */
    double value;   /* accuracy in percent, perplexity as it is; NaN: none */
};

const char *fb_paper_protocol_name(enum fb_paper_protocol protocol); /* "released" */

/* `altered`: the case trains for more or fewer steps than its recipe says, or another model. */
void fb_paper_find(const struct fb_task *task, const struct fb_mechanism *mechanism,
                   const double params[FB_PARAMS_MAX], enum fb_recipe_kind recipe, bool altered,
                   struct fb_paper_number *number);

#endif
