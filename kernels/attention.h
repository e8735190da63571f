/*
 * The interface of every attention mechanism in flowbench. Read this first.
 *
 * A *mechanism* is a function of (q, k, v): Flow-Attention, softmax, linear, Performer, local.
 * A *variant* is one way to compute it: fused or plain, on one backend, for one instruction set.
 * All variants of one mechanism compute the same function; whatever changes the function is a
 * parameter of the mechanism.
 *
 * Symbols follow the Flowformer paper (Wu et al., ICML 2022, "Linearizing Transformers with
 * Conservation Flows") and its released code:
 *
 *   B  batch          H  heads             L  q_len, the sinks      S  kv_len, the sources
 *   D  qk_dim         M  v_dim
 *   incoming     a_i  flow into sink i,      (phi(q_i)+eps) . (sum_j phi(k_j)+eps)        eq. 4
 *   outgoing     b_j  flow out of source j,  (phi(k_j)+eps) . (sum_i phi(q_i)+eps)        eq. 4
 *   conserved incoming  c_i   after every source's outgoing flow is fixed to 1            eq. 7
 *   conserved outgoing  o_j   after every sink's incoming flow is fixed to 1              eq. 7
 *   competition         softmax of o over the sources                                     eq. 8
 *   allocation          sigmoid of c per sink                                             eq. 8
 *
 * The caller owns every buffer. forward, backward and decode neither allocate, nor print, nor keep
 * a pointer after they return, and on a device they do not synchronise. Results do not depend on
 * the number of threads unless the variant says that it is not deterministic.
 */
#ifndef FB_ATTENTION_H
#define FB_ATTENTION_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum fb_dtype { FB_F32, FB_F64, FB_BF16, FB_F16, FB_DTYPE_COUNT };
enum fb_pass { FB_FORWARD, FB_BACKWARD, FB_BOTH, FB_DECODE, FB_PASS_COUNT };
enum fb_backend { FB_CPU, FB_CUDA, FB_BACKEND_COUNT };
enum fb_layout { FB_BHND, FB_BNHD, FB_LAYOUT_COUNT };

/* Instruction sets of the CPU variants, weakest first on each architecture. FB_ISA_ANY marks code
 * that is compiled once (OpenBLAS variants, which dispatch on their own; device code). */
enum fb_isa { FB_ISA_ANY, FB_ISA_SCALAR, FB_ISA_NEON, FB_ISA_AVX2, FB_ISA_AVX512, FB_ISA_COUNT };

/* Buffers handed to kernels start on this boundary, in bytes. */
enum { FB_ALIGNMENT = 64, FB_PARAMS_MAX = 16, FB_HEAD_DIM_MAX = 256 };

/* A view of four dimensions, in the order batch, head, token, component. Strides are counted in
 * elements; stride[3] is 1. Both the BHND and the BNHD layout are views of this kind. */
struct fb_tensor {
    void *data;
    enum fb_dtype dtype;
    int64_t shape[4];
    int64_t stride[4];
};

enum fb_param_type { FB_PARAM_INT, FB_PARAM_REAL, FB_PARAM_BOOL, FB_PARAM_CHOICE };

/* One row of a mechanism's parameter table. Suites and the command line validate against it.
 * Values travel as doubles: an integer exactly, a boolean as 0 or 1, a choice as its index. */
struct fb_param {
    const char *name;
    enum fb_param_type type;
    double default_value, min, max; /* the range is inclusive */
    const char *const *choices;     /* FB_PARAM_CHOICE only, ended by NULL */
    const char *help;
};

/* What is to be computed. Everything except the data. */
struct fb_problem {
    int64_t batch;    /* B */
    int64_t heads;    /* H, of the queries */
    int64_t kv_heads; /* of keys and values; divides heads, equals it unless queries are grouped */
    int64_t q_len;    /* L */
    int64_t kv_len;   /* S */
    int64_t qk_dim;   /* D */
    int64_t v_dim;    /* M */
    enum fb_dtype dtype;
    bool causal;                  /* sink i sees source j when j <= i, counted from the top left */
    const int64_t *q_lengths;     /* NULL, or B valid lengths: the rest of each row is padding */
    const int64_t *kv_lengths;    /* likewise for keys and values */
    double params[FB_PARAMS_MAX]; /* in the order of the mechanism's table */
};

