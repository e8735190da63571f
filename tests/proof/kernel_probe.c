/*
 * What one call of a CPU kernel executes and what it takes, on one thread: the figures from which
 * count_operations.sh says what stands between a kernel and its floor. x86-64 Linux only.
 *
 *   kernel_probe count MECHANISM ISA PASS CAUSAL HEADS TOKENS   an "address times" line for each
 *                      instruction of this program that the second call executes
 *   kernel_probe once ...the same...          that call alone, for other tools that count
 *   kernel_probe floor ...the same...         flop per token and head that the floor counts
 *   kernel_probe warm|cold ...the same...     medians: cycles and seconds per token and head, the
 *                      cycle being that of the clock just after each call, and that clock in GHz
 *   kernel_probe product ISA   flop per cycle of the floor's matrix product, median and best of
 *                      nine bursts, and the clock likewise
 *
 * PASS is forward or backward, CAUSAL 0 or 1, D 64, dtype f32. Instructions are counted by the
 * processor's single-step trap: valgrind does not know AVX-512, and virtual machines often hide
 * the processor's counters.
 */
#include "cache_flush.h"
#include "ceilings.h"
#include "cpu_features.h"
#include "machine.h"
#include "random.h"
#include "registry.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

enum { DIM = 64, TENSORS = 8, CALLS_MAX = 400, TRAP_FLAG = 0x100 };

extern const char etext[]; /* where the program, which begins at a low address, ends */

struct probe {
    const struct fb_attention *attention;
    struct fb_problem problem;
    struct fb_call call;
    struct fb_mapped_buffer buffers[TENSORS + 3];
    bool backward;
};

static uint32_t *times_executed; /* by address */
static struct fb_error error;

static void fail(const char *what)
{
    fprintf(stderr, "kernel_probe: %s: %s\n", what, error.text);
    exit(1);
}

static void *new_buffer(struct probe *p, int slot, size_t bytes)
{
    if (fb_mapped_buffer_init(&p->buffers[slot], bytes, slot, "a probe", &error) != FB_OK) {
        fail("buffer");
    }
    return p->buffers[slot].data;
}

static void open_tensors(struct probe *p)
{
    struct fb_tensor *const tensors[TENSORS] = {&p->call.q,    &p->call.k,   &p->call.v,
                                                &p->call.dout, &p->call.out, &p->call.dq,
                                                &p->call.dk,   &p->call.dv};
    const int64_t heads = p->problem.heads, tokens = p->problem.q_len, count = heads * tokens * DIM;
    for (int i = 0; i < TENSORS; i++) {
        float *data = new_buffer(p, i, (size_t)count * sizeof *data);
        fb_random_fill_normal_f32(data, count, 1.0F, 1, (uint64_t)i, 1);
        *tensors[i] = fb_tensor_dense(data, FB_F32, FB_BHND, 1, heads, tokens, DIM);
    }
}

static void open_probe(struct probe *p, char **words)
{
    const struct fb_mechanism *mechanism = fb_mechanism_find(words[0]);
    const int isa = fb_isa_parse(words[1]);
    if (mechanism == NULL || isa < 0 || !fb_cpu_has((enum fb_isa)isa)) {
        fail("no such mechanism, or not this machine's instruction set");
    }
    p->attention = fb_attention_find(mechanism, NULL, FB_CPU, (enum fb_isa)isa);
    p->backward = strcmp(words[2], "backward") == 0;
    fb_problem_init(&p->problem, mechanism, 1, strtol(words[4], NULL, 10),
                    strtol(words[5], NULL, 10), DIM);
    p->problem.causal = strcmp(words[3], "1") == 0;
    if (fb_problem_check(&p->problem, mechanism, &error) != FB_OK) {
        fail("problem");
    }
    open_tensors(p);
    struct fb_sizes sizes;
    fb_attention_sizes(p->attention, &p->problem, 1, &sizes);
    const size_t forward = sizes.forward_scratch_bytes, backward = sizes.backward_scratch_bytes;
    p->call.threads = 1;
    p->call.scratch = new_buffer(p, TENSORS, forward > backward ? forward : backward);
    p->call.saved = p->backward ? new_buffer(p, TENSORS + 1, sizes.saved_bytes) : NULL;
    if (mechanism->prepare != NULL) {
        void *constants = new_buffer(p, TENSORS + 2, mechanism->constants_bytes(&p->problem));
        if (mechanism->prepare(&p->problem, 1, constants, &error) != FB_OK) {
            fail("prepare");
        }
        p->call.constants = constants;
    }
    if (fb_attention_forward(p->attention, &p->problem, &p->call, &error) != FB_OK) {
        fail("forward");
    }
}

/* Not inlined: callgrind collects by its name. */
__attribute__((noinline)) static void call_once(const struct probe *p)
{
    if ((p->backward ? fb_attention_backward : fb_attention_forward)(p->attention, &p->problem,
                                                                     &p->call, &error) != FB_OK) {
        fail("call");
    }
}

/* ---- counting ------------------------------------------------------------------------------ */

