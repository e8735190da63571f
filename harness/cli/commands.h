/*
 * The commands of flowbench. A command is a file cmd_<name>.c with two public objects
 *
 *     int fb_cmd_<name>(int argc, char **argv);
 *     const struct argp fb_argp_<name>;
 *
 * and a line in the table below; its file is named in CMakeLists.txt. argv[0] is
 * "flowbench <name>", so argp's own messages name the command. The function returns an exit code.
 * Results go to stdout, everything else to stderr; argp's usage errors exit with FB_EXIT_USAGE.
 *
 * The argp is the only place that lists the command's options. `--help`, the man page and the shell
 * completions are made of it. What an option or an argument may be is read off its placeholder
 * (completion.h lists them): `cpu|cuda` are words, DIR is a folder, MECHANISM a mechanism. The text
 * after \v is a line of its own per example, indented by two spaces, then what the exit codes mean.
 */
#ifndef FB_COMMANDS_H
#define FB_COMMANDS_H

#include "status.h"

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* X(name, hidden, help), in the order of `flowbench --help`, which leaves out hidden commands. */
/* clang-format off */
#define FB_COMMANDS(X)                                                                             \
    X(run, false, "measure suites: rows, samples, provenance, plots")                              \
    X(worker, true, "one task of a run, in a process of its own")                                  \
    X(plot, false, "draw the pictures of stored runs")                                             \
    X(report, false, "write stored runs as one page to read")                                      \
    X(history, false, "keep runs, follow every case over the commits, find regressions")           \
    X(compare, false, "decide whether one run is slower, hungrier or wrong against another")       \
    X(repro, false, "measure one stored row again and say whether it agrees")                      \
    X(apply, false, "compute a mechanism on tensors of your own")                                  \
    X(verify, false, "check mechanisms against golden vectors")                                    \
    X(data, false, "the data sets of the training tasks: list, make, fetch, check")                \
    X(info, false, "what this machine is, and what would spoil a measurement")                     \
    X(list, false, "what there is to measure: mechanisms, params, suites, tasks")                  \
    X(completion, false, "print a completion script for bash, zsh or fish")                        \
    X(help, false, "the options and examples of one command")
/* clang-format on */

#define FB_COMMAND_DECLARE(name, hidden, help)                                                     \
    int fb_cmd_##name(int argc, char **argv);                                                      \
    extern const struct argp fb_argp_##name;
FB_COMMANDS(FB_COMMAND_DECLARE)
#undef FB_COMMAND_DECLARE

struct fb_command {
    const char *name;
    bool hidden;
    const char *help;        /* half a line */
    const struct argp *argp; /* options, arguments, examples */
    char *title;             /* what the command finds in argv[0] */
    int (*run)(int argc, char **argv);
};

size_t fb_command_count(void);
const struct fb_command *fb_command_at(size_t index);
/* NULL when there is none of this name. */
const struct fb_command *fb_command_find(const char *name);
/* "; did you mean 'run'?" for a mistyped command or global option, "" when none is near. */
const char *fb_command_near(const char *name, char *text, size_t text_size);

/* The text of `flowbench --help`. */
void fb_help_print(FILE *stream);

/* Exit codes of every command; part of the command line's contract. */
enum fb_exit {
    FB_EXIT_OK = 0,
    FB_EXIT_FAILED = 1,    /* the tool failed: memory, files, our bugs */
    FB_EXIT_USAGE = 2,     /* the command line, the suite or an input file is wrong */
    FB_EXIT_CLAIM = 3,     /* a claim failed: expectation, wrong result, crashed case */
    FB_EXIT_AMBIGUOUS = 4, /* only under --strict */
    FB_EXIT_SIGINT = 130,
    FB_EXIT_SIGTERM = 143
};

/* What each exit code means, for help and the man page; ended by a NULL text. */
struct fb_exit_meaning {
    int code;
    const char *text;
};
extern const struct fb_exit_meaning fb_exit_meanings[];

/* The exit code that a status stands for. */
int fb_exit_code(enum fb_status status);

/* Prints the error to stderr and returns its exit code, so that a command can end with
 * `return fb_exit_report("run", &error)`. Texts that are complete blocks of the form
 * `file:line:column: error: ...` are printed as they are; others after "flowbench <command>: ". */
int fb_exit_report(const char *command, const struct fb_error *error);

#endif
