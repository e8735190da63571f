/*
 * run.json: where a run comes from, and all that resuming it needs. docs/results-format.md explains
 * every field.
 */
#ifndef FB_RUN_JSON_H
#define FB_RUN_JSON_H

#include "arena.h"
#include "machine.h"
#include "plan.h"
#include "suite.h"

#include <jansson.h>
#include <stdbool.h>

enum { FB_RUN_JSON_SCHEMA = 1 };

/* What a run is started with. */
struct fb_run_facts {
    const char *run_id;
    const struct fb_suite *suite;
    const struct fb_plan *plan;
    const struct fb_machine *machine;
    const char *filter; /* NULL: none */
    const char *const *sets;
    size_t sets_count;
    int argc;
    char *const *argv;
    double budget_s; /* 0: none */
    bool strict;
};

/* What a run is resumed with. Texts live in the arena. */
struct fb_run_resume {
    const char *run_id, *state; /* state: "running", "interrupted", "finished" */
    const char *suite_name, *suite_path, *suite_yaml;
    const char *filter; /* NULL: none */
    double budget_s;
    bool strict;
    const char *identity, *machine_name; /* of the machine that started it */
    const char *version, *git_sha;       /* git_sha: NULL when unknown */
    int threads_usable;
    const char *isa_best;
    size_t cases_count; /* of the plan */
};

/* The document of a run that starts now; the caller owns it. NULL with the error filled. */
json_t *fb_run_json_new(const struct fb_run_facts *facts, struct fb_error *error);

/* Notes a resumption in the document: when, by which binary, with which arguments. */
enum fb_status fb_run_json_note_resume(json_t *document, const struct fb_machine *machine, int argc,
                                       char *const *argv, struct fb_error *error) FB_MUST_CHECK;

/* Sets state and, unless it is "running", the end's time. */
enum fb_status fb_run_json_set_state(json_t *document, const char *state,
                                     struct fb_error *error) FB_MUST_CHECK;

/* Adds a warning to the document's list, once. */
enum fb_status fb_run_json_warn(json_t *document, const char *text,
                                struct fb_error *error) FB_MUST_CHECK;

/* Replaces DIR/run.json in one step: a reader finds the old or the new document, never a half. */
enum fb_status fb_run_json_write(const char *dir, const json_t *document,
                                 struct fb_error *error) FB_MUST_CHECK;

/* Reads DIR/run.json; the caller owns the document. FB_ERROR_INPUT names what is missing. */
enum fb_status fb_run_json_read(const char *dir, struct fb_arena *arena, json_t **document,
                                struct fb_run_resume *resume, struct fb_error *error) FB_MUST_CHECK;

/* The value at a path such as "suite.resolved"; NULL when there is none. */
const json_t *fb_run_json_at(const json_t *document, const char *path);

/* The commit of the sources that this binary was built from: "" when unknown. */
const char *fb_build_git_sha(void);

#endif
