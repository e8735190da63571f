/* Scalars of a suite and their units. */
#include "suite_values.h"

#include "nearest.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DESCRIBE_SIZE = 80 };

const char *fb_value_describe(const struct fb_yaml_node *node, char *buffer, size_t buffer_size)
{
    if (node->kind == FB_YAML_LIST) {
        return "a list";
    }
    if (node->kind == FB_YAML_MAP) {
        return "a map";
    }
    if (node->text[0] == '\0' && !node->quoted) {
        return "nothing";
    }
    (void)snprintf(buffer, buffer_size, "%s'%.50s'", node->quoted ? "the text " : "", node->text);
    return buffer;
}

static bool report_kind(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                        const char *what, const char *wanted)
{
    char buffer[DESCRIBE_SIZE];
    fb_diagnose(diagnostics, node->mark, "%s is %s, not %s", what, wanted,
                fb_value_describe(node, buffer, sizeof buffer));
    return false;
}

bool fb_value_text(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                   const char *what, const char **text)
{
    if (node->kind != FB_YAML_SCALAR || node->text[0] == '\0') {
        return report_kind(diagnostics, node, what, "a text");
    }
    *text = node->text;
    return true;
}

bool fb_parse_number(const char *text, double *value, const char **end)
{
    const char *c = text;
    c += (*c == '-' || *c == '+') ? 1 : 0;
    bool starts = isdigit((unsigned char)c[0]) || (c[0] == '.' && isdigit((unsigned char)c[1]));
    bool hexadecimal = c[0] == '0' && (c[1] == 'x' || c[1] == 'X');
    if (!starts || hexadecimal) {
        return false;
    }
    char *stop = NULL;
    *value = strtod(text, &stop);
    *end = stop;
    return isfinite(*value);
}

/* Decimal digits exactly; other spellings of whole numbers (1e6) through a double. */
static bool parse_integer(const char *text, int64_t *value, bool *too_large)
{
    *too_large = false;
    const char *digits = text + (text[0] == '-' ? 1 : 0);
    size_t length = strlen(digits);
    if (length > 0 && strspn(digits, "0123456789") == length) {
        if (length > 1 && digits[0] == '0') {
            return false; /* octal to some readers of YAML, decimal to others */
        }
        errno = 0;
        long long number = strtoll(text, NULL, 10);
        *too_large = errno == ERANGE;
        *value = number;
        return !*too_large;
    }
    double number;
    const char *end;
    if (!fb_parse_number(text, &number, &end) || *end != '\0' || floor(number) < number) {
        return false;
    }
    if (fabs(number) > 9.0e18) {
        *too_large = true;
        return false;
    }
    *value = (int64_t)number;
    return true;
}

bool fb_value_integer(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                      const char *what, int64_t min, int64_t max, int64_t *value)
{
    bool too_large = false;
    if (node->kind != FB_YAML_SCALAR || node->quoted ||
        !parse_integer(node->text, value, &too_large)) {
        if (!too_large) {
            return report_kind(diagnostics, node, what, "a whole number");
        }
    }
    if (too_large || *value < min || *value > max) {
        fb_diagnose(diagnostics, node->mark, "%s must be %lld to %lld, not %.40s", what,
                    (long long)min, (long long)max, node->text);
        return false;
    }
    return true;
}

bool fb_value_real(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                   const char *what, double *value)
{
    const char *end = "";
    if (node->kind != FB_YAML_SCALAR || node->quoted || !fb_parse_number(node->text, value, &end) ||
        *end != '\0') {
        return report_kind(diagnostics, node, what, "a number");
    }
    return true;
}

bool fb_value_bool(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                   const char *what, bool *value)
{
    static const struct {
        const char *text;
        bool value;
    } dialects[] = {{"true", true}, {"false", false}, {"yes", true}, {"no", false}, {"on", true},
                    {"off", false}, {"y", true},      {"n", false},  {"1", true},   {"0", false}};
    if (node->kind == FB_YAML_SCALAR && !node->quoted) {
        if (strcmp(node->text, "true") == 0 || strcmp(node->text, "false") == 0) {
            *value = node->text[0] == 't';
            return true;
        }
        for (size_t i = 0; i < sizeof dialects / sizeof dialects[0]; i++) {
            if (fb_edit_distance(node->text, dialects[i].text) == 0) {
                fb_diagnose(diagnostics, node->mark,
                            "%s is true or false, not '%s'; did you mean '%s'?", what, node->text,
                            dialects[i].value ? "true" : "false");
                return false;
            }
        }
        static const char *const names[] = {"true", "false"};
        const char *near = fb_nearest_name(node->text, names, 2);
        if (near != NULL) {
            fb_diagnose(diagnostics, node->mark,
                        "%s is true or false, not '%.40s'; did you mean '%s'?", what, node->text,
                        near);
            return false;
        }
    }
    return report_kind(diagnostics, node, what, "true or false");
}

