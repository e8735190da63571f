/* Provenance and resumption data of a run: see run_json.h. */
#include "run_json.h"

#include "build_info.h"
#include "pinning.h"
#include "run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <yaml.h>

const char *fb_build_git_sha(void)
{
    return FB_BUILD_GIT_SHA;
}

static enum fb_status fail_memory(struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_MEMORY, "no memory for run.json");
}

/* JSON is UTF-8; paths and arguments need not be. Their foreign bytes become '?'. */
static json_t *any_text(const char *text)
{
    json_t *json = json_string(text);

    if (json == NULL) {
        char *plain = strdup(text);
        for (char *c = plain; c != NULL && *c != '\0'; c++)
            *c = (unsigned char)*c < 0x80 ? *c : '?';
        json = plain == NULL ? NULL : json_string(plain);
        free(plain);
    }
    return json;
}

static json_t *text_or_null(const char *text)
{
    return text == NULL || *text == '\0' ? json_null() : any_text(text);
}

static json_t *utc_now(void)
{
    char text[FB_UTC_SIZE];

    fb_utc_text(time(NULL), text, sizeof text);
    return json_string(text);
}

static json_t *texts(const char *const *items, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, any_text(items[i]));
    return array;
}

static json_t *arguments(int argc, char *const *argv)
{
    json_t *array = json_array();

    for (int i = 0; i < argc; i++)
        json_array_append_new(array, any_text(argv[i]));
    return array;
}

static json_t *build_json(const struct fb_machine *machine)
{
    json_t *dirty = FB_BUILD_GIT_DIRTY < 0 ? json_null() : json_boolean(FB_BUILD_GIT_DIRTY);

    return json_pack("{s:s, s:o, s:o, s:o, s:s, s:s, s:s}", "flowbench", machine->version,
                     "git_sha", text_or_null(fb_build_git_sha()), "git_time_utc",
                     text_or_null(FB_BUILD_GIT_TIME), "git_dirty", dirty, "compiler",
                     machine->compiler, "compiler_flags", machine->compiler_flags, "build_type",
                     machine->build_type);
}

static json_t *libraries_json(const struct fb_machine *machine)
{
    char hwloc[32];
    const unsigned api = hwloc_get_api_version();

    snprintf(hwloc, sizeof hwloc, "%u.%u.%u", api >> 16, (api >> 8) & 0xFF, api & 0xFF);
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "libc", gnu_get_libc_version(),
                     "jansson", jansson_version_str(), "libyaml", yaml_get_version_string(),
                     "hwloc", hwloc, "openblas", text_or_null(machine->openblas_version),
                     "openblas_config", text_or_null(machine->openblas_config), "cudnn",
                     text_or_null(machine->cudnn_version));
}

/* The running order as [case_id, process] pairs: which order chance has drawn is part of the
 * evidence. */
static json_t *order_json(const struct fb_plan *plan)
{
    json_t *order = json_array();

    for (size_t i = 0; i < plan->jobs_count; i++) {
        const struct fb_job *job = &plan->jobs[i];
        json_array_append_new(order,
                              json_pack("[s, i]", plan->cases[job->case_index].id, job->process));
    }
    return order;
}

static json_t *suite_json(const struct fb_run_facts *facts)
{
    const struct fb_suite *suite = facts->suite;

    return json_pack("{s:s, s:o, s:o, s:s, s:o, s:o, s:I, s:I}", "name", suite->name, "title",
                     text_or_null(suite->title), "path", text_or_null(suite->path), "resolved",
                     suite->resolved_yaml, "filter", text_or_null(facts->filter), "sets",
                     texts(facts->sets, facts->sets_count), "seed", (json_int_t)suite->seed,
                     "cases", (json_int_t)facts->plan->cases_count);
}

json_t *fb_run_json_new(const struct fb_run_facts *facts, struct fb_error *error)
{
    json_t *document = json_pack(
        "{s:i, s:s, s:s, s:o, s:n, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:[], s:[], s:[], "
        "s:o}",
        "schema", FB_RUN_JSON_SCHEMA, "run", facts->run_id, "state", "running", "started_utc",
        utc_now(), "ended_utc", "build", build_json(facts->machine), "libraries",
        libraries_json(facts->machine), "machine", fb_machine_to_json(facts->machine), "suite",
        suite_json(facts), "argv", arguments(facts->argc, facts->argv), "order",
        order_json(facts->plan), "budget_s",
        facts->budget_s > 0 ? json_real(facts->budget_s) : json_null(), "strict", facts->strict,
        "machine_warnings", fb_machine_warnings_to_json(facts->machine), "warnings", "ceilings",
        "resumed", "pinning", fb_pinning_to_json());

    if (document == NULL)
        (void)fail_memory(error);
    return document;
}

enum fb_status fb_run_json_note_resume(json_t *document, const struct fb_machine *machine, int argc,
                                       char *const *argv, struct fb_error *error)
{
    json_t *note = json_pack("{s:o, s:o, s:o}", "at_utc", utc_now(), "build", build_json(machine),
                             "argv", arguments(argc, argv));

    if (json_array_append_new(json_object_get(document, "resumed"), note) != 0)
        return fail_memory(error);
    return FB_OK;
}

enum fb_status fb_run_json_set_state(json_t *document, const char *state, struct fb_error *error)
{
    json_t *end = strcmp(state, "running") == 0 ? json_null() : utc_now();

    if (json_object_set_new(document, "state", json_string(state)) != 0 ||
        json_object_set_new(document, "ended_utc", end) != 0)
        return fail_memory(error);
    return FB_OK;
}

enum fb_status fb_run_json_warn(json_t *document, const char *text, struct fb_error *error)
{
    json_t *warnings = json_object_get(document, "warnings");
    json_t *earlier;
    size_t index;

