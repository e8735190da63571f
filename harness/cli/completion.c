/* What placeholders stand for: see completion.h. */
#include "completion.h"

#include "factor.h"
#include "registry.h"
#include "suite.h"

#include <ctype.h>
#include <string.h>

enum { NAMES_MAX = 128 };

/* ---- names ----------------------------------------------------------------------------------- */

static size_t mechanism_names(const char **names, struct fb_arena *arena)
{
    (void)arena;
    return fb_factor_mechanism_names(names, NAMES_MAX);
}

static size_t variant_names(const char **names, struct fb_arena *arena)
{
    (void)arena;
    return fb_factor_variant_names(NULL, names, NAMES_MAX);
}

static size_t isa_names(const char **names, struct fb_arena *arena)
{
    (void)arena;
    for (int isa = 0; isa < FB_ISA_COUNT; isa++)
        names[isa] = fb_isa_name((enum fb_isa)isa);
    return FB_ISA_COUNT;
}

static size_t plot_kinds(const char **names, struct fb_arena *arena)
{
    (void)arena;
    for (int kind = 0; kind < FB_PLOT_KIND_COUNT; kind++)
        names[kind] = fb_plot_kind_name((enum fb_plot_kind)kind);
    return FB_PLOT_KIND_COUNT;
}

static size_t command_names(const char **names, struct fb_arena *arena)
{
    size_t count = 0;

    (void)arena;
    for (size_t i = 0; i < fb_command_count() && count < NAMES_MAX; i++) {
        if (!fb_command_at(i)->hidden)
            names[count++] = fb_command_at(i)->name;
    }
    return count;
}

/* "features=", of every mechanism. */
static size_t param_names(const char **names, struct fb_arena *arena)
{
    size_t count = 0;

    for (size_t m = 0; m < fb_mechanism_count(); m++) {
        const struct fb_mechanism *mechanism = fb_mechanism_at(m);
        for (int p = 0; p < mechanism->param_count && count < NAMES_MAX; p++) {
            names[count] = fb_arena_printf(arena, NULL, "%s=", mechanism->params[p].name);
            bool known = names[count] == NULL;
            for (size_t i = 0; i < count && !known; i++)
                known = strcmp(names[i], names[count]) == 0;
            count += !known;
        }
    }
    return count;
}

static const struct {
    const char *placeholder;
    size_t (*names)(const char **names, struct fb_arena *arena);
} name_sources[] = {
    {"MECHANISM", mechanism_names}, {"VARIANT", variant_names}, {"ISA", isa_names},
    {"KIND", plot_kinds},           {"COMMAND", command_names}, {"NAME=VALUE", param_names}};

/* ---- placeholders ---------------------------------------------------------------------------- */

static const struct {
    const char *placeholder;
    struct fb_completion completion;
} path_sources[] = {
    {"DIR", {FB_COMPLETE_FOLDERS, "", ""}},
    {"RUN", {FB_COMPLETE_FILES, "", "csv"}},
    {"BASE", {FB_COMPLETE_FILES, "", "csv"}},
    {".yaml", {FB_COMPLETE_FILES, "", "yaml"}},
    {".csv", {FB_COMPLETE_FILES, "", "csv"}},
    {".sqlite", {FB_COMPLETE_FILES, "", "sqlite"}},
    {".svg", {FB_COMPLETE_FILES, "", "svg"}},
    {".safetensors", {FB_COMPLETE_FILES, "", "safetensors"}},
};

static enum fb_status join(const char *const *names, size_t count, struct fb_arena *arena,
                           const char **words, struct fb_error *error)
{
    *words = "";
    for (size_t i = 0; i < count; i++) {
        *words = fb_arena_printf(arena, error, "%s%s%s", *words, i > 0 ? " " : "", names[i]);
        if (*words == NULL)
            return FB_ERROR_MEMORY;
    }
    return FB_OK;
}

enum fb_status fb_completion_of(const char *placeholder, struct fb_arena *arena,
                                struct fb_completion *completion, struct fb_error *error)
{
    *completion = (struct fb_completion){FB_COMPLETE_NOTHING, "", ""};
    for (size_t i = 0; i < sizeof name_sources / sizeof name_sources[0]; i++) {
        const char *names[NAMES_MAX];
        if (strcmp(placeholder, name_sources[i].placeholder) != 0)
            continue;
        completion->kind = FB_COMPLETE_WORDS;
        return join(names, name_sources[i].names(names, arena), arena, &completion->words, error);
    }
    for (size_t i = 0; i < sizeof path_sources / sizeof path_sources[0]; i++) {
        const char *at = strstr(placeholder, path_sources[i].placeholder);
        if (at != NULL && (at == placeholder || *at == '.')) {
            *completion = path_sources[i].completion;
            return FB_OK;
        }
    }
    if (strchr(placeholder, '|') != NULL) {
        char *words = fb_arena_strdup(arena, placeholder, error);
        if (words == NULL)
            return FB_ERROR_MEMORY;
        for (char *c = words; *c != '\0'; c++)
            *c = *c == '|' ? ' ' : *c;
        completion->kind = FB_COMPLETE_WORDS;
        completion->words = words;
    }
    return FB_OK;
}

enum fb_status fb_completion_of_arguments(const struct fb_command *command, struct fb_arena *arena,
                                          struct fb_completion *completion, struct fb_error *error)
{
    const char *text = command->argp->args_doc != NULL ? command->argp->args_doc : "";
    char first[128];
    size_t length = 0;

    for (; *text != '\0' && !isspace((unsigned char)*text) && length + 1 < sizeof first; text++) {
        if (*text != '[' && *text != ']')
            first[length++] = *text;
    }
    first[length] = '\0';
    return fb_completion_of(first, arena, completion, error);
}

/* ---- options --------------------------------------------------------------------------------- */

static size_t count_options(const struct argp_option *table)
{
    size_t count = 0;

    while (table != NULL && (table[count].name != NULL || table[count].key != 0))
        count++;
    return count;
}

/* The next option of a table whose options begin at number first; NULL when there is none. */
static const struct argp_option *next_in(const struct argp_option *table, size_t first,
                                         size_t *index)
{
    const size_t count = count_options(table);

    while (*index - first < count) {
        const struct argp_option *option = &table[(*index)++ - first];
        if (option->name != NULL && (option->flags & OPTION_HIDDEN) == 0)
            return option;
    }
    return NULL;
}

const struct argp_option *fb_completion_next_option(const struct fb_command *command, size_t *index)
{
    static const struct argp_option common[] = {
        {"help", '?', NULL, 0, "Give this help list", 0},
        {"usage", 0x10000, NULL, 0, "Give a short usage message", 0},
        {0},
    };
    const struct argp *argp = command->argp;
    const struct argp_option *option = next_in(argp->options, 0, index);
    size_t first = count_options(argp->options);

    for (size_t i = 0; option == NULL && argp->children != NULL && argp->children[i].argp != NULL;
         i++) {
        const struct argp_option *table = argp->children[i].argp->options;
        if (*index - first < count_options(table))
            option = next_in(table, first, index);
        first += count_options(table);
    }
    return option != NULL ? option : next_in(common, first, index);
}

char fb_completion_letter(const struct argp_option *option)
{
    return option->key > ' ' && option->key < 127 ? (char)option->key : '\0';
}
