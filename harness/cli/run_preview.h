/* `run --list` and `run --dry-run`: what would be measured, without measuring it. */
#ifndef FB_RUN_PREVIEW_H
#define FB_RUN_PREVIEW_H

#include "run_session.h"

/* One line per case on stdout. */
void fb_run_preview_list(const struct fb_planned *planned);

/* The same with predicted bytes and times per case and in total; measures the ceilings (half a
 * second for each number of threads and instruction set) that the times are predicted from. */
enum fb_status fb_run_preview_dry_run(const struct fb_planned *planned, const char *data_dir,
                                      struct fb_error *error) FB_MUST_CHECK;

#endif
