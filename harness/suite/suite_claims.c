/* `expect:`, the claims of a suite, and `plots:`. */
#include "suite_schema.h"
#include "suite_values.h"

#include <math.h>
#include <string.h>

static const char *const metric_names[FB_METRIC_COUNT] = {
    [FB_METRIC_TIME_EXPONENT] = "time_exponent",
    [FB_METRIC_MEMORY_EXPONENT] = "memory_exponent",
    [FB_METRIC_CROSSOVER] = "crossover",
    [FB_METRIC_FLOOR_RATIO] = "floor_ratio",
    [FB_METRIC_FLOOR_RATIO_WORST] = "floor_ratio_worst",
    [FB_METRIC_TIME_VS_FORWARD] = "time_vs_forward",
    [FB_METRIC_SPEEDUP_VS_SOFTMAX] = "speedup_vs_softmax",
    [FB_METRIC_SPEEDUP_VS_PEER] = "speedup_vs_peer",
    [FB_METRIC_TIME_GROWTH] = "time_growth",
    [FB_METRIC_MEMORY_GROWTH] = "memory_growth",
};

static const char *const plot_names[FB_PLOT_KIND_COUNT] = {
    [FB_PLOT_TIME_VS_SEQ_LEN] = "time_vs_seq_len",
    [FB_PLOT_MEMORY_VS_SEQ_LEN] = "memory_vs_seq_len",
    [FB_PLOT_SPEEDUP_VS_SOFTMAX] = "speedup_vs_softmax",
    [FB_PLOT_TIME_VS_HEADS] = "time_vs_heads",
    [FB_PLOT_TIME_VS_HEAD_DIM] = "time_vs_head_dim",
    [FB_PLOT_TIME_VS_THREADS] = "time_vs_threads",
    [FB_PLOT_FLOOR_RATIO_VS_SEQ_LEN] = "floor_ratio_vs_seq_len",
    [FB_PLOT_ISA_BARS] = "isa_bars",
};

const char *fb_metric_name(enum fb_metric metric)
{
    return (unsigned)metric < FB_METRIC_COUNT ? metric_names[metric] : "unknown";
}

const char *fb_plot_kind_name(enum fb_plot_kind kind)
{
    return (unsigned)kind < FB_PLOT_KIND_COUNT ? plot_names[kind] : "unknown";
}

/* ---- claims -------------------------------------------------------------------------------- */

enum claim_key {
    CLAIM_MECHANISM,
    CLAIM_VARIANT,
    CLAIM_CAUSAL,
    CLAIM_PASS,
    CLAIM_ISA,
    CLAIM_THREADS,
    CLAIM_HEAD_DIM,
    CLAIM_PEER,
    CLAIM_METRIC,
    CLAIM_IS,
    CLAIM_AT_MOST,
    CLAIM_AT_LEAST,
    CLAIM_KEY_COUNT
};
static const char *const claim_keys[CLAIM_KEY_COUNT] = {
    "mechanism", "variant", "causal", "pass", "isa",     "threads",
    "head_dim",  "peer",    "metric", "is",   "at_most", "at_least"};

static bool read_is(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                    struct fb_claim *claim)
{
    static const char *const signs[] = {"+-", "\xC2\xB1"}; /* the second is U+00B1 */
    const char *at = "";
    bool fine = node->kind == FB_YAML_SCALAR && fb_parse_number(node->text, &claim->value, &at);
    bool has_sign = false;
    at += strspn(at, " ");
    for (size_t i = 0; fine && !has_sign && i < 2; i++) {
        if (strncmp(at, signs[i], 2) == 0) {
            at += 2;
            has_sign = true;
        }
    }
    at += strspn(at, " ");
    fine = fine && has_sign && fb_parse_number(at, &claim->tolerance, &at) && *at == '\0' &&
           claim->tolerance >= 0.0;
    if (!fine) {
        char buffer[80];
        fb_diagnose(reader->diagnostics, node->mark,
                    "is takes a value and its tolerance, such as 1.0 +- 0.1, not %s",
                    fb_value_describe(node, buffer, sizeof buffer));
    }
    claim->relation = FB_CLAIM_WITHIN;
    return fine;
}