/* Bytes that the caller provides, besides inputs and outputs. Each buffer may be NULL when 0. */
struct fb_sizes {
    size_t saved_bytes;           /* written by a training forward, read by backward */
    size_t forward_scratch_bytes; /* undefined on entry and on return */
    size_t backward_scratch_bytes;
    size_t decode_scratch_bytes;
    size_t decode_state_bytes; /* the recurrent state or the key-value cache */
};

/* The mechanism's own work, the same for all its variants: what the floor is made of. */
struct fb_cost {
    double flop;      /* a multiply-add is 2; exponentials and reductions of one operand score 0 */
    double bytes_min; /* every input read once, every output written once */
};

/* The buffers of one call. Which tensors must be set depends on the pass:
 *   forward   q [B,H,L,D]  k [B,Hkv,S,D]  v [B,Hkv,S,M] -> out [B,H,L,M], saved unless NULL
 *   backward  q k v out dout saved -> dq dk dv (shapes of q k v)
 *   decode    q [B,H,1,D]  k [B,Hkv,1,D]  v [B,Hkv,1,M], decode_state -> out [B,H,1,M],
 *             decode_state; the problem has q_len 1, kv_len the most tokens that the state shall
 * hold, and causal unset, since decoding is causal by nature. A state of zero bytes is the one
 *             before the first token; the state counts its tokens itself.
 *   prefill   q k v of at most kv_len tokens, decode_state empty -> decode_state as after decoding
 *             them one by one; the problem is that of decode, and so is out, which may be written
 */
struct fb_call {
    struct fb_tensor q, k, v, out;
    struct fb_tensor dout, dq, dk, dv;
    const void *constants; /* what prepare wrote; NULL when the mechanism has none */
    void *saved;           /* NULL in forward means inference */
    void *scratch;
    void *decode_state;
    double key_stabiliser; /* decode of Performer: the maximum subtracted from key exponents */
    int threads;           /* at least 1; ignored by device variants */
    void *stream;          /* device variants: the stream to launch on */
};

/* A mechanism: what is computed. One static object per mechanism. */
struct fb_mechanism {
    const char *name;      /* as in suites: "flow" */
    const char *title;     /* as on plots: "Flow-Attention" */
    const char *reference; /* paper and equations */
    const struct fb_param *params;
    int param_count;
    bool recurrent;   /* has an exact constant-size decoding state */
    bool sinks_alone; /* not causal, an output depends on no query but its own */

    /* Refuses what the mechanism itself cannot mean (causal Flow-Attention with L != S). Pure.
     * Returns FB_OK, or FB_ERROR_UNSUPPORTED with the reason in words. */
    enum fb_status (*supports)(const struct fb_problem *problem, struct fb_error *why);

    void (*cost)(const struct fb_problem *problem, enum fb_pass pass, struct fb_cost *cost);

    /* Constants drawn once per problem, untimed (Performer's features). Both NULL when none. */
    size_t (*constants_bytes)(const struct fb_problem *problem);
    enum fb_status (*prepare)(const struct fb_problem *problem, uint64_t seed, void *constants,
                              struct fb_error *error);
};

typedef enum fb_status (*fb_attention_fn)(const struct fb_problem *problem,
                                          const struct fb_call *call, struct fb_error *error);

/* A variant: how it is computed. One static object per variant and instruction set. A NULL pass
 * does not exist in this variant. */
struct fb_attention {
    const struct fb_mechanism *mechanism;
    const char *variant; /* "fused", "tiled", "plain" */
    enum fb_backend backend;
    enum fb_isa isa;
    bool deterministic; /* same bits for any number of threads */

