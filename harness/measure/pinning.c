/* Binding threads with hwloc: see pinning.h. CPU_SET is GNU's. */
#define _GNU_SOURCE
#include "pinning.h"

#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { PROCESSORS_MAX = 4096 };

static const char *const choices[] = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY",
                                      "KMP_AFFINITY"};

enum { CHOICES_COUNT = sizeof choices / sizeof choices[0] };

/* Of the processors in use, for fb_pinning_widen; a process binds its threads once. */
static cpu_set_t used;
static bool used_is_set;

bool fb_pinning_is_choice(const char *entry)
{
    for (size_t i = 0; i < CHOICES_COUNT; i++) {
        const size_t length = strlen(choices[i]);
        if (strncmp(entry, choices[i], length) == 0 && entry[length] == '=')
            return true;
    }
    return false;
}

extern char **environ;

const char *fb_pinning_users_choice(void)
{
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        if (fb_pinning_is_choice(*entry))
            return *entry;
    }
    return NULL;
}

/* ---- the order ------------------------------------------------------------------------------- */

/* The rank-th processor of a core that is allowed, or -1. */
static int processor_of(hwloc_obj_t core, hwloc_const_bitmap_t allowed, int rank)
{
    int seen = 0;
    int processor = hwloc_bitmap_first(core->cpuset);
    for (; processor >= 0; processor = hwloc_bitmap_next(core->cpuset, processor)) {
        if (hwloc_bitmap_isset(allowed, (unsigned)processor) && seen++ == rank)
            return processor;
    }
    return -1;
}

int fb_pinning_order(hwloc_topology_t topology, hwloc_const_bitmap_t allowed, int *processors,
                     int room)
{
    /* A machine whose cores hwloc does not know has processors all the same. */
    const bool has_cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0;
    const hwloc_obj_type_t type = has_cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    int count = 0;
    bool found = true;
    for (int rank = 0; found && count < room; rank++) {
        found = false;
        hwloc_obj_t core = hwloc_get_next_obj_by_type(topology, type, NULL);
        for (; core != NULL && count < room;
             core = hwloc_get_next_obj_by_type(topology, type, core)) {
            const int processor = processor_of(core, allowed, rank);
            if (processor >= 0) {
                processors[count++] = processor;
                found = true;
            }
        }
    }
    return count;
}

/* ---- this machine ---------------------------------------------------------------------------- */

/* The order here; 0 where hwloc cannot tell. The caller destroys the topology in any case. */
static int order_here(hwloc_topology_t *topology, int *processors, int room)
{
    int count = 0;
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    if (hwloc_topology_init(topology) != 0) {
        hwloc_bitmap_free(allowed);
        *topology = NULL;
        return 0;
    }
    if (allowed != NULL && hwloc_topology_load(*topology) == 0 &&
        hwloc_get_cpubind(*topology, allowed, HWLOC_CPUBIND_PROCESS) == 0)
        count = fb_pinning_order(*topology, allowed, processors, room);
    hwloc_bitmap_free(allowed);
    return count;
}

static void bind_thread(hwloc_topology_t topology, int processor)
{
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    if (set != NULL && hwloc_bitmap_only(set, (unsigned)processor) == 0)
        /* a sandbox that refuses leaves the thread where the kernel likes it */
        (void)hwloc_set_cpubind(topology, set, HWLOC_CPUBIND_THREAD);
    hwloc_bitmap_free(set);
}

enum fb_status fb_pinning_apply(int threads, struct fb_error *error)
{
    hwloc_topology_t topology;
    int *processors = calloc(PROCESSORS_MAX, sizeof *processors);
    if (processors == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the list of processors");
    const int count = order_here(&topology, processors, PROCESSORS_MAX);
    if (threads <= count) {
        CPU_ZERO(&used);
        for (int t = 0; t < threads; t++) {
            if (processors[t] < CPU_SETSIZE)
                CPU_SET((size_t)processors[t], &used);
        }
        used_is_set = true;
#pragma omp parallel num_threads(threads)
        bind_thread(topology, processors[omp_get_thread_num()]);
    }
    if (topology != NULL)
        hwloc_topology_destroy(topology);
    free(processors);
    return FB_OK;
}

void fb_pinning_note_places(void)
{
    const int places = omp_get_num_places();
    if (used_is_set || places < 1)
        return;
    CPU_ZERO(&used);
    for (int place = 0; place < places; place++) {
        const int count = omp_get_place_num_procs(place);
        int *processors = calloc(count > 0 ? (size_t)count : 1, sizeof *processors);
        if (processors == NULL)
            return;
        omp_get_place_proc_ids(place, processors);
        for (int i = 0; i < count; i++) {
            if (processors[i] >= 0 && processors[i] < CPU_SETSIZE)
                CPU_SET((size_t)processors[i], &used);
        }
        free(processors);
    }
    used_is_set = CPU_COUNT(&used) > 0;
}

void fb_pinning_widen(void)
{
    if (used_is_set)
        (void)sched_setaffinity(0, sizeof used, &used);
}

json_t *fb_pinning_to_json(void)
{
    const char *choice = fb_pinning_users_choice();
    if (choice != NULL)
        return json_pack("{s:s, s:o}", "policy", "user", "variable", json_string(choice));
    hwloc_topology_t topology;
    int *processors = calloc(PROCESSORS_MAX, sizeof *processors);
    json_t *list = json_array();
    if (processors != NULL) {
        const int count = order_here(&topology, processors, PROCESSORS_MAX);
        for (int i = 0; i < count; i++)
            (void)json_array_append_new(list, json_integer(processors[i]));
        if (topology != NULL)
            hwloc_topology_destroy(topology);
    }
    free(processors);
    return json_pack("{s:s, s:o}", "policy", "compact", "processors", list);
}
