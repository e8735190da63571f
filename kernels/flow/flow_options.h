/*
 * Flow-Attention's published options: the columns of its parameter table, and their values as the
 * kernels use them. What the released code sets, area by area:
 *
 *   core module, time series clamp off, language clamp 5, control clamp 10: phi sigmoid
 *   vision: extra_eps 1e-6        long range: phi relu, clamp off, competition over heads
 */
#ifndef FB_FLOW_OPTIONS_H
#define FB_FLOW_OPTIONS_H

#include "attention.h"

#include <math.h>

enum fb_flow_param {
    FB_FLOW_PARAM_PHI,
    FB_FLOW_PARAM_CLAMP,
    FB_FLOW_PARAM_EXTRA_EPS,
    FB_FLOW_PARAM_COMPETITION,
    FB_FLOW_PARAM_ALLOCATION,
    FB_FLOW_PARAM_COUNT
};

enum fb_flow_phi { FB_FLOW_SIGMOID, FB_FLOW_RELU, FB_FLOW_ELU };
enum fb_flow_competition { FB_FLOW_OVER_TOKENS, FB_FLOW_OVER_HEADS, FB_FLOW_NO_COMPETITION };

/* eps on both factors of each inner product; relu's own floor has the same value. */
#define FB_FLOW_EPSILON 1e-6F

/* Conserved flows up to this size need no maximum before exp: e^20 times 2^24 tokens is far below
 * the largest float. */
#define FB_FLOW_SAFE_CLAMP 20.0F

struct fb_flow_options {
    enum fb_flow_phi phi;
    float clamp;     /* INFINITY: none */
    float extra_eps; /* added to the value of each of the four inner products */
    enum fb_flow_competition competition;
    bool allocation;
    bool online; /* exponents are not bounded: a running maximum is subtracted */
};

static inline struct fb_flow_options fb_flow_options_of(const struct fb_problem *problem)
{
    const double *value = problem->params;
    struct fb_flow_options options = {
        .phi = (enum fb_flow_phi)(int)value[FB_FLOW_PARAM_PHI],
        .clamp = value[FB_FLOW_PARAM_CLAMP] > 0.0 ? (float)value[FB_FLOW_PARAM_CLAMP] : INFINITY,
        .extra_eps = (float)value[FB_FLOW_PARAM_EXTRA_EPS],
        .competition = (enum fb_flow_competition)(int)value[FB_FLOW_PARAM_COMPETITION],
        .allocation = value[FB_FLOW_PARAM_ALLOCATION] != 0.0,
        .online = false, /* below */
    };
    options.online = options.clamp > FB_FLOW_SAFE_CLAMP;
    return options;
}

#endif
