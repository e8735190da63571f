/* Pictures: what they hold, the files written, and gnuplot where there is one. */
#include "plots.h"

#include "figure.h"
#include "gnuplot.h"
#include "made_results.h"
#include "report.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char dir[64];
    struct fb_results results;
    struct fb_arena arena;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    if (!fixture) {
        return -1;
    }
    (void)snprintf(fixture->dir, sizeof fixture->dir, "/tmp/flowbench-plots-XXXXXX");
    if (!mkdtemp(fixture->dir)) {
        free(fixture);
        return -1;
    }
    fb_made_init(&fixture->results, 300, 20000);
    fb_arena_init(&fixture->arena, 0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    char command[96];
    (void)snprintf(command, sizeof command, "rm -rf %s", fixture->dir);
    int code = system(command);
    fb_made_free(&fixture->results);
    fb_arena_free(&fixture->arena);
    free(fixture);
    return code;
}

static bool has_gnuplot(void)
{
    return system("command -v gnuplot >/dev/null 2>&1") == 0;
}

static size_t build(struct fixture *fixture, enum fb_plot_kind kind, struct fb_figure **figures)
{
    size_t count = 0;
    struct fb_figure_job job = {
        .runs = &fixture->results, .runs_count = 1, .seed = 1, .arena = &fixture->arena};
    assert_int_equal(fb_figures_build(&job, kind, figures, &count, NULL), FB_OK);
    return count;
}

static void test_figure_time_holds_lines_marks_and_crossings(void **state)
{
    struct fixture *fixture = *state;
    struct fb_figure *figures;
    fb_made_scaling(&fixture->results, 1);
    assert_int_equal(build(fixture, FB_PLOT_TIME_VS_SEQ_LEN, &figures), 1);
    const struct fb_figure *figure = figures;
    assert_string_equal(figure->name, "time_vs_seq_len");
    assert_int_equal(figure->panels_count, 2);
    assert_int_equal(figure->lines_count, 14);
    assert_int_equal(figure->marks_count, 7); /* 3 and 4 gaps */
    /* Five mechanisms overtake softmax/tiled inside the range, causal or not. */
    assert_int_equal(figure->crossings_count, 10);
    assert_non_null(strstr(figure->lines[0].label, "N^{1.00}"));
    for (size_t i = 0; i < figure->marks_count; i++) {
        const struct fb_figure_mark *mark = &figure->marks[i];
        assert_true(mark->y > figure->y_min && mark->y < figure->y_max);
        for (size_t j = 0; j < i; j++) {
            assert_false(figure->marks[j].panel == mark->panel && figure->marks[j].x == mark->x &&
                         figure->marks[j].y == mark->y);
        }
    }
    for (size_t i = 0; i < figure->crossings_count; i++) {
        for (size_t j = 0; j < i; j++) {
            const struct fb_figure_crossing *a = &figure->crossings[i], *b = &figure->crossings[j];
            bool near = fabs(log(a->x / b->x)) < 0.1 * log(figure->x_max / figure->x_min);
            assert_false(a->panel == b->panel && a->level == b->level && near);
        }
    }
}

/* Passes, grouped queries and padding are pictures of their own, named after what they show. */
static void test_figures_differ_by_pass_and_younger_factors(void **state)
{
    struct fixture *fixture = *state;
    struct fb_figure *figures;
    size_t count;
    for (int64_t n = 256; n <= 4096; n *= 2) {
        for (int kind = 0; kind < 4; kind++) {
            struct fb_row *row =
                fb_made_row(&fixture->results, "flow", "fused", false, n, 1e-7 * (double)n);
            row->kv_heads = kind == 2 ? 2 : 8;
            (void)snprintf(row->pass, sizeof row->pass, kind == 1 ? "both" : "forward");
            (void)snprintf(row->lengths, sizeof row->lengths, kind == 3 ? "random" : "full");
        }
    }
    const struct fb_figure_job job = {.runs = &fixture->results,
                                      .runs_count = 1,
                                      .title = "Made",
                                      .seed = 1,
                                      .arena = &fixture->arena};
    assert_int_equal(fb_figures_build(&job, FB_PLOT_TIME_VS_SEQ_LEN, &figures, &count, NULL),
                     FB_OK);
    static const char *const names[] = {"time_vs_seq_len-forward", "time_vs_seq_len-forward-hkv2",
                                        "time_vs_seq_len-forward-lengths-random",
                                        "time_vs_seq_len-both"};
    assert_int_equal(count, 4);
    for (size_t n = 0; n < 4; n++) {
        size_t found = 0;
        for (size_t i = 0; i < count; i++) {
            found += strcmp(figures[i].name, names[n]) == 0;
        }
        if (found != 1) {
            fail_msg("%zu pictures are called %s; the first is %s", found, names[n],
                     figures[0].name);
        }
    }
}

