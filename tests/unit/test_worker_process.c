/* worker_process.c: whatever a worker does, the runner is told in words and lives on.
 * This program is its own fake worker: started as `PROGRAM worker`, it misbehaves as its task says.
 */
#include "under_asan.h"
#include "worker_process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the fake worker ------------------------------------------------------------------------- */

static void say(const char *text)
{
    for (size_t length = strlen(text); length > 0;) {
        ssize_t count = write(FB_WORKER_RESULT_FD, text, length);
        if (count <= 0)
            _exit(9);
        text += count;
        length -= (size_t)count;
    }
}

static void rest(double seconds)
{
    const long nanoseconds = (long)(seconds * 1e9);
    const struct timespec time = {nanoseconds / 1000000000, nanoseconds % 1000000000};

    nanosleep(&time, NULL);
}

static void do_crash(const char *argument)
{
    signal(SIGSEGV, SIG_DFL);
    say("{\"phase\": \"samples\"}\n");
    fprintf(stderr, "about to fail\n");
    raise(atoi(argument));
}

static void do_hang(const char *argument)
{
    char line[64];

    signal(SIGTERM, SIG_IGN);
    if (fork() == 0) {
        rest(60);
        _exit(0);
    }
    if (*argument != '\0') {
        int fd = open(argument, O_WRONLY | O_CREAT, 0600);
        const int length = snprintf(line, sizeof line, "%ld", (long)getpid());
        if (fd < 0 || write(fd, line, (size_t)length) != length)
            _exit(9);
    }
    for (;;)
        rest(60);
}

static void do_raw(const char *argument)
{
    say(argument);
}

static void do_exit(const char *argument)
{
    exit(atoi(argument));
}

static void do_chatter(const char *argument)
{
    for (int i = 0; i < 200000; i++)
        fprintf(stderr, "line %d of far too many\n", i);
    say(argument);
}

static void do_flood(const char *argument)
{
    static char block[1 << 20];

    (void)argument;
    memset(block, 'x', sizeof block - 1);
    for (int i = 0; i < 70; i++)
        say(block);
}

/* volatile: memory that nobody else sees, the compiler may do without. */
static void do_allocate(const char *argument)
{
    (void)argument;
    const size_t bytes = (size_t)3 << 30;
    volatile char *memory = malloc(bytes);

    if (memory == NULL) {
        say("{\"error\": \"no memory for 3 GiB\", \"code\": \"memory\"}\n");
        return;
    }
    memory[bytes / 2] = 1;
    say(memory[bytes / 2] == 1 ? "{\"result\": {}}\n" : "?");
    free((void *)memory);
}

/* Grows until it gets no more, then says so ("tell") or goes on regardless. One page of each block
 * is touched: the limit counts what is asked for, and the test needs no real gigabytes. */
static void do_leak(const char *argument)
{
    const size_t block_bytes = (size_t)16 << 20;

    for (int i = 0; i < 4096; i++) {
        volatile char *block = malloc(block_bytes);
        if (block == NULL && strcmp(argument, "tell") == 0) {
            say("{\"error\": \"out of memory: a leak\", \"code\": \"memory\"}\n");
            _exit(0); /* as flowbench's worker does: exit() may wait for OpenBLAS's threads */
        }
        if (block == NULL) {
            signal(SIGSEGV, SIG_DFL); /* no sanitizer's handler in between */
            raise(SIGSEGV);
        }
        block[0] = 1;
    }
    say("{\"result\": {}}\n");
}

static void do_environment(const char *argument)
{
    static const char *const names[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                                        "OPENBLAS_CORETYPE", "OMP_PROC_BIND", "GOMP_SPINCOUNT"};
    char line[256];

    (void)argument;
    say("{\"result\": {");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        snprintf(line, sizeof line, "\"%s\": \"%s\", ", names[i], value == NULL ? "-" : value);
        say(line);
    }
    int open_count = 0;
    for (int fd = FB_WORKER_RESULT_FD + 1; fd < 256; fd++)
        open_count += fcntl(fd, F_GETFD) >= 0;
    snprintf(line, sizeof line, "\"fds\": %d, \"session\": %s}}\n", open_count,
             getsid(0) == getpid() ? "true" : "false");
    say(line);
}

static void do_gpu(const char *argument)
{
    const char *value = getenv("CUDA_VISIBLE_DEVICES");

    (void)argument;
    say("{\"result\": {\"gpu\": \"");
    say(value == NULL ? "-" : value);
    say("\"}}\n");
}

static void do_interrupt(const char *argument)
{
    for (int i = 0; i < atoi(argument); i++) {
        kill(getppid(), SIGINT);
        rest(0.2);
    }
    say("{\"result\": {}}\n");
}

