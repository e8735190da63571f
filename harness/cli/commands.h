/*
 * The commands of flowbench. A command is a file cmd_<name>.c with one public function
 *
 *     int fb_cmd_<name>(int argc, char **argv);
 *
 * and a line in the table below; its file is named in CMakeLists.txt. argv[0] is
 * "flowbench <name>", so argp's own messages name the command. The function returns an exit code.
 * Results go to stdout, everything else to stderr; argp's usage errors exit with FB_EXIT_USAGE.
 */
#ifndef FB_COMMANDS_H
#define FB_COMMANDS_H

#include "status.h"

/* X(name, hidden, help), in the order of `flowbench --help`, which leaves out hidden commands. */
/* clang-format off */
#define FB_COMMANDS(X)                                                                             \
    X(run, 0, "measure suites: rows, samples, provenance, plots")                                  \
    X(worker, 1, "one task of a run, in a process of its own")                                     \
    X(info, 0, "what this machine is, and what would spoil a measurement")                         \
    X(list, 0, "what there is to measure: mechanisms, params, suites, tasks")                      \
    X(plot, 0, "draw the pictures of stored runs")                                                 \
    X(verify, 0, "check mechanisms against golden vectors")
/* clang-format on */

#define FB_COMMAND_DECLARE(name, hidden, help) int fb_cmd_##name(int argc, char **argv);
FB_COMMANDS(FB_COMMAND_DECLARE)
#undef FB_COMMAND_DECLARE

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

/* The exit code that a status stands for. */
int fb_exit_code(enum fb_status status);

/* Prints the error to stderr and returns its exit code, so that a command can end with
 * `return fb_exit_report("run", &error)`. Texts that are complete blocks of the form
 * `file:line:column: error: ...` are printed as they are; others after "flowbench <command>: ". */
int fb_exit_report(const char *command, const struct fb_error *error);

#endif
