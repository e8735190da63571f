/* What task files share: paths into the data folder, permutations, the cut. See task.h. */
#include "random.h"
#include "task.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#define CUT_STREAM 0x63757421U

enum fb_status fb_task_path(const struct fb_task *task, const struct fb_task_options *options,
                            const char *relative, struct fb_arena *arena, const char **path,
                            struct fb_error *error)
{
    const char *verb = task->made ? "make" : "fetch";
    if (!options->data_dir)
        return fb_error_set(error, FB_ERROR_IO,
                            "task %s reads data files and no data folder was named: set "
                            "FLOWBENCH_DATA or pass --data-dir DIR; './bench data %s %s' gets "
                            "them",
                            task->name, verb, task->name);
    char *full = fb_arena_printf(arena, error, "%s/%s", options->data_dir, relative);
    if (!full)
        return FB_ERROR_MEMORY;
    if (access(full, R_OK) != 0)
        return fb_error_set(error, FB_ERROR_IO,
                            "task %s: cannot read '%s': %s; './bench data %s %s --data-dir %s' "
                            "gets it",
                            task->name, full, strerror(errno), verb, task->name, options->data_dir);
    *path = full;
    return FB_OK;
}

int64_t *fb_task_permutation(int64_t count, uint64_t seed, uint64_t stream, struct fb_arena *arena,
                             struct fb_error *error)
{
    int64_t *order = fb_arena_alloc(arena, (size_t)count + 1, sizeof *order, error);
    struct fb_random random;
    if (!order)
        return NULL;
    fb_random_init(&random, seed, stream);
    for (int64_t i = 0; i < count; i++) {
        const int64_t j = (int64_t)fb_random_below(&random, (uint64_t)i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    return order;
}

/* Marks the share of each class, in the order of the permutation. */
static void mark_held(unsigned char *held, int64_t *left, const int64_t *order, int64_t count,
                      const int32_t *labels)
{
    for (int64_t i = 0; i < count; i++) {
        const int32_t class = labels ? labels[order[i]] : 0;
        if (left[class] > 0) {
            held[order[i]] = 1;
            left[class]--;
        }
    }
}

enum fb_status fb_task_cut(struct fb_task_cut *cut, int64_t count, const int32_t *labels,
                           int32_t classes, double share, uint64_t seed, struct fb_arena *arena,
                           struct fb_error *error)
{
    const size_t room = (size_t)count + 1, kinds = labels ? (size_t)classes : 1;
    const int64_t *order = fb_task_permutation(count, seed, CUT_STREAM, arena, error);
    unsigned char *held = order ? fb_arena_alloc(arena, room, 1, error) : NULL;
    int64_t *left = held ? fb_arena_alloc(arena, kinds, sizeof *left, error) : NULL;
    *cut = (struct fb_task_cut){0};
    if (!left)
        return FB_ERROR_MEMORY;
    cut->train = fb_arena_alloc(arena, room, sizeof *cut->train, error);
    cut->validation =
        cut->train ? fb_arena_alloc(arena, room, sizeof *cut->validation, error) : NULL;
    if (!cut->validation)
        return FB_ERROR_MEMORY;
    for (int64_t i = 0; i < count; i++)
        left[labels ? labels[i] : 0]++;
    for (size_t k = 0; k < kinds; k++) {
        const int64_t wanted = llround(share * (double)left[k]);
        left[k] = wanted < left[k] ? wanted : left[k] - 1;
    }
    mark_held(held, left, order, count, labels);
    for (int64_t i = 0; i < count; i++)
        if (held[i])
            cut->validation[cut->validation_count++] = i;
        else
            cut->train[cut->train_count++] = i;
    return FB_OK;
}
