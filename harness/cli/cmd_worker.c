/* flowbench worker: hidden. One task, read from stdin, answered on fd 3: harness/run/worker_task.h.
 * A process of its own, so that a mechanism that crashes, hangs or eats memory costs one row. */
#include "commands.h"

#include "under_asan.h"
#include "worker_process.h"
#include "worker_task.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

const struct argp fb_argp_worker = {
    .doc = "Does one task read from stdin and answers on descriptor 3. Started by flowbench run.",
};

int fb_cmd_worker(int argc, char **argv)
{
    struct fb_error error;

    (void)argv;
    if (argc > 1 || fcntl(FB_WORKER_RESULT_FD, F_GETFD) < 0) {
        fputs("flowbench worker: error: started by `flowbench run`, not by hand\n", stderr);
        return FB_EXIT_USAGE;
    }
    if (fb_worker_serve(STDIN_FILENO, FB_WORKER_RESULT_FD, &error) != FB_OK)
        return fb_exit_report("worker", &error);
    /* The answer is out. exit() would let OpenBLAS join its threads, and one that finds no memory
     * asks for it forever: the answer "oom" would end as a time-out. */
    if (!FB_UNDER_ASAN)
        _exit(FB_EXIT_OK);
    return FB_EXIT_OK;
}
