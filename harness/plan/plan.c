/* Planning: points of a suite become cases of this machine; their processes get a running order. */
#include "plan.h"

#include "checked.h"
#include "cpu_features.h"
#include "cuda_device.h"
#include "factor.h"
#include "plan_case.h"
#include "plan_filter.h"
#include "random.h"
#include "registry.h"

#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { JOBS_MAX = 1000000 };

/* Stream of the random numbers that order the jobs; others belong to inputs and features. */
static const uint64_t order_stream = UINT64_C(0x6f72646572); /* "order" */

/* A case on the way: whether its skip is due to hardware that is required, and where. */
struct draft {
    struct fb_case item;
    const char *required_where; /* NULL: no refusal */
};

static bool has_device_here(enum fb_backend backend)
{
    return backend == FB_CPU || (backend == FB_CUDA && fb_cuda_is_present());
}

void fb_plan_machine_here(struct fb_plan_machine *machine)
{
    *machine = (struct fb_plan_machine){
        .threads = omp_get_num_procs(),
        .best_isa = fb_cpu_best_isa(),
        .has_isa = fb_cpu_has,
        .has_device = has_device_here,
    };
}

/* `max` threads are one and `best` is what the counter executes. */
static struct fb_plan_machine machine_for_counting(const struct fb_plan_machine *machine,
                                                   enum fb_counter counter)
{
    struct fb_plan_machine counting = *machine;
    counting.threads = 1;
    if (counter == FB_COUNTER_VALGRIND && counting.best_isa == FB_ISA_AVX512) {
        counting.best_isa = FB_ISA_AVX2;
    }
    return counting;
}

/* ---- resolving one point ------------------------------------------------------------------- */

/* The first registered variant of the mechanism is its default. */
static const char *default_variant(const struct fb_mechanism *mechanism)
{
    const char *name = "none";
    (void)fb_factor_variant_names(mechanism, &name, 1);
    return name;
}

static bool has_variant(const struct fb_mechanism *mechanism, const char *variant)
{
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *attention = fb_attention_at(i);
        if (attention->mechanism == mechanism && strcmp(attention->variant, variant) == 0) {
            return true;
        }
    }
    return false;
}

/* The strongest instruction set of this machine for which the variant is built. */
static enum fb_isa best_isa(const struct fb_case *item, const struct fb_plan_machine *machine)
{
    for (int isa = FB_ISA_COUNT - 1; isa > FB_ISA_ANY; isa--) {
        if (isa <= (int)machine->best_isa && machine->has_isa((enum fb_isa)isa) &&
            fb_attention_find(item->mechanism, item->variant, item->device, (enum fb_isa)isa) !=
                NULL) {
            return (enum fb_isa)isa;
        }
    }
    return machine->best_isa;
}

static enum fb_status set_skip(struct fb_arena *arena, struct fb_case *item, struct fb_error *error,
                               const char *reason)
{
    item->attention = NULL;
    item->skip_reason = fb_arena_strdup(arena, reason, error);
    return item->skip_reason != NULL ? FB_OK : FB_ERROR_MEMORY;
}

/* Why the machine cannot run the case; false when it can. */
static bool lacks_hardware(const struct fb_case *item, const struct fb_plan_machine *machine,
                           char *reason, size_t reason_size)
{
    if (!machine->has_device(item->device)) {
        (void)snprintf(reason, reason_size, "%s",
                       item->device == FB_CUDA ? "no CUDA device" : "no such device");
        return true;
    }
    if (item->device == FB_CPU && !machine->has_isa(item->isa)) {
        (void)snprintf(reason, reason_size, "this machine has no %s", fb_isa_name(item->isa));
        return true;
    }
    return false;
}

static void resolve_machine(const struct fb_factors *point, const struct fb_plan_machine *machine,
                            struct fb_case *item)
{
    if (item->variant == NULL) {
        item->variant = default_variant(item->mechanism);
    }
    if (item->device != FB_CPU) {
        item->isa = FB_ISA_ANY;
        item->threads = 1; /* the host thread that launches */
        return;
    }
    if (item->program != NULL) {
        item->isa = point->isa < 0 ? machine->best_isa : (enum fb_isa)point->isa;
        item->threads = point->threads == 0 ? machine->threads : point->threads;
        return;
    }
    item->isa = point->isa < 0 ? best_isa(item, machine) : (enum fb_isa)point->isa;
    item->threads = point->threads == 0 ? machine->threads : point->threads;
}

/* Why instructions cannot be counted; false when they can, or when none are. */
static bool is_uncountable(const struct fb_case *item, enum fb_counter counter, char *reason,
                           size_t reason_size)
{
    if (counter == FB_COUNTER_NONE || item->device != FB_CPU) {
        return false;
    }
    if (counter == FB_COUNTER_VALGRIND && item->isa == FB_ISA_AVX512) {
        (void)snprintf(reason, reason_size, "valgrind executes no avx512");
        return true;
    }
    if (item->program != NULL) {
        (void)snprintf(reason, reason_size,
                       "an external program is timed; its instructions are not counted");
        return true;
    }
    if (item->threads > 1) {
        (void)snprintf(reason, reason_size, "instructions are counted on 1 thread, not %d",
                       item->threads);
        return true;
    }
    return false;
}