/* A line that stands alone for its mechanism says which variant it is, unless it is the default. */
static void test_figure_line_of_another_variant_names_it(void **state)
{
    struct fixture *fixture = *state;
    struct fb_figure *figures;
    for (int64_t n = 256; n <= 4096; n *= 2) {
        (void)fb_made_row(&fixture->results, "flow", "fused", false, n, 1e-7 * (double)n);
        (void)fb_made_row(&fixture->results, "softmax", "plain", false, n, 1e-10 * (double)(n * n));
    }
    assert_int_equal(build(fixture, FB_PLOT_TIME_VS_SEQ_LEN, &figures), 1);
    assert_int_equal(figures->lines_count, 2);
    for (size_t i = 0; i < figures->lines_count; i++) {
        const char *label = figures->lines[i].label;
        const bool is_softmax = strstr(label, "Softmax") != NULL;
        assert_int_equal(is_softmax, strstr(label, "(plain)") != NULL);
        assert_null(strstr(label, "(fused)"));
    }
}

static void test_figure_names_the_version_of_each_program_once(void **state)
{
    struct fixture *fixture = *state;
    struct fb_figure *figures;
    static const char *const variants[] = {"torch-compiled", "torch-official"};
    for (int64_t n = 256; n <= 4096; n *= 2) {
        (void)fb_made_row(&fixture->results, "flow", "fused", false, n, 1e-7 * (double)n);
        for (int v = 0; v < 2; v++) {
            struct fb_row *row =
                fb_made_row(&fixture->results, "flow", variants[v], false, n, 3e-7 * (double)n);
            (void)snprintf(row->program, sizeof row->program, "torch");
            (void)snprintf(row->program_version, sizeof row->program_version, "PyTorch 2.11.0");
        }
    }
    assert_int_equal(build(fixture, FB_PLOT_TIME_VS_SEQ_LEN, &figures), 1);
    assert_string_equal(figures->panel_notes[0], "torch: PyTorch 2.11.0");
}

/* Runs on two devices: their names tell the lines apart, no number of a run, no thread of a GPU. */
static void test_figure_of_two_devices_names_them(void **state)
{
    struct fixture *fixture = *state;
    struct fb_figure *figures;
    struct fb_results runs[2];
    size_t count = 0;
    fb_made_init(&runs[1], 16, 16);
    for (int64_t n = 256; n <= 4096; n *= 2) {
        (void)fb_made_row(&fixture->results, "flow", "fused", false, n, 1e-7 * (double)n);
        struct fb_row *row = fb_made_row(&runs[1], "flow", "fused", false, n, 1e-9 * (double)n);
        (void)snprintf(row->device, sizeof row->device, "cuda");
        (void)snprintf(row->device_name, sizeof row->device_name, "Made GPU 7");
        (void)snprintf(row->isa, sizeof row->isa, "any");
        row->threads = 1;
    }
    runs[0] = fixture->results;
    const struct fb_figure_job job = {
        .runs = runs, .runs_count = 2, .seed = 1, .arena = &fixture->arena};
    assert_int_equal(fb_figures_build(&job, FB_PLOT_TIME_VS_SEQ_LEN, &figures, &count, NULL),
                     FB_OK);
    assert_int_equal(count, 1);
    assert_int_equal(figures->lines_count, 2);
    assert_ptr_equal(strstr(figures->lines[0].label, "Flow-Attention, Made Processor 9000"),
                     figures->lines[0].label);
    assert_ptr_equal(strstr(figures->lines[1].label, "Flow-Attention, Made GPU 7"),
                     figures->lines[1].label);
    for (int i = 0; i < 2; i++) {
        assert_null(strstr(figures->lines[i].label, "run "));
        assert_null(strstr(figures->lines[i].label, "thread"));
    }
    assert_non_null(strstr(figures->panel_notes[0], "run 2: "));
    fb_made_free(&runs[1]);
}