static bool read_claim_mechanism(const struct fb_suite_reader *reader,
                                 const struct fb_yaml_node *node, struct fb_claim *claim)
{
    const struct fb_mechanism *mechanism;
    if (!fb_axis_find_mechanism(reader, node, &mechanism)) {
        return false;
    }
    claim->mechanism = mechanism->name;
    return true;
}

static bool read_claim_factor(const struct fb_suite_reader *reader, enum fb_factor_key key,
                              const struct fb_yaml_node *node, int *result)
{
    struct fb_axis_value value;
    if (!fb_axis_read_scalar(reader, key, node, &value)) {
        return false;
    }
    *result = (int)value.number;
    return true;
}

/* `best` would be every instruction set of which the run has no better: name one, or none. */
static bool read_claim_isa(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                           struct fb_claim *claim)
{
    int isa;
    if (!read_claim_factor(reader, FB_FACTOR_ISA, node, &isa)) {
        return false;
    }
    if (isa < 0) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "a claim names an instruction set, not 'best'; leave isa out for all of them");
        return false;
    }
    claim->isa = (enum fb_isa)isa;
    return true;
}

static bool read_claim_threads(const struct fb_suite_reader *reader,
                               const struct fb_yaml_node *node, struct fb_claim *claim)
{
    if (!read_claim_factor(reader, FB_FACTOR_THREADS, node, &claim->threads)) {
        return false;
    }
    claim->threads = claim->threads == 0 ? FB_CLAIM_THREADS_MAX : claim->threads;
    return true;
}

static bool read_claim_key(const struct fb_suite_reader *reader, enum claim_key key,
                           const struct fb_yaml_node *node, struct fb_claim *claim)
{
    size_t metric;
    switch (key) {
    case CLAIM_MECHANISM:
        return read_claim_mechanism(reader, node, claim);
    case CLAIM_VARIANT:
        return fb_axis_find_variant(reader, node, NULL, &claim->variant);
    case CLAIM_CAUSAL:
        return read_claim_factor(reader, FB_FACTOR_CAUSAL, node, &claim->causal);
    case CLAIM_PASS:
        return read_claim_factor(reader, FB_FACTOR_PASS, node, &claim->pass);
    case CLAIM_ISA:
        return read_claim_isa(reader, node, claim);
    case CLAIM_THREADS:
        return read_claim_threads(reader, node, claim);
    case CLAIM_HEAD_DIM:
        return read_claim_factor(reader, FB_FACTOR_HEAD_DIM, node, &claim->head_dim);
    case CLAIM_PEER:
        return fb_axis_find_variant(reader, node, NULL, &claim->peer);
    case CLAIM_METRIC:
        if (!fb_value_choice(reader->diagnostics, node, "metric", metric_names, FB_METRIC_COUNT,
                             &metric)) {
            return false;
        }
        claim->metric = (enum fb_metric)metric;
        return true;
    case CLAIM_IS:
        return read_is(reader, node, claim);
    case CLAIM_AT_MOST:
        claim->relation = FB_CLAIM_AT_MOST;
        return fb_value_real(reader->diagnostics, node, "at_most", &claim->value);
    case CLAIM_AT_LEAST:
        claim->relation = FB_CLAIM_AT_LEAST;
        return fb_value_real(reader->diagnostics, node, "at_least", &claim->value);
    case CLAIM_KEY_COUNT:
        break;
    }
    return false;
}