static int fake_worker(void)
{
    static const struct {
        const char *name;
        void (*act)(const char *argument);
    } acts[] = {
        {"crash", do_crash},         {"hang", do_hang},       {"raw", do_raw},
        {"exit", do_exit},           {"chatter", do_chatter}, {"flood", do_flood},
        {"allocate", do_allocate},   {"leak", do_leak},       {"environment", do_environment},
        {"interrupt", do_interrupt}, {"gpu", do_gpu}};
    json_t *task = json_loadf(stdin, 0, NULL);
    const char *act = json_string_value(json_object_get(task, "act"));
    const char *argument = json_string_value(json_object_get(task, "argument"));

    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        if (act != NULL && strcmp(act, acts[i].name) == 0)
            acts[i].act(argument);
    }
    json_decref(task);
    return 0;
}

/* ---- tests ----------------------------------------------------------------------------------- */

struct trial {
    struct fb_worker_outcome outcome;
    struct fb_interrupts interrupts;
};

static struct trial try_worker(const char *act, const char *argument, double timeout_s)
{
    struct trial trial;
    struct fb_error error = {FB_OK, ""};
    json_t *input = json_pack("{s:s, s:s}", "act", act, "argument", argument);
    const struct fb_worker_task task = {.input = input,
                                        .threads = 2,
                                        .openblas_core = "Haswell",
                                        .timeout_s = timeout_s,
                                        .memory_bytes = 1 << 20};

    assert_int_equal(fb_interrupts_begin(&trial.interrupts, &error), FB_OK);
    if (fb_worker_run(&task, &trial.interrupts, &trial.outcome, &error) != FB_OK)
        fail_msg("%s", error.text);
    fb_interrupts_end(&trial.interrupts);
    json_decref(input);
    return trial;
}

static void check_end(const char *act, const char *argument, enum fb_worker_end end,
                      const char *words)
{
    struct trial trial = try_worker(act, argument, 20);

    if (trial.outcome.end != end || strstr(trial.outcome.reason, words) == NULL)
        fail_msg("%s '%.40s': end %d, reason '%s'", act, argument, (int)trial.outcome.end,
                 trial.outcome.reason);
    assert_null(strpbrk(trial.outcome.reason, "\n\r\t\033"));
    fb_worker_outcome_free(&trial.outcome);
}

static void test_worker_result_is_delivered(void **state)
{
    (void)state;
    struct trial trial =
        try_worker("raw", "{\"phase\": \"samples\"}\n{\"result\": {\"x\": 4}}\n", 20);

    assert_int_equal(trial.outcome.end, FB_WORKER_RESULT);
    assert_string_equal(trial.outcome.phase, "samples");
    assert_int_equal(json_integer_value(json_object_get(trial.outcome.result, "x")), 4);
    assert_true(trial.outcome.wall_s > 0);
    fb_worker_outcome_free(&trial.outcome);
}

static void test_worker_crash_names_signal_phase_and_last_words(void **state)
{
    char number[16];

    (void)state;
    snprintf(number, sizeof number, "%d", SIGSEGV);
    check_end("crash", number, FB_WORKER_CRASH,
              "killed by SIGSEGV during 'samples'; its last words: about to fail");
    snprintf(number, sizeof number, "%d", SIGKILL);
    check_end("crash", number, FB_WORKER_CRASH, "killed by SIGKILL");
}

static void test_worker_hang_is_killed_at_the_timeout(void **state)
{
    (void)state;
    struct trial trial = try_worker("hang", "", 0.3);

    assert_int_equal(trial.outcome.end, FB_WORKER_TIMEOUT);
    assert_non_null(strstr(trial.outcome.reason, "not done after 0.3 s"));
    /* Its child, which keeps the pipes open, must not keep us waiting either. */
    assert_true(trial.outcome.wall_s >= 0.3 && trial.outcome.wall_s < 30);
}

static void test_worker_bad_answer_is_an_error(void **state)
{
    (void)state;
    check_end("raw", "", FB_WORKER_ERROR, "ended without a result");
    check_end("raw", "segmentation is fun\n", FB_WORKER_ERROR, "malformed");
    check_end("raw", "{\"result\": {\"status\": \"o", FB_WORKER_ERROR, "malformed");
    check_end("raw", "{\"result\": {}}", FB_WORKER_ERROR, "malformed");
    check_end("raw", "{\"result\": 3}\n", FB_WORKER_ERROR, "malformed");
    check_end("raw", "{\"result\": {}}\n{\"result\": {}}\n", FB_WORKER_ERROR, "malformed");
    check_end("raw", "{\"phase\": \"samples\"}\n", FB_WORKER_ERROR, "malformed");
    check_end("raw", "{\"error\": \"no such ISA\"}\n", FB_WORKER_ERROR, "no such ISA");
    check_end("exit", "7", FB_WORKER_ERROR, "exit code 7");
    check_end("flood", "", FB_WORKER_ERROR, "64 MiB");
}