    /* Refuses what this variant lacks beyond the mechanism's own limits; NULL: nothing more. */
    enum fb_status (*supports)(const struct fb_problem *problem, enum fb_pass pass,
                               struct fb_error *why);
    void (*sizes)(const struct fb_problem *problem, int threads, struct fb_sizes *sizes);
    fb_attention_fn forward;
    fb_attention_fn backward;
    fb_attention_fn decode;  /* one token; refuses a state that is full (FB_ERROR_INPUT) */
    fb_attention_fn prefill; /* NULL where decoding the tokens one by one is the way */
};

/* ---- problems ------------------------------------------------------------------------------ */

/* A self-attention problem: L = S = len, D = M = dim, kv_heads = heads, parameters at defaults. */
void fb_problem_init(struct fb_problem *problem, const struct fb_mechanism *mechanism,
                     int64_t batch, int64_t heads, int64_t len, int64_t dim);

/* Checks sizes (positive, products that fit), parameters (range) and what the mechanism itself
 * supports. Names the field, the value and the limit. */
enum fb_status fb_problem_check(const struct fb_problem *problem,
                                const struct fb_mechanism *mechanism,
                                struct fb_error *error) FB_MUST_CHECK;

/* Index of a parameter in the mechanism's table, or -1. */
int fb_param_index(const struct fb_mechanism *mechanism, const char *name);

/* ---- tensors ------------------------------------------------------------------------------- */

/* A dense view of data with the given shape; data may be NULL. */
struct fb_tensor fb_tensor_dense(void *data, enum fb_dtype dtype, enum fb_layout layout,
                                 int64_t batch, int64_t heads, int64_t tokens, int64_t dim);

/* Elements of the tensor; the shape must have passed fb_problem_check. */
int64_t fb_tensor_count(const struct fb_tensor *tensor);

/* Address of the row (b, h, token, 0) of an f32 tensor. */
static inline float *fb_tensor_row_f32(const struct fb_tensor *t, int64_t b, int64_t h,
                                       int64_t token)
{
    return (float *)t->data + b * t->stride[0] + h * t->stride[1] + token * t->stride[2];
}

/* ---- checked calls ------------------------------------------------------------------------- */

/* Whether this machine's processor has the variant's instruction set, and the variant serves the
 * problem and the pass; the reason stands in why. */
enum fb_status fb_attention_supports(const struct fb_attention *attention,
                                     const struct fb_problem *problem, enum fb_pass pass,
                                     struct fb_error *why) FB_MUST_CHECK;

/* Buffer sizes of the variant for a supported problem, of calls with so many threads. */
void fb_attention_sizes(const struct fb_attention *attention, const struct fb_problem *problem,
                        int threads, struct fb_sizes *sizes);

/* Check the problem, the shapes, strides, alignment and threads, then run. */
enum fb_status fb_attention_forward(const struct fb_attention *attention,
                                    const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_attention_backward(const struct fb_attention *attention,
                                     const struct fb_problem *problem, const struct fb_call *call,
                                     struct fb_error *error) FB_MUST_CHECK;

enum fb_status fb_attention_decode(const struct fb_attention *attention,
                                   const struct fb_problem *problem, const struct fb_call *call,
                                   struct fb_error *error) FB_MUST_CHECK;
/* The state after the tokens of q, k and v: by the variant's prefill, else by decoding them one by
 * one. */
enum fb_status fb_attention_prefill(const struct fb_attention *attention,
                                    const struct fb_problem *problem, const struct fb_call *call,
                                    struct fb_error *error) FB_MUST_CHECK;

/* ---- names --------------------------------------------------------------------------------- */

size_t fb_dtype_bytes(enum fb_dtype dtype);
const char *fb_dtype_name(enum fb_dtype dtype);
const char *fb_pass_name(enum fb_pass pass);
const char *fb_backend_name(enum fb_backend backend);
const char *fb_layout_name(enum fb_layout layout);
const char *fb_isa_name(enum fb_isa isa);

/* The value whose name is given, or -1. */
int fb_dtype_parse(const char *name);
int fb_pass_parse(const char *name);
int fb_backend_parse(const char *name);
int fb_layout_parse(const char *name);
int fb_isa_parse(const char *name);

#ifdef __cplusplus
}
#endif
#endif
