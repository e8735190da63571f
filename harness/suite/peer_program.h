/*
 * Programs that are not ours, as a suite names them: {name: external, computes: flow, program:
 * torch, variant: torch-official}. A program is an adapter that comes with flowbench, by its name,
 * or a file, by a path with a slash. docs/external-protocol.md is what it speaks.
 */
#ifndef FB_PEER_PROGRAM_H
#define FB_PEER_PROGRAM_H

#include "suite_reader.h"

#include <stdbool.h>

enum {
    FB_PEER_NAMES_MAX = 64,        /* different variants of programs in one suite */
    FB_PEER_VARIANT_SIZE_MAX = 40, /* bytes */
    FB_PEER_PROGRAM_SIZE_MAX = 200
};

/* The variants of programs that a suite has named so far: what `exclude`, `expect` and --filter may
 * say beside the registered ones. */
struct fb_peer_names {
    const char *names[FB_PEER_NAMES_MAX];
    size_t count;
};

/* Adds a name that is not there yet; false when there is no room. */
bool fb_peer_names_add(struct fb_peer_names *names, const char *name);

/* `program:` and `variant:` of such an entry. The variant is added to the reader's names. */
bool fb_peer_read_program(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                          const char **program);
bool fb_peer_read_variant(const struct fb_suite_reader *reader, const struct fb_yaml_node *node,
                          const char **variant);

/* The file of an adapter, or NULL for what is a path. */
const char *fb_peer_adapter_file(const char *program);

#endif
