/* Waiting for a worker and judging how it ended: see worker_process.h. */
#include "worker_process.h"

#include "worker_spawn.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RESULT_BYTES_MAX = 64 << 20 };

/* What the worker has said so far. */
struct capture {
    char *text; /* of fd 3: owned, lines */
    size_t length, capacity;
    bool overflowed;
    char tail[FB_WORKER_TAIL_SIZE]; /* the last bytes of stderr and stdout */
    size_t tail_length;
};

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- listening ------------------------------------------------------------------------------- */

static void keep_result(struct capture *capture, const char *bytes, size_t count)
{
    if (capture->overflowed)
        return;
    if (capture->length + count + 1 > capture->capacity) {
        size_t capacity = capture->capacity == 0 ? 1 << 16 : capture->capacity;
        while (capacity < capture->length + count + 1)
            capacity *= 2;
        char *text = capacity > RESULT_BYTES_MAX ? NULL : realloc(capture->text, capacity);
        if (text == NULL) {
            capture->overflowed = true;
            return;
        }
        capture->text = text;
        capture->capacity = capacity;
    }
    memcpy(capture->text + capture->length, bytes, count);
    capture->length += count;
    capture->text[capture->length] = '\0';
}

static void keep_tail(struct capture *capture, const char *bytes, size_t count)
{
    const size_t room = sizeof capture->tail - 1;

    if (count > room) {
        bytes += count - room;
        count = room;
    }
    if (capture->tail_length + count > room) {
        const size_t drop = capture->tail_length + count - room;
        memmove(capture->tail, capture->tail + drop, capture->tail_length - drop);
        capture->tail_length -= drop;
    }
    memcpy(capture->tail + capture->tail_length, bytes, count);
    capture->tail_length += count;
    capture->tail[capture->tail_length] = '\0';
}

/* Takes what a descriptor holds now; closes it at its end. */
static void drain(int *fd, struct capture *capture,
                  void (*keep)(struct capture *capture, const char *bytes, size_t count))
{
    char bytes[4096];

    while (*fd >= 0) {
        ssize_t count = read(*fd, bytes, sizeof bytes);
        if (count > 0) {
            keep(capture, bytes, (size_t)count);
        } else if (count == 0 || (errno != EINTR && errno != EAGAIN)) {
            close(*fd);
            *fd = -1;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

static void kill_group(pid_t pid)
{
    kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
}

/* Whether the worker has ended; it stays a zombie, so its process group is still its own. */
static bool has_ended(pid_t pid)
{
    siginfo_t info;

    memset(&info, 0, sizeof info);
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
        return errno != EINTR;
    return info.si_pid == pid;
}

/* A worker that was started and whose end nobody has seen. */
struct fb_worker {
    struct fb_worker_task task;
    struct fb_worker_pipes pipes;
    struct capture capture;
    pid_t pid;
    long oom_kills_before;
    double start_s, deadline_s;
    bool told, killed;
    enum fb_worker_end end; /* why it was killed */
};

/* Milliseconds until the first time-out; -1: nothing to wake up for. */
static int wait_ms_of(struct fb_worker *const *workers, size_t count)
{
    double left_s = (double)INFINITY;
    for (size_t i = 0; i < count; i++)
        if (workers[i] && !workers[i]->killed)
            left_s = fmin(left_s, workers[i]->deadline_s - now_s());
    return left_s > 1e6 ? -1 : left_s <= 0 ? 0 : (int)ceil(left_s * 1e3);
}

/* Waits for output, a signal or a time-out, and takes what there is. Nothing else wakes the runner
 * up while a worker measures. */
static void listen_to(struct fb_worker *const *workers, size_t count,
                      struct fb_interrupts *interrupts)
{
    struct pollfd watched[2 * FB_WORKERS_MAX + 1] = {{.fd = interrupts->fd, .events = POLLIN}};
    nfds_t watched_count = 1;
    for (size_t i = 0; i < count; i++) {
        if (!workers[i])
            continue;
        watched[watched_count++] =
            (struct pollfd){.fd = workers[i]->pipes.result_fd, .events = POLLIN};
        watched[watched_count++] =
            (struct pollfd){.fd = workers[i]->pipes.tail_fd, .events = POLLIN};
    }
    (void)poll(watched, watched_count, wait_ms_of(workers, count));
    fb_interrupts_poll(interrupts);
    for (size_t i = 0; i < count; i++) {
        if (!workers[i])
            continue;
        drain(&workers[i]->pipes.result_fd, &workers[i]->capture, keep_result);
        drain(&workers[i]->pipes.tail_fd, &workers[i]->capture, keep_tail);
    }
}

/* Passes the first interrupt on where the task wants that; kills at the second or at the time-out.
 */
static void restrain(struct fb_worker *worker, const struct fb_interrupts *interrupts)
{
    if (worker->killed)
        return;
    if (interrupts->count == 1 && worker->task.stops_when_told && !worker->told) {
        kill(worker->pid, SIGTERM);
        worker->told = true;
    }
    if (interrupts->count >= 2)
        worker->end = FB_WORKER_ABORTED;
    else if (now_s() >= worker->deadline_s && !has_ended(worker->pid))
        worker->end = FB_WORKER_TIMEOUT;
    else
        return;
    kill_group(worker->pid);
    worker->killed = true;
}

/* The wait status of a worker that has ended. What it may have started itself goes with it. */
static int bury(struct fb_worker *worker)
{
    int wait_status = 0;
    kill(-worker->pid, SIGKILL);
    while (waitpid(worker->pid, &wait_status, 0) < 0 && errno == EINTR)
        continue;
    drain(&worker->pipes.result_fd, &worker->capture, keep_result);
    drain(&worker->pipes.tail_fd, &worker->capture, keep_tail);
    return wait_status;
}

/* ---- judging --------------------------------------------------------------------------------- */

/* The last words, as one line fit for a CSV cell and a terminal. */
static void last_words(const struct capture *capture, char *words, size_t words_size)
{
    const char *start = capture->tail;
    size_t length = capture->tail_length;
    size_t out = 0;

    while (length > 0 && (start[length - 1] == '\n' || start[length - 1] == ' '))
        length--;
    if (length > words_size - 1) {
        start += length - (words_size - 1);
        length = words_size - 1;
    }
    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)start[i];
        words[out++] = c < 0x20 || c >= 0x7F ? (c == '\n' || c == '\t' ? ' ' : '?') : (char)c;
    }
    words[out] = '\0';
}

static void explain(struct fb_worker_outcome *outcome, const struct capture *capture,
                    enum fb_worker_end end, const char *what)
{
    char words[200];
    char during[FB_WORKER_PHASE_SIZE + 16] = "";

    outcome->end = end;
    last_words(capture, words, sizeof words);
    if (outcome->phase[0] != '\0')
        snprintf(during, sizeof during, " during '%s'", outcome->phase);
    snprintf(outcome->reason, sizeof outcome->reason, "%s%s%s%s", what, during,
             words[0] != '\0' ? "; its last words: " : "", words);
}

/* Reads the lines of fd 3: phases, then the result. False when a line is not what was agreed. */
static bool read_lines(const struct capture *capture, struct fb_worker_outcome *outcome,
                       json_t **final)
{
    const char *line = capture->text;

    *final = NULL;
    while (line != NULL && *line != '\0') {
        const char *end = strchr(line, '\n');
        json_t *json = end == NULL || *final != NULL
                           ? NULL
                           : json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, NULL);
        const char *phase = json_string_value(json_object_get(json, "phase"));
        if (phase != NULL)
            snprintf(outcome->phase, sizeof outcome->phase, "%s", phase);
        else if (json_is_object(json_object_get(json, "result")) ||
                 json_is_string(json_object_get(json, "error")))
            *final = json_incref(json);
        else {
            json_decref(json);
            return false;
        }
        json_decref(json);
        line = end + 1;
    }
    return *final != NULL;
}

