/*
 * Suites: any text is either refused with a place and in words, or is a suite that can be planned,
 * whose resolved form is the same suite, and whose cases survive the way to a worker and back.
 *
 * Lines `--set PATH=VALUE` before the suite are what follows --set on the command line.
 */
#include "fuzz_input.h"

#include "cpu_features.h"
#include "plan.h"

#include <stdlib.h>
#include <string.h>

enum { SETS_MAX = 4, CASES_LOOKED_AT = 8, PLANNED_MAX = 2000 };
#define ARENA_BYTES ((size_t)256 << 20)

/* A machine that is the same wherever the target runs. */
static bool has_isa(enum fb_isa isa)
{
    return isa == FB_ISA_SCALAR || isa == FB_ISA_ANY;
}

static bool has_device(enum fb_backend backend)
{
    return backend == FB_CPU;
}

static void check_case(const struct fb_case *item)
{
    struct fb_arena arena;
    struct fb_case back;
    struct fb_case_bytes bytes;
    struct fb_error error = {FB_OK, ""};
    char text[256];
    fb_arena_init(&arena, ARENA_BYTES);
    fb_case_describe(item, text, sizeof text);
    if (item->skip_reason == NULL)
        fb_case_bytes(item, &bytes);
    json_t *json = fb_case_to_json(item);
    fuzz_check(json != NULL, "a case has no JSON");
    fuzz_check(fb_case_from_json(json, &arena, &back, &error) == FB_OK, error.text);
    fuzz_check(strcmp(item->id, back.id) == 0, "a case changed its id on the way to a worker");
    json_decref(json);
    fb_arena_free(&arena);
}

static void check_plan(const struct fb_suite *suite, struct fb_arena *arena)
{
    const struct fb_plan_machine machine = {
        .threads = 4, .best_isa = FB_ISA_SCALAR, .has_isa = has_isa, .has_device = has_device};
    struct fb_plan plan;
    struct fb_error error = {FB_OK, ""};
    if (suite->factors_count > PLANNED_MAX)
        return;
    const enum fb_status status = fb_plan_build(suite, NULL, &machine, arena, &plan, &error);
    if (status != FB_OK) {
        fuzz_check_refusal(status, &error);
        return;
    }
    for (size_t i = 0; i < plan.cases_count && i < CASES_LOOKED_AT; i++)
        check_case(&plan.cases[i]);
}

static void check_resolved(const struct fb_suite *suite)
{
    struct fb_arena arena;
    struct fb_suite again;
    struct fb_error error = {FB_OK, ""};
    fb_arena_init(&arena, ARENA_BYTES);
    const enum fb_status status = fb_suite_parse(suite->resolved_yaml, strlen(suite->resolved_yaml),
                                                 "resolved.yaml", NULL, &arena, &again, &error);
    fuzz_check(status == FB_OK, error.text);
    fuzz_check(again.factors_count == suite->factors_count &&
                   again.claims_count == suite->claims_count &&
                   again.plots_count == suite->plots_count && again.seed == suite->seed &&
                   strcmp(again.name, suite->name) == 0,
               "the resolved suite is another suite");
    fuzz_check(strcmp(again.resolved_yaml, suite->resolved_yaml) == 0,
               "the resolved suite resolves to another text");
    fb_arena_free(&arena);
}

/* Cuts the leading `--set` lines off; they are copied and ended by NUL. */
static size_t take_sets(const char *text, size_t length, char **sets)
{
    static const char word[] = "--set ";
    size_t at = 0;
    for (int i = 0; i < SETS_MAX; i++) {
        const char *line = text + at;
        const char *end = memchr(line, '\n', length - at);
        if (end == NULL || (size_t)(end - line) < strlen(word) ||
            memcmp(line, word, strlen(word)) != 0)
            break;
        const size_t count = (size_t)(end - line) - strlen(word);
        sets[i] = calloc(count + 1, 1);
        fuzz_check(sets[i] != NULL, "no memory for a --set");
        memcpy(sets[i], line + strlen(word), count);
        at += count + strlen(word) + 1;
    }
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    char *sets[SETS_MAX] = {NULL};
    struct fb_arena arena;
    struct fb_suite suite;
    struct fb_error error = {FB_OK, ""};
    const char *text = count > 0 ? (const char *)bytes : "";
    const size_t skip = take_sets(text, count, sets);
    struct fb_suite_options options = {.sets = (const char *const *)sets};
    while (options.sets_count < SETS_MAX && sets[options.sets_count] != NULL)
        options.sets_count++;

    fb_arena_init(&arena, ARENA_BYTES);
    const enum fb_status status = fb_suite_parse(text + skip, count - skip, "fuzz/suite.yaml",
                                                 &options, &arena, &suite, &error);
    if (status == FB_OK) {
        check_resolved(&suite);
        check_plan(&suite, &arena);
    } else {
        fuzz_check_refusal(status, &error);
    }
    fb_arena_free(&arena);
    for (int i = 0; i < SETS_MAX; i++)
        free(sets[i]);
    return 0;
}
