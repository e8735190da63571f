/*
 * One correctness case of an attention kernel: inputs, surrounded and interleaved with NaN; an
 * output and a scratch buffer that are poisoned before and whose surroundings are checked after;
 * and the float64 reference. Shared by the test_kernels_* programs.
 */
#ifndef KERNEL_CASE_H
#define KERNEL_CASE_H

#include "attention.h"

#include <stddef.h>

enum kernel_layout { LAYOUT_BHND, LAYOUT_BNHD, LAYOUT_PADDED, LAYOUT_COUNT };

struct kernel_case {
    const struct fb_mechanism *mechanism;
    struct fb_problem problem;
    enum kernel_layout layout;
    float scale; /* of q and k; v is of unit size */
    unsigned long seed;

    /* filled by kernel_case_init */
    struct kernel_tensor {
        struct fb_tensor view;
        float *buffer;
        size_t count; /* floats of the buffer, gaps included */
    } q, k, v;
    void *constants;
    int64_t *rows; /* those that have a reference, ascending */
    size_t rows_count;
    double *reference; /* [B][H][rows_count][M] */
};

/* An output of one run. */
struct kernel_output {
    struct fb_tensor view;
    float *buffer; /* guard, tensor with gaps, guard */
    size_t count;
};

/* Draws the inputs. Fails the test when memory is short or the mechanism refuses. */
void kernel_case_init(struct kernel_case *c);
/* Computes the reference: of every row when rows_max is 0, else of about rows_max rows, the first,
 * the last and those around multiples of 64 among them, of every head. */
void kernel_case_reference(struct kernel_case *c, size_t rows_max);
void kernel_case_free(struct kernel_case *c);

/* Runs forward with the scratch filled with scratch_byte. Reports a kernel that fails or writes
 * outside its buffers. True when the output can be judged. */
bool kernel_case_run(const struct kernel_case *c, const struct fb_attention *attention, int threads,
                     int scratch_byte, struct kernel_output *output);
void kernel_output_free(struct kernel_output *output);

/* Reports an output further than budget from the reference. */
void kernel_case_judge(const struct kernel_case *c, const struct fb_attention *attention,
                       const struct kernel_output *output, double budget);

/* Reports elements that are not finite, or larger than bound times max|v|. */
void kernel_case_bound(const struct kernel_case *c, const struct fb_attention *attention,
                       const struct kernel_output *output, double bound);

/* Reports a difference in any bit. */
void kernel_case_compare(const struct kernel_case *c, const struct fb_attention *attention,
                         const struct kernel_output *a, const struct kernel_output *b,
                         const char *what);

/* Whether this machine can run it: a CPU variant of an instruction set that is present. */
bool kernel_is_runnable(const struct fb_attention *attention);

/* Prints a failure and counts it; a test ends with kernel_expect_no_failures, so that one run shows
 * all of them (the first forty in words). */
void kernel_report(const struct kernel_case *c, const struct fb_attention *attention,
                   const char *format, ...) FB_PRINTF(3, 4);
void kernel_expect_no_failures(void);

#endif
