/* flowbench worker: hidden. One task, read from stdin, answered on fd 3: harness/run/worker_task.h.
 * A process of its own, so that a mechanism that crashes, hangs or eats memory costs one row. */
#include "commands.h"

#include "worker_process.h"
#include "worker_task.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

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
    return FB_EXIT_OK;
}
