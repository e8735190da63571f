/* flowbench history: runs over time. The rooms harness/history and below do the work. */
#include "commands.h"

#include "history_csv.h"
#include "history_options.h"
#include "history_plot.h"

#include <string.h>

/* ---- add, import, export -------------------------------------------------------------------- */

/* Each run stands alone: one that is refused does not keep out the others. The worst code counts.
 */
static int add_one(const char *path, struct fb_store *store, bool *open, const char *db)
{
    struct fb_history_run run;
    struct fb_arena arena;
    struct fb_error error = {FB_OK, ""};
    bool added = false;

    fb_arena_init(&arena, 0);
    enum fb_status status = fb_history_run_read(path, &arena, &run, &error);
    if (status == FB_OK && !*open) {
        status = fb_store_open(db, FB_STORE_WRITE, store, &error);
        *open = status == FB_OK;
    }
    if (status == FB_OK)
        status = fb_store_add(store, &run, &added, &error);
    int code = FB_EXIT_OK;
    if (status != FB_OK) {
        if (strstr(error.text, path) == NULL)
            (void)fb_error_prefix(&error, "%s", path);
        code = fb_exit_report("history", &error);
    } else {
        (void)printf("%s %s: %zu rows\n", added ? "added" : "known already:", run.from.run,
                     run.rows_count);
    }
    fb_arena_free(&arena);
    return code;
}

static int add(const struct fb_history_options *options)
{
    struct fb_store store;
    bool open = false;
    int worst = FB_EXIT_OK;

    for (size_t i = 0; i < options->arguments_count; i++) {
        const int code = add_one(options->arguments[i], &store, &open, options->db);
        worst = code > worst ? code : worst;
        (void)fflush(stdout);
    }
    if (open)
        fb_store_close(&store);
    return worst;
}

static enum fb_status import(const struct fb_history_options *options, struct fb_error *error)
{
    struct fb_history_import result;
    struct fb_store store;
    enum fb_status status = fb_store_open(options->db, FB_STORE_WRITE, &store, error);

    if (status != FB_OK)
        return status;
    status = fb_history_import(&store, options->arguments[0], &result, error);
    fb_store_close(&store);
    if (status == FB_OK)
        (void)printf("%zu runs added, %zu known already\n", result.runs_added, result.runs_known);
    return status;
}

static enum fb_status export(const struct fb_history_options *options, struct fb_error *error) {
    struct fb_store store; size_t lines = 0;
    enum fb_status status = fb_store_open(options->db, FB_STORE_READ, &store, error);

    if (status != FB_OK) return status;
    status = fb_history_export(&store, options->output, stdout, &lines, error);
    fb_store_close(&store);
    if (status == FB_OK && options->output != NULL)(void)
        fprintf(stderr, "flowbench history: %zu lines in %s\n", lines, options->output);
    return status;
}

/* ---- show and check ------------------------------------------------------------------------- */

static enum fb_status read_book(const struct fb_history_options *options, struct fb_arena *arena,
                                struct fb_series_book *book, struct fb_error *error)
{
    struct fb_row_filter filter;
    struct fb_store store;
    enum fb_status status = FB_OK;

    if (options->filter != NULL)
        status = fb_row_filter_parse(options->filter, arena, &filter, error);
    if (status == FB_OK)
        status = fb_store_open(options->db, FB_STORE_READ, &store, error);
    if (status != FB_OK)
        return status;
    const struct fb_book_request request = {.filter = options->filter != NULL ? &filter : NULL,
                                            .case_prefix = options->case_prefix,
                                            .machine = options->machine,
                                            .since = options->since,
                                            .window = options->window};
    status = fb_series_book_read(&store, &request, arena, book, error);
    fb_store_close(&store);
    if (status == FB_OK && book->series_count == 0)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%s' holds no row that is asked for: `flowbench history show` without "
                            "options lists what it holds",
                            options->db);
    return status;
}

