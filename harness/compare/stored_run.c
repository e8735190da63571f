/* Reading one side of a stored comparison: see compare_stored.h. */
#include "compare_stored.h"

#include "run_json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text == NULL ? "" : text;
}

static enum fb_status take_facts(const json_t *document, struct fb_arena *arena,
                                 struct fb_stored_run *run, struct fb_error *error)
{
    const json_t *machine = json_object_get(document, "machine");
    const json_t *build = json_object_get(document, "build");
    const json_t *suite = json_object_get(document, "suite");
    const struct {
        const char *text;
        const char **target;
    } facts[] = {
        {text_at(machine, "identity"), &run->side.identity},
        {text_at(machine, "name"), &run->side.machine_name},
        {text_at(build, "flowbench"), &run->side.version},
        {text_at(build, "git_sha"), &run->side.git_sha},
        {text_at(suite, "name"), &run->suite},
    };

    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
        *facts[i].target = fb_arena_strdup(arena, facts[i].text, error);
        if (*facts[i].target == NULL)
            return FB_ERROR_MEMORY;
    }
    return FB_OK;
}

static enum fb_status read_run_json(struct fb_arena *arena, struct fb_stored_run *run,
                                    struct fb_error *error)
{
    json_error_t where;
    struct stat info;
    const char *path = fb_arena_printf(arena, error, "%s/run.json", run->results.dir);

    if (path == NULL)
        return FB_ERROR_MEMORY;
    if (stat(path, &info) != 0)
        return FB_OK; /* told apart by their rows' device_name, then */
    json_t *document = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (document == NULL)
        return fb_error_set(error, FB_ERROR_INPUT, "cannot read '%s': line %d: %s", path,
                            where.line, where.text);
    const json_int_t schema = json_integer_value(json_object_get(document, "schema"));
    enum fb_status status =
        schema != FB_RUN_JSON_SCHEMA
            ? fb_error_set(error, FB_ERROR_INPUT,
                           "'%s' has schema %d, this flowbench reads %d: compare with the "
                           "flowbench that wrote it",
                           path, (int)schema, FB_RUN_JSON_SCHEMA)
            : take_facts(document, arena, run, error);
    json_decref(document);
    return status;
}

static int compare_ids(const void *a, const void *b)
{
    const struct fb_row *const *x = a;
    const struct fb_row *const *y = b;

    return strcmp((*x)->case_id, (*y)->case_id);
}

static enum fb_status index_rows(const char *path, struct fb_arena *arena,
                                 struct fb_stored_run *run, struct fb_error *error)
{
    const size_t count = run->results.rows_count;

    run->rows = fb_arena_alloc(arena, count + 1, sizeof(const struct fb_row *), error);
    if (run->rows == NULL)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < count; i++) {
        run->rows[i] = &run->results.rows[i];
        if (run->rows[i]->case_id[0] == '\0')
            return fb_error_set(error, FB_ERROR_INPUT, "%s: row %zu has no case_id", path, i + 1);
    }
    if (count > 1)
        qsort(run->rows, count, sizeof(const struct fb_row *), compare_ids);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(run->rows[i - 1]->case_id, run->rows[i]->case_id) == 0)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "%s: case_id %s stands twice; a comparison takes one run a side",
                                path, run->rows[i]->case_id);
    }
    return FB_OK;
}

enum fb_status fb_stored_run_read(const char *path, struct fb_arena *arena,
                                  struct fb_stored_run *run, struct fb_error *error)
{
    memset(run, 0, sizeof *run);
    run->side = (struct fb_compare_side){path, "", "", "", ""};
    enum fb_status status = fb_results_read(path, arena, &run->results, error);
    if (status == FB_ERROR_IO)
        status = error->code = FB_ERROR_INPUT; /* a path that cannot be read is a wrong argument */
    if (status == FB_OK && run->results.dir != NULL)
        status = read_run_json(arena, run, error);
    if (status == FB_OK)
        status = index_rows(path, arena, run, error);
    return status;
}
