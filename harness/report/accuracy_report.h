/*
 * What a training run says at its end: per task and recipe a table with ours beside the paper's
 * numbers and the verdicts, as text for people and as markdown in the run's folder, and the
 * pictures.
 */
#ifndef FB_ACCURACY_REPORT_H
#define FB_ACCURACY_REPORT_H

#include "accuracy_group.h"
#include "report.h"

/* As fb_report_run. The suite may be NULL: then every picture is made. */
enum fb_status fb_accuracy_report(const struct fb_accuracy *accuracy, const struct fb_suite *suite,
                                  const struct fb_report_options *options,
                                  struct fb_report_verdict *verdict,
                                  struct fb_error *error) FB_MUST_CHECK;

/* The tables as markdown. */
enum fb_status fb_accuracy_markdown(const struct fb_accuracy_groups *groups, const char *title,
                                    FILE *out, struct fb_error *error) FB_MUST_CHECK;

#endif
