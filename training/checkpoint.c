/* Checkpoints: see trainer.h. */
#include "safetensors.h"
#include "trainer_device.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "flowbench-checkpoint-1"

enum { KINDS = 4, NAME_MAX_BYTES = FB_GRAPH_NAME_MAX + 16 };

static const char *const prefixes[KINDS] = {"", "optimiser.m.", "optimiser.v.", "best."};

static float *block_of(const struct fb_trainer *t, int kind)
{
    float *const blocks[KINDS] = {t->run.params, t->m, t->v, t->best};
    return blocks[kind];
}

static int kinds_of(const struct fb_trainer *t)
{
    return t->best ? KINDS : KINDS - 1;
}

static bool is_saved(const struct fb_trainer *t, int param)
{
    return t->run.graph->params[param].offset < t->run.graph->trained_floats;
}

static size_t describe(const struct fb_trainer *t, struct fb_safetensors_tensor *tensors,
                       char (*names)[NAME_MAX_BYTES])
{
    const struct fb_graph *g = t->run.graph;
    size_t count = 0;
    for (int kind = 0; kind < kinds_of(t); kind++)
        for (int i = 0; i < g->param_count; i++) {
            const struct fb_graph_param *p = &g->params[i];
            if (!is_saved(t, i))
                continue;
            struct fb_safetensors_tensor *out = &tensors[count];
            snprintf(names[count], NAME_MAX_BYTES, "%s%s", prefixes[kind], p->name);
            *out = (struct fb_safetensors_tensor){.name = names[count],
                                                  .type = FB_ST_F32,
                                                  .rank = p->rank,
                                                  .count = p->count,
                                                  .bytes = (size_t)p->count * sizeof(float),
                                                  .data = block_of(t, kind) + p->offset};
            memcpy(out->shape, p->shape, sizeof p->shape);
            count++;
        }
    return count;
}

enum fb_status fb_trainer_save(const struct fb_trainer *t, const char *path, struct fb_error *error)
{
    const size_t most = (size_t)KINDS * (size_t)t->run.graph->param_count;
    struct fb_safetensors_tensor *tensors = calloc(most, sizeof *tensors);
    char(*names)[NAME_MAX_BYTES] = calloc(most, sizeof *names);
    char step[24], seed[24];
    enum fb_status status = t->device ? fb_trainer_device_fetch(t, error) : FB_OK;
    snprintf(step, sizeof step, "%" PRId64, t->step);
    snprintf(seed, sizeof seed, "%" PRIu64, t->seed);
    const struct fb_safetensors_text metadata[] = {
        {"format", FORMAT}, {"step", step}, {"seed", seed}, {"note", t->note}};
    if (status == FB_OK && tensors && names)
        status = fb_safetensors_write(path, tensors, describe(t, tensors, names), metadata,
                                      t->note ? 4 : 3, error);
    else if (status == FB_OK)
        status = fb_error_set(error, FB_ERROR_MEMORY, "no memory for the checkpoint's index");
    free(tensors);
    free(names);
    return status;
}

static enum fb_status refuse(const struct fb_safetensors *file, const char *what, const char *name,
                             struct fb_error *error)
{
    return fb_error_set(error, FB_ERROR_INPUT, "%s: %s%s; it is no checkpoint of this model",
                        file->path, what, name);
}

/* Every tensor is there, f32, of its shape. */
static enum fb_status check_tensors(const struct fb_safetensors *file, const struct fb_trainer *t,
                                    struct fb_error *error)
{
    const struct fb_graph *g = t->run.graph;
    char name[NAME_MAX_BYTES];
    for (int kind = 0; kind < kinds_of(t); kind++)
        for (int i = 0; i < g->param_count; i++) {
            const struct fb_graph_param *p = &g->params[i];
            if (!is_saved(t, i))
                continue;
            snprintf(name, sizeof name, "%s%s", prefixes[kind], p->name);
            const struct fb_safetensors_tensor *in = fb_safetensors_find(file, name);
            if (!in)
                return refuse(file, "it lacks the tensor ", name, error);
            if (in->type != FB_ST_F32 || in->rank != p->rank ||
                memcmp(in->shape, p->shape, (size_t)p->rank * sizeof p->shape[0]) != 0)
                return refuse(file, "another type or shape has the tensor ", name, error);
        }
    return FB_OK;
}

static void copy_tensors(const struct fb_safetensors *file, const struct fb_trainer *t)
{
    const struct fb_graph *g = t->run.graph;
    char name[NAME_MAX_BYTES];
    for (int kind = 0; kind < kinds_of(t); kind++)
        for (int i = 0; i < g->param_count; i++) {
            if (!is_saved(t, i))
                continue;
            snprintf(name, sizeof name, "%s%s", prefixes[kind], g->params[i].name);
            const struct fb_safetensors_tensor *in = fb_safetensors_find(file, name);
            memcpy(block_of(t, kind) + g->params[i].offset, in->data, in->bytes);
        }
}

/* A decimal number of the metadata that is nothing else. */
static bool number_of(const struct fb_safetensors *file, const char *key, uint64_t *value)
{
    const char *text = fb_safetensors_metadata_find(file, key);
    char *end = NULL;
    if (!text || *text < '0' || *text > '9')
        return false;
    *value = strtoull(text, &end, 10);
    return *end == '\0';
}

enum fb_status fb_trainer_load(struct fb_trainer *t, const char *path, struct fb_error *error)
{
    struct fb_safetensors file;
    uint64_t step = 0, seed = 0;
    enum fb_status status = fb_safetensors_open(&file, path, error);
    if (status != FB_OK)
        return status;
    const char *format = fb_safetensors_metadata_find(&file, "format");
    if (!format || strcmp(format, FORMAT) != 0)
        status = refuse(&file, "its metadata do not say ", FORMAT, error);
    else if (!number_of(&file, "step", &step) || !number_of(&file, "seed", &seed) ||
             step > (uint64_t)1 << 62)
        status = refuse(&file, "step or seed of its metadata are no numbers", "", error);
    else
        status = check_tensors(&file, t, error);
    const char *note = fb_safetensors_metadata_find(&file, "note");
    if (status == FB_OK && note) {
        note = fb_arena_strdup(t->run.graph->arena, note, error);
        status = note ? FB_OK : FB_ERROR_MEMORY;
    }
    if (status == FB_OK) {
        t->note = note;
        copy_tensors(&file, t);
        t->step = (int64_t)step;
        t->seed = seed;
    }
    fb_safetensors_close(&file);
    return status == FB_OK && t->device ? fb_trainer_device_put(t, error) : status;
}