    json_array_foreach(warnings, index, earlier)
    {
        /* Of a document that was resumed anything may be in the list. */
        if (json_is_string(earlier) && strcmp(json_string_value(earlier), text) == 0)
            return FB_OK;
    }
    return json_array_append_new(warnings, json_string(text)) == 0 ? FB_OK : fail_memory(error);
}

/* ---- file ------------------------------------------------------------------------------------ */

static enum fb_status write_whole(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return FB_ERROR_IO;
        text += written;
        length -= (size_t)written;
    }
    return FB_OK;
}

enum fb_status fb_run_json_write(const char *dir, const json_t *document, struct fb_error *error)
{
    char path[4096];
    char temporary[4096];
    char *text = json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    enum fb_status status = FB_OK;

    if (text == NULL)
        return fail_memory(error);
    if (snprintf(path, sizeof path, "%s/run.json", dir) >= (int)sizeof path ||
        snprintf(temporary, sizeof temporary, "%s/.run.json.new", dir) >= (int)sizeof temporary) {
        free(text);
        return fb_error_set(error, FB_ERROR_USAGE, "the path '%.200s...' is too long", dir);
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || write_whole(fd, text, strlen(text)) != FB_OK ||
        write_whole(fd, "\n", 1) != FB_OK || (fsync(fd) != 0 && errno != EINVAL) ||
        rename(temporary, path) != 0)
        status = fb_error_set(error, FB_ERROR_IO,
                              "cannot write '%s': %s; what the folder holds already is intact",
                              path, strerror(errno));
    if (fd >= 0)
        close(fd);
    if (status != FB_OK)
        unlink(temporary);
    free(text);
    return status == FB_OK ? fb_folder_sync(dir, error) : status;
}

const json_t *fb_run_json_at(const json_t *document, const char *path)
{
    char key[64];

    while (document != NULL && *path != '\0') {
        const size_t length = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)length, path);
        document = json_object_get(document, key);
        path += length + (path[length] == '.');
    }
    return document;
}

/* Copies the text at key into the arena; where it may be absent, *text stays NULL. */
static enum fb_status take_text(const json_t *document, const char *key, bool required,
                                const char *path, struct fb_arena *arena, const char **text,
                                struct fb_error *error)
{
    const char *found = json_string_value(fb_run_json_at(document, key));

    if (found == NULL && !required)
        return FB_OK;
    if (found == NULL)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "'%s' has no text '%s': it cannot be resumed; start a new run", path,
                            key);
    *text = fb_arena_strdup(arena, found, error);
    return *text == NULL ? FB_ERROR_MEMORY : FB_OK;
}

static enum fb_status extract(const json_t *document, const char *path, struct fb_arena *arena,
                              struct fb_run_resume *resume, struct fb_error *error)
{
    const struct {
        const char *key;
        bool required;
        const char **target;
    } texts_wanted[] = {
        {"run", true, &resume->run_id},
        {"state", true, &resume->state},
        {"suite.name", true, &resume->suite_name},
        {"suite.resolved", true, &resume->suite_yaml},
        {"suite.path", false, &resume->suite_path},
        {"suite.filter", false, &resume->filter},
        {"machine.identity", true, &resume->identity},
        {"machine.name", true, &resume->machine_name},
        {"machine.cpu.isa_best", true, &resume->isa_best},
        {"build.flowbench", true, &resume->version},
        {"build.git_sha", false, &resume->git_sha},
    };
    enum fb_status status = FB_OK;

    for (size_t i = 0; i < sizeof texts_wanted / sizeof texts_wanted[0] && status == FB_OK; i++)
        status = take_text(document, texts_wanted[i].key, texts_wanted[i].required, path, arena,
                           texts_wanted[i].target, error);
    if (resume->suite_path == NULL)
        resume->suite_path = "suite.yaml";
    resume->budget_s = json_number_value(fb_run_json_at(document, "budget_s"));
    resume->strict = json_is_true(fb_run_json_at(document, "strict"));
    resume->threads_usable =
        (int)json_integer_value(fb_run_json_at(document, "machine.cpu.threads_usable"));
    resume->cases_count = (size_t)json_integer_value(fb_run_json_at(document, "suite.cases"));
    return status;
}

enum fb_status fb_run_json_read(const char *dir, struct fb_arena *arena, json_t **document,
                                struct fb_run_resume *resume, struct fb_error *error)
{
    json_error_t where;

    memset(resume, 0, sizeof *resume);
    *document = NULL;
    char *path = fb_arena_printf(arena, error, "%s/run.json", dir);
    if (path == NULL)
        return FB_ERROR_MEMORY;
    json_t *loaded = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (loaded == NULL)
        return fb_error_set(error, FB_ERROR_INPUT, "cannot read '%s': line %d: %s", path,
                            where.line, where.text);
    const json_int_t schema = json_integer_value(json_object_get(loaded, "schema"));
    enum fb_status status = FB_OK;
    if (schema != FB_RUN_JSON_SCHEMA)
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "'%s' has schema %d, this flowbench reads %d: resume with the "
                              "flowbench that started the run",
                              path, (int)schema, FB_RUN_JSON_SCHEMA);
    else if (!json_is_array(json_object_get(loaded, "warnings")) ||
             !json_is_array(json_object_get(loaded, "ceilings")) ||
             !json_is_array(json_object_get(loaded, "resumed")))
        status = fb_error_set(error, FB_ERROR_INPUT,
                              "'%s' lacks its lists warnings, ceilings and resumed: it is damaged; "
                              "start a new run",
                              path);
    else
        status = extract(loaded, path, arena, resume, error);
    if (status != FB_OK) {
        json_decref(loaded);
        return status;
    }
    *document = loaded;
    return FB_OK;
}
