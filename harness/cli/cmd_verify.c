/*
 * flowbench verify FILE.safetensors...: mechanisms against golden vectors, every variant, every
 * instruction set of this machine, one thread and all of them.
 *
 * One line per file and combination on stdout, then a summary. Exit code: 3 when a combination is
 * wrong, or when no combination at all was executed for some file; 2 when a file cannot be read;
 * 0 when everything passed. 3 wins over 2: a wrong kernel weighs more than an unreadable file.
 * Training goldens are trained with every variant of Flow-Attention, on a processor in f32; other
 * devices and dtypes leave them out and say so.
 */
#include "commands.h"
#include "cpu_features.h"
#include "cuda_device.h"
#include "golden.h"
#include "golden_training.h"
#include "registry.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    enum fb_backend device;
    enum fb_dtype dtype;
    int isa; /* -1: every one that this machine has */
    char **files;
    int file_count;
};

struct tally {
    size_t passed, failed;
    size_t refused;           /* a variant does not serve the file's problem */
    size_t without_gradients; /* of those that passed or failed */
    size_t skipped_files, unreadable_files, unchecked_files;
};

/* ---- command line --------------------------------------------------------------------------- */

enum { KEY_DEVICE = 0x100, KEY_DTYPE, KEY_ISA };

static const struct argp_option argp_options[] = {
    {"device", KEY_DEVICE, "cpu|cuda", 0, "where to run (default: cpu)", 0},
    {"dtype", KEY_DTYPE, "f32|bf16|f16", 0,
     "element type of the kernels (default: f32); the others on inputs rounded to it, against the "
     "float64 definition on the same inputs",
     0},
    {"isa", KEY_ISA, "ISA", 0,
     "only variants of this instruction set: scalar, neon, avx2, avx512, or any for those that "
     "are compiled once (default: every one that this machine has)",
     0},
    {0},
};

static void parse_isa(const char *name, struct argp_state *state, struct options *options)
{
    options->isa = fb_isa_parse(name);
    if (options->isa < 0)
        argp_error(state, "--isa %s: unknown; valid are any, scalar, neon, avx2, avx512", name);
    else if (options->isa != FB_ISA_ANY && !fb_cpu_has((enum fb_isa)options->isa))
        argp_error(state, "--isa %s: this machine lacks it; its best is %s", name,
                   fb_isa_name(fb_cpu_best_isa()));
}

static void parse_dtype(const char *name, struct argp_state *state, struct options *options)
{
    const int dtype = fb_dtype_parse(name);
    if (dtype < 0 || dtype == FB_F64)
        argp_error(state, "--dtype %s: %s; valid are f32, bf16, f16", name,
                   dtype < 0 ? "unknown" : "no kernel computes in it");
    else
        options->dtype = (enum fb_dtype)dtype;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case KEY_DEVICE: {
        const int device = fb_backend_parse(argument);
        if (device < 0)
            argp_error(state, "--device %s: unknown; valid are cpu, cuda", argument);
        else
            options->device = (enum fb_backend)device;
        return 0;
    }
    case KEY_DTYPE:
        parse_dtype(argument, state, options);
        return 0;
    case KEY_ISA:
        parse_isa(argument, state, options);
        return 0;
    case ARGP_KEY_ARGS:
        options->files = state->argv + state->next;
        options->file_count = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no golden file given; try tests/golden/*.safetensors");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp fb_argp_verify = {
    .options = argp_options,
    .parser = parse_option,
    .args_doc = "FILE.safetensors...",
    .doc =
        "Checks every variant of a mechanism against golden vectors, and of Flow-Attention against "
        "golden training runs.\v"
        "Examples:\n"
        "  flowbench verify tests/golden/*.safetensors\n"
        "  flowbench verify --isa scalar tests/golden/golden-flow-*.safetensors\n"
        "  flowbench verify --dtype bf16 tests/golden/*.safetensors\n"
        "\n"
        "Exit codes: 0 all passed; 3 a wrong result, or a file for which nothing could be "
        "checked; 2 an unreadable file or a wrong command line.",
};

/* ---- checking ------------------------------------------------------------------------------- */

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* At least two, so that the parallel path is executed on a machine with one processor too. */
static int all_threads(void)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 2 && online < 4096 ? (int)online : 2;
}

