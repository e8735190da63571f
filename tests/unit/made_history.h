/* Runs made up in memory, for tests of the history. */
#ifndef FB_MADE_HISTORY_H
#define FB_MADE_HISTORY_H

#include "history_run.h"

enum { FB_MADE_CASES = 5 };

/* Run `number` of a machine: one commit per number, FB_MADE_CASES cases named c0, c1, ... of
 * seq_len 256, 512, ...; time_s is that of c0, each further case takes twice as long. Rows are
 * static: the next call overwrites them. */
struct fb_history_run fb_made_run(int number, const char *machine, double time_s);

#endif
