/* flowbench apply: a mechanism on tensors of the user's own. apply_input.h says what is read,
 * apply_output.h what is written. */
#include "commands.h"
#include "cuda_staged.h"

#include "apply_input.h"
#include "apply_output.h"
#include "factor.h"
#include "machine.h"
#include "mechanism_choice.h"
#include "plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_IN = 256,
    KEY_CAUSAL,
    KEY_PARAM,
    KEY_VARIANT,
    KEY_ISA,
    KEY_DEVICE,
    KEY_DTYPE,
    KEY_THREADS,
    KEY_SEED,
    KEY_NO_GRADIENTS,
    KEY_ALLOW_NONFINITE
};

struct options {
    const char *mechanism, *in, *out, *variant, *isa;
    const char **params; /* room for argc */
    size_t params_count;
    enum fb_backend device;
    enum fb_dtype dtype;
    int threads; /* 0: all */
    uint64_t seed;
    bool causal, no_gradients, allow_nonfinite, force;
};

/* ---- command line ---------------------------------------------------------------------------- */

static const struct argp_option table[] = {
    {"in", KEY_IN, "Q_K_V.safetensors", 0,
     "The input: tensors q [B,H,L,D], k [B,Hkv,S,D], v [B,Hkv,S,M]; optional: q_lengths and "
     "kv_lengths [B], projection [features,D] for performer, dout [B,H,L,M] for the gradients",
     0},
    {"out", 'o', "OUT.safetensors", 0,
     "The result: out [B,H,L,M], and dq, dk, dv when the input has dout; in the "
     "type of --dtype",
     0},
    {"causal", KEY_CAUSAL, NULL, 0, "A query sees the keys up to its own place", 0},
    {"param", KEY_PARAM, "NAME=VALUE", 0,
     "A parameter of the mechanism (flowbench list params); may be repeated", 0},
    {"variant", KEY_VARIANT, "VARIANT", 0, "How it is computed (flowbench list mechanisms)", 0},
    {"isa", KEY_ISA, "ISA", 0, "The instruction set (default: the best of this machine)", 0},
    {"device", KEY_DEVICE, "cpu|cuda", 0, "Where it is computed (default: cpu)", 0},
    {"dtype", KEY_DTYPE, "f32|bf16|f16", 0,
     "The element type of inputs and results (default: f32); arithmetic is in f32 or better", 0},
    {"threads", KEY_THREADS, "N", 0, "Threads (default: all that this process may use)", 0},
    {"seed", KEY_SEED, "N", 0,
     "Seed of performer's features when the input has no projection (default: 1)", 0},
    {"no-gradients", KEY_NO_GRADIENTS, NULL, 0, "Leave dout alone and compute only out", 0},
    {"allow-nonfinite", KEY_ALLOW_NONFINITE, NULL, 0,
     "Let NaN and infinities through, in the input and in the result", 0},
    {"force", 'f', NULL, 0, "Replace an output file that exists", 0},
    {0}};

static bool parse_whole(const char *text, int64_t min, int64_t max, int64_t *value)
{
    char *end;

    errno = 0;
    *value = strtoll(text, &end, 10);
    return end != text && *end == '\0' && errno == 0 && *value >= min && *value <= max;
}

static void check_complete(const struct options *o, struct argp_state *state)
{
    if (o->mechanism == NULL)
        argp_error(state, "which mechanism? `flowbench list mechanisms` shows them");
    if (o->in == NULL)
        argp_error(state, "--in FILE.safetensors is missing: the tensors q, k and v");
    if (o->out == NULL)
        argp_error(state, "--out FILE.safetensors is missing: where the result goes");
}

static error_t parse_number(int key, const char *argument, struct argp_state *state,
                            struct options *o)
{
    const int64_t threads_max = fb_factor_at(FB_FACTOR_THREADS)->max;
    int64_t value = 0;

    if (key == KEY_SEED) {
        if (!parse_whole(argument, 0, INT64_MAX, &value))
            argp_error(state, "--seed '%s' is not a whole number from 0 to %" PRId64, argument,
                       INT64_MAX);
        o->seed = (uint64_t)value;
    } else {
        if (!parse_whole(argument, 1, threads_max, &value))
            argp_error(state, "--threads '%s' is not a whole number from 1 to %" PRId64, argument,
                       threads_max);
        o->threads = (int)value;
    }
    return 0;
}

