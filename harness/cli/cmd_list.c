/* flowbench list: what there is to measure. Tables go to stdout, remarks to stderr. */
#include "commands.h"
#include "cpu_features.h"
#include "factor.h"
#include "nearest.h"
#include "plan.h"
#include "registry.h"

#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { VARIANTS_MAX = 16, SUITES_MAX = 256, PATH_SIZE = 1024, TEXT_SIZE = 512 };

/* ---- mechanisms and parameters ------------------------------------------------------------- */

/* "cpu: avx512 avx2 scalar" for what this machine runs, "(neon)" for what it lacks. */
static void describe_builds(const struct fb_mechanism *mechanism, const char *variant, char *text,
                            size_t text_size)
{
    size_t used = 0;
    int backend = -1;
    text[0] = '\0';
    for (size_t i = 0; i < fb_attention_count() && used < text_size; i++) {
        const struct fb_attention *a = fb_attention_at(i);
        if (a->mechanism != mechanism || strcmp(a->variant, variant) != 0) {
            continue;
        }
        if ((int)a->backend != backend) {
            used += (size_t)snprintf(text + used, text_size - used, "%s%s:", used > 0 ? "  " : "",
                                     fb_backend_name(a->backend));
            backend = (int)a->backend;
        }
        if (used >= text_size) {
            break;
        }
        bool here = a->isa == FB_ISA_ANY || fb_cpu_has(a->isa);
        used += (size_t)snprintf(text + used, text_size - used, here ? " %s" : " (%s)",
                                 a->isa != FB_ISA_ANY   ? fb_isa_name(a->isa)
                                 : a->backend == FB_CPU ? "any (OpenBLAS)"
                                                        : "sm_80 and later");
    }
}

static enum fb_status list_mechanisms(struct fb_arena *arena, struct fb_error *error)
{
    (void)arena;
    (void)error;
    (void)printf("%-10s %-8s %-30s %s\n", "mechanism", "variant", "builds", "title, reference");
    for (size_t i = 0; i < fb_mechanism_count(); i++) {
        const struct fb_mechanism *mechanism = fb_mechanism_at(i);
        const char *variants[VARIANTS_MAX];
        size_t count = fb_factor_variant_names(mechanism, variants, VARIANTS_MAX);
        for (size_t v = 0; v < count; v++) {
            char builds[TEXT_SIZE];
            describe_builds(mechanism, variants[v], builds, sizeof builds);
            (void)printf("%-10s %-8s %-30s %s; %s\n", mechanism->name, variants[v], builds,
                         mechanism->title, mechanism->reference);
        }
    }
    (void)fputs("The first variant of a mechanism is its default; (builds in brackets) need an "
                "instruction set that this machine lacks.\n",
                stderr);
    return FB_OK;
}

static void format_param(const struct fb_param *param, char *value, char *range, size_t size)
{
    static const char *const truths[] = {"false", "true"};
    size_t used = 0;
    switch (param->type) {
    case FB_PARAM_INT:
    case FB_PARAM_REAL:
        (void)snprintf(value, size, "%.10g", param->default_value);
        (void)snprintf(range, size, "%.10g to %.10g", param->min, param->max);
        break;
    case FB_PARAM_BOOL:
        (void)snprintf(value, size, "%s", truths[param->default_value > 0.0 ? 1 : 0]);
        (void)snprintf(range, size, "true or false");
        break;
    case FB_PARAM_CHOICE:
        (void)snprintf(value, size, "%s", param->choices[(size_t)param->default_value]);
        range[0] = '\0';
        for (size_t i = 0; param->choices[i] != NULL && used < size; i++) {
            used += (size_t)snprintf(range + used, size - used, "%s%s", i > 0 ? "|" : "",
                                     param->choices[i]);
        }
        break;
    }
}

