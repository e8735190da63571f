/* Names of the registry on the command line: see mechanism_choice.h. */
#include "mechanism_choice.h"

#include "cpu_features.h"
#include "factor.h"
#include "nearest.h"
#include "registry.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 64, LIST_SIZE = 512 };

/* "there is no WHAT 'NAME'; did you mean 'X'? Valid are a, b, c" */
static enum fb_status refuse_name(const char *what, const char *name, const char *const *names,
                                  size_t count, struct fb_error *error)
{
    const char *near = fb_nearest_name(name, names, count);
    char list[LIST_SIZE] = "";
    size_t used = 0;

    for (size_t i = 0; i < count && used < sizeof list; i++)
        used +=
            (size_t)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", names[i]);
    return fb_error_set(error, FB_ERROR_USAGE, "there is no %s '%.60s'%s%s%s valid %s: %s", what,
                        name, near != NULL ? "; did you mean '" : ";", near != NULL ? near : "",
                        near != NULL ? "'?" : "", count == 1 ? "is" : "are", list);
}

enum fb_status fb_choose_mechanism(const char *name, const struct fb_mechanism **mechanism,
                                   struct fb_error *error)
{
    const char *names[NAMES_MAX];

    *mechanism = fb_mechanism_find(name);
    return *mechanism != NULL ? FB_OK
                              : refuse_name("mechanism", name, names,
                                            fb_factor_mechanism_names(names, NAMES_MAX), error);
}

/* ---- parameters ------------------------------------------------------------------------------ */

static enum fb_status refuse_value(const struct fb_param *param, const char *value,
                                   struct fb_error *error)
{
    if (param->type == FB_PARAM_BOOL)
        return fb_error_set(error, FB_ERROR_USAGE, "%s is true or false, not '%.60s'", param->name,
                            value);
    return fb_error_set(error, FB_ERROR_USAGE, "%s must be %s from %.10g to %.10g, not '%.60s'",
                        param->name, param->type == FB_PARAM_INT ? "a whole number" : "a number",
                        param->min, param->max, value);
}

static enum fb_status parse_number(const struct fb_param *param, const char *text, double *value,
                                   struct fb_error *error)
{
    char *end;

    errno = 0;
    *value = strtod(text, &end);
    if (end == text || *end != '\0' || errno == ERANGE || !isfinite(*value) ||
        (param->type == FB_PARAM_INT && *value != floor(*value)) || *value < param->min ||
        *value > param->max)
        return refuse_value(param, text, error);
    return FB_OK;
}

static enum fb_status parse_value(const struct fb_param *param, const char *text, double *value,
                                  struct fb_error *error)
{
    size_t count = 0;

    switch (param->type) {
    case FB_PARAM_INT:
    case FB_PARAM_REAL:
        return parse_number(param, text, value, error);
    case FB_PARAM_BOOL:
        *value = strcmp(text, "true") == 0 ? 1.0 : 0.0;
        return *value > 0.0 || strcmp(text, "false") == 0 ? FB_OK
                                                          : refuse_value(param, text, error);
    case FB_PARAM_CHOICE:
        for (; param->choices[count] != NULL; count++) {
            if (strcmp(param->choices[count], text) == 0) {
                *value = (double)count;
                return FB_OK;
            }
        }
        return refuse_name(param->name, text, param->choices, count, error);
    }
    return refuse_value(param, text, error);
}

enum fb_status fb_choose_param(const struct fb_mechanism *mechanism, const char *text,
                               double params[FB_PARAMS_MAX], int *index, struct fb_error *error)
{
    const char *equals = strchr(text, '=');
    const char *names[FB_PARAMS_MAX];
    char name[64];

    if (equals == NULL || equals == text)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "'%.60s' is no parameter: write NAME=VALUE, e.g. features=128", text);
    (void)snprintf(name, sizeof name, "%.*s", (int)(equals - text), text);
    const int at = fb_param_index(mechanism, name);
    if (at < 0 && mechanism->param_count == 0)
        return fb_error_set(error, FB_ERROR_USAGE, "%s has no parameters, hence no '%s'",
                            mechanism->name, name);
    for (int i = 0; i < mechanism->param_count; i++)
        names[i] = mechanism->params[i].name;
    if (at < 0) {
        char what[96];
        (void)snprintf(what, sizeof what, "parameter of %s", mechanism->name);
        return refuse_name(what, name, names, (size_t)mechanism->param_count, error);
    }
    if (index != NULL)
        *index = at;
    return parse_value(&mechanism->params[at], equals + 1, &params[at], error);
}

/* ---- variants -------------------------------------------------------------------------------- */

static enum fb_status check_variant(const struct fb_mechanism *mechanism, const char *variant,
                                    struct fb_error *error)
{
    const char *names[NAMES_MAX];
    const size_t count = fb_factor_variant_names(mechanism, names, NAMES_MAX);
    char what[96];

    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], variant) == 0)
            return FB_OK;
    }
    (void)snprintf(what, sizeof what, "variant of %s", mechanism->name);
    return refuse_name(what, variant, names, count, error);
}

static enum fb_status parse_isa(const char *name, enum fb_isa *isa, struct fb_error *error)
{
    const char *names[FB_ISA_COUNT];
    const int found = fb_isa_parse(name);

    for (int i = 0; i < FB_ISA_COUNT; i++)
        names[i] = fb_isa_name((enum fb_isa)i);
    if (found < 0)
        return refuse_name("instruction set", name, names, FB_ISA_COUNT, error);
    *isa = (enum fb_isa)found;
    if (*isa != FB_ISA_ANY && !fb_cpu_has(*isa))
        return fb_error_set(error, FB_ERROR_USAGE, "this machine has no %s; its best is %s", name,
                            fb_isa_name(fb_cpu_best_isa()));
    return FB_OK;
}

static bool has_device(const struct fb_mechanism *mechanism, enum fb_backend device)
{
    for (size_t i = 0; i < fb_attention_count(); i++) {
        const struct fb_attention *a = fb_attention_at(i);
        if (a->mechanism == mechanism && a->backend == device)
            return true;
    }
    return false;
}

enum fb_status fb_choose_attention(const struct fb_mechanism *mechanism, const char *variant,
                                   enum fb_backend device, const char *isa,
                                   const struct fb_attention **attention, struct fb_error *error)
{
    enum fb_isa wanted = FB_ISA_ANY;
    enum fb_status status = FB_OK;

    *attention = NULL;
    if (variant == NULL)
        (void)fb_factor_variant_names(mechanism, &variant, 1);
    status = check_variant(mechanism, variant, error);
    if (status == FB_OK && !has_device(mechanism, device))
        status =
            fb_error_set(error, FB_ERROR_USAGE, "this build has no %s for %s; use another device",
                         mechanism->name, fb_backend_name(device));
    if (status == FB_OK && isa != NULL)
        status = parse_isa(isa, &wanted, error);
    if (status != FB_OK)
        return status;
    if (isa != NULL)
        *attention = fb_attention_find(mechanism, variant, device, wanted);
    for (int best = FB_ISA_COUNT - 1; isa == NULL && best >= 0 && *attention == NULL; best--) {
        if (best == FB_ISA_ANY || fb_cpu_has((enum fb_isa)best))
            *attention = fb_attention_find(mechanism, variant, device, (enum fb_isa)best);
    }
    if (*attention == NULL)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "%s/%s is not built for %s%s%s; `flowbench list mechanisms` shows what "
                            "is",
                            mechanism->name, variant, fb_backend_name(device),
                            isa != NULL ? " " : "", isa != NULL ? isa : "");
    return FB_OK;
}
