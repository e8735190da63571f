/* The table of commands: see commands.h. */
#include "commands.h"

#include "nearest.h"

#include <string.h>

#define COMMAND_ROW(name, hidden, help)                                                            \
    {#name, hidden, help, &fb_argp_##name, (char[]){"flowbench " #name}, fb_cmd_##name},
static const struct fb_command commands[] = {FB_COMMANDS(COMMAND_ROW)};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

size_t fb_command_count(void)
{
    return COMMAND_COUNT;
}

const struct fb_command *fb_command_at(size_t index)
{
    return index < COMMAND_COUNT ? &commands[index] : NULL;
}

const struct fb_command *fb_command_find(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

const char *fb_command_near(const char *name, char *text, size_t text_size)
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
    const char *near = fb_nearest_name(name, names, count);
    (void)snprintf(text, text_size, near != NULL ? "; did you mean '%s'?" : "%s",
                   near != NULL ? near : "");
    return text;
}