static const char *signal_name(int number, char *text, size_t text_size)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGFPE, "SIGFPE"},
                 {SIGILL, "SIGILL"},   {SIGBUS, "SIGBUS"},   {SIGKILL, "SIGKILL"},
                 {SIGTERM, "SIGTERM"}, {SIGPIPE, "SIGPIPE"}, {SIGTRAP, "SIGTRAP"},
                 {SIGSYS, "SIGSYS"},   {SIGXCPU, "SIGXCPU"}, {SIGINT, "SIGINT"},
                 {SIGHUP, "SIGHUP"},   {SIGQUIT, "SIGQUIT"}};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].number == number)
            return names[i].name;
    }
    snprintf(text, text_size, "signal %d", number);
    return text;
}

/* How often this kernel has killed for want of memory: the only way to know it was that. */
static long oom_kills(void)
{
    FILE *file = fopen("/proc/vmstat", "re");
    char line[128];
    long count = -1;

    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "oom_kill %ld", &count) == 1)
            break;
    }
    if (file != NULL)
        fclose(file);
    return count;
}

static void judge_signal(int number, bool oom_killed, const struct capture *capture,
                         struct fb_worker_outcome *outcome)
{
    char number_text[32];
    char what[96];

    if (number == SIGKILL && oom_killed) {
        explain(outcome, capture, FB_WORKER_OOM,
                "killed by the kernel because the machine ran out of memory");
        return;
    }
    snprintf(what, sizeof what, "killed by %s",
             signal_name(number, number_text, sizeof number_text));
    explain(outcome, capture, FB_WORKER_CRASH, what);
}

