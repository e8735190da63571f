/* A finished run of a folder: see history_run.h. */
#include "history_run.h"

#include "results.h"
#include "run_json.h"

#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The folder itself, or the one that the results.csv lies in. */
static enum fb_status find_folder(const char *path, struct fb_arena *arena, const char **folder,
                                  struct fb_error *error)
{
    struct stat info;
    char *copy = fb_arena_strdup(arena, path, error);

    if (copy == NULL)
        return FB_ERROR_MEMORY;
    *folder = stat(path, &info) == 0 && !S_ISDIR(info.st_mode) ? dirname(copy) : copy;
    const char *json = fb_arena_printf(arena, error, "%s/run.json", *folder);
    if (json == NULL)
        return FB_ERROR_MEMORY;
    if (access(json, F_OK) != 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "'%s' is not the folder of a run: it has no run.json, which says what "
                            "was measured on which machine",
                            *folder);
    return FB_OK;
}

/* A text that is too long is cut: only argv can be, and that is shortened before. */
static void copy_text(char *field, size_t size, const char *text)
{
    (void)snprintf(field, size, "%s", text != NULL ? text : "");
}

static const char *text_at(const json_t *document, const char *group, const char *key)
{
    return json_string_value(json_object_get(json_object_get(document, group), key));
}

/* As a JSON list; of a command line that is longer than the field, its beginning and "...". */
static enum fb_status take_arguments(const json_t *arguments, char *field, size_t size,
                                     struct fb_error *error)
{
    json_t *list = json_array();
    json_t *argument;
    size_t index;
    bool fits = true;

    copy_text(field, size, "[]");
    json_array_foreach((json_t *)(uintptr_t)arguments, index, argument)
    {
        char *text;
        if (!json_is_string(argument) || json_array_append(list, argument) != 0)
            continue;
        text = json_dumps(list, JSON_COMPACT);
        fits = text != NULL && strlen(text) + sizeof ",\"...\"" <= size;
        if (fits)
            copy_text(field, size, text);
        free(text);
        if (!fits)
            break;
    }
    json_decref(list);
    if (list == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the arguments of a run");
    if (!fits) {
        const size_t length = strlen(field);
        (void)snprintf(field + length - 1, size - length + 1, "%s\"...\"]", length > 2 ? "," : "");
    }
    return FB_OK;
}

static enum fb_status take_provenance(const json_t *document, const struct fb_run_resume *resume,
                                      struct fb_history_provenance *from, struct fb_error *error)
{
    const struct {
        char *field;
        size_t size;
        const char *text;
    } texts[] = {
        {from->run, sizeof from->run, resume->run_id},
        {from->suite, sizeof from->suite, resume->suite_name},
        {from->started_utc, sizeof from->started_utc,
         json_string_value(json_object_get(document, "started_utc"))},
        {from->ended_utc, sizeof from->ended_utc,
         json_string_value(json_object_get(document, "ended_utc"))},
        {from->git_sha, sizeof from->git_sha, resume->git_sha},
        {from->git_time_utc, sizeof from->git_time_utc, text_at(document, "build", "git_time_utc")},
        {from->machine, sizeof from->machine, resume->identity},
        {from->machine_name, sizeof from->machine_name, resume->machine_name},
        {from->flowbench, sizeof from->flowbench, resume->version},
        {from->compiler, sizeof from->compiler, text_at(document, "build", "compiler")},
        {from->compiler_flags, sizeof from->compiler_flags,
         text_at(document, "build", "compiler_flags")},
        {from->build_type, sizeof from->build_type, text_at(document, "build", "build_type")},
    };
    const json_t *dirty = json_object_get(json_object_get(document, "build"), "git_dirty");

    fb_history_provenance_init(from);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].text != NULL && strlen(texts[i].text) >= texts[i].size)
            return fb_error_set(error, FB_ERROR_INPUT,
                                "its run.json holds a text of %zu characters, the limit is %zu: "
                                "'%.40s...'",
                                strlen(texts[i].text), texts[i].size - 1, texts[i].text);
        copy_text(texts[i].field, texts[i].size, texts[i].text);
    }
    if (json_is_boolean(dirty))
        from->git_dirty = json_is_true(dirty);
    return take_arguments(json_object_get(document, "argv"), from->argv, sizeof from->argv, error);
}

static enum fb_status read_provenance(const char *folder, struct fb_arena *arena,
                                      struct fb_history_run *run, struct fb_error *error)
{
    struct fb_run_resume resume;
    json_t *document = NULL;
    enum fb_status status = fb_run_json_read(folder, arena, &document, &resume, error);

    if (status == FB_OK && strcmp(resume.state, "finished") != 0)
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "the run is not finished (%.20s): `flowbench run --resume %s` "
                              "finishes it",
                              resume.state, folder);
    if (status == FB_OK)
        status = take_provenance(document, &resume, &run->from, error);
    json_decref(document);
    return status;
}

enum fb_status fb_history_run_read(const char *path, struct fb_arena *arena,
                                   struct fb_history_run *run, struct fb_error *error)
{
    struct fb_results results;
    const char *folder = NULL;

    memset(run, 0, sizeof *run);
    enum fb_status status = find_folder(path, arena, &folder, error);
    if (status == FB_OK)
        status = read_provenance(folder, arena, run, error);
    const char *csv =
        status == FB_OK ? fb_arena_printf(arena, error, "%s/results.csv", folder) : NULL;
    if (status == FB_OK)
        status = csv == NULL ? FB_ERROR_MEMORY : fb_results_read(csv, arena, &results, error);
    if (status == FB_OK) {
        run->rows = results.rows;
        run->rows_count = results.rows_count;
        status = fb_history_run_check(run, folder, error);
    }
    /* A file that cannot be read is a mistake on the command line. */
    return status == FB_ERROR_IO && error != NULL ? (error->code = FB_ERROR_INPUT) : status;
}
