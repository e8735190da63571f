/* Parallel loops: every task once, thread numbers that can index scratch, threads that stay. */
#define _GNU_SOURCE
#include "parallel.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { THREADS = 4, TASKS = 1000, PATIENCE_S = 20 };

struct marks {
    atomic_int times[TASKS];
    atomic_int busy[THREADS]; /* at most one task at a time has a thread's number */
    atomic_int faults;
};

static void mark(void *context, int64_t task, int thread)
{
    struct marks *marks = context;
    if (thread < 0 || thread >= THREADS || atomic_fetch_add(&marks->busy[thread], 1) != 0) {
        atomic_fetch_add(&marks->faults, 1);
    }
    atomic_fetch_add(&marks->times[task], 1);
    if (thread >= 0 && thread < THREADS) {
        atomic_fetch_sub(&marks->busy[thread], 1);
    }
}

static void test_parallel_runs_every_task_once(void **state)
{
    (void)state;
    static struct marks marks;
    static const int64_t counts[] = {0, 1, 2, 3, THREADS, THREADS + 1, TASKS};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        memset(&marks, 0, sizeof marks);
        fb_parallel_for(THREADS, counts[i], mark, &marks);
        assert_int_equal(atomic_load(&marks.faults), 0);
        for (int64_t task = 0; task < TASKS; task++) {
            assert_int_equal(atomic_load(&marks.times[task]), task < counts[i]);
        }
    }
}

struct meeting {
    atomic_int present;
    pid_t who[THREADS];
    int expected;
};

/* Stays until as many tasks run as there are: each on a thread of its own. */
static void meet(void *context, int64_t task, int thread)
{
    struct meeting *meeting = context;
    (void)thread;
    const time_t give_up = time(NULL) + PATIENCE_S;
    meeting->who[task] = gettid();
    atomic_fetch_add(&meeting->present, 1);
    while (atomic_load(&meeting->present) < meeting->expected && time(NULL) < give_up) {
        (void)sched_yield();
    }
}

static struct meeting hold_meeting(int tasks)
{
    struct meeting meeting = {.expected = tasks};
    fb_parallel_for(THREADS, tasks, meet, &meeting);
    assert_int_equal(atomic_load(&meeting.present), tasks);
    return meeting;
}

/* New threads would be bound where the first one is, and cost time. */
static void test_parallel_fewer_tasks_do_not_end_threads(void **state)
{
    (void)state;
    const struct meeting before = hold_meeting(THREADS);
    (void)hold_meeting(2);
    const struct meeting after = hold_meeting(THREADS);
    for (int i = 0; i < THREADS; i++) {
        int known = 0;
        for (int j = 0; j < THREADS; j++) {
            known += after.who[i] == before.who[j];
        }
        assert_int_equal(known, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parallel_runs_every_task_once),
        cmocka_unit_test(test_parallel_fewer_tasks_do_not_end_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
