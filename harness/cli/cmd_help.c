/* flowbench help: the overview, one command's help, or all of it as a man page. */
#include "commands.h"
#include "man_page.h"

#include <string.h>

const struct fb_exit_meaning fb_exit_meanings[] = {
    {FB_EXIT_OK, "fine"},
    {FB_EXIT_FAILED, "the tool failed: no memory, no disk, no permission"},
    {FB_EXIT_USAGE, "the command line, a suite or an input file is wrong"},
    {FB_EXIT_CLAIM, "a claim failed: an expectation, a wrong result, a crashed case"},
    {FB_EXIT_AMBIGUOUS, "a claim stayed ambiguous (only with --strict)"},
    {FB_EXIT_SIGINT, "interrupted by SIGINT; what was finished is kept"},
    {FB_EXIT_SIGTERM, "interrupted by SIGTERM; what was finished is kept"},
    {0, NULL},
};

void fb_help_print(FILE *stream)
{
    (void)fputs("Usage: flowbench SUITE.yaml...          measure a suite (short for: run)\n"
                "       flowbench COMMAND [OPTION...]\n"
                "\n"
                "What does Flow-Attention cost, next to softmax, linear, Performer and local\n"
                "attention, on this machine?\n"
                "\n"
                "Commands:\n",
                stream);
    for (size_t i = 0; i < fb_command_count(); i++) {
        const struct fb_command *command = fb_command_at(i);
        if (!command->hidden) {
            (void)fprintf(stream, "  %-10s %s\n", command->name, command->help);
        }
    }
    (void)fputs("\n"
                "  flowbench COMMAND --help   the options of one command, with examples\n"
                "  flowbench --version        the version\n"
                "\n"
                "Exit codes:\n",
                stream);
    for (size_t i = 0; fb_exit_meanings[i].text != NULL; i++) {
        (void)fprintf(stream, "  %3d  %s\n", fb_exit_meanings[i].code, fb_exit_meanings[i].text);
    }
}

struct options {
    bool man;
    const char *command;
};

static const struct argp_option table[] = {
    {"man", 'm', NULL, 0, "Print the man page, flowbench(1), in roff", 0},
    {0},
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;
    char near[96];
    switch (key) {
    case 'm':
        options->man = true;
        return 0;
    case ARGP_KEY_ARG:
        if (options->command != NULL) {
            argp_error(state, "one command at a time, not also '%s'", argument);
        }
        if (fb_command_find(argument) == NULL || fb_command_find(argument)->hidden) {
            argp_error(state, "there is no command '%s'%s", argument,
                       fb_command_near(argument, near, sizeof near));
        }
        options->command = argument;
        return 0;
    case ARGP_KEY_END:
        if (options->man && options->command != NULL) {
            argp_error(state, "--man prints the page of all commands and takes no name");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp fb_argp_help = {
    .options = table,
    .parser = parse_option,
    .args_doc = "[COMMAND]",
    .doc = "Shows what flowbench can do, or the options and examples of one command.\v"
           "Examples:\n"
           "  flowbench help run                     the same as flowbench run --help\n"
           "  flowbench help --man | man -l -        the man page, where there is none\n",
};

int fb_cmd_help(int argc, char **argv)
{
    struct options options = {0};
    if (argp_parse(&fb_argp_help, argc, argv, 0, NULL, &options) != 0) {
        return FB_EXIT_USAGE;
    }
    if (options.man) {
        fb_man_page_print(stdout);
        return FB_EXIT_OK;
    }
    if (options.command == NULL) {
        fb_help_print(stdout);
        return FB_EXIT_OK;
    }
    const struct fb_command *command = fb_command_find(options.command);
    return command->run(2, (char *[]){command->title, (char[]){"--help"}, NULL});
}
