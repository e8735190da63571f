/* Finding a stored row and rebuilding its case: see repro_row.h. */
#include "repro_row.h"

#include "cpu_features.h"
#include "factor.h"
#include "run_json.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- which row ------------------------------------------------------------------------------- */

static enum fb_status split(const char *argument, struct fb_arena *arena, char **path,
                            const char **which, struct fb_error *error)
{
    *which = "";
    *path = fb_arena_strdup(arena, argument, error);
    if (*path == NULL)
        return FB_ERROR_MEMORY;
    char *colon = strrchr(*path, ':');
    if (colon == NULL || colon == *path || colon[1] == '\0')
        return fb_error_set(error, FB_ERROR_USAGE,
                            "which row of '%s'? Write %s:3 for its third row of data, or "
                            "%s:case_id=...",
                            argument, argument, argument);
    *colon = '\0';
    *which = colon + 1;
    return FB_OK;
}

static enum fb_status find_case(const struct fb_results *results, const char *id, const char *path,
                                size_t *number, struct fb_error *error)
{
    size_t other = 0;

    *number = 0;
    for (size_t i = 0; i < results->rows_count; i++) {
        if (strcmp(results->rows[i].case_id, id) != 0)
            continue;
        if (*number == 0)
            *number = i + 1;
        else
            other = i + 1;
    }
    if (*number == 0)
        return fb_error_set(error, FB_ERROR_USAGE, "'%s' has no row with case_id %.40s", path, id);
    if (other != 0)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%s' has several rows with case_id %.40s, the first and the last of "
                            "them %zu and %zu: name one by its number",
                            path, id, *number, other);
    return FB_OK;
}

static enum fb_status find_row(const struct fb_results *results, const char *which,
                               const char *path, size_t *number, struct fb_error *error)
{
    static const char prefix[] = "case_id=";
    char *end;

    if (strncmp(which, prefix, sizeof prefix - 1) == 0)
        return find_case(results, which + sizeof prefix - 1, path, number, error);
    errno = 0;
    const unsigned long long value = strtoull(which, &end, 10);
    if (!isdigit((unsigned char)*which) || *end != '\0' || errno != 0 || value < 1 ||
        value > results->rows_count)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%s' has no row '%.40s': its rows of data are 1 to %zu, or "
                            "case_id=...",
                            path, which, results->rows_count);
    *number = (size_t)value;
    return FB_OK;
}

/* ---- where it comes from --------------------------------------------------------------------- */

static const char *text_at(const json_t *document, const char *group, const char *key)
{
    const char *text = json_string_value(json_object_get(json_object_get(document, group), key));

    return text != NULL ? text : "";
}

static void note_difference(struct fb_repro_origin *origin, const char *what)
{
    const size_t used = strlen(origin->difference);

    (void)snprintf(origin->difference + used, sizeof origin->difference - used, "%s%s",
                   used > 0 ? ", " : "", what);
}

static void compare_build(const json_t *document, const struct fb_machine *here,
                          struct fb_repro_origin *origin)
{
    const struct {
        const char *group, *key, *now, *what;
    } facts[] = {
        {"build", "flowbench", here->version, "version of flowbench"},
        {"build", "git_sha", fb_build_git_sha(), "commit"},
        {"build", "compiler", here->compiler, "compiler"},
        {"build", "compiler_flags", here->compiler_flags, "compiler flags"},
        {"build", "build_type", here->build_type, "build type"},
        {"libraries", "openblas", here->openblas_version, "OpenBLAS"},
    };

    origin->same_build = true;
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
        if (strcmp(text_at(document, facts[i].group, facts[i].key), facts[i].now) == 0)
            continue;
        origin->same_build = false;
        note_difference(origin, facts[i].what);
    }
}

static void compare_origin(const json_t *document, const struct fb_run_resume *resume,
                           const struct fb_machine *here, struct fb_repro_origin *origin)
{
    origin->known = true;
    origin->same_machine = strcmp(resume->identity, here->identity) == 0;
    if (!origin->same_machine)
        note_difference(origin, "machine");
    compare_build(document, here, origin);
    (void)snprintf(origin->machine, sizeof origin->machine, "%.90s", resume->machine_name);
    (void)snprintf(origin->build, sizeof origin->build, "flowbench %.30s (%.12s)", resume->version,
                   resume->git_sha != NULL ? resume->git_sha : "no commit");
}

/* ---- how it was measured --------------------------------------------------------------------- */

/* A results.csv that stands alone: the settings that a suite has when it names none. */
static enum fb_status default_suite(struct fb_arena *arena, struct fb_suite *suite,
                                    struct fb_error *error)
{
    static const char text[] = "suite: repro\nsweep: {mechanism: flow, seq_len: 1}\n";

    return fb_suite_parse(text, sizeof text - 1, "defaults", NULL, arena, suite, error);
}

static enum fb_status read_origin(struct fb_repro_row *repro, const char *folder,
                                  const struct fb_machine *here, struct fb_arena *arena,
                                  struct fb_error *error)
{
    struct fb_run_resume resume;
    json_t *document = NULL;
    enum fb_status status = fb_run_json_read(folder, arena, &document, &resume, error);

    if (status == FB_OK) {
        compare_origin(document, &resume, here, &repro->origin);
        status = fb_suite_parse(resume.suite_yaml, strlen(resume.suite_yaml), resume.suite_path,
                                NULL, arena, &repro->suite, error);
    }
    json_decref(document);
    return status;
}