static void print_verdict(const struct fb_attention *attention, const struct fb_golden_check *check)
{
    const struct {
        const char *name;
        const struct fb_judgement *judgement;
    } parts[] = {{"out", &check->out}, {"dq", &check->dq}, {"dk", &check->dk}, {"dv", &check->dv}};
    const size_t count = check->has_gradients ? 4 : 1;
    for (size_t i = 0; i < count; i++) {
        const struct fb_judgement *j = parts[i].judgement;
        char text[512];
        if (j->passed_golden)
            snprintf(text, sizeof text, "%.1e <= %.0e", j->err_max, j->budget);
        else
            fb_judge_describe(j, text, sizeof text);
        printf("  %s %s", parts[i].name, text);
        if (j->passed_golden && j->kinks > 0)
            printf(" (%" PRId64 " tokens at the clamp's kink left out)", j->kinks);
    }
    if (check->has_gradients)
        putchar('\n');
    else if (!attention->backward)
        puts("  gradients: not in this version");
    else
        printf("  gradients: %s\n", check->why_no_gradients.text);
}

/* One variant with one number of threads on one file. */
static void check_combination(const struct fb_golden *golden, const struct fb_attention *attention,
                              int threads, struct tally *tally)
{
    char label[64];
    struct fb_golden_check check;
    struct fb_error error = {0};
    const enum fb_status status =
        fb_golden_check_variant(golden, attention, threads, &check, &error);
    const bool refused = status == FB_ERROR_UNSUPPORTED;
    const bool passed = status == FB_OK && check.passed;
    snprintf(label, sizeof label, "%s/%s", golden->mechanism->name, attention->variant);
    printf("%s  %-38s %-16s %-6s threads %-3d",
           refused  ? "SKIP"
           : passed ? "PASS"
                    : "FAIL",
           file_name(golden->path), label, fb_isa_name(attention->isa), threads);
    if (status == FB_OK)
        print_verdict(attention, &check);
    else
        printf("  %s\n", error.text);
    tally->refused += refused;
    tally->passed += passed;
    tally->failed += !refused && !passed;
    tally->without_gradients += status == FB_OK && !check.has_gradients;
}

static bool selected(const struct options *options, const struct fb_attention *attention)
{
    if (attention->backend != options->device)
        return false;
    if (options->isa >= 0)
        return (int)attention->isa == options->isa;
    return attention->isa == FB_ISA_ANY || fb_cpu_has(attention->isa);
}

/* One training run: all of its steps with one variant and one number of threads. */
static enum fb_status check_training(const char *path, const struct fb_attention *attention,
                                     int threads, struct tally *tally, struct fb_error *error)
{
    char label[64];
    struct fb_golden_training run;
    const enum fb_status status = fb_golden_training_check(path, attention, threads, &run, error);
    const bool refused = status == FB_ERROR_UNSUPPORTED, passed = status == FB_OK && run.passed;
    if (status == FB_ERROR_INPUT || status == FB_ERROR_IO)
        return status;
    snprintf(label, sizeof label, "%s/%s", attention->mechanism->name, attention->variant);
    printf("%s  %-38s %-16s %-6s threads %-3d",
           refused  ? "SKIP"
           : passed ? "PASS"
                    : "FAIL",
           file_name(path), label, fb_isa_name(attention->isa), threads);
    if (status == FB_OK)
        printf("  losses %.1e <= %.0e  logits %.1e <= %.0e  gradients %.1e <= %.0e (%s)  weights "
               "%.1e <= %.0e (%s)\n",
               run.loss, FB_GOLDEN_LOSS_BUDGET, run.logits, FB_GOLDEN_LOGITS_BUDGET, run.gradient,
               FB_GOLDEN_GRADIENT_BUDGET, run.gradient_name, run.weights, FB_GOLDEN_WEIGHTS_BUDGET,
               run.weights_name);
    else
        printf("  %s\n", error->text);
    tally->refused += refused;
    tally->passed += passed;
    tally->failed += !refused && !passed;
    return FB_OK;
}

