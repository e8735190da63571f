/* The order in which threads are given processors, on topologies made up. */
#include "pinning.h"

#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROOM = 16 };

/* "0 2 4 1": the processors chosen from those of the list (all of them when it is NULL). */
static void check_order(const char *machine, const char *allowed_list, int room,
                        const char *expected)
{
    hwloc_topology_t topology;
    int processors[ROOM];
    char text[128] = "";
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    assert_int_equal(hwloc_topology_init(&topology), 0);
    assert_int_equal(hwloc_topology_set_synthetic(topology, machine), 0);
    assert_int_equal(hwloc_topology_load(topology), 0);
    if (allowed_list)
        assert_int_equal(hwloc_bitmap_list_sscanf(allowed, allowed_list), 0);
    else
        hwloc_bitmap_fill(allowed);
    const int count = fb_pinning_order(topology, allowed, processors, room);
    for (int i = 0; i < count; i++) {
        const size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%d", i ? " " : "", processors[i]);
    }
    assert_string_equal(text, expected);
    hwloc_bitmap_free(allowed);
    hwloc_topology_destroy(topology);
}

static void test_cores_come_before_their_second_threads(void **state)
{
    (void)state;
    check_order("core:4 pu:2", NULL, ROOM, "0 2 4 6 1 3 5 7");
    check_order("package:2 core:2 pu:2", NULL, 3, "0 2 4");
    check_order("core:3 pu:1", NULL, ROOM, "0 1 2");
    check_order("pu:3", NULL, ROOM, "0 1 2");
}

static void test_only_what_this_process_was_given(void **state)
{
    (void)state;
    check_order("core:4 pu:2", "1-3", ROOM, "1 2 3");
    check_order("core:4 pu:2", "6-7", ROOM, "6 7");
    check_order("core:4 pu:2", "9", ROOM, "");
}

static void test_the_users_choice_is_recognised(void **state)
{
    (void)state;
    assert_true(fb_pinning_is_choice("OMP_PROC_BIND=close"));
    assert_true(fb_pinning_is_choice("OMP_PLACES="));
    assert_true(fb_pinning_is_choice("GOMP_CPU_AFFINITY=0 1"));
    assert_false(fb_pinning_is_choice("OMP_PROC_BINDING=close"));
    assert_false(fb_pinning_is_choice("OMP_NUM_THREADS=2"));
}

/* The thread is bound to one processor; what a child gets is as many as there are threads. */
static void test_apply_binds_and_widen_unbinds(void **state)
{
    (void)state;
    hwloc_topology_t topology;
    struct fb_error error;
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    const int threads = omp_get_num_procs() < 2 ? 1 : 2;
    assert_int_equal(hwloc_topology_init(&topology), 0);
    assert_int_equal(hwloc_topology_load(topology), 0);
    assert_int_equal(fb_pinning_apply(threads, &error), FB_OK);
    assert_int_equal(hwloc_get_cpubind(topology, set, HWLOC_CPUBIND_THREAD), 0);
    assert_int_equal(hwloc_bitmap_weight(set), 1);
    fb_pinning_widen();
    assert_int_equal(hwloc_get_cpubind(topology, set, HWLOC_CPUBIND_THREAD), 0);
    assert_int_equal(hwloc_bitmap_weight(set), threads);
    hwloc_bitmap_free(set);
    hwloc_topology_destroy(topology);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cores_come_before_their_second_threads),
        cmocka_unit_test(test_only_what_this_process_was_given),
        cmocka_unit_test(test_the_users_choice_is_recognised),
        cmocka_unit_test(test_apply_binds_and_widen_unbinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
