/* The tasks that task_list.c puts into one table, each defined in the file of its name. */
#ifndef FB_TASK_LIST_H
#define FB_TASK_LIST_H

#include "task.h"

enum { FB_TASK_SERIES_COUNT = 10, FB_TASK_WIKITEXT_COUNT = 2 };
extern const struct fb_task fb_task_series[FB_TASK_SERIES_COUNT];     /* task_series.c */
extern const struct fb_task fb_task_adder;                            /* task_adder.c */
extern const struct fb_task fb_task_listops;                          /* task_listops.c */
extern const struct fb_task fb_task_text;                             /* task_text.c */
extern const struct fb_task fb_task_retrieval;                        /* task_text.c */
extern const struct fb_task fb_task_image;                            /* task_image.c */
extern const struct fb_task fb_task_pathfinder;                       /* task_image.c */
extern const struct fb_task fb_task_bytes;                            /* task_bytes.c */
extern const struct fb_task fb_task_characters;                       /* task_language.c */
extern const struct fb_task fb_task_wikitext[FB_TASK_WIKITEXT_COUNT]; /* task_language.c */

#endif
