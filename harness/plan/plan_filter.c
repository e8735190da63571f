/* --filter: comma-separated conditions `factor OP value`, values with alternatives by |. */
#include "plan_filter.h"

#include "peer_program.h"
#include "plan_case.h"
#include "suite_values.h"

#include <string.h>

enum { ALTERNATIVES_MAX = 64, FILTER_SIZE_MAX = 4096 };

struct parser {
    const struct fb_suite_reader *reader;
    const struct fb_source *source;
    const struct fb_plan_machine *machine;
};

/* The text from begin to end, without the spaces around it, as a scalar marked at its place. */
static const struct fb_yaml_node *cut(const struct parser *p, size_t begin, size_t end)
{
    const char *text = p->source->text;
    while (begin < end && text[begin] == ' ') {
        begin++;
    }
    while (end > begin && text[end - 1] == ' ') {
        end--;
    }
    struct fb_mark mark = {.source = p->source, .column = begin};
    struct fb_error error;
    const char *copy =
        fb_arena_printf(p->reader->arena, &error, "%.*s", (int)(end - begin), text + begin);
    if (copy == NULL) {
        fb_diagnose_memory(p->reader->diagnostics, &error);
        return NULL;
    }
    return fb_yaml_scalar(copy, mark, p->reader->arena, p->reader->diagnostics);
}

/* `max` threads and the `best` instruction set are known here. */
static void resolve_special(const struct parser *p, struct fb_condition *condition)
{
    const struct fb_factor *factor = fb_factor_at(condition->key);
    for (size_t i = 0; factor->special != NULL && i < condition->count; i++) {
        if (condition->values[i].number == factor->special_value) {
            condition->values[i].number = condition->key == FB_FACTOR_THREADS
                                              ? p->machine->threads
                                              : (int64_t)p->machine->best_isa;
        }
    }
}

static bool read_values(const struct parser *p, enum fb_factor_key key, enum fb_relation relation,
                        size_t begin, size_t end, struct fb_condition *condition)
{
    const struct fb_yaml_node *nodes[ALTERNATIVES_MAX];
    size_t count = 0;
    while (begin <= end) {
        const char *bar = memchr(p->source->text + begin, '|', end - begin);
        size_t stop = bar != NULL ? (size_t)(bar - p->source->text) : end;
        const struct fb_yaml_node *node = cut(p, begin, stop);
        if (node == NULL) {
            return false;
        }
        if (node->text[0] == '\0' || count == ALTERNATIVES_MAX) {
            fb_diagnose(p->reader->diagnostics, node->mark,
                        node->text[0] == '\0' ? "a value is missing here"
                                              : "more than %d alternatives",
                        ALTERNATIVES_MAX);
            return false;
        }
        nodes[count++] = node;
        begin = stop + 1;
    }
    if (!fb_condition_read_values(p->reader, key, relation, nodes, count, true, condition)) {
        return false;
    }
    resolve_special(p, condition);
    return true;
}

static bool read_condition(const struct parser *p, size_t begin, size_t end,
                           struct fb_condition *condition)
{
    const char *text = p->source->text;
    size_t at = begin + strcspn(text + begin, "=!<>,");
    enum fb_relation relation = FB_RELATION_EQUAL;
    size_t length = at < end ? fb_relation_parse(text + at, &relation) : 0;
    const struct fb_yaml_node *name = cut(p, begin, at < end ? at : end);
    if (name == NULL) {
        return false;
    }
    if (length == 0 || name->text[0] == '\0') {
        fb_diagnose(p->reader->diagnostics, name->mark,
                    "a condition is factor OP value with OP one of = != < <= > >=, such as "
                    "seq_len<=4096 or mechanism=flow|linear");
        return false;
    }
    int key = fb_factor_find(name->text);
    if (key < 0) {
        fb_value_report_unknown(p->reader->diagnostics, name, "factor", fb_factor_names(),
                                FB_FACTOR_COUNT);
        return false;
    }
    return read_values(p, (enum fb_factor_key)key, relation, at + length, end, condition);
}

static void read_filter(const struct parser *p, struct fb_filter *filter)
{
    size_t begin = 0;
    while (begin <= p->source->length) {
        size_t end = begin + strcspn(p->source->text + begin, ",");
        if (filter->count == FB_FILTER_CONDITIONS_MAX) {
            struct fb_mark mark = {.source = p->source, .column = begin};
            fb_diagnose(p->reader->diagnostics, mark, "more than %d conditions",
                        FB_FILTER_CONDITIONS_MAX);
            return;
        }
        if (!read_condition(p, begin, end, &filter->conditions[filter->count])) {
            return;
        }
        filter->count++;
        begin = end + 1;
    }
}

/* The variants of external programs that the suite names; its reader has bounded their number. */
static void collect_peers(const struct fb_suite *suite, struct fb_peer_names *peers)
{
    bool room = true;
    for (size_t i = 0; room && i < suite->factors_count; i++) {
        if (suite->factors[i].program != NULL) {
            room = fb_peer_names_add(peers, suite->factors[i].variant);
        }
    }
}

enum fb_status fb_filter_parse(const char *text, const struct fb_suite *suite,
                               const struct fb_plan_machine *machine, struct fb_arena *arena,
                               struct fb_filter *filter, struct fb_error *error)
{
    struct fb_error ignored;
    struct fb_diagnostics diagnostics;
    fb_diagnostics_init(&diagnostics, error != NULL ? error : &ignored);
    struct fb_peer_names peers = {.count = 0};
    struct fb_suite_reader reader = {.arena = arena, .diagnostics = &diagnostics, .peers = &peers};
    collect_peers(suite, &peers);
    struct fb_source source = {.name = "--filter", .text = text, .length = strlen(text)};
    struct parser p = {.reader = &reader, .source = &source, .machine = machine};
    *filter = (struct fb_filter){.count = 0};
    if (source.length > FILTER_SIZE_MAX) {
        fb_diagnose(&diagnostics, (struct fb_mark){.source = &source},
                    "the filter is longer than %d bytes", FILTER_SIZE_MAX);
    } else if (fb_yaml_check_text(&source, &diagnostics)) {
        read_filter(&p, filter);
    }
    return fb_diagnostics_finish(&diagnostics);
}

bool fb_filter_holds(const struct fb_filter *filter, const struct fb_case *item)
{
    struct fb_factors factors;
    fb_case_factors(item, &factors);
    for (size_t i = 0; i < filter->count; i++) {
        if (!fb_condition_holds(&filter->conditions[i], &factors)) {
            return false;
        }
    }
    return true;
}
