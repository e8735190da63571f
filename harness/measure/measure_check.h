/* Are the answers right? Written everywhere, finite, and what the float64 oracle says. */
#ifndef FB_MEASURE_CHECK_H
#define FB_MEASURE_CHECK_H

#include "measure.h"

enum { FB_CHECK_OUTPUTS_MAX = 4 };

struct fb_check_output {
    const char *name; /* "out", "dq": for messages */
    const struct fb_tensor *tensor;
};

/* What a call writes; every tensor dense. */
struct fb_check_outputs {
    struct fb_check_output output[FB_CHECK_OUTPUTS_MAX];
    int count;
};

void fb_check_add_output(struct fb_check_outputs *outputs, const char *name,
                         const struct fb_tensor *tensor);

/* Fills with a signalling NaN that no arithmetic produces (results of arithmetic are quiet), so
 * that an element left unwritten is told from one computed as NaN. */
void fb_check_poison(const struct fb_check_outputs *outputs, int threads);

/* The words that such a tensor is filled with. */
uint32_t fb_check_poison_pattern(enum fb_dtype dtype);

/* Every element written and finite, or the result becomes WRONG with the tensor, the count and the
 * place of the first that is not. Returns whether all is well. */
bool fb_check_written(const struct fb_check_outputs *outputs, struct fb_measure_result *result);

/* XXH64 of the tensors' bytes, one after the other, as 16 hexadecimal digits. */
enum fb_status fb_check_hash(const struct fb_check_outputs *outputs,
                             char hash[FB_MEASURE_HASH_SIZE], struct fb_error *error) FB_MUST_CHECK;

/* What is compared with the oracle. */
struct fb_check_request {
    const struct fb_mechanism *mechanism;
    struct fb_problem problem; /* as the oracle understands it: a forward problem */
    struct fb_call call;       /* inputs of that problem, and the outputs to judge */
    int64_t first_row, rows;   /* the rows of the problem that call.out holds */
    bool decodes;              /* the one row is a decoded token */
    bool gradients;            /* call.dq, dk and dv are judged, too */
    uint64_t seed;             /* chooses the rows and heads */
    int threads;
};

/* Compares sampled rows with the mechanism's oracle and with softmax's: err_rel, err_max,
 * err_budget of the tensor that is worst relative to its budget, softmax_distance; status WRONG
 * when one is outside. Costs about half a second of one core for each of output and gradients,
 * shared among the threads: all rows where that is cheap, else all heads with fewer rows, else
 * fewer heads; first and last row and head always. */
enum fb_status fb_check_oracle(const struct fb_check_request *request,
                               struct fb_measure_result *result,
                               struct fb_error *error) FB_MUST_CHECK;

/* The choice of count out of 0 .. total-1, ascending and distinct, first and last among them.
 * count <= total. Public for its test. */
void fb_check_choose(int64_t *chosen, int64_t count, int64_t total, uint64_t seed, uint64_t stream);

#endif
