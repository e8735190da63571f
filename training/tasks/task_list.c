/* The table of every task: see task.h. */
#include "task_list.h"

#include <string.h>

static const struct fb_task *const tasks[] = {
    &fb_task_adder,     &fb_task_series[0],  &fb_task_series[1],   &fb_task_series[2],
    &fb_task_series[3], &fb_task_series[4],  &fb_task_series[5],   &fb_task_series[6],
    &fb_task_series[7], &fb_task_series[8],  &fb_task_series[9],   &fb_task_listops,
    &fb_task_text,      &fb_task_retrieval,  &fb_task_image,       &fb_task_pathfinder,
    &fb_task_bytes,     &fb_task_characters, &fb_task_wikitext[0], &fb_task_wikitext[1],
};

size_t fb_task_count(void)
{
    return sizeof tasks / sizeof tasks[0];
}

const struct fb_task *fb_task_at(size_t index)
{
    return tasks[index];
}

const struct fb_task *fb_task_find(const char *name)
{
    for (size_t i = 0; i < fb_task_count(); i++)
        if (strcmp(tasks[i]->name, name) == 0)
            return tasks[i];
    return NULL;
}
