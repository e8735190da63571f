/* The keys of a suite: one table of readers per map. Private to the room. */
#ifndef FB_SUITE_SCHEMA_H
#define FB_SUITE_SCHEMA_H

#include "suite_reader.h"
#include "sweep.h"

/* Reads the merged document into the suite; false with diagnostics. */
bool fb_suite_read_document(const struct fb_suite_reader *reader, const struct fb_yaml_node *root,
                            struct fb_suite *suite);

/* `expect:` and `plots:` */
bool fb_suite_read_claims(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                          struct fb_suite *suite);
bool fb_suite_read_plots(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                         struct fb_suite *suite);

/* `training:` and the `plots:` of a suite of kind: training; and, when all is read, the keys that
 * do not go with the kind. */
bool fb_suite_read_training(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                            struct fb_training_settings *training);
bool fb_suite_check_kind(const struct fb_suite_reader *reader, const struct fb_yaml_node *root,
                         struct fb_suite *suite);

/* The document of a suite: the file (or text), its includes below it, the --set values on top.
 * NULL with diagnostics. */
const struct fb_yaml_node *fb_suite_load_file(const struct fb_suite_reader *reader,
                                              const char *path);
const struct fb_yaml_node *fb_suite_load_text(const struct fb_suite_reader *reader,
                                              const char *text, size_t length, const char *path);
const struct fb_yaml_node *fb_suite_apply_sets(const struct fb_suite_reader *reader,
                                               const struct fb_yaml_node *root,
                                               const struct fb_suite_options *options);

#endif
