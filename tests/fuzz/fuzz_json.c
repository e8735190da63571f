/*
 * JSON that crosses a process or a restart: what a worker is told and answers, and run.json, which
 * --resume trusts. Every reader sees every input: it is refused in words, or what was read can be
 * used and written again.
 */
#include "fuzz_input.h"

#include "ceiling_book.h"
#include "measure.h"
#include "plan.h"
#include "run_json.h"

#include <string.h>

#define ARENA_BYTES ((size_t)64 << 20)

static void check_result(const json_t *json)
{
    struct fb_measure_result result, again;
    struct fb_error error = {FB_OK, ""};
    const enum fb_status status = fb_measure_result_from_json(json, &result, &error);
    if (status == FB_OK) {
        json_t *back = fb_measure_result_to_json(&result);
        fuzz_check(back != NULL, "a result has no JSON");
        fuzz_check(fb_measure_result_from_json(back, &again, &error) == FB_OK, error.text);
        fuzz_check(again.samples_count == result.samples_count, "samples were lost");
        json_decref(back);
        fb_measure_result_free(&again);
    } else {
        fuzz_check_refusal(status, &error);
    }
    fb_measure_result_free(&result);
}

/* A mutated case keeps the id of the one it came from. The refusal names the right one: with it the
 * rest of the reader is reached. */
static void correct_id(json_t *json, const struct fb_error *error)
{
    static const char words[] = "has the factors of case ";
    const char *found = strstr(error->text, words);
    if (found != NULL && strlen(found) > strlen(words) + FB_CASE_ID_SIZE - 1)
        (void)json_object_set_new(json, "id",
                                  json_stringn(found + strlen(words), FB_CASE_ID_SIZE - 1));
}

/* Sizes come from the variant's own code, for a problem that it serves on a machine that executes
 * it. */
static void check_bytes(const struct fb_case *item)
{
    struct fb_problem problem;
    struct fb_case_bytes bytes;
    struct fb_error why = {FB_OK, ""};
    enum fb_status status = FB_OK;
    fb_case_problem(item, &problem);
    if (item->attention != NULL)
        status = fb_attention_supports(item->attention, &problem, item->pass, &why);
    if (status == FB_OK)
        fb_case_bytes(item, &bytes);
    else
        fuzz_check_refusal(status, &why);
}

static void check_case(json_t *json)
{
    struct fb_arena arena;
    struct fb_case item;
    struct fb_error error = {FB_OK, ""};
    char text[256];
    fb_arena_init(&arena, ARENA_BYTES);
    enum fb_status status = fb_case_from_json(json, &arena, &item, &error);
    if (status == FB_ERROR_INPUT) {
        correct_id(json, &error);
        status = fb_case_from_json(json, &arena, &item, &error);
    }
    if (status == FB_OK) {
        fb_case_describe(&item, text, sizeof text);
        if (item.skip_reason == NULL)
            check_bytes(&item);
        json_t *back = fb_case_to_json(&item);
        fuzz_check(back != NULL, "a case has no JSON");
        json_decref(back);
    } else {
        fuzz_check_refusal(status, &error);
    }
    fb_arena_free(&arena);
}

static void check_settings(const json_t *json)
{
    struct fb_measure_settings settings;
    struct fb_limits limits;
    struct fb_measure_ceilings ceilings;
    struct fb_error error = {FB_OK, ""};
    enum fb_status status = fb_measure_settings_from_json(json, &settings, &error);
    if (status != FB_OK)
        fuzz_check_refusal(status, &error);
    status = fb_limits_from_json(json, &limits, &error);
    if (status != FB_OK)
        fuzz_check_refusal(status, &error);
    status = fb_measure_ceilings_from_json(json, &ceilings, &error);
    if (status != FB_OK)
        fuzz_check_refusal(status, &error);
}

/* What --resume does with a run.json before anything is measured. */
static void check_run_json(const uint8_t *bytes, size_t count)
{
    static struct fuzz_file file;
    static struct fb_ceiling_book book;
    const bool linked = file.fd != 0;
    struct fb_arena arena;
    struct fb_run_resume resume;
    struct fb_error error = {FB_OK, ""};
    json_t *document = NULL;
    fuzz_file_set(&file, bytes, count);
    if (!linked)
        fuzz_folder_link(&file, "run.json");
    fb_arena_init(&arena, ARENA_BYTES);
    const enum fb_status status =
        fb_run_json_read(fuzz_folder(), &arena, &document, &resume, &error);
    if (status == FB_OK) {
        fb_ceiling_book_init(&book, FB_ISA_SCALAR);
        fb_ceiling_book_from_json(json_object_get(document, "ceilings"), &book);
        json_decref(fb_ceiling_book_to_json(&book));
        fuzz_check(fb_run_json_warn(document, "a warning", &error) == FB_OK, error.text);
        fuzz_check(fb_run_json_set_state(document, "running", &error) == FB_OK, error.text);
    } else {
        fuzz_check_refusal(status, &error);
    }
    json_decref(document);
    fb_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    json_t *json = json_loadb((const char *)bytes, count, JSON_REJECT_DUPLICATES, NULL);
    if (json != NULL) {
        check_result(json);
        check_case(json);
        check_settings(json);
    }
    json_decref(json);
    check_run_json(bytes, count);
    return 0;
}