static enum fb_status list_params(struct fb_arena *arena, struct fb_error *error)
{
    (void)arena;
    (void)error;
    static const char *const types[] = {[FB_PARAM_INT] = "int",
                                        [FB_PARAM_REAL] = "real",
                                        [FB_PARAM_BOOL] = "bool",
                                        [FB_PARAM_CHOICE] = "choice"};
    (void)printf("%-10s %-12s %-7s %-8s %-16s %s\n", "mechanism", "parameter", "type", "default",
                 "range", "help");
    for (size_t i = 0; i < fb_mechanism_count(); i++) {
        const struct fb_mechanism *mechanism = fb_mechanism_at(i);
        for (int p = 0; p < mechanism->param_count; p++) {
            const struct fb_param *param = &mechanism->params[p];
            char value[TEXT_SIZE];
            char range[TEXT_SIZE];
            format_param(param, value, range, sizeof value);
            (void)printf("%-10s %-12s %-7s %-8s %-16s %s\n", mechanism->name, param->name,
                         types[param->type], value, range, param->help);
        }
    }
    return FB_OK;
}

/* ---- suites -------------------------------------------------------------------------------- */

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The .yaml files of a folder, sorted. */
static enum fb_status read_folder(const char *folder, struct fb_arena *arena, const char **names,
                                  size_t *count, struct fb_error *error)
{
    DIR *directory = opendir(folder);
    if (directory == NULL) {
        return fb_error_set(error, FB_ERROR_IO, "cannot read the folder %s: %s", folder,
                            strerror(errno));
    }
    enum fb_status status = FB_OK;
    const struct dirent *entry;
    while (status == FB_OK && *count < SUITES_MAX && (entry = readdir(directory)) != NULL) {
        size_t length = strlen(entry->d_name);
        if (length > 5 && entry->d_name[0] != '.' &&
            strcmp(entry->d_name + length - 5, ".yaml") == 0) {
            names[*count] = fb_arena_strdup(arena, entry->d_name, error);
            status = names[*count] != NULL ? FB_OK : FB_ERROR_MEMORY;
            *count += 1;
        }
    }
    (void)closedir(directory);
    if (status == FB_OK && *count > 0) {
        qsort(names, *count, sizeof *names, compare_names);
    }
    return status;
}

/* One line per suite; the arena is the suite's own. A broken suite is listed with its mistakes. */
static void list_suite(const char *path)
{
    struct fb_arena arena;
    struct fb_suite suite;
    struct fb_error error = {.text = ""};
    fb_arena_init(&arena, 0);
    if (fb_suite_read(path, NULL, &arena, &suite, &error) != FB_OK) {
        (void)printf("%-28s %-10s %6s broken: see the message\n", path, "-", "-");
        (void)fflush(stdout);
        (void)fprintf(stderr, "%s\n", error.text);
    } else {
        struct fb_plan_machine machine;
        struct fb_plan plan;
        fb_plan_machine_here(&machine);
        bool planned = fb_plan_build(&suite, NULL, &machine, &arena, &plan, &error) == FB_OK;
        (void)printf("%-28s %-10s %6zu %s\n", path, suite.name,
                     planned ? plan.cases_count : suite.factors_count, suite.title);
        if (!planned) {
            (void)fflush(stdout);
            (void)fprintf(stderr, "%s\n", error.text);
        }
    }
    fb_arena_free(&arena);
}

static enum fb_status list_folder(const char *folder, struct fb_arena *arena,
                                  struct fb_error *error)
{
    const char *names[SUITES_MAX];
    size_t count = 0;
    const enum fb_status status = read_folder(folder, arena, names, &count, error);
    for (size_t i = 0; status == FB_OK && i < count; i++) {
        char path[PATH_SIZE];
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        list_suite(path);
    }
    return status;
}

/* Those that measure time, then those that train. */
static enum fb_status list_suites(struct fb_arena *arena, struct fb_error *error)
{
    const char *folder = is_folder("suites") ? "suites" : FLOWBENCH_SOURCE_DIR "/suites";
    char accuracy[PATH_SIZE];
    (void)printf("%-28s %-10s %6s %s\n", "file", "suite", "cases", "title");
    enum fb_status status = list_folder(folder, arena, error);
    (void)snprintf(accuracy, sizeof accuracy, "%s/accuracy", folder);
    if (status == FB_OK && is_folder(accuracy)) {
        status = list_folder(accuracy, arena, error);
    }
    return status;
}

