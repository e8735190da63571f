/* flowbench: finds the command and hands it its arguments. */
#include "commands.h"
#include "nearest.h"

#include <argp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*command_fn)(int argc, char **argv);

struct command {
    const char *name;
    int hidden;
    const char *help;
    char *title; /* what the command finds in argv[0] */
    command_fn run;
};

#define COMMAND_ROW(name, hidden, help)                                                            \
    {#name, hidden, help, (char[]){"flowbench " #name}, fb_cmd_##name},
static const struct command commands[] = {FB_COMMANDS(COMMAND_ROW)};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static void print_help(FILE *stream)
{
    (void)fputs("Usage: flowbench SUITE.yaml...          measure a suite (short for: run)\n"
                "       flowbench COMMAND [OPTION...]\n"
                "\n"
                "What does Flow-Attention cost, next to softmax, linear, Performer and local\n"
                "attention, on this machine?\n"
                "\n"
                "Commands:\n",
                stream);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (!commands[i].hidden) {
            (void)fprintf(stream, "  %-8s %s\n", commands[i].name, commands[i].help);
        }
    }
    (void)fputs("\n"
                "  flowbench COMMAND --help   the options of one command\n"
                "  flowbench --version        the version\n"
                "\n"
                "Exit codes: 0 fine, 1 the tool failed, 2 usage or suite error, 3 a claim failed,\n"
                "4 ambiguous (only with --strict), 130 and 143 interrupted.\n",
                stream);
}

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
    const char *names[COMMAND_COUNT + 2];
    size_t count = 0;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (!commands[i].hidden) {
            names[count++] = commands[i].name;
        }
    }
    names[count++] = "--help";
    names[count++] = "--version";
    const char *near = fb_nearest_name(argument, names, count);
    (void)fprintf(stderr, "flowbench: error: there is no command '%s'", argument);
    if (near != NULL) {
        (void)fprintf(stderr, "; did you mean '%s'?", near);
    }
    (void)fputs("\nTry 'flowbench --help' for the commands.\n", stderr);
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

static int run_command(const struct command *command, int argc, char **argv)
{
    argv[0] = command->title;
    return finish(command->run(argc, argv));
}

int main(int argc, char **argv)
{
    argp_err_exit_status = FB_EXIT_USAGE;
    if (argc < 2) {
        print_help(stderr);
        return FB_EXIT_USAGE;
    }
    const char *first = argv[1];
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0 || strcmp(first, "help") == 0) {
        print_help(stdout);
        return finish(FB_EXIT_OK);
    }
    if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0) {
        (void)printf("flowbench %s\n", FLOWBENCH_VERSION);
        return finish(FB_EXIT_OK);
    }
    const struct command *command = find_command(first);
    if (command != NULL) {
        return run_command(command, argc - 1, argv + 1);
    }
    const struct command *run = find_command("run");
    if (run != NULL && is_short_for_run(argc, argv)) {
        return run_command(run, argc, argv);
    }
    return report_unknown(first);
}