void fb_value_report_unknown(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                             const char *kind, const char *const *names, size_t count)
{
    char valid[240] = "";
    size_t used = 0;
    for (size_t i = 0; i < count && used < sizeof valid; i++) {
        used += (size_t)snprintf(valid + used, sizeof valid - used, "%s%s", i > 0 ? ", " : "",
                                 names[i]);
    }
    const char *near = fb_nearest_name(node->text, names, count);
    if (near != NULL) {
        fb_diagnose(diagnostics, node->mark, "unknown %s '%.60s'; did you mean '%s'? (valid: %s)",
                    kind, node->text, near, valid);
    } else {
        fb_diagnose(diagnostics, node->mark, "unknown %s '%.60s' (valid: %s)", kind, node->text,
                    valid);
    }
}

bool fb_value_choice(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                     const char *what, const char *const *names, size_t count, size_t *index)
{
    if (node->kind != FB_YAML_SCALAR || node->text[0] == '\0') {
        return report_kind(diagnostics, node, what, "a word");
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(node->text, names[i]) == 0) {
            *index = i;
            return true;
        }
    }
    fb_value_report_unknown(diagnostics, node, what, names, count);
    return false;
}

struct unit {
    const char *name;
    double scale;
};

enum { UNITS_MAX = 12 };
static const struct {
    const char *wanted; /* in messages, with an example */
    struct unit units[UNITS_MAX];
} quantities[] = {
    [FB_QUANTITY_TIME] = {"a time such as '50 ms' (units: us, ms, s, min, h)",
                          {{"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"min", 60}, {"h", 3600}}},
    [FB_QUANTITY_FRACTION] = {"a share such as '1 %' (unit: %)", {{"%", 0.01}}},
    [FB_QUANTITY_BYTES] = {"a size such as '512 MiB' (units: B, kB, MB, GB, TB, KiB, MiB, GiB, "
                           "TiB)",
                           {{"B", 1},
                            {"kB", 1e3},
                            {"MB", 1e6},
                            {"GB", 1e9},
                            {"TB", 1e12},
                            {"KiB", 1024.0},
                            {"MiB", 1048576.0},
                            {"GiB", 1073741824.0},
                            {"TiB", 1099511627776.0}}},
};

bool fb_value_is_fraction(const struct fb_yaml_node *node)
{
    return node->kind == FB_YAML_SCALAR && strchr(node->text, '%') != NULL;
}

bool fb_value_quantity(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                       const char *what, enum fb_quantity quantity, bool zero_allowed,
                       double *value)
{
    const char *wanted = quantities[quantity].wanted;
    const char *unit = "";
    double number = 0;
    if (node->kind != FB_YAML_SCALAR || !fb_parse_number(node->text, &number, &unit)) {
        return report_kind(diagnostics, node, what, wanted);
    }
    unit += strspn(unit, " ");
    if (unit[0] == '\0') {
        fb_diagnose(diagnostics, node->mark, "%s needs a unit: '%.40s' is not %s", what, node->text,
                    wanted);
        return false;
    }
    const struct unit *units = quantities[quantity].units;
    size_t at = 0;
    while (at < UNITS_MAX && units[at].name != NULL && strcmp(units[at].name, unit) != 0) {
        at++;
    }
    if (at == UNITS_MAX || units[at].name == NULL) {
        const char *names[UNITS_MAX];
        size_t count = 0;
        while (count < UNITS_MAX && units[count].name != NULL) {
            names[count] = units[count].name;
            count++;
        }
        const char *near = fb_nearest_name(unit, names, count);
        fb_diagnose(diagnostics, node->mark, "%s has the unknown unit '%.20s'%s%s%s: it is %s",
                    what, unit, near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                    near != NULL ? "'?" : "", wanted);
        return false;
    }
    *value = number * units[at].scale;
    if (!(number > 0.0 || (zero_allowed && number >= 0.0)) || !isfinite(*value)) {
        fb_diagnose(diagnostics, node->mark, "%s must be %s, not '%.40s'", what,
                    zero_allowed ? "zero or more" : "more than zero", node->text);
        return false;
    }
    return true;
}