static error_t parse_device(const char *argument, struct argp_state *state, struct options *o)
{
    const int device = fb_backend_parse(argument);

    if (device < 0)
        argp_error(state, "--device '%s' is none of cpu, cuda", argument);
    o->device = (enum fb_backend)device;
    return 0;
}

static error_t parse_dtype(const char *argument, struct argp_state *state, struct options *o)
{
    const int dtype = fb_dtype_parse(argument);

    if (dtype < 0 || dtype == FB_F64)
        argp_error(state, "--dtype '%s' is none of f32, bf16, f16", argument);
    o->dtype = (enum fb_dtype)dtype;
    return 0;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case KEY_IN:
        o->in = argument;
        return 0;
    case 'o':
        o->out = argument;
        return 0;
    case KEY_CAUSAL:
        o->causal = true;
        return 0;
    case KEY_PARAM:
        o->params[o->params_count++] = argument;
        return 0;
    case KEY_VARIANT:
        o->variant = argument;
        return 0;
    case KEY_ISA:
        o->isa = argument;
        return 0;
    case KEY_DEVICE:
        return parse_device(argument, state, o);
    case KEY_DTYPE:
        return parse_dtype(argument, state, o);
    case KEY_THREADS:
    case KEY_SEED:
        return parse_number(key, argument, state, o);
    case KEY_NO_GRADIENTS:
        o->no_gradients = true;
        return 0;
    case KEY_ALLOW_NONFINITE:
        o->allow_nonfinite = true;
        return 0;
    case 'f':
        o->force = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->mechanism != NULL)
            argp_error(state, "one mechanism at a time, not also '%s'", argument);
        o->mechanism = argument;
        return 0;
    case ARGP_KEY_END:
        check_complete(o, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp fb_argp_apply = {
    .options = table,
    .parser = parse_option,
    .args_doc = "MECHANISM --in Q_K_V.safetensors --out OUT.safetensors",
    .doc =
        "Computes a mechanism on tensors of your own, for comparing it with other code."
        "\v"
        "Examples:\n"
        "  flowbench apply flow --in qkv.safetensors --out out.safetensors --causal\n"
        "  flowbench apply performer --param features=128 --seed 7 \\\n"
        "                  --in qkv.safetensors --out out.safetensors\n"
        "  flowbench apply softmax --variant plain --threads 1 --force \\\n"
        "                  --in qkv.safetensors --out out.safetensors\n"
        "\n"
        "Inputs become f32, or what --dtype says; conversions are told. The input is never "
        "changed, the output is written in one step: a whole file or none. Its metadata say what "
        "computed it.\n"
        "\n"
        "Exit codes: 0 written; 1 the disk or the memory refused; 2 the command line or the "
        "input is wrong, or the variant does not serve it; 3 the result is not finite though the "
        "input is, and nothing was written.",
};

/* ---- computing ------------------------------------------------------------------------------- */

/* A tensor of the given shape whose bytes are all ones: NaN until it is written. */
static enum fb_status make_output(const struct fb_tensor *like, int64_t dim, struct fb_arena *arena,
                                  struct fb_tensor *tensor, struct fb_error *error)
{
    *tensor = fb_tensor_dense(NULL, like->dtype, FB_BHND, like->shape[0], like->shape[1],
                              like->shape[2], dim);
    const size_t count = (size_t)fb_tensor_count(tensor);
    tensor->data = fb_arena_alloc(arena, count, fb_dtype_bytes(like->dtype), error);
    if (tensor->data == NULL)
        return FB_ERROR_MEMORY;
    memset(tensor->data, 0xff, count * fb_dtype_bytes(like->dtype));
    return FB_OK;
}

static enum fb_status make_bytes(size_t bytes, struct fb_arena *arena, void **buffer,
                                 struct fb_error *error)
{
    *buffer = bytes == 0 ? NULL : fb_arena_alloc(arena, bytes, 1, error);
    return bytes > 0 && *buffer == NULL ? FB_ERROR_MEMORY : FB_OK;
}

/* Before the kernel of the operating system has to choose a victim. */
static enum fb_status check_memory(const struct fb_attention *attention,
                                   const struct fb_sizes *sizes, bool gradients,
                                   struct fb_error *error)
{
    const size_t available = fb_machine_memory_available();
    const double needed = gradients
                              ? (double)sizes->saved_bytes + (double)sizes->forward_scratch_bytes +
                                    (double)sizes->backward_scratch_bytes
                              : (double)sizes->forward_scratch_bytes;

    if (available > 0 && needed > (double)available)
        return fb_error_set(error, FB_ERROR_MEMORY,
                            "%s/%s needs %.3g GB of workspace for this input, %.3g GB are "
                            "available; another --variant or shorter sequences need less",
                            attention->mechanism->name, attention->variant, needed / 1e9,
                            (double)available / 1e9);
    return FB_OK;
}

static enum fb_status make_buffers(const struct fb_apply_input *input,
                                   const struct fb_attention *attention, bool gradients,
                                   struct fb_arena *arena, struct fb_call *call,
                                   struct fb_error *error)
{
    struct fb_sizes sizes;
    fb_attention_sizes(attention, &input->problem, call->threads, &sizes);
    enum fb_status status = check_memory(attention, &sizes, gradients, error);
    size_t scratch_bytes = sizes.forward_scratch_bytes;

    if (gradients && sizes.backward_scratch_bytes > scratch_bytes)
        scratch_bytes = sizes.backward_scratch_bytes;
    if (status == FB_OK)
        status = make_bytes(scratch_bytes, arena, &call->scratch, error);
    if (status == FB_OK)
        status = make_output(&input->q, input->problem.v_dim, arena, &call->out, error);
    if (status != FB_OK || !gradients)
        return status;
    call->dout = input->dout;
    status = make_bytes(sizes.saved_bytes, arena, &call->saved, error);
    if (status == FB_OK)
        status = make_output(&input->q, input->problem.qk_dim, arena, &call->dq, error);
    if (status == FB_OK)
        status = make_output(&input->k, input->problem.qk_dim, arena, &call->dk, error);
    if (status == FB_OK)
        status = make_output(&input->v, input->problem.v_dim, arena, &call->dv, error);
    return status;
}

static enum fb_status check_result(const char *name, const struct fb_tensor *tensor,
                                   struct fb_error *error)
{
    int64_t first[4] = {0};
    const int64_t count = fb_apply_count_nonfinite(tensor, first);

    if (count == 0)
        return FB_OK;
    return fb_error_set(error, FB_ERROR_CLAIM,
                        "the result '%s' holds %" PRId64 " value%s NaN or infinite, the first at "
                        "[%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64
                        "], though the input is finite: %s overflowed; scale the input. Nothing "
                        "was written; --allow-nonfinite writes it all the same",
                        name, count, count == 1 ? " that is" : "s that are", first[0], first[1],
                        first[2], first[3], fb_dtype_name(tensor->dtype));
}

static enum fb_status compute(const struct fb_apply_input *input,
                              const struct fb_attention *attention, const struct options *options,
                              struct fb_arena *arena, struct fb_call *call, struct fb_error *error)
{
    const bool gradients = input->dout.data != NULL;
    struct fb_plan_machine here;
    struct fb_error why;

    fb_plan_machine_here(&here);
    *call = (struct fb_call){.q = input->q,
                             .k = input->k,
                             .v = input->v,
                             .constants = input->constants,
                             .threads = options->threads > 0 ? options->threads : here.threads};
    if (gradients && fb_attention_supports(attention, &input->problem, FB_BACKWARD, &why) != FB_OK)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED,
                            "the input has 'dout', which asks for gradients, but %s; "
                            "--no-gradients computes only out",
                            why.text);
    enum fb_status status = fb_attention_supports(attention, &input->problem, FB_FORWARD, error);
    if (status == FB_OK)
        status = make_buffers(input, attention, gradients, arena, call, error);
    if (status == FB_OK)
        status = fb_staged_forward(attention, &input->problem, call, error);
    if (status == FB_OK && gradients)
        status = fb_staged_backward(attention, &input->problem, call, error);
    if (status != FB_OK || options->allow_nonfinite)
        return status;
    status = check_result("out", &call->out, error);
    const struct fb_tensor *const results[] = {&call->dq, &call->dk, &call->dv};
    static const char *const names[] = {"dq", "dk", "dv"};
    for (int i = 0; status == FB_OK && gradients && i < 3; i++)
        status = check_result(names[i], results[i], error);
    return status;
}