static enum fb_status read_settings(struct fb_repro_row *repro, const struct fb_results *results,
                                    const struct fb_machine *here, struct fb_arena *arena,
                                    struct fb_error *error)
{
    char *copy = fb_arena_strdup(arena, repro->path, error);
    if (copy == NULL)
        return FB_ERROR_MEMORY;
    const char *folder = results->dir != NULL ? results->dir : dirname(copy);
    const char *path = fb_arena_printf(arena, error, "%s/run.json", folder);
    if (path == NULL)
        return FB_ERROR_MEMORY;
    if (access(path, F_OK) == 0)
        return read_origin(repro, folder, here, arena, error);
    fprintf(stderr,
            "flowbench repro: notice: there is no '%s': measured with the settings that a suite "
            "has by default, and the machine of the row is unknown\n",
            path);
    return default_suite(arena, &repro->suite, error);
}

/* ---- the case -------------------------------------------------------------------------------- */

/* The value of a factor's column as fb_case_from_json wants it; NULL: the row has none. */
static json_t *factor_json(const struct fb_row *row, const struct fb_factor *factor)
{
    const struct fb_column *column = fb_column_find(factor->name);
    if (column == NULL)
        return NULL;
    const char *field = (const char *)row + column->offset;
    if (column->type == FB_COLUMN_TEXT) {
        if (*field == '\0')
            return NULL;
        return factor->type == FB_FACTOR_BOOL ? json_boolean(strcmp(field, "true") == 0)
                                              : json_string(field);
    }
    int64_t value = FB_ROW_NONE;
    if (column->type == FB_COLUMN_INT)
        memcpy(&value, field, sizeof value);
    return value == FB_ROW_NONE ? NULL : json_integer((json_int_t)value);
}

static enum fb_status rebuild_case(struct fb_repro_row *repro, struct fb_arena *arena,
                                   struct fb_error *error)
{
    const struct fb_row *row = &repro->row;
    json_t *params = json_loads(row->params[0] != '\0' ? row->params : "{}", 0, NULL);
    json_t *object =
        params != NULL ? json_pack("{s:s, s:o}", "id", row->case_id, "params", params) : NULL;

    if (object == NULL)
        return fb_error_set(error, FB_ERROR_INPUT, "'%s' row %zu: params '%.100s' is not JSON",
                            repro->path, repro->number, row->params);
    for (int key = 0; key < FB_FACTOR_COUNT; key++) {
        const struct fb_factor *factor = fb_factor_at((enum fb_factor_key)key);
        json_t *value = factor_json(row, factor);
        if (value != NULL)
            (void)json_object_set_new(object, factor->name, value);
    }
    if (row->program[0] != '\0')
        (void)json_object_set_new(object, "program", json_string(row->program));
    const enum fb_status status = fb_case_from_json(object, arena, &repro->item, error);
    json_decref(object);
    return status == FB_OK ? FB_OK
                           : fb_error_prefix(error, "'%s' row %zu", repro->path, repro->number);
}

static enum fb_status check_possible(const struct fb_repro_row *repro,
                                     const struct fb_machine *here, struct fb_error *error)
{
    const struct fb_case *item = &repro->item;
    struct fb_plan_machine machine;
    struct fb_problem problem;
    struct fb_error why = {.text = ""};

    fb_plan_machine_here(&machine);
    if (strcmp(repro->row.status, "skipped") == 0)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%s' row %zu was skipped (%s): there is no result to repeat",
                            repro->path, repro->number, repro->row.reason);
    if (!machine.has_device(item->device) ||
        (item->device == FB_CPU && item->isa != FB_ISA_ANY && !machine.has_isa(item->isa)))
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%s' row %zu needs %s %s, which this machine lacks", repro->path,
                            repro->number, fb_backend_name(item->device), fb_isa_name(item->isa));
    fb_case_problem(item, &problem);
    if (fb_attention_supports(item->attention, &problem, item->pass, &why) != FB_OK)
        return fb_error_set(error, FB_ERROR_USAGE, "'%s' row %zu: this flowbench refuses it: %s",
                            repro->path, repro->number, why.text);
    if (item->threads > here->threads_usable)
        fprintf(stderr,
                "flowbench repro: warning: the row has %d threads, this process may use %d "
                "processors: expect longer times\n",
                item->threads, here->threads_usable);
    return FB_OK;
}

enum fb_status fb_repro_row_read(const char *argument, const struct fb_machine *here,
                                 struct fb_arena *arena, struct fb_repro_row *repro,
                                 struct fb_error *error)
{
    struct fb_results results;
    const char *which = NULL;
    char *path = NULL;

    memset(repro, 0, sizeof *repro);
    enum fb_status status = split(argument, arena, &path, &which, error);
    if (status == FB_OK)
        status = fb_results_read(path, arena, &results, error);
    if (status == FB_ERROR_IO && error != NULL)
        status = error->code = FB_ERROR_INPUT;
    if (status == FB_OK)
        status = find_row(&results, which, path, &repro->number, error);
    if (status != FB_OK)
        return status;
    repro->path = path;
    repro->row = results.rows[repro->number - 1];
    status = read_settings(repro, &results, here, arena, error);
    if (status == FB_OK)
        status = rebuild_case(repro, arena, error);
    return status == FB_OK ? check_possible(repro, here, error) : status;
}