/* A program takes the instructions that it likes: held to fewer, it would be compared unfairly. */
static enum fb_status resolve_peer(const struct fb_plan_machine *machine, struct fb_arena *arena,
                                   struct fb_case *item, struct fb_error *error)
{
    char reason[200];
    if (item->device != FB_CPU || item->isa == machine->best_isa) {
        return fb_peer_attention(item, arena, error);
    }
    (void)snprintf(reason, sizeof reason,
                   "an external program chooses its instructions itself: it is measured at this "
                   "machine's best isa (%s) only",
                   fb_isa_name(machine->best_isa));
    return set_skip(arena, item, error, reason);
}

/* What the released code gives the mechanism is part of the case: its identity, its row. */
static void resolve_training(struct fb_case *item)
{
    item->causal = item->task->causal;
    if (item->recipe == FB_RECIPE_PAPER) {
        fb_recipe_set_paper_params(item->task, item->mechanism, item->params);
    }
}

/* Lengths are the data's, which are not read yet: a short sequence stands for them. */
static enum fb_status training_problem(const struct fb_case *item, struct fb_problem *problem,
                                       struct fb_error *why)
{
    enum { TOKENS = 8 };
    struct fb_recipe recipe;
    const enum fb_status status = fb_case_recipe(item, &recipe, why);
    if (status != FB_OK) {
        return status;
    }
    fb_problem_init(problem, item->mechanism, 1, recipe.heads, TOKENS,
                    recipe.qkv_dim / recipe.heads);
    problem->causal = item->causal;
    problem->dtype = fb_nn_precision_dtype(fb_case_precision(item));
    memcpy(problem->params, item->params, sizeof problem->params);
    return FB_OK;
}

/* Finds the variant, or the reason why there is none for this case. */
static enum fb_status resolve_attention(const struct fb_plan_machine *machine,
                                        struct fb_arena *arena, struct fb_case *item,
                                        struct fb_error *error)
{
    char reason[200];
    if (item->program != NULL) {
        const enum fb_status status = resolve_peer(machine, arena, item, error);
        if (status != FB_OK || item->skip_reason != NULL) {
            return status;
        }
    } else {
        item->attention =
            fb_attention_find(item->mechanism, item->variant, item->device, item->isa);
    }
    if (item->attention == NULL) {
        if (has_variant(item->mechanism, item->variant)) {
            (void)snprintf(reason, sizeof reason, "%s/%s is not built for %s %s",
                           item->mechanism->name, item->variant, fb_backend_name(item->device),
                           item->device == FB_CPU ? fb_isa_name(item->isa) : "devices");
        } else {
            (void)snprintf(reason, sizeof reason, "%s has no variant '%.60s'",
                           item->mechanism->name, item->variant);
        }
        return set_skip(arena, item, error, reason);
    }
    struct fb_problem problem;
    struct fb_error why = {.text = ""};
    struct fb_arena lengths;
    enum fb_status status = FB_OK;
    fb_arena_init(&lengths, 0);
    if (item->task != NULL) {
        status = training_problem(item, &problem, &why);
    } else {
        fb_case_problem(item, &problem);
        status = fb_case_draw_lengths(item, &lengths, &problem, &why);
    }
    if (status == FB_OK) {
        status = fb_attention_supports(item->attention, &problem, item->pass, &why);
    }
    fb_arena_free(&lengths);
    return status == FB_OK ? FB_OK : set_skip(arena, item, error, why.text);
}

static enum fb_status resolve_point(const struct fb_factors *point, enum fb_counter counter,
                                    const struct fb_plan_machine *machine, struct fb_arena *arena,
                                    struct draft *draft, struct fb_error *error)
{
    *draft = (struct draft){.required_where = NULL};
    struct fb_case *item = &draft->item;
    fb_case_set_factors(item, point);
    if (item->task != NULL) {
        resolve_training(item);
    }
    resolve_machine(point, machine, item);
    enum fb_status status = fb_case_identify(item, error);
    char reason[80];
    if (status != FB_OK) {
        return status;
    }
    if (lacks_hardware(item, machine, reason, sizeof reason)) {
        draft->required_where = point->optional_hardware ? NULL : point->where;
        return set_skip(arena, item, error, reason);
    }
    if (is_uncountable(item, counter, reason, sizeof reason)) {
        return set_skip(arena, item, error, reason);
    }
    return resolve_attention(machine, arena, item, error);
}

/* ---- all points ---------------------------------------------------------------------------- */

/* Open addressing over case ids, to drop cases that are there already. */
struct id_set {
    size_t *slots; /* index + 1 of the case, 0: free */
    size_t mask;
};