/* ---- the command ----------------------------------------------------------------------------- */

static enum fb_status make_request(const struct options *options, struct fb_apply_request *request,
                                   struct fb_error *error)
{
    *request = (struct fb_apply_request){.path = options->in,
                                         .dtype = options->dtype,
                                         .causal = options->causal,
                                         .gradients = !options->no_gradients,
                                         .allow_nonfinite = options->allow_nonfinite,
                                         .seed = options->seed,
                                         .notices = stderr};
    enum fb_status status = fb_choose_mechanism(options->mechanism, &request->mechanism, error);
    if (status != FB_OK)
        return status;
    for (int i = 0; i < request->mechanism->param_count; i++)
        request->params[i] = request->mechanism->params[i].default_value;
    for (size_t i = 0; i < options->params_count; i++) {
        int index;
        status =
            fb_choose_param(request->mechanism, options->params[i], request->params, &index, error);
        if (status != FB_OK)
            return status;
        request->params_given[index] = true;
    }
    return FB_OK;
}

static void tell(const char *path, const struct fb_apply_output *output)
{
    const struct fb_attention *a = output->attention;
    const int64_t *shape = output->call->out.shape;

    printf("%s: out [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "]%s by %s/%s%s, %s %s, %d "
           "thread%s\n",
           path, shape[0], shape[1], shape[2], shape[3], output->gradients ? ", dq, dk, dv" : "",
           a->mechanism->name, a->variant, output->problem->causal ? " causal" : "",
           fb_backend_name(a->backend), fb_isa_name(a->isa), output->call->threads,
           output->call->threads == 1 ? "" : "s");
}