static struct fb_history_view make_view(const struct fb_history_options *options,
                                        const struct fb_series_book *book, struct fb_arena *arena)
{
    return (struct fb_history_view){.book = book,
                                    .metric = options->metric,
                                    .format = options->format,
                                    .mode = {.color = fb_color_wanted(options->color, stdout),
                                             .unicode = fb_text_locale_is_utf8()},
                                    .out = stdout,
                                    .arena = arena};
}

static enum fb_status show(const struct fb_history_options *options, struct fb_arena *arena,
                           struct fb_error *error)
{
    struct fb_series_book book;
    enum fb_status status = read_book(options, arena, &book, error);

    if (status != FB_OK)
        return status;
    const struct fb_history_view view = make_view(options, &book, arena);
    status = fb_history_show(&view, error);
    if (status == FB_OK && options->plot != NULL)
        status = fb_history_plot(&view, options->plot, error);
    return status;
}

/* 3 for a regression and for a run that says nothing where it could; what one run cannot decide is
 * 4, and only under --strict. */
static int code_of(const struct fb_history_check *check, bool strict)
{
    const size_t undecided =
        check->counts[FB_VERDICT_AMBIGUOUS] + check->counts[FB_VERDICT_INCOMPARABLE];

    if (check->counts[FB_VERDICT_FAIL] > 0)
        return FB_EXIT_CLAIM;
    if (check->measured == 0) {
        (void)fprintf(stderr, "flowbench history: the newest run measured nothing\n");
        return FB_EXIT_CLAIM;
    }
    if (check->counts[FB_VERDICT_INCOMPARABLE] == check->count) {
        (void)fprintf(stderr, "flowbench history: %s\n",
                      check->first_of_machine
                          ? "the first run of this machine: there is nothing to compare it with yet"
                          : "nothing of the newest run can be compared with earlier ones");
        if (!check->first_of_machine)
            return FB_EXIT_CLAIM;
    }
    return strict && undecided > 0 ? FB_EXIT_AMBIGUOUS : FB_EXIT_OK;
}

static enum fb_status check(const struct fb_history_options *options, struct fb_arena *arena,
                            int *code, struct fb_error *error)
{
    struct fb_series_book book;
    struct fb_history_check result;
    enum fb_status status = read_book(options, arena, &book, error);

    if (status == FB_OK)
        status = fb_history_check(&book, arena, &result, error);
    if (status != FB_OK)
        return status;
    const struct fb_history_view view = make_view(options, &book, arena);
    status = fb_history_check_show(&view, &result, error);
    if (status == FB_OK)
        *code = code_of(&result, options->strict);
    return status;
}

/* ---- the command ---------------------------------------------------------------------------- */

int fb_cmd_history(int argc, char **argv)
{
    static struct fb_history_options options;
    struct fb_arena arena;
    struct fb_error error = {FB_OK, ""};
    enum fb_status status = FB_OK;
    int code = FB_EXIT_OK;

    fb_history_options_init(&options);
    if (argp_parse(&fb_argp_history, argc, argv, 0, NULL, &options) != 0)
        return FB_EXIT_USAGE;
    fb_arena_init(&arena, 0);
    switch ((enum fb_history_verb)options.verb) {
    case FB_HISTORY_ADD:
        code = add(&options);
        break;
    case FB_HISTORY_SHOW:
        status = show(&options, &arena, &error);
        break;
    case FB_HISTORY_CHECK:
        status = check(&options, &arena, &code, &error);
        break;
    case FB_HISTORY_IMPORT:
        status = import(&options, &error);
        break;
    default:
        status = export(&options, &error);
        break;
    }
    if (status == FB_ERROR_UNSUPPORTED) /* gnuplot is missing: the tool failed, not the user */
        error.code = FB_ERROR_DEVICE;
    if (status != FB_OK)
        code = fb_exit_report("history", &error);
    fb_arena_free(&arena);
    return code;
}