static void check_training_file(const struct options *options, const char *path,
                                struct tally *tally)
{
    struct fb_error error = {0};
    enum fb_status status = FB_OK;
    const size_t executed_before = tally->passed + tally->failed;
    if (options->device != FB_CPU || options->dtype != FB_F32) {
        tally->skipped_files++;
        printf("SKIP  %-38s a training run is repeated on a processor in f32\n", file_name(path));
        return;
    }
    for (size_t i = 0; i < fb_attention_count() && status == FB_OK; i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (strcmp(attention->mechanism->name, "flow") != 0 || !selected(options, attention))
            continue;
        status = check_training(path, attention, 1, tally, &error);
        if (status == FB_OK)
            status = check_training(path, attention, all_threads(), tally, &error);
    }
    if (status != FB_OK) {
        tally->unreadable_files++;
        (void)fb_exit_report("verify", &error);
    } else if (tally->passed + tally->failed == executed_before) {
        tally->unchecked_files++;
        printf("NONE  %-38s no variant of flow was executed\n", file_name(path));
    }
}

static void check_golden(const struct options *options, const struct fb_golden *golden,
                         struct tally *tally)
{
    const size_t executed_before = tally->passed + tally->failed;
    const int threads = all_threads();
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (attention->mechanism != golden->mechanism || !selected(options, attention))
            continue;
        check_combination(golden, attention, 1, tally);
        if (options->device == FB_CPU)
            check_combination(golden, attention, threads, tally);
    }
    if (tally->passed + tally->failed == executed_before) {
        tally->unchecked_files++;
        printf("NONE  %-38s no variant of %s was executed\n", file_name(golden->path),
               golden->mechanism->name);
    }
}

static void check_file(const struct options *options, const char *path, struct tally *tally)
{
    struct fb_arena arena;
    fb_arena_init(&arena, 0);
    struct fb_golden golden;
    struct fb_error error = {0};
    if (fb_golden_read(&golden, path, &arena, &error) != FB_OK ||
        fb_golden_round(&golden, options->dtype, &arena, &error) != FB_OK) {
        tally->unreadable_files++;
        (void)fb_exit_report("verify", &error);
    } else if (golden.training) {
        check_training_file(options, path, tally);
    } else {
        check_golden(options, &golden, tally);
    }
    fb_arena_free(&arena);
}

static void print_missing_isas(void)
{
    bool missing[FB_ISA_COUNT] = {false};
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const enum fb_isa isa = fb_attention_at(i)->isa;
        if (fb_attention_at(i)->backend == FB_CPU && isa != FB_ISA_ANY && !fb_cpu_has(isa))
            missing[isa] = true;
    }
    for (int isa = 0; isa < FB_ISA_COUNT; isa++)
        if (missing[isa])
            printf("not executed: this machine lacks %s\n", fb_isa_name((enum fb_isa)isa));
}

static int summarise(const struct options *options, const struct tally *tally)
{
    if (options->isa < 0 && options->device == FB_CPU)
        print_missing_isas();
    printf("%zu passed, %zu failed, %zu refused by the variant", tally->passed, tally->failed,
           tally->refused);
    if (tally->without_gradients > 0)
        printf(", %zu checked without gradients", tally->without_gradients);
    printf("; of %d files %zu skipped, %zu unreadable, %zu unchecked\n", options->file_count,
           tally->skipped_files, tally->unreadable_files, tally->unchecked_files);
    if (tally->failed > 0 || tally->unchecked_files > 0)
        return FB_EXIT_CLAIM;
    if (tally->unreadable_files > 0)
        return FB_EXIT_USAGE;
    if (tally->passed == 0)
        puts("nothing was checked: every file was skipped");
    return FB_EXIT_OK;
}

static bool device_exists(enum fb_backend device)
{
    for (size_t i = 0; i < fb_attention_count(); i++)
        if (fb_attention_at(i)->backend == device)
            return true;
    return false;
}

int fb_cmd_verify(int argc, char **argv)
{
    struct options options = {.device = FB_CPU, .dtype = FB_F32, .isa = -1};
    const error_t failed = argp_parse(&fb_argp_verify, argc, argv, 0, NULL, &options);
    if (failed != 0) {
        fprintf(stderr, "flowbench verify: error: %s\n", strerror(failed));
        return FB_EXIT_FAILED;
    }
    if (!device_exists(options.device) || (options.device == FB_CUDA && !fb_cuda_is_present())) {
        fprintf(stderr, "flowbench verify: error: --device %s: %s; use --device cpu\n",
                fb_backend_name(options.device),
                device_exists(options.device) ? "this machine has none"
                                              : "this build has no variant for it");
        return FB_EXIT_USAGE;
    }
    struct tally tally = {0};
    for (int i = 0; i < options.file_count; i++)
        check_file(&options, options.files[i], &tally);
    return summarise(&options, &tally);
}
