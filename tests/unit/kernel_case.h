/*
 * One correctness case of an attention kernel: inputs, surrounded and interleaved with NaN (padding
 * tokens are NaN, too); an output and a scratch buffer that are poisoned before and whose
 * surroundings are checked after; and the float64 reference. Shared by the test_kernels_* programs.
 */
#ifndef KERNEL_CASE_H
#define KERNEL_CASE_H

#include "attention.h"
#include "dtype.h"

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
        void *buffer;
        size_t count; /* elements of the buffer, gaps included */
        double max;   /* largest magnitude of the tokens that are not padding */
    } q, k, v, dout;
    void *constants;
    int64_t *rows; /* those that have a reference, ascending */
    size_t rows_count;
    double *reference; /* [B][H][rows_count][M] */
    /* filled by kernel_case_gradient_reference */
    double *dq_reference;                /* [B][H][L][D] */
    double *dk_reference, *dv_reference; /* [B][Hkv][S][D], [B][Hkv][S][M] */
    bool *kv_kinks;                      /* [B][Hkv][S]: rows of dk that no kernel can get right */
};

/* An output of one run. */
struct kernel_output {
    struct fb_tensor view;
    unsigned char *buffer; /* guard, tensor with gaps, guard */
    size_t count;          /* elements of it */
};

/* A problem with parameters at their defaults. */
void kernel_case_set_problem(struct kernel_case *c, const struct fb_mechanism *mechanism,
                             int64_t batch, int64_t heads, int64_t q_len, int64_t kv_len,
                             int64_t qk_dim, int64_t v_dim);
/* Sets a parameter by name to a value, or to the choice of that name unless NULL. False when the
 * mechanism has no such parameter. */
bool kernel_case_set_parameter(struct kernel_case *c, const char *name, double value,
                               const char *choice);
/* Window, features: sizes that sequences of a hundred tokens cross; index picks one. */
void kernel_case_shrink_parameters(struct kernel_case *c, size_t index);
/* Whether the buffers of a training step fit: the plain causal variants of long problems ask for
 * gigabytes. */
bool kernel_case_is_affordable(const struct kernel_case *c, const struct fb_attention *attention);

/* Draws the inputs. Fails the test when memory is short or the mechanism refuses. */
void kernel_case_init(struct kernel_case *c);
/* Adds to a component of the rows from..to-1 of every head of an input; before the references. */
void kernel_case_raise(struct kernel_tensor *x, int64_t from, int64_t to, int64_t component,
                       float by);
/* Computes the reference: of every row when rows_max is 0, else of about rows_max rows, the first,
 * the last and those around multiples of 64 among them, of every head. */
void kernel_case_reference(struct kernel_case *c, size_t rows_max);
void kernel_case_free(struct kernel_case *c);

/* Runs forward with the scratch filled with scratch_byte. Reports a kernel that fails or writes
 * outside its buffers. True when the output can be judged. */
bool kernel_case_run(const struct kernel_case *c, const struct fb_attention *attention, int threads,
                     int scratch_byte, struct kernel_output *output);
void kernel_output_free(struct kernel_output *output);

/* Reports an output further than budget from the reference, and padding that is not zero. */
void kernel_case_judge(const struct kernel_case *c, const struct fb_attention *attention,
                       const struct kernel_output *output, double budget);

/* Reports elements that are not finite, or larger than bound times max|v|. */
void kernel_case_bound(const struct kernel_case *c, const struct fb_attention *attention,
                       const struct kernel_output *output, double bound);

/* Reports a difference in any bit. */
void kernel_case_compare(const struct kernel_case *c, const struct fb_attention *attention,
                         const struct kernel_output *a, const struct kernel_output *b,
                         const char *what);

/* Whether a variant serves the case on this machine. */
bool kernel_case_is_served(const struct kernel_case *c, const struct fb_attention *attention,
                           enum fb_pass pass);

/* ---- gradients: kernel_train.c --------------------------------------------------------------- */

/* Outputs of one training step. */
struct kernel_training {
    struct kernel_output out, dq, dk, dv;
};

/* Computes the reference of every row of dq, dk and dv. */
void kernel_case_gradient_reference(struct kernel_case *c);
/* Runs a training forward and then backward, each with its scratch filled with scratch_byte; twice
 * backward, whose bits must agree. Reports as kernel_case_run; also what happens to the buffer
 * `saved`. True when everything can be judged. */
bool kernel_case_train(const struct kernel_case *c, const struct fb_attention *attention,
                       int threads, int scratch_byte, struct kernel_training *training);
void kernel_training_free(struct kernel_training *training);
/* Reports out (when it has a reference), dq, dk and dv that are further from their reference than
 * factor times the budgets: by the rule of golden/README.md and, unless the gradient is zero by
 * cancellation (a softmax over one key), relative to itself, too. */
void kernel_case_judge_training(const struct kernel_case *c, const struct fb_attention *attention,
                                const struct kernel_training *training, double factor);
void kernel_case_compare_training(const struct kernel_case *c, const struct fb_attention *attention,
                                  const struct kernel_training *a, const struct kernel_training *b,
                                  const char *what);

/* ---- shared with kernel_train.c -------------------------------------------------------------- */

/* Memory aligned for kernels, of exactly these bytes; fails the test when there is none. */
void *kernel_allocate(size_t bytes);
/* A poisoned tensor in the case's layout between two guards. */
void kernel_output_init(const struct kernel_case *c, struct kernel_output *output, int64_t heads,
                        int64_t tokens, int64_t dim);
/* Elements around and between those of an output that were written. */
size_t kernel_output_overwritten(const struct kernel_output *output);
/* Buffers of kernels end in a guard. */
void *kernel_guarded_allocate(size_t bytes, int fill_byte);
bool kernel_guard_is_intact(const void *buffer, size_t bytes);
/* Reports elements of padding tokens (queries, or keys) that are not zero. */
void kernel_check_padding(const struct kernel_case *c, const struct fb_attention *attention,
                          const struct fb_tensor *x, bool queries, const char *name);

/* Whether it is compiled for what this processor lacks, what it says of itself included. */
bool kernel_is_foreign(const struct fb_attention *attention);
/* Whether this machine can run it: its instruction set or its device is present. */
bool kernel_is_runnable(const struct fb_attention *attention);
/* Whether it takes a small plain problem of that dtype: softmax by cuDNN has no f32, and nothing
 * where its library is absent. */
bool kernel_has_dtype(const struct fb_attention *attention, enum fb_dtype dtype);

/* Prints a failure and counts it; a test ends with kernel_expect_no_failures, so that one run shows
 * all of them (the first forty in words). */
void kernel_report(const struct kernel_case *c, const struct fb_attention *attention,
                   const char *format, ...) FB_PRINTF(3, 4);
void kernel_expect_no_failures(void);

#endif