static void test_worker_chatter_neither_blocks_nor_spoils_the_result(void **state)
{
    (void)state;
    check_end("chatter", "{\"result\": {}}\n", FB_WORKER_RESULT, "");
    check_end("chatter", "", FB_WORKER_ERROR, "line 199999 of far too many");
}

static void test_worker_overallocation_is_oom(void **state)
{
    (void)state;
    if (FB_UNDER_ASAN)
        skip();
    check_end("allocate", "", FB_WORKER_OOM, "no memory for 3 GiB");
}

static void test_worker_that_leaks_is_stopped_by_its_limit(void **state)
{
    (void)state;
    if (FB_UNDER_ASAN)
        skip();
    check_end("leak", "tell", FB_WORKER_OOM, "out of memory: a leak");
    check_end("leak", "ignore", FB_WORKER_CRASH, "killed by SIGSEGV");
}

static const char *text_of(const struct trial *trial, const char *key)
{
    return json_string_value(json_object_get(trial->outcome.result, key));
}

static void test_worker_environment_is_the_runners_choice(void **state)
{
    (void)state;
    setenv("OMP_NUM_THREADS", "17", 1);
    setenv("GOMP_SPINCOUNT", "1", 1);
    struct trial trial = try_worker("environment", "", 20);
    assert_int_equal(trial.outcome.end, FB_WORKER_RESULT);
    assert_string_equal(text_of(&trial, "OMP_NUM_THREADS"), "2");
    assert_string_equal(text_of(&trial, "OPENBLAS_NUM_THREADS"), "2");
    assert_string_equal(text_of(&trial, "OPENBLAS_CORETYPE"), "Haswell");
    assert_string_equal(text_of(&trial, "OMP_PROC_BIND"), "false");
    assert_string_equal(text_of(&trial, "GOMP_SPINCOUNT"), "-");
    assert_int_equal(json_integer_value(json_object_get(trial.outcome.result, "fds")), 0);
    assert_true(json_is_true(json_object_get(trial.outcome.result, "session")));
    fb_worker_outcome_free(&trial.outcome);
}

/* How threads are bound is the user's to decide, if he does. */
static void test_worker_is_bound_as_the_user_says(void **state)
{
    (void)state;
    setenv("OMP_PROC_BIND", "close", 1);
    struct trial trial = try_worker("environment", "", 20);
    unsetenv("OMP_PROC_BIND");
    assert_int_equal(trial.outcome.end, FB_WORKER_RESULT);
    assert_string_equal(text_of(&trial, "OMP_PROC_BIND"), "close");
    fb_worker_outcome_free(&trial.outcome);
}

static void test_worker_first_interrupt_waits_second_kills(void **state)
{
    (void)state;
    struct trial trial = try_worker("interrupt", "1", 20);
    assert_int_equal(trial.outcome.end, FB_WORKER_RESULT);
    assert_int_equal(trial.interrupts.count, 1);
    assert_int_equal(trial.interrupts.first_signal, SIGINT);
    fb_worker_outcome_free(&trial.outcome);
    trial = try_worker("interrupt", "2", 20);
    assert_int_equal(trial.outcome.end, FB_WORKER_ABORTED);
    fb_worker_outcome_free(&trial.outcome);
}

static struct fb_worker *start_worker(const json_t *input, double timeout_s)
{
    const struct fb_worker_task task = {
        .input = input, .threads = 1, .timeout_s = timeout_s, .stops_when_told = true};
    struct fb_worker *worker;
    struct fb_error error;

    if (fb_worker_start(&task, &worker, &error) != FB_OK)
        fail_msg("%s", error.text);
    return worker;
}

/* Three at once: each ends in its own way and in its own time, and nobody takes another's words. */
static void test_worker_several_at_once(void **state)
{
    json_t *hang = json_pack("{s:s, s:s}", "act", "hang", "argument", "");
    json_t *crash = json_pack("{s:s, s:s}", "act", "crash", "argument", "11");
    json_t *tell = json_pack("{s:s, s:s}", "act", "raw", "argument", "{\"result\": {\"x\": 1}}\n");
    struct fb_worker *workers[4] = {start_worker(hang, 2), NULL, start_worker(crash, 60),
                                    start_worker(tell, 60)};
    struct fb_worker_outcome outcome;
    struct fb_interrupts interrupts;
    struct fb_error error;
    bool seen[4] = {false, true, false, false};

    (void)state;
    assert_int_equal(fb_interrupts_begin(&interrupts, &error), FB_OK);
    for (int i = 0; i < 3; i++) {
        const size_t place = fb_worker_wait(workers, 4, &interrupts, &outcome);
        assert_false(seen[place]);
        seen[place] = true;
        assert_null(workers[place]);
        assert_int_equal(outcome.end, place == 0   ? FB_WORKER_TIMEOUT
                                      : place == 2 ? FB_WORKER_CRASH
                                                   : FB_WORKER_RESULT);
        if (place == 3)
            assert_int_equal(json_integer_value(json_object_get(outcome.result, "x")), 1);
        assert_true(i < 2 || place == 0);
        fb_worker_outcome_free(&outcome);
    }
    fb_interrupts_end(&interrupts);
    json_decref(hang);
    json_decref(crash);
    json_decref(tell);
}

