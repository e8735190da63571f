/*
 * Performer as a mechanism: its features, how they are drawn, and what it costs.
 * Choromanski et al., ICLR 2021; cost as PERFORMANCE.md, "The floor".
 */
#include "performer/performer.h"

#include "baseline_support.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>

/* Names of the random streams: one pair per block of D orthogonal rows. */
enum { STREAM_DIRECTION = 0x50460000, STREAM_LENGTH = 0x504C0000 };

static int64_t feature_count(const struct fb_problem *problem)
{
    if (fb_performer_is_relu(problem)) {
        return problem->qk_dim;
    }
    return fb_problem_int_param(problem, FB_PERFORMER_FEATURES);
}

static enum fb_status performer_supports(const struct fb_problem *problem, struct fb_error *why)
{
    (void)problem;
    (void)why;
    return FB_OK;
}

/* Forward: the projections of q and k, then linear attention on the features. Backward: the
 * projections again and their transposes, then linear attention's. */
static void performer_cost(const struct fb_problem *p, enum fb_pass pass, struct fb_cost *cost)
{
    const double heads = (double)p->batch * (double)p->heads;
    const double tokens = (double)p->q_len + (double)p->kv_len;
    const double features = (double)feature_count(p);
    const double projections = fb_performer_is_relu(p) ? 0.0 : 1.0;
    if (pass == FB_DECODE) { /* keys go into the state of their head, every query reads it */
        const double rows = heads + (double)p->batch * (double)p->kv_heads;
        cost->flop = 2.0 * rows * features * (projections * (double)p->qk_dim + (double)p->v_dim);
        cost->bytes_min = fb_decode_bytes(p, p->kv_heads, features * (double)p->v_dim);
        return;
    }
    const double project = projections * 2.0 * heads * tokens * (double)p->qk_dim * features;
    const double attend = 2.0 * heads * tokens * features * (double)p->v_dim;
    const double forward = project + attend;
    const double backward = 2.0 * project + 2.5 * attend;
    cost->bytes_min = fb_problem_bytes(p, pass);
    cost->flop = pass == FB_BACKWARD ? backward : pass == FB_BOTH ? forward + backward : forward;
}

static size_t performer_constants_bytes(const struct fb_problem *problem)
{
    if (fb_performer_is_relu(problem)) {
        return 0;
    }
    return (size_t)feature_count(problem) * (size_t)problem->qk_dim * sizeof(float);
}

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void draw_row(struct fb_random *random, double *row, int64_t dim)
{
    for (int64_t i = 0; i < dim; i++) {
        row[i] = fb_random_normal(random);
    }
}

/* Makes row `index` of the block a unit vector orthogonal to the rows before it. The projection is
 * taken out twice, which leaves it orthogonal to working precision. False when nothing is left. */
static bool orthogonalise_row(double *block, int64_t index, int64_t dim)
{
    double *row = block + index * dim;
    const double drawn = sqrt(dot(row, row, dim));
    for (int sweep = 0; sweep < 2; sweep++) {
        for (int64_t before = 0; before < index; before++) {
            const double *unit = block + before * dim;
            const double along = dot(row, unit, dim);
            for (int64_t i = 0; i < dim; i++) {
                row[i] -= along * unit[i];
            }
        }
    }
    const double left = sqrt(dot(row, row, dim));
    if (!(left > 1e-9 * drawn)) {
        return false;
    }
    for (int64_t i = 0; i < dim; i++) {
        row[i] /= left;
    }
    return true;
}

/* Draws rows first .. first + rows - 1 of the projection: orthogonal directions, each as long as an
 * independent Gaussian vector. block has room for rows x dim, spare for dim numbers. */
static void draw_block(uint64_t seed, int64_t block_index, int64_t rows, int64_t dim, double *block,
                       double *spare, float *projection)
{
    struct fb_random direction;
    struct fb_random length;
    fb_random_init(&direction, seed, (uint64_t)STREAM_DIRECTION + (uint64_t)block_index);
    fb_random_init(&length, seed, (uint64_t)STREAM_LENGTH + (uint64_t)block_index);
    for (int64_t r = 0; r < rows; r++) {
        double *row = block + r * dim;
        do {
            draw_row(&direction, row, dim);
        } while (!orthogonalise_row(block, r, dim));
        draw_row(&length, spare, dim);
        const double norm = sqrt(dot(spare, spare, dim));
        for (int64_t i = 0; i < dim; i++) {
            projection[r * dim + i] = (float)(norm * row[i]);
        }
    }
}

static enum fb_status performer_prepare(const struct fb_problem *problem, uint64_t seed,
                                        void *constants, struct fb_error *error)
{
    if (fb_performer_is_relu(problem)) {
        return FB_OK;
    }
    const int64_t dim = problem->qk_dim;
    const int64_t features = feature_count(problem);
    const int64_t block_rows = dim < features ? dim : features;
    const size_t bytes = (size_t)(block_rows + 1) * (size_t)dim * sizeof(double);
    double *block = (double *)malloc(bytes);
    if (block == NULL) {
        return fb_error_set(error, FB_ERROR_MEMORY,
                            "drawing %lld Performer features needs %zu bytes for a moment, which "
                            "are not available",
                            (long long)features, bytes);
    }
    for (int64_t first = 0; first < features; first += dim) {
        const int64_t rows = features - first < dim ? features - first : dim;
        draw_block(seed, first / dim, rows, dim, block, block + block_rows * dim,
                   (float *)constants + first * dim);
    }
    free(block);
    return FB_OK;
}

static const char *const kernel_names[] = {"softmax", "relu", NULL};

static const struct fb_param performer_params[FB_PERFORMER_PARAM_COUNT] = {
    [FB_PERFORMER_FEATURES] = {"features", FB_PARAM_INT, 256, 1, 1024, NULL,
                               "random features per head; kernel softmax only"},
    [FB_PERFORMER_KERNEL] = {"kernel", FB_PARAM_CHOICE, FB_PERFORMER_SOFTMAX, 0, 1, kernel_names,
                             "softmax: random features; relu: relu(x) + 0.001 without a "
                             "projection, as in the released long-range code"},
    [FB_PERFORMER_REDRAW] = {"redraw", FB_PARAM_BOOL, 0, 0, 1, NULL,
                             "draw the features anew in each worker process instead of once per "
                             "case; never within a call"},
};

const struct fb_mechanism fb_performer = {
    .name = "performer",
    .title = "Performer",
    .reference = "Choromanski et al., Rethinking Attention with Performers, ICLR 2021 (FAVOR+)",
    .params = performer_params,
    .param_count = FB_PERFORMER_PARAM_COUNT,
    .recurrent = true,
    .sinks_alone = true,
    .supports = performer_supports,
    .cost = performer_cost,
    .constants_bytes = performer_constants_bytes,
    .prepare = performer_prepare,
};
