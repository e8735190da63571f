/* The tasks that task_list.c puts into one table, each defined in the file of its name. */
#ifndef FB_TASK_LIST_H
#define FB_TASK_LIST_H

#include "task.h"

enum { FB_TASK_SERIES_COUNT = 10 };
extern const struct fb_task fb_task_series[FB_TASK_SERIES_COUNT]; /* task_series.c */
extern const struct fb_task fb_task_adder;                        /* task_adder.c */

#endif