static void test_worker_sees_the_gpu_it_is_given(void **state)
{
    json_t *input = json_pack("{s:s, s:s}", "act", "gpu", "argument", "");
    const struct fb_worker_task task = {.input = input, .threads = 1, .timeout_s = 60, .gpu = "3"};
    struct fb_worker_outcome outcome;
    struct fb_interrupts interrupts;
    struct fb_error error;

    (void)state;
    assert_int_equal(setenv("CUDA_VISIBLE_DEVICES", "5,6", 1), 0);
    assert_int_equal(fb_interrupts_begin(&interrupts, &error), FB_OK);
    assert_int_equal(fb_worker_run(&task, &interrupts, &outcome, &error), FB_OK);
    fb_interrupts_end(&interrupts);
    assert_int_equal(unsetenv("CUDA_VISIBLE_DEVICES"), 0);
    assert_string_equal(json_string_value(json_object_get(outcome.result, "gpu")), "3");
    fb_worker_outcome_free(&outcome);
    json_decref(input);
}

static void test_worker_missing_program_is_an_error(void **state)
{
    struct fb_worker_outcome outcome;
    struct fb_interrupts interrupts;
    struct fb_error error;
    json_t *input = json_object();
    const struct fb_worker_task task = {
        .program = "/nonexistent/flowbench", .input = input, .threads = 1, .timeout_s = 20};

    (void)state;
    assert_int_equal(fb_interrupts_begin(&interrupts, &error), FB_OK);
    assert_int_equal(fb_worker_run(&task, &interrupts, &outcome, &error), FB_OK);
    fb_interrupts_end(&interrupts);
    assert_int_equal(outcome.end, FB_WORKER_ERROR);
    assert_non_null(strstr(outcome.reason, "cannot start the worker program"));
    json_decref(input);
}

static long read_number(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY);

    if (fd >= 0 && read(fd, text, sizeof text - 1) < 0)
        text[0] = '\0';
    if (fd >= 0)
        close(fd);
    return atol(text);
}

/* The runner is killed with SIGKILL: nobody is left to clean up, and yet nothing stays behind. */
static void test_worker_dies_with_its_runner(void **state)
{
    char path[] = "/tmp/fb_worker_XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    const pid_t runner = fork();
    if (runner == 0) {
        (void)try_worker("hang", path, 60);
        _exit(0);
    }
    long worker = 0;
    for (int i = 0; i < 1000 && worker == 0; i++) {
        rest(0.01);
        worker = read_number(path);
    }
    assert_true(worker > 0);
    kill(runner, SIGKILL);
    assert_int_equal(waitpid(runner, NULL, 0), runner);
    bool gone = false;
    for (int i = 0; i < 1000 && !gone; i++) {
        char name[64];
        char text[256] = "";
        snprintf(name, sizeof name, "/proc/%ld/stat", worker);
        fd = open(name, O_RDONLY);
        /* A zombie that nobody has collected yet is dead enough. */
        if (fd >= 0 && read(fd, text, sizeof text - 1) > 0)
            gone = strstr(text, ") Z") != NULL;
        else
            gone = true;
        if (fd >= 0)
            close(fd);
        rest(0.01);
    }
    unlink(path);
    assert_true(gone);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_result_is_delivered),
        cmocka_unit_test(test_worker_crash_names_signal_phase_and_last_words),
        cmocka_unit_test(test_worker_hang_is_killed_at_the_timeout),
        cmocka_unit_test(test_worker_bad_answer_is_an_error),
        cmocka_unit_test(test_worker_chatter_neither_blocks_nor_spoils_the_result),
        cmocka_unit_test(test_worker_overallocation_is_oom),
        cmocka_unit_test(test_worker_that_leaks_is_stopped_by_its_limit),
        cmocka_unit_test(test_worker_environment_is_the_runners_choice),
        cmocka_unit_test(test_worker_is_bound_as_the_user_says),
        cmocka_unit_test(test_worker_first_interrupt_waits_second_kills),
        cmocka_unit_test(test_worker_several_at_once),
        cmocka_unit_test(test_worker_sees_the_gpu_it_is_given),
        cmocka_unit_test(test_worker_missing_program_is_an_error),
        cmocka_unit_test(test_worker_dies_with_its_runner),
    };

    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return fake_worker();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