static enum fb_status apply(const struct options *options, struct fb_arena *arena,
                            struct fb_error *error)
{
    struct fb_apply_request request;
    struct fb_apply_input input;
    const struct fb_attention *attention;
    struct fb_call call;
    enum fb_status status = make_request(options, &request, error);

    if (status == FB_OK)
        status = fb_choose_attention(request.mechanism, options->variant, options->device,
                                     options->isa, &attention, error);
    if (status == FB_OK)
        status = fb_apply_output_check(options->out, options->in, options->force, error);
    if (status == FB_OK)
        status = fb_apply_input_read(&request, arena, &input, error);
    if (status == FB_OK)
        status = compute(&input, attention, options, arena, &call, error);
    if (status != FB_OK)
        return status;
    const struct fb_apply_output output = {.attention = attention,
                                           .problem = &input.problem,
                                           .call = &call,
                                           .gradients = input.dout.data != NULL,
                                           .seeded = input.constants_drawn,
                                           .seed = options->seed};
    status = fb_apply_output_write(options->out, &output, arena, error);
    if (status == FB_OK)
        tell(options->out, &output);
    return status;
}

int fb_cmd_apply(int argc, char **argv)
{
    struct options options = {.device = FB_CPU, .dtype = FB_F32, .seed = 1};
    struct fb_arena arena;
    struct fb_error error = {.code = FB_OK};
    int code = FB_EXIT_OK;

    fb_arena_init(&arena, 0);
    options.params = fb_arena_alloc(&arena, (size_t)argc + 1, sizeof *options.params, &error);
    if (options.params == NULL || argp_parse(&fb_argp_apply, argc, argv, 0, NULL, &options) != 0)
        code = FB_EXIT_FAILED;
    else if (apply(&options, &arena, &error) != FB_OK)
        code = fb_exit_report("apply", &error);
    fb_arena_free(&arena);
    return code;
}