static void on_step(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    const ucontext_t *state = context;
    const uintptr_t at = (uintptr_t)state->uc_mcontext.gregs[REG_RIP];
    if (at < (uintptr_t)etext) {
        times_executed[at]++;
    }
}

static void count_call(const struct probe *p)
{
    const size_t bytes = (size_t)etext;
    times_executed = calloc(bytes, sizeof *times_executed);
    const struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    if (times_executed == NULL || sigaction(SIGTRAP, &action, NULL) != 0) {
        fail("counting");
    }
    call_once(p);
    __asm__ volatile("pushfq\n\torq %0, (%%rsp)\n\tpopfq" ::"i"(TRAP_FLAG) : "memory", "cc");
    call_once(p);
    __asm__ volatile("pushfq\n\tandq %0, (%%rsp)\n\tpopfq" ::"i"(~TRAP_FLAG) : "memory", "cc");
    for (size_t i = 0; i < bytes; i++) {
        if (times_executed[i] != 0) {
            printf("%zx %u\n", i, times_executed[i]);
        }
    }
    free(times_executed);
}

/* ---- timing -------------------------------------------------------------------------------- */

static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A chain of multiplications of three cycles each, the best of a few. */
static double clock_hz(void)
{
    enum { TRIES = 3, TURNS = 1000, UNROLLED = 8, LATENCY = 3 };
    double best_s = 1.0;
    for (int i = 0; i < TRIES; i++) {
        const double start_s = now_s();
        uint64_t x = 3;
        for (int j = 0; j < TURNS; j++) {
            __asm__ volatile("imul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0\n\t"
                             "imul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0"
                             : "+r"(x)::"cc");
        }
        const double took_s = now_s() - start_s;
        best_s = took_s < best_s ? took_s : best_s;
    }
    return (double)TURNS * UNROLLED * LATENCY / best_s;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

static void time_calls(const struct probe *p, bool cold)
{
    static double cycles[CALLS_MAX], seconds[CALLS_MAX], clocks[CALLS_MAX];
    struct fb_cache_flush flush;
    size_t llc_bytes, private_bytes;
    fb_machine_caches(&llc_bytes, &private_bytes);
    const double tokens = (double)(p->problem.heads * p->problem.q_len);
    const double budget_s = cold ? 0.8 : 0.2, begin_s = now_s();
    if (cold && fb_cache_flush_init(&flush, llc_bytes, private_bytes, 1, &error) != FB_OK) {
        fail("flush");
    }
    int n = 0;
    for (; n < CALLS_MAX && (n < 5 || now_s() - begin_s < budget_s); n++) {
        if (cold) {
            fb_cache_flush_run(&flush);
        }
        const double start_s = now_s();
        call_once(p);
        seconds[n] = (now_s() - start_s) / tokens;
        clocks[n] = clock_hz();
        cycles[n] = seconds[n] * clocks[n];
    }
    printf("%.1f %.4g %.3f\n", median(cycles, n), median(seconds, n), 1e-9 * median(clocks, n));
    if (cold) {
        fb_cache_flush_free(&flush);
    }
}

/* The product of the floor: flop per cycle of the clock just after it, and the clock in GHz. */
static void time_product(const char *name)
{
    enum { BURSTS = 9 };
    double flop[BURSTS], clocks[BURSTS];
    for (int i = 0; i < BURSTS; i++) {
        struct fb_measure_ceilings ceilings;
        if (fb_ceilings_gemm(1, (enum fb_isa)fb_isa_parse(name), 0.03, &ceilings, &error) !=
            FB_OK) {
            fail("product");
        }
        clocks[i] = clock_hz();
        flop[i] = ceilings.gemm_flop_per_s / clocks[i];
    }
    const double middle = median(flop, BURSTS); /* sorts them */
    printf("%.1f %.1f %.3f\n", middle, flop[BURSTS - 1], 1e-9 * median(clocks, BURSTS));
}

int main(int argc, char **argv)
{
    static struct probe p;
    if (argc == 3 && strcmp(argv[1], "product") == 0) {
        time_product(argv[2]);
        return 0;
    }
    if (argc != 8) {
        fputs("usage: kernel_probe count|once|floor|warm|cold MECHANISM ISA PASS CAUSAL HEADS "
              "TOKENS\n"
              "       kernel_probe product ISA\n",
              stderr);
        return 2;
    }
    open_probe(&p, argv + 2);
    if (strcmp(argv[1], "count") == 0) {
        count_call(&p);
    } else if (strcmp(argv[1], "once") == 0) {
        call_once(&p);
    } else if (strcmp(argv[1], "floor") == 0) {
        struct fb_cost cost;
        p.attention->mechanism->cost(&p.problem, p.backward ? FB_BACKWARD : FB_FORWARD, &cost);
        printf("%.1f\n", cost.flop / (double)(p.problem.heads * p.problem.q_len));
    } else {
        time_calls(&p, strcmp(argv[1], "cold") == 0);
    }
    for (int i = 0; i < TENSORS + 3; i++) {
        fb_mapped_buffer_free(&p.buffers[i]);
    }
    return 0;
}
