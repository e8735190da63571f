/* run_json.c: what a run is started with comes back when it is resumed. */
#define _XOPEN_SOURCE 700
#include "run_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    struct fb_arena arena;
    char dir[64];
    struct fb_suite suite;
    struct fb_plan plan;
    struct fb_machine machine;
};

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static int setup(void **state)
{
    static const char text[] = "suite: small\nkind: kernel\n"
                               "defaults: {mechanism: flow, heads: 2, head_dim: 8}\n"
                               "sweep: {seq_len: [8, 16, 32]}\n";
    struct fixture *f = calloc(1, sizeof *f);
    struct fb_plan_machine here;
    struct fb_error error = {FB_OK, ""};

    fb_arena_init(&f->arena, 0);
    snprintf(f->dir, sizeof f->dir, "/tmp/fb_json_XXXXXX");
    *state = f;
    if (mkdtemp(f->dir) == NULL)
        return 1;
    fb_plan_machine_here(&here);
    if (fb_suite_parse(text, sizeof text - 1, "small.yaml", NULL, &f->arena, &f->suite, &error) !=
            FB_OK ||
        fb_plan_build(&f->suite, "seq_len>8", &here, &f->arena, &f->plan, &error) != FB_OK ||
        fb_machine_read(&f->machine, &error) != FB_OK) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    fb_arena_free(&f->arena);
    free(f);
    return 0;
}

static json_t *new_document(struct fixture *f)
{
    static const char *const sets[] = {"measure.processes=2"};
    char *argv[] = {(char[]){"flowbench run"}, (char[]){"sm\xFF"
                                                        "all.yaml"}};
    struct fb_error error = {FB_OK, ""};
    const struct fb_run_facts facts = {.run_id = "id-1",
                                       .suite = &f->suite,
                                       .plan = &f->plan,
                                       .machine = &f->machine,
                                       .filter = "seq_len>8",
                                       .sets = sets,
                                       .sets_count = 1,
                                       .argc = 2,
                                       .argv = argv,
                                       .budget_s = 90,
                                       .strict = true};
    json_t *document = fb_run_json_new(&facts, &error);

    if (document == NULL)
        fail_msg("%s", error.text);
    return document;
}

static void test_run_json_written_reads_back(void **state)
{
    struct fixture *f = *state;
    struct fb_run_resume resume;
    struct fb_error error = {FB_OK, ""};
    json_t *back = NULL;
    struct fb_suite again;
    json_t *document = new_document(f);

    assert_int_equal(fb_run_json_write(f->dir, document, &error), FB_OK);
    if (fb_run_json_read(f->dir, &f->arena, &back, &resume, &error) != FB_OK)
        fail_msg("%s", error.text);
    assert_true(json_equal(document, back));
    assert_string_equal(resume.run_id, "id-1");
    assert_string_equal(resume.state, "running");
    assert_string_equal(resume.filter, "seq_len>8");
    assert_string_equal(resume.identity, f->machine.identity);
    assert_string_equal(resume.isa_best, f->machine.isa_best);
    assert_int_equal(resume.threads_usable, f->machine.threads_usable);
    assert_int_equal(resume.cases_count, 2);
    assert_true(resume.budget_s == 90);
    assert_true(resume.strict);
    assert_int_equal(fb_suite_parse(resume.suite_yaml, strlen(resume.suite_yaml), resume.suite_path,
                                    NULL, &f->arena, &again, &error),
                     FB_OK);
    assert_int_equal(again.factors_count, 3);
    assert_int_equal(json_array_size(json_object_get(back, "order")), f->plan.jobs_count);
    json_decref(document);
    json_decref(back);
}

static void test_run_json_state_warnings_and_resumptions_are_kept(void **state)
{
    struct fixture *f = *state;
    struct fb_error error;
    char *argv[] = {(char[]){"flowbench run"}};
    json_t *document = new_document(f);

    assert_true(json_is_null(json_object_get(document, "ended_utc")));
    assert_int_equal(fb_run_json_warn(document, "busy", &error), FB_OK);
    assert_int_equal(fb_run_json_warn(document, "busy", &error), FB_OK);
    assert_int_equal(json_array_size(json_object_get(document, "warnings")), 1);
    assert_int_equal(fb_run_json_note_resume(document, &f->machine, 1, argv, &error), FB_OK);
    assert_int_equal(json_array_size(json_object_get(document, "resumed")), 1);
    assert_int_equal(fb_run_json_set_state(document, "finished", &error), FB_OK);
    assert_true(json_is_string(json_object_get(document, "ended_utc")));
    json_decref(document);
}

static void write_text(const struct fixture *f, const char *text)
{
    char path[128];

    snprintf(path, sizeof path, "%s/run.json", f->dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_run_json_damaged_is_refused_in_words(void **state)
{
    static const struct {
        const char *text, *words;
    } damages[] = {
        {"", "run.json"},
        {"{\"schema\": 1, ", "run.json"},
        {"[]", "schema 0"},
        {"{\"schema\": 2}", "schema 2"},
        {"{\"schema\": 1}", "lacks its lists"},
        {"{\"schema\": 1, \"warnings\": [], \"ceilings\": [], \"resumed\": []}", "no text 'run'"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        struct fb_run_resume resume;
        struct fb_error error;
        json_t *document;
        write_text(f, damages[i].text);
        assert_int_equal(fb_run_json_read(f->dir, &f->arena, &document, &resume, &error),
                         FB_ERROR_INPUT);
        assert_null(document);
        if (strstr(error.text, damages[i].words) == NULL)
            fail_msg("'%s' lacks '%s'", error.text, damages[i].words);
    }
}

static void test_run_json_unwritable_folder_leaves_the_old_one(void **state)
{
    struct fixture *f = *state;
    struct fb_error error;
    char path[128];
    json_t *document = new_document(f);

    snprintf(path, sizeof path, "%s/missing", f->dir);
    assert_int_equal(fb_run_json_write(path, document, &error), FB_ERROR_IO);
    assert_non_null(strstr(error.text, "missing/run.json"));
    json_decref(document);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_run_json_written_reads_back),
        TEST(test_run_json_state_warnings_and_resumptions_are_kept),
        TEST(test_run_json_damaged_is_refused_in_words),
        TEST(test_run_json_unwritable_folder_leaves_the_old_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