static enum fb_status list_tasks(struct fb_arena *arena, struct fb_error *error)
{
    static const char *const models[] = {[FB_FAMILY_SERIES] = "series",
                                         [FB_FAMILY_ENCODER] = "encoder",
                                         [FB_FAMILY_LANGUAGE] = "language"};
    (void)arena;
    (void)error;
    (void)printf("%-20s %-8s %-10s %-6s %-6s %s\n", "task", "model", "metric", "data", "paper",
                 "source; parameters");
    for (size_t i = 0; i < fb_task_count(); i++) {
        const struct fb_task *task = fb_task_at(i);
        (void)printf("%-20s %-8s %-10s %-6s %-6s %s", task->name, models[task->family],
                     task->metric == FB_METRIC_PERPLEXITY ? "perplexity" : "accuracy",
                     task->needs_data ? "files" : "made",
                     task->paper_area != NULL ? task->paper_area : "-", task->source);
        for (int p = 0; p < task->param_count; p++) {
            char value[TEXT_SIZE];
            char range[TEXT_SIZE];
            format_param(&task->params[p], value, range, TEXT_SIZE);
            (void)printf("; %s: %s (%s)", task->params[p].name, value, range);
        }
        (void)putchar('\n');
    }
    (void)fputs("Tasks with 'files' read them below --data-dir or FLOWBENCH_DATA.\n", stderr);
    return FB_OK;
}

/* ---- the command --------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum fb_status (*list)(struct fb_arena *arena, struct fb_error *error);
} topics[] = {{"mechanisms", list_mechanisms},
              {"params", list_params},
              {"suites", list_suites},
              {"tasks", list_tasks}};
enum { TOPIC_COUNT = sizeof topics / sizeof topics[0] };

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    int *topic = state->input;
    if (key == ARGP_KEY_ARG) {
        if (*topic >= 0) {
            argp_error(state, "one topic at a time, not also '%s'", argument);
        }
        const char *names[TOPIC_COUNT];
        for (int i = 0; i < TOPIC_COUNT; i++) {
            names[i] = topics[i].name;
            if (strcmp(topics[i].name, argument) == 0) {
                *topic = i;
            }
        }
        if (*topic < 0) {
            const char *near = fb_nearest_name(argument, names, TOPIC_COUNT);
            argp_error(state, "there is no topic '%s'%s%s%s", argument,
                       near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                       near != NULL ? "'?" : "");
        }
        return 0;
    }
    if (key == ARGP_KEY_END && *topic < 0) {
        argp_error(state, "name a topic: mechanisms, params, suites or tasks");
    }
    return ARGP_ERR_UNKNOWN;
}

const struct argp fb_argp_list = {
    .parser = parse_option,
    .args_doc = "mechanisms|params|suites|tasks",
    .doc =
        "Lists what there is to measure."
        "\v"
        "Topics:\n"
        "  mechanisms  every mechanism and variant, and the instruction sets it is built for\n"
        "  params      the parameters that a mechanism's map in a suite may hold\n"
        "  suites      the suite files of ./suites and ./suites/accuracy, with their number of "
        "cases\n"
        "  tasks       what a suite of kind: training may train on, and where the data come from\n"
        "\n"
        "Examples:\n"
        "  flowbench list mechanisms\n"
        "  flowbench list params | grep ^flow     what {name: flow, ...} may hold\n",
};

int fb_cmd_list(int argc, char **argv)
{
    int topic = -1;
    error_t parsed = argp_parse(&fb_argp_list, argc, argv, 0, NULL, &topic);
    if (parsed != 0) {
        (void)fprintf(stderr, "flowbench list: error: %s\n", strerror(parsed));
        return FB_EXIT_USAGE;
    }
    struct fb_arena arena;
    struct fb_error error = {.text = ""};
    fb_arena_init(&arena, 0);
    enum fb_status status = topics[topic].list(&arena, &error);
    fb_arena_free(&arena);
    return status == FB_OK ? FB_EXIT_OK : fb_exit_report("list", &error);
}
