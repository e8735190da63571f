/*
 * Reading scalars of a suite: numbers, words, booleans, and quantities with their units. Each
 * reader returns true and the value, or false with a diagnostic at the value. `what` names the
 * value in messages ("seq_len", "measure.warmup").
 */
#ifndef FB_SUITE_VALUES_H
#define FB_SUITE_VALUES_H

#include "yaml_tree.h"

#include <stdint.h>

enum fb_quantity { FB_QUANTITY_TIME, FB_QUANTITY_FRACTION, FB_QUANTITY_BYTES };

/* A non-empty text, quoted or not. */
bool fb_value_text(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                   const char *what, const char **text);

/* An unquoted integer in min .. max; 1e6 is one too. */
bool fb_value_integer(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                      const char *what, int64_t min, int64_t max, int64_t *value);

/* An unquoted finite number. */
bool fb_value_real(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                   const char *what, double *value);

/* true or false, nothing else that YAML dialects take for it. */
bool fb_value_bool(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                   const char *what, bool *value);

/* One of the names; the index of it. */
bool fb_value_choice(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                     const char *what, const char *const *names, size_t count, size_t *index);

/* A number with one of the quantity's units: seconds, a fraction, or bytes come out. The value is
 * positive, zero only where zero_allowed. */
bool fb_value_quantity(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                       const char *what, enum fb_quantity quantity, bool zero_allowed,
                       double *value);

/* Whether the text ends with the percent sign of a fraction. */
bool fb_value_is_fraction(const struct fb_yaml_node *node);

/* Parses the number at the start of the text; the rest follows in *end. No hexadecimal, no names.
 * False when there is none or it is not finite. */
bool fb_parse_number(const char *text, double *value, const char **end);

/* "a list", "a map", "nothing" or "'text'", for messages; the buffer is filled for texts. */
const char *fb_value_describe(const struct fb_yaml_node *node, char *buffer, size_t buffer_size);

/* Reports "no <kind> 'x' <where>; did you mean 'y'? valid: a, b, c". */
void fb_value_report_unknown(struct fb_diagnostics *diagnostics, const struct fb_yaml_node *node,
                             const char *kind, const char *const *names, size_t count);

#endif
