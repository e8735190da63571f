/* flowbench: finds the command and hands it its arguments. */
#include "commands.h"

#include <argp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_suite_name(const char *argument)
{
    size_t length = strlen(argument);
    return (length > 5 && strcmp(argument + length - 5, ".yaml") == 0) ||
           (length > 4 && strcmp(argument + length - 4, ".yml") == 0);
}

/* `flowbench SUITE.yaml`, also with options of run before or after it. */
static bool is_short_for_run(int argc, char **argv)
{
    if (argv[1][0] != '-') {
        return is_suite_name(argv[1]);
    }
    for (int i = 2; i < argc; i++) {
        if (is_suite_name(argv[i])) {
            return true;
        }
    }
    return false;
}

static int report_unknown(const char *argument)
{
    char near[96];
    (void)fprintf(stderr,
                  "flowbench: error: there is no command '%s'%s\n"
                  "Try 'flowbench --help' for the commands.\n",
                  argument, fb_command_near(argument, near, sizeof near));
    return FB_EXIT_USAGE;
}

/* stdout is checked at the end: a full disk or a closed pipe must not look like success. */
static int finish(int code)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("flowbench: error: standard output");
        return code == FB_EXIT_OK ? FB_EXIT_FAILED : code;
    }
    return code;
}

static int run_command(const struct fb_command *command, int argc, char **argv)
{
    argv[0] = command->title;
    return finish(command->run(argc, argv));
}

int main(int argc, char **argv)
{
    argp_err_exit_status = FB_EXIT_USAGE;
    if (argc < 2) {
        fb_help_print(stderr);
        return FB_EXIT_USAGE;
    }
    const char *first = argv[1];
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        fb_help_print(stdout);
        return finish(FB_EXIT_OK);
    }
    if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0) {
        (void)printf("flowbench %s\n", FLOWBENCH_VERSION);
        return finish(FB_EXIT_OK);
    }
    const struct fb_command *command = fb_command_find(first);
    if (command != NULL) {
        return run_command(command, argc - 1, argv + 1);
    }
    if (is_short_for_run(argc, argv)) {
        return run_command(fb_command_find("run"), argc, argv);
    }
    return report_unknown(first);
}
