/* Workers side by side: see training_slots.h. */
#include "training_slots.h"

#include "cuda_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The n-th entry of a list with commas, n counted round. */
static void pick_entry(const char *list, size_t n, char *entry, size_t size)
{
    size_t entries = 1;
    for (const char *c = list; *c != '\0'; c++)
        entries += *c == ',';
    for (size_t skip = n % entries; skip > 0; skip--)
        list = strchr(list, ',') + 1;
    snprintf(entry, size, "%.*s", (int)strcspn(list, ","), list);
}

static void deal_gpus(struct fb_training_slots *slots)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    const int gpus = fb_cuda_count();
    for (size_t i = 0; gpus > 1 && i < slots->count; i++) {
        struct fb_training_slot *slot = &slots->slots[i];
        if (visible && *visible != '\0')
            pick_entry(visible, i, slot->gpu, sizeof slot->gpu);
        else
            snprintf(slot->gpu, sizeof slot->gpu, "%zu", i % (size_t)gpus);
    }
}

void fb_training_slots_init(struct fb_training_slots *slots, size_t parallel)
{
    memset(slots, 0, sizeof *slots);
    slots->count = parallel;
    if (parallel > 1)
        deal_gpus(slots);
}

/* Cases like this one that may run at once. */
static size_t room_for(const struct fb_training_slots *slots, const struct fb_case *item)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (item->device != FB_CPU)
        return slots->count;
    const size_t fit = online > 0 ? (size_t)online / (size_t)item->threads : 1;
    return fit < 1 ? 1 : fit < slots->count ? fit : slots->count;
}

struct fb_training_slot *fb_training_slots_room(struct fb_training_slots *slots,
                                                const struct fb_case *item)
{
    if (slots->busy > 0 && (item->device != slots->device || slots->busy >= room_for(slots, item)))
        return NULL;
    for (size_t i = 0; i < slots->count; i++)
        if (!slots->slots[i].worker)
            return &slots->slots[i];
    return NULL;
}

enum fb_status fb_training_slots_start(struct fb_training_slots *slots,
                                       struct fb_training_slot *slot, const struct fb_case *item,
                                       size_t case_index, json_t *input,
                                       const struct fb_worker_task *task, struct fb_error *error)
{
    struct fb_worker_task placed = *task;
    placed.input = input;
    placed.gpu = item->device != FB_CPU && slot->gpu[0] != '\0' ? slot->gpu : NULL;
    const enum fb_status status = fb_worker_start(&placed, &slot->worker, error);
    if (status != FB_OK) {
        json_decref(input);
        return status;
    }
    slot->case_index = case_index;
    slot->input = input;
    slots->device = item->device;
    slots->busy++;
    return FB_OK;
}

static void empty(struct fb_training_slots *slots, struct fb_training_slot *slot)
{
    slot->worker = NULL;
    json_decref(slot->input);
    slot->input = NULL;
    slots->busy--;
}

size_t fb_training_slots_wait(struct fb_training_slots *slots, struct fb_interrupts *interrupts,
                              struct fb_worker_outcome *outcome)
{
    struct fb_worker *workers[FB_WORKERS_MAX];
    for (size_t i = 0; i < slots->count; i++)
        workers[i] = slots->slots[i].worker;
    struct fb_training_slot *slot =
        &slots->slots[fb_worker_wait(workers, slots->count, interrupts, outcome)];
    empty(slots, slot);
    return slot->case_index;
}

void fb_training_slots_abandon(struct fb_training_slots *slots)
{
    for (size_t i = 0; i < slots->count; i++) {
        if (!slots->slots[i].worker)
            continue;
        fb_worker_abandon(slots->slots[i].worker);
        empty(slots, &slots->slots[i]);
    }
}
