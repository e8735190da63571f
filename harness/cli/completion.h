/*
 * Completion scripts for shells, made of the commands' own tables (commands.h): what an option or
 * an argument may be is read off its placeholder.
 *
 *   cpu|cuda                 one of these words
 *   MECHANISM VARIANT ISA KIND COMMAND NAME=VALUE   names of the registry, plot kinds, commands,
 *                            parameters
 *   DIR  RUN  BASE           a folder; the folder of a run or a results.csv
 *   SUITE.yaml  FILE.safetensors  FILE.sqlite  FILE.svg  RESULTS.csv:ROW   a file that ends so
 *   anything else            the user's own words
 */
#ifndef FB_COMPLETION_H
#define FB_COMPLETION_H

#include "arena.h"
#include "commands.h"

#include <stdio.h>

enum fb_completion_kind {
    FB_COMPLETE_NOTHING,
    FB_COMPLETE_WORDS,
    FB_COMPLETE_FOLDERS,
    FB_COMPLETE_FILES
};

struct fb_completion {
    enum fb_completion_kind kind;
    const char *words;  /* FB_COMPLETE_WORDS: separated by blanks */
    const char *suffix; /* FB_COMPLETE_FILES: "yaml", without the dot; folders on the way, too */
};

/* What stands for a placeholder. Texts live in the arena or for ever. */
enum fb_status fb_completion_of(const char *placeholder, struct fb_arena *arena,
                                struct fb_completion *completion,
                                struct fb_error *error) FB_MUST_CHECK;

/* The same for the arguments of a command that are no options. */
enum fb_status fb_completion_of_arguments(const struct fb_command *command, struct fb_arena *arena,
                                          struct fb_completion *completion,
                                          struct fb_error *error) FB_MUST_CHECK;

/* The next option at or after *index: *index moves behind it; NULL at the end. First those of the
 * command and of its argp's children, then those that every command has (--help, --usage). */
const struct argp_option *fb_completion_next_option(const struct fb_command *command,
                                                    size_t *index);
/* The letter of a short option, or 0. */
char fb_completion_letter(const struct argp_option *option);

enum fb_status fb_completion_print_bash(FILE *out, struct fb_arena *arena,
                                        struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_completion_print_zsh(FILE *out, struct fb_arena *arena,
                                       struct fb_error *error) FB_MUST_CHECK;
enum fb_status fb_completion_print_fish(FILE *out, struct fb_arena *arena,
                                        struct fb_error *error) FB_MUST_CHECK;

#endif