static void test_figure_decode_draws_the_state(void **state)
{
    struct fixture *fixture = *state;
    struct fb_figure *figures;
    size_t count;
    for (int64_t n = 256; n <= 4096; n *= 2) {
        struct fb_row *row = fb_made_row(&fixture->results, "flow", "fused", true, n, 6e-6);
        (void)snprintf(row->pass, sizeof row->pass, "decode");
        row->mem_state_bytes = 5000;
    }
    const struct fb_figure_job job = {.runs = &fixture->results,
                                      .runs_count = 1,
                                      .title = "Made",
                                      .seed = 1,
                                      .arena = &fixture->arena};
    assert_int_equal(fb_figures_build(&job, FB_PLOT_MEMORY_VS_SEQ_LEN, &figures, &count, NULL),
                     FB_OK);
    assert_int_equal(count, 1);
    assert_string_equal(figures->title, "Memory against sequence length, one decoded token");
    assert_int_equal(figures->lines_count, 1); /* no line of inputs and outputs */
    assert_true(figures->lines[0].points[4].y == 5000.0);
}

static void test_figure_memory_without_workspace_is_noted_not_drawn(void **state)
{
    struct fixture *fixture = *state;
    struct fb_figure *figures;
    fb_made_scaling(&fixture->results, 1);
    assert_int_equal(build(fixture, FB_PLOT_MEMORY_VS_SEQ_LEN, &figures), 1);
    assert_non_null(strstr(figures->panel_notes[0], "no workspace"));
    bool has_io = false;
    for (size_t i = 0; i < figures->lines_count; i++) {
        has_io = has_io || strcmp(figures->lines[i].label, "inputs and outputs") == 0;
    }
    assert_true(has_io);
}

static void test_figure_facets_make_pictures_of_their_own(void **state)
{
    struct fixture *fixture = *state;
    struct fb_figure *figures;
    for (int64_t heads = 1; heads <= 4; heads *= 2) {
        for (int64_t n = 256; n <= 1024; n *= 2) {
            fb_made_row(&fixture->results, "flow", "fused", false, n, 1e-6 * (double)(n * heads))
                ->heads = heads;
        }
    }
    assert_int_equal(build(fixture, FB_PLOT_TIME_VS_SEQ_LEN, &figures), 3);
    assert_string_equal(figures[2].name, "time_vs_seq_len-h4");
    assert_int_equal(build(fixture, FB_PLOT_TIME_VS_HEADS, &figures), 3);
    assert_int_equal(build(fixture, FB_PLOT_TIME_VS_THREADS, &figures), 0);
    assert_int_equal(build(fixture, FB_PLOT_ISA_BARS, &figures), 0);
}