static bool insert_id(struct id_set *set, const struct fb_plan *plan, const struct fb_case *item)
{
    size_t hash = 0;
    for (const char *c = item->id; *c != '\0'; c++) {
        hash = hash * 16 + (size_t)(*c <= '9' ? *c - '0' : *c - 'a' + 10);
    }
    size_t at = hash & set->mask;
    while (set->slots[at] != 0) {
        if (strcmp(plan->cases[set->slots[at] - 1].id, item->id) == 0) {
            return false;
        }
        at = (at + 1) & set->mask;
    }
    set->slots[at] = plan->cases_count + 1;
    return true;
}

static enum fb_status resolve_points(const struct fb_suite *suite, const struct fb_filter *filter,
                                     const struct fb_plan_machine *machine, struct fb_arena *arena,
                                     struct fb_plan *plan, struct fb_error *error)
{
    size_t room = 16;
    while (room < 2 * suite->factors_count) {
        room *= 2;
    }
    struct id_set set = {.mask = room - 1};
    set.slots = fb_arena_alloc(arena, room, sizeof *set.slots, error);
    plan->cases = fb_arena_alloc(arena, suite->factors_count, sizeof *plan->cases, error);
    if (set.slots == NULL || plan->cases == NULL) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = 0; i < suite->factors_count; i++) {
        struct draft draft;
        enum fb_status status = resolve_point(&suite->factors[i], suite->measure.counter, machine,
                                              arena, &draft, error);
        if (status != FB_OK) {
            return status;
        }
        if (filter != NULL && !fb_filter_holds(filter, &draft.item)) {
            continue;
        }
        if (draft.required_where != NULL) {
            return fb_error_set(error, FB_ERROR_USAGE,
                                "%s: error: %s, but the suite requires it; mark the hardware "
                                "`optional: true` or leave it out with --filter",
                                draft.required_where, draft.item.skip_reason);
        }
        if (insert_id(&set, plan, &draft.item)) {
            plan->cases[plan->cases_count++] = draft.item;
        }
    }
    return FB_OK;
}

/* ---- order --------------------------------------------------------------------------------- */

/* All (case, process) pairs in one shuffle, so that the processes of a case spread over the run
 * and a slow spell of the machine does not fall on one case. */
static enum fb_status order_jobs(const struct fb_suite *suite, struct fb_arena *arena,
                                 struct fb_plan *plan, struct fb_error *error)
{
    /* A count is the same in every process. */
    const bool counts = suite->measure.counter != FB_COUNTER_NONE;
    size_t processes = counts ? 1 : (size_t)suite->measure.processes;
    size_t running = 0;
    for (size_t i = 0; i < plan->cases_count; i++) {
        running += plan->cases[i].skip_reason == NULL ? 1 : 0;
    }
    size_t total;
    if (!fb_checked_mul_size(running, processes, &total) || total > JOBS_MAX) {
        return fb_error_set(error, FB_ERROR_USAGE,
                            "%zu cases with %zu processes each are more than %d runs; lower "
                            "measure.processes or filter",
                            running, processes, JOBS_MAX);
    }
    plan->jobs = fb_arena_alloc(arena, total > 0 ? total : 1, sizeof *plan->jobs, error);
    if (plan->jobs == NULL) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = 0; i < plan->cases_count; i++) {
        for (size_t p = 0; plan->cases[i].skip_reason == NULL && p < processes; p++) {
            plan->jobs[plan->jobs_count++] = (struct fb_job){.case_index = i, .process = (int)p};
        }
    }
    struct fb_random random;
    fb_random_init(&random, suite->seed, order_stream);
    for (size_t i = plan->jobs_count; i > 1; i--) {
        size_t other = (size_t)fb_random_below(&random, i);
        struct fb_job job = plan->jobs[i - 1];
        plan->jobs[i - 1] = plan->jobs[other];
        plan->jobs[other] = job;
    }
    return FB_OK;
}

enum fb_status fb_plan_build(const struct fb_suite *suite, const char *filter,
                             const struct fb_plan_machine *machine, struct fb_arena *arena,
                             struct fb_plan *plan, struct fb_error *error)
{
    struct fb_filter conditions;
    struct fb_plan_machine counting;
    enum fb_status status = FB_OK;
    *plan = (struct fb_plan){0};
    if (suite->measure.counter != FB_COUNTER_NONE) {
        counting = machine_for_counting(machine, suite->measure.counter);
        machine = &counting;
    }
    if (filter != NULL) {
        status = fb_filter_parse(filter, suite, machine, arena, &conditions, error);
    }
    if (status == FB_OK) {
        status =
            resolve_points(suite, filter != NULL ? &conditions : NULL, machine, arena, plan, error);
    }
    if (status == FB_OK && plan->cases_count == 0) {
        return fb_error_set(error, FB_ERROR_USAGE,
                            "--filter '%.200s' matches none of the %zu cases of suite %s; see them "
                            "with --list",
                            filter != NULL ? filter : "", suite->factors_count, suite->name);
    }
    return status == FB_OK ? order_jobs(suite, arena, plan, error) : status;
}
