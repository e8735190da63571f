/* The completion script of fish. */
#include "completion.h"

static void print_quoted(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\')
            fputc('\\', out);
        fputc(*text == '\n' ? ' ' : *text, out);
    }
    fputc('\'', out);
}

static void print_action(FILE *out, const struct fb_completion *completion)
{
    switch (completion->kind) {
    case FB_COMPLETE_NOTHING:
        break;
    case FB_COMPLETE_WORDS:
        fprintf(out, " -a '%s'", completion->words);
        break;
    case FB_COMPLETE_FOLDERS:
        fputs(" -a '(__fish_complete_directories)'", out);
        break;
    case FB_COMPLETE_FILES:
        fprintf(out, " -a '(__fish_complete_suffix .%s)'", completion->suffix);
        break;
    }
}

static enum fb_status print_command(FILE *out, const struct fb_command *command,
                                    struct fb_arena *arena, struct fb_error *error)
{
    const struct argp_option *option;
    struct fb_completion completion;

    for (size_t i = 0; (option = fb_completion_next_option(command, &i)) != NULL;) {
        const char letter = fb_completion_letter(option);
        fprintf(out, "complete -c flowbench -n '__flowbench_is %s' -l %s", command->name,
                option->name);
        if (letter != '\0')
            fprintf(out, " -s '%c'", letter);
        if (option->arg != NULL) {
            if (fb_completion_of(option->arg, arena, &completion, error) != FB_OK)
                return FB_ERROR_MEMORY;
            fputs(" -x", out);
            print_action(out, &completion);
        }
        fputs(" -d ", out);
        print_quoted(out, option->doc);
        fputc('\n', out);
    }
    if (fb_completion_of_arguments(command, arena, &completion, error) != FB_OK)
        return FB_ERROR_MEMORY;
    if (completion.kind != FB_COMPLETE_NOTHING) {
        fprintf(out, "complete -c flowbench -n '__flowbench_is %s'", command->name);
        print_action(out, &completion);
        fputc('\n', out);
    }
    return FB_OK;
}

static const char head[] =
    "# fish completion for flowbench and ./bench, made by `flowbench completion fish`.\n"
    "# The command that stands on the line; a suite's name means run.\n"
    "function __flowbench_command\n"
    "    for word in (commandline -opc)[2..-1]\n"
    "        switch $word\n"
    "            case '-*'\n"
    "                continue\n"
    "            case '*.yaml' '*.yml'\n"
    "                echo run\n"
    "            case '*'\n"
    "                echo $word\n"
    "        end\n"
    "        return 0\n"
    "    end\n"
    "    return 1\n"
    "end\n"
    "function __flowbench_is\n"
    "    test (__flowbench_command; or echo none) = $argv[1]\n"
    "end\n"
    "complete -c flowbench -f\n"
    "complete -c bench -w flowbench\n"
    "complete -c flowbench -n 'not __flowbench_command' -l help -s h -d 'what flowbench can do'\n"
    "complete -c flowbench -n 'not __flowbench_command' -l version -s V -d 'the version'\n"
    "complete -c flowbench -n 'not __flowbench_command' -a '(__fish_complete_suffix .yaml)'\n"
    "complete -c bench -n 'not __flowbench_command' -a test -d 'build and run the tests'\n";

enum fb_status fb_completion_print_fish(FILE *out, struct fb_arena *arena, struct fb_error *error)
{
    fputs(head, out);
    for (size_t i = 0; i < fb_command_count(); i++) {
        const struct fb_command *command = fb_command_at(i);
        if (command->hidden)
            continue;
        fprintf(out, "complete -c flowbench -n 'not __flowbench_command' -a %s -d ", command->name);
        print_quoted(out, command->help);
        fputc('\n', out);
    }
    for (size_t i = 0; i < fb_command_count(); i++) {
        if (!fb_command_at(i)->hidden &&
            print_command(out, fb_command_at(i), arena, error) != FB_OK)
            return FB_ERROR_MEMORY;
    }
    return FB_OK;
}