static int claim_key_find(const char *name)
{
    for (int i = 0; i < CLAIM_KEY_COUNT; i++) {
        if (strcmp(claim_keys[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

/* A variant, when the mechanism is given too, must be one of that mechanism. */
static bool check_claim(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                        const bool has[CLAIM_KEY_COUNT], struct fb_claim *claim)
{
    int relations =
        (has[CLAIM_IS] ? 1 : 0) + (has[CLAIM_AT_MOST] ? 1 : 0) + (has[CLAIM_AT_LEAST] ? 1 : 0);
    if (!has[CLAIM_METRIC] || relations != 1) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "a claim needs metric and one of is, at_most, at_least: {mechanism: flow, "
                    "metric: time_exponent, is: 1.0 +- 0.1}");
        return false;
    }
    if (has[CLAIM_PEER] != (claim->metric == FB_METRIC_SPEEDUP_VS_PEER)) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "peer and the metric speedup_vs_peer belong together: {mechanism: flow, peer: "
                    "torch-official, metric: speedup_vs_peer, at_least: 3}");
        return false;
    }
    if (has[CLAIM_MECHANISM] && has[CLAIM_VARIANT]) {
        const struct fb_yaml_pair *pair = fb_yaml_find(node, claim_keys[CLAIM_MECHANISM]);
        const struct fb_mechanism *mechanism;
        return fb_axis_find_mechanism(reader, pair->value, &mechanism) &&
               fb_axis_find_variant(reader, fb_yaml_find(node, claim_keys[CLAIM_VARIANT])->value,
                                    mechanism, &claim->variant);
    }
    return true;
}

static bool write_claim_text(const struct fb_suite_reader *reader, struct fb_claim *claim)
{
    struct fb_error error;
    const char *name = metric_names[claim->metric];
    const char *peer = claim->peer != NULL ? claim->peer : "";
    const char *of = claim->peer != NULL ? " of " : "";
    if (claim->relation == FB_CLAIM_WITHIN) {
        claim->text = fb_arena_printf(reader->arena, &error, "%s%s%s is %g +- %g", name, of, peer,
                                      claim->value, claim->tolerance);
    } else {
        claim->text =
            fb_arena_printf(reader->arena, &error, "%s%s%s at %s %g", name, of, peer,
                            claim->relation == FB_CLAIM_AT_MOST ? "most" : "least", claim->value);
    }
    if (claim->text == NULL) {
        fb_diagnose_memory(reader->diagnostics, &error);
    }
    return claim->text != NULL;
}

static bool read_claim(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                       struct fb_claim *claim)
{
    *claim = (struct fb_claim){.causal = -1, .pass = -1};
    if (node->kind != FB_YAML_MAP) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "a claim is a map: {mechanism: flow, metric: time_exponent, is: 1.0 +- 0.1}");
        return false;
    }
    bool has[CLAIM_KEY_COUNT] = {false};
    bool fine = true;
    for (size_t i = 0; i < node->count; i++) {
        const struct fb_yaml_pair *pair = &node->pairs[i];
        int key = claim_key_find(pair->key->text);
        if (key < 0) {
            fb_suite_unknown_key(reader, pair->key, "a claim", claim_keys, CLAIM_KEY_COUNT);
            fine = false;
            continue;
        }
        has[key] = true;
        fine = read_claim_key(reader, (enum claim_key)key, pair->value, claim) && fine;
    }
    return fine && check_claim(reader, node, has, claim) && write_claim_text(reader, claim);
}

bool fb_suite_read_claims(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                          struct fb_suite *suite)
{
    if (node->kind != FB_YAML_LIST) {
        fb_diagnose(reader->diagnostics, node->mark,
                    "expect is a list of claims: - {mechanism: flow, metric: time_exponent, is: "
                    "1.0 +- 0.1}");
        return false;
    }
    suite->claims = fb_suite_alloc(reader, node->count, sizeof *suite->claims);
    if (suite->claims == NULL) {
        return false;
    }
    bool fine = true;
    for (size_t i = 0; i < node->count && reader->diagnostics->unshown == 0; i++) {
        fine = read_claim(reader, node->items[i], &suite->claims[i]) && fine;
        suite->claims_count++;
    }
    return fine;
}

/* ---- plots --------------------------------------------------------------------------------- */

bool fb_suite_read_plots(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                         struct fb_suite *suite)
{
    size_t count = node->kind == FB_YAML_LIST ? node->count : 1;
    suite->plots = fb_suite_alloc(reader, FB_PLOT_KIND_COUNT, sizeof *suite->plots);
    if (suite->plots == NULL) {
        return false;
    }
    bool seen[FB_PLOT_KIND_COUNT] = {false};
    bool fine = true;
    for (size_t i = 0; i < count && reader->diagnostics->unshown == 0; i++) {
        const struct fb_yaml_node *item = node->kind == FB_YAML_LIST ? node->items[i] : node;
        size_t kind;
        if (!fb_value_choice(reader->diagnostics, item, "plot", plot_names, FB_PLOT_KIND_COUNT,
                             &kind)) {
            fine = false;
        } else if (seen[kind]) {
            fb_diagnose(reader->diagnostics, item->mark, "plot '%s' is listed twice", item->text);
            fine = false;
        } else {
            seen[kind] = true;
            suite->plots[suite->plots_count++] = (enum fb_plot_kind)kind;
        }
    }
    return fine;
}