static void test_figure_files_hold_the_numbers_and_survive_hostile_text(void **state)
{
    struct fixture *fixture = *state;
    struct fb_plots_made made;
    struct fb_error error = {FB_OK, ""};
    char path[160], canary[48];
    static const enum fb_plot_kind kinds[] = {FB_PLOT_TIME_VS_SEQ_LEN};
    (void)snprintf(canary, sizeof canary, "%.38s/canary", fixture->dir);
    for (int64_t n = 256; n <= 4096; n *= 2) {
        struct fb_row *row =
            fb_made_row(&fixture->results, "o'no_x^2`id`", "fused", false, n, 1e-6 * (double)n);
        (void)snprintf(row->device_name, sizeof row->device_name,
                       "x'; system(\"touch %.40s\"); y = '`touch %.40s` @z \\", canary, canary);
    }
    struct fb_plots_request request = {.runs = &fixture->results,
                                       .runs_count = 1,
                                       .kinds = kinds,
                                       .kinds_count = 1,
                                       .dir = fixture->dir};
    enum fb_status status = fb_plots_make(&request, &fixture->arena, &made, &error);
    if (has_gnuplot() && status != FB_OK) {
        fail_msg("%s", error.text);
    }
    (void)snprintf(path, sizeof path, "%s/data/time_vs_seq_len.tsv", fixture->dir);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char text[4096];
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    (void)fclose(file);
    assert_non_null(strstr(text, "\n4096\t0.004096\t"));
    assert_int_equal(access(canary, F_OK), -1);
}

static void test_make_draws_svg_and_png_of_every_kind(void **state)
{
    struct fixture *fixture = *state;
    struct fb_plots_made made;
    struct fb_error error = {FB_OK, ""};
    fb_made_scaling(&fixture->results, 1);
    for (int64_t threads = 1; threads <= 4; threads *= 2) {
        static const char *const isas[] = {"scalar", "avx2", "avx512"};
        for (int i = 0; i < 3; i++) {
            struct fb_row *row =
                fb_made_row(&fixture->results, "flow", "fused", false, 777, 1e-3 / (i + 1));
            row->threads = threads;
            (void)snprintf(row->isa, sizeof row->isa, "%s", isas[i]);
        }
    }
    struct fb_plots_request request = {
        .runs = &fixture->results, .runs_count = 1, .dir = fixture->dir};
    enum fb_status status = fb_plots_make(&request, &fixture->arena, &made, &error);
    if (!has_gnuplot()) {
        assert_int_equal(status, FB_ERROR_UNSUPPORTED);
        assert_non_null(strstr(error.text, "apt install"));
        skip();
    }
    if (status != FB_OK) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(made.paths_count, 2 * made.pictures_count);
    assert_true(made.pictures_count >= 6);
    for (size_t i = 0; i < made.paths_count; i++) {
        struct stat info;
        assert_int_equal(stat(made.paths[i], &info), 0);
        assert_true(info.st_size > 1000);
    }
}

static void test_draw_broken_script_reports_gnuplots_words(void **state)
{
    struct fixture *fixture = *state;
    struct fb_error error = {FB_OK, ""};
    char path[160];
    if (!has_gnuplot()) {
        skip();
    }
    (void)snprintf(path, sizeof path, "%s/broken.gp", fixture->dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs("plot nonsense nonsense\n", file);
    (void)fclose(file);
    assert_int_equal(
        fb_gnuplot_draw(path, fb_gnuplot_scripts_dir(), "time_vs_seq_len.gp", "png", &error),
        FB_ERROR_IO);
    assert_non_null(strstr(error.text, "nonsense"));
}

static void test_report_unwritable_folder_costs_the_pictures_only(void **state)
{
    struct fixture *fixture = *state;
    struct fb_report_verdict verdict;
    struct fb_report_options options = {
        .make_plots = true, .plots_dir = "/dev/null/plots", .seed = 1};
    fb_made_scaling(&fixture->results, 1);
    assert_int_equal(fb_report_run(&fixture->results, NULL, &options, &verdict, NULL), FB_OK);
    assert_true(verdict.plots_skipped);
    assert_int_equal(verdict.plots_made, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_figure_time_holds_lines_marks_and_crossings, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_figures_differ_by_pass_and_younger_factors, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_figure_line_of_another_variant_names_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_figure_names_the_version_of_each_program_once, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_figure_of_two_devices_names_them, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_figure_decode_draws_the_state, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_figure_memory_without_workspace_is_noted_not_drawn,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_figure_facets_make_pictures_of_their_own, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_figure_files_hold_the_numbers_and_survive_hostile_text,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_make_draws_svg_and_png_of_every_kind, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_draw_broken_script_reports_gnuplots_words, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_report_unwritable_folder_costs_the_pictures_only,
                                        set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
