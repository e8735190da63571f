/* A suite parsed from text, for the tests of harness/suite and harness/plan. */
#ifndef FB_SUITE_FIXTURE_H
#define FB_SUITE_FIXTURE_H

#include "suite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct suite_fixture {
    struct fb_arena arena;
    struct fb_suite suite;
    struct fb_error error;
    enum fb_status status;
};

static inline void parse_suite(struct suite_fixture *fixture, const char *text,
                               const struct fb_suite_options *options)
{
    fb_arena_init(&fixture->arena, 0);
    fixture->status = fb_suite_parse(text, strlen(text), "t.yaml", options, &fixture->arena,
                                     &fixture->suite, &fixture->error);
}

static inline void parse_valid(struct suite_fixture *fixture, const char *text)
{
    parse_suite(fixture, text, NULL);
    if (fixture->status != FB_OK) {
        print_message("%s\n", fixture->error.text);
    }
    assert_int_equal(fixture->status, FB_OK);
}

static inline void free_suite(struct suite_fixture *fixture)
{
    fb_arena_free(&fixture->arena);
}

/* The text is refused as a usage error, and the message begins with the wanted text. */
static inline void assert_refused(const char *text, const struct fb_suite_options *options,
                                  const char *wanted)
{
    struct suite_fixture fixture;
    parse_suite(&fixture, text, options);
    if (fixture.status != FB_ERROR_USAGE ||
        strncmp(fixture.error.text, wanted, strlen(wanted)) != 0) {
        print_message("for:\n%s\nwanted: %s\ngot:    %s\n", text, wanted,
                      fixture.status == FB_OK ? "(accepted)" : fixture.error.text);
    }
    assert_int_equal(fixture.status, FB_ERROR_USAGE);
    assert_int_equal(strncmp(fixture.error.text, wanted, strlen(wanted)), 0);
    free_suite(&fixture);
}

#endif