static void judge(const struct fb_worker_task *task, int wait_status, bool oom_killed,
                  const struct capture *capture, struct fb_worker_outcome *outcome)
{
    json_t *final = NULL;
    char what[FB_WORKER_REASON_SIZE];
    const bool agreed = read_lines(capture, outcome, &final);
    const char *complaint = json_string_value(json_object_get(final, "error"));

    if (outcome->end == FB_WORKER_TIMEOUT) {
        snprintf(what, sizeof what, "not done after %.4g s, the limit of a case (case_timeout)",
                 task->timeout_s);
        explain(outcome, capture, FB_WORKER_TIMEOUT, what);
    } else if (outcome->end == FB_WORKER_ABORTED) {
        explain(outcome, capture, FB_WORKER_ABORTED, "ended by a second interrupt");
    } else if (WIFSIGNALED(wait_status)) {
        judge_signal(WTERMSIG(wait_status), oom_killed, capture, outcome);
    } else if (complaint != NULL) {
        const char *code = json_string_value(json_object_get(final, "code"));
        const bool memory = code != NULL && strcmp(code, fb_status_name(FB_ERROR_MEMORY)) == 0;
        outcome->end = memory ? FB_WORKER_OOM : FB_WORKER_ERROR;
        snprintf(outcome->reason, sizeof outcome->reason, "%s", complaint);
    } else if (WEXITSTATUS(wait_status) != 0) {
        snprintf(what, sizeof what, "the worker ended with exit code %d and no result",
                 WEXITSTATUS(wait_status));
        explain(outcome, capture, FB_WORKER_ERROR, what);
    } else if (capture->overflowed) {
        explain(outcome, capture, FB_WORKER_ERROR, "the worker's result is larger than 64 MiB");
    } else if (!agreed) {
        explain(outcome, capture, FB_WORKER_ERROR,
                capture->length == 0 ? "the worker ended without a result"
                                     : "the worker's result is malformed");
    } else {
        outcome->end = FB_WORKER_RESULT;
        outcome->result = json_incref(json_object_get(final, "result"));
    }
    json_decref(final);
}

/* ---- public ---------------------------------------------------------------------------------- */

enum fb_status fb_worker_start(const struct fb_worker_task *task, struct fb_worker **started,
                               struct fb_error *error)
{
    struct fb_worker *worker = calloc(1, sizeof *worker);
    *started = NULL;
    if (!worker)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for a worker's table");
    worker->task = *task;
    worker->end = FB_WORKER_ERROR;
    worker->oom_kills_before = oom_kills();
    worker->start_s = now_s();
    worker->deadline_s = task->timeout_s > 0 ? worker->start_s + task->timeout_s : (double)INFINITY;
    const enum fb_status status = fb_worker_spawn(task, &worker->pid, &worker->pipes, error);
    if (status != FB_OK) {
        free(worker);
        return status;
    }
    *started = worker;
    return FB_OK;
}

/* Judges and frees a worker that has ended. */
static void finish(struct fb_worker *worker, struct fb_worker_outcome *outcome)
{
    const int wait_status = bury(worker);
    memset(outcome, 0, sizeof *outcome);
    outcome->end = worker->end;
    outcome->wall_s = now_s() - worker->start_s;
    if (worker->pipes.result_fd >= 0)
        close(worker->pipes.result_fd);
    if (worker->pipes.tail_fd >= 0)
        close(worker->pipes.tail_fd);
    judge(&worker->task, wait_status, oom_kills() > worker->oom_kills_before, &worker->capture,
          outcome);
    free(worker->capture.text);
    free(worker);
}

size_t fb_worker_wait(struct fb_worker **workers, size_t count, struct fb_interrupts *interrupts,
                      struct fb_worker_outcome *outcome)
{
    for (;;) {
        for (size_t i = 0; i < count; i++) {
            if (!workers[i] || !has_ended(workers[i]->pid))
                continue;
            finish(workers[i], outcome);
            workers[i] = NULL;
            return i;
        }
        listen_to(workers, count, interrupts);
        for (size_t i = 0; i < count; i++)
            if (workers[i])
                restrain(workers[i], interrupts);
    }
}

void fb_worker_abandon(struct fb_worker *worker)
{
    struct fb_worker_outcome outcome;
    if (!worker)
        return;
    kill_group(worker->pid);
    finish(worker, &outcome);
    fb_worker_outcome_free(&outcome);
}

enum fb_status fb_worker_run(const struct fb_worker_task *task, struct fb_interrupts *interrupts,
                             struct fb_worker_outcome *outcome, struct fb_error *error)
{
    struct fb_worker *worker;
    memset(outcome, 0, sizeof *outcome);
    outcome->end = FB_WORKER_ERROR;
    const enum fb_status status = fb_worker_start(task, &worker, error);
    if (status == FB_OK)
        (void)fb_worker_wait(&worker, 1, interrupts, outcome);
    return status;
}

const char *fb_worker_end_status(enum fb_worker_end end)
{
    static const char *const names[] = {
        [FB_WORKER_RESULT] = NULL,   [FB_WORKER_TIMEOUT] = "timeout", [FB_WORKER_OOM] = "oom",
        [FB_WORKER_CRASH] = "crash", [FB_WORKER_ERROR] = "error",     [FB_WORKER_ABORTED] = NULL,
    };
    return names[end];
}

void fb_worker_outcome_free(struct fb_worker_outcome *outcome)
{
    json_decref(outcome->result);
    outcome->result = NULL;
}
