/* Reading the runs of a report. See html_source.h. */
#include "html_source.h"

#include "run_json.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

const char *fb_html_source_text(const struct fb_html_source *source, const char *path)
{
    const char *text = json_string_value(fb_run_json_at(source->document, path));
    return text ? text : "";
}

/* A results.csv inside a run's folder stands for the run; "runs/x/" is "runs/x". */
static enum fb_status find_places(const char *path, struct fb_arena *arena,
                                  struct fb_html_source *source, struct fb_error *error)
{
    struct stat info;
    char *copy = fb_arena_strdup(arena, path, error);
    if (!copy) {
        return FB_ERROR_MEMORY;
    }
    if (stat(path, &info) != 0) {
        return fb_error_set(error, FB_ERROR_INPUT, "cannot read '%s': %s", path, strerror(errno));
    }
    if (S_ISDIR(info.st_mode)) {
        for (size_t length = strlen(copy); length > 1 && copy[length - 1] == '/'; length--) {
            copy[length - 1] = '\0';
        }
        source->folder = copy;
        source->csv = fb_arena_printf(arena, error, "%s/results.csv", copy);
    } else {
        char *slash = strrchr(copy, '/');
        source->csv = fb_arena_strdup(arena, path, error);
        source->folder = slash ? copy : ".";
        if (slash) {
            slash[slash == copy ? 1 : 0] = '\0';
        }
    }
    return source->csv ? FB_OK : FB_ERROR_MEMORY;
}

static bool is_results_csv(const char *path)
{
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, "results.csv") == 0;
}

static enum fb_status read_document(struct fb_html_source *source, struct fb_arena *arena,
                                    struct fb_error *error)
{
    struct stat info;
    json_error_t where;
    const char *path = fb_arena_printf(arena, error, "%s/run.json", source->folder);
    if (!path) {
        return FB_ERROR_MEMORY;
    }
    if (stat(path, &info) != 0) {
        return FB_OK;
    }
    source->document = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!source->document) {
        return fb_error_set(error, FB_ERROR_INPUT, "%s:%d: %s: not a run.json", path,
                            where.line > 0 ? where.line : 1, where.text);
    }
    const json_int_t schema = json_integer_value(fb_run_json_at(source->document, "schema"));
    if (schema != FB_RUN_JSON_SCHEMA) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s:1: schema %lld, this flowbench reads %d: use the flowbench that "
                            "wrote it",
                            path, (long long)schema, FB_RUN_JSON_SCHEMA);
    }
    const char *yaml = fb_html_source_text(source, "suite.resolved");
    if (!yaml[0]) {
        return FB_OK;
    }
    const char *suite_path = fb_html_source_text(source, "suite.path");
    enum fb_status status =
        fb_suite_parse(yaml, strlen(yaml), suite_path[0] ? suite_path : "suite.yaml", NULL, arena,
                       &source->suite, error);
    source->has_suite = status == FB_OK;
    return status == FB_OK ? status : fb_error_prefix(error, "%s:1: the stored suite", path);
}

static enum fb_status read_training(struct fb_html_source *source, struct fb_arena *arena,
                                    struct fb_error *error)
{
    source->training = true;
    source->csv = fb_arena_printf(arena, error, "%s/accuracy.csv", source->folder);
    if (!source->csv) {
        return FB_ERROR_MEMORY;
    }
    enum fb_status status = fb_accuracy_read(source->folder, arena, &source->accuracy, error);
    if (status == FB_OK && source->accuracy.rows_count == 0) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s:1: no rows: there is nothing to report; finish the run with "
                            "`flowbench run --resume %s`",
                            source->csv, source->folder);
    }
    return status == FB_OK ? read_document(source, arena, error) : status;
}

static enum fb_status read_source(const char *path, struct fb_arena *arena,
                                  struct fb_html_source *source, struct fb_error *error)
{
    enum fb_status status = find_places(path, arena, source, error);
    if (status == FB_OK && fb_accuracy_is_run(source->folder)) {
        status = read_training(source, arena, error);
        if (status != FB_OK) {
            return status == FB_ERROR_IO ? (error->code = FB_ERROR_INPUT) : status;
        }
        source->run = source->accuracy.rows[0].run;
        source->machine = fb_html_source_text(source, "machine.name");
        source->identity = fb_html_source_text(source, "machine.identity");
        source->device_name = source->accuracy.rows[0].device_name;
        return FB_OK;
    }
    if (status == FB_OK) {
        status = fb_results_read(is_results_csv(source->csv) ? source->folder : source->csv, arena,
                                 &source->results, error);
    }
    if (status == FB_OK && source->results.rows_count == 0) {
        return fb_error_set(error, FB_ERROR_INPUT,
                            "%s:1: no rows: there is nothing to report; finish the run with "
                            "`flowbench run --resume %s`",
                            source->csv, source->folder);
    }
    /* A CSV of another name is not the one that a run.json beside it speaks of. */
    if (status == FB_OK && is_results_csv(source->csv)) {
        status = read_document(source, arena, error);
    }
    if (status != FB_OK) {
        return status == FB_ERROR_IO ? (error->code = FB_ERROR_INPUT) : status;
    }
    source->run = source->results.rows[0].run;
    source->machine = fb_html_source_text(source, "machine.name");
    source->identity = fb_html_source_text(source, "machine.identity");
    source->device_name = fb_html_source_text(source, "machine.cpu.model");
    for (size_t i = 0; i < source->results.rows_count && !source->device_name[0]; i++) {
        source->device_name = source->results.rows[i].device_name;
    }
    return FB_OK;
}

enum fb_status fb_html_sources_read(const char *const *paths, size_t count, struct fb_arena *arena,
                                    struct fb_html_sources *sources, struct fb_error *error)
{
    *sources = (struct fb_html_sources){0};
    sources->items = fb_arena_alloc(arena, count, sizeof *sources->items, error);
    sources->results = fb_arena_alloc(arena, count, sizeof *sources->results, error);
    if (!sources->items || !sources->results) {
        return FB_ERROR_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        struct fb_html_source *source = &sources->items[sources->count++];
        enum fb_status status = read_source(paths[i], arena, source, error);
        if (status != FB_OK) {
            return status;
        }
        sources->results[i] = source->results;
        if (i > 0 && source->training != sources->training) {
            return fb_error_set(error, FB_ERROR_INPUT,
                                "'%s' and '%s': a training run and a timed one do not share a "
                                "page; report them one by one",
                                paths[0], paths[i]);
        }
        sources->training = source->training;
        sources->several_machines =
            sources->several_machines ||
            (i > 0 &&
             (!source->identity[0] || strcmp(source->identity, sources->items[0].identity) != 0));
    }
    return FB_OK;
}

void fb_html_sources_free(struct fb_html_sources *sources)
{
    for (size_t i = 0; i < sources->count; i++) {
        json_decref(sources->items[i].document);
    }
    sources->count = 0;
}
