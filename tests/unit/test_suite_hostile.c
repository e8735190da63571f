/* Hostile suites: each is refused, at its place, within the limits on memory. */
#include "suite_fixture.h"

#include <stdlib.h>

enum { BIG = 1 << 20 };

/* The refusal begins with the wanted text and took less memory than a tenth of the promise. */
static void assert_bytes_refused(const char *text, size_t length, const char *wanted)
{
    struct suite_fixture f;
    fb_arena_init(&f.arena, (size_t)100 << 20);
    f.status = fb_suite_parse(text, length, "t.yaml", NULL, &f.arena, &f.suite, &f.error);
    if (f.status != FB_ERROR_USAGE || strncmp(f.error.text, wanted, strlen(wanted)) != 0) {
        print_message("wanted: %s\ngot:    %s\n", wanted, f.error.text);
    }
    assert_int_equal(f.status, FB_ERROR_USAGE);
    assert_int_equal(strncmp(f.error.text, wanted, strlen(wanted)), 0);
    free_suite(&f);
}

static void test_hostile_bytes_are_refused_at_their_place(void **state)
{
    (void)state;
    assert_bytes_refused("", 0, "t.yaml:1:1: error: there is nothing here");
    assert_bytes_refused("# only a comment\n", 17, "t.yaml:1:1: error: there is nothing here");
    assert_bytes_refused("suite: s\n\0\n", 11, "t.yaml:2:1: error: control character U+0000");
    assert_bytes_refused("suite: \x1b[31m\n", 13, "t.yaml:1:8: error: control character U+001B");
    assert_bytes_refused("suite: \xff\n", 9, "t.yaml:1:8: error: byte 0xFF is not UTF-8");
    assert_bytes_refused("a: \xc3\xa4\xc0\x80\n", 8, "t.yaml:1:5: error: byte 0xC0 is not UTF-8");
    assert_bytes_refused("a: \xed\xa0\x80\n", 7, "t.yaml:1:4: error: byte 0xED is not UTF-8");
    assert_bytes_refused("a: \xe2\x82", 5, "t.yaml:1:4: error: byte 0xE2 is not UTF-8");
    assert_bytes_refused("\xff\xfe"
                         "a",
                         3, "t.yaml:1:1: error: byte 0xFF is not UTF-8");
    assert_bytes_refused("suite: \"a\\0b\"\n", 14, "t.yaml:1:8: error: a text cannot hold a NUL");
}

static void test_hostile_documents_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *wanted;
    } cases[] = {
        {"[suite]\n", "t.yaml:1:1: error: a suite is a map of keys"},
        {"just text\n", "t.yaml:1:1: error: a suite is a map of keys"},
        {"suite: a\n---\nsuite: b\n", "t.yaml:2:1: error: a second document"},
        {"suite: !!str a\n", "t.yaml:1:8: error: suites have no tags"},
        {"suite: *nowhere\n", "t.yaml:1:8: error: alias *nowhere has no anchor"},
        {"suite: &a [*a]\n", "t.yaml:1:12: error: alias *a stands inside its own anchor"},
        {"&r suite: s\nsweep: &x {<<: *x}\n",
         "t.yaml:2:16: error: alias *x stands inside its own anchor"},
        {"suite: s\nsweep: {<<: 5}\n", "t.yaml:2:9: error: << merges a map or a list of maps"},
        {"a: &a {}\nsweep: {<<: *a, <<: *a}\n", "t.yaml:2:17: error: key '<<' is given twice"},
        {"suite: [a, b\n", "t.yaml:2:1: error: did not find expected ',' or ']'"},
        {"suite: s\n\tsweep: x\n", "t.yaml:2:1: error: "},
        {"suite: t.yaml\ninclude: /dev/zero\n",
         "t.yaml:2:10: error: cannot include '/dev/zero': it is not a regular file"},
        {"suite: s\ninclude: /\n", "t.yaml:2:10: error: cannot include '/': it is a folder"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_bytes_refused(cases[i].text, strlen(cases[i].text), cases[i].wanted);
    }
}

/* `unit` repeated up to 1 MiB, after a beginning. */
static void refuse_repeated(const char *begin, const char *unit, const char *wanted)
{
    char *text = malloc(BIG);
    assert_non_null(text);
    size_t used = strlen(begin);
    memcpy(text, begin, used);
    while (used + strlen(unit) <= BIG) {
        memcpy(text + used, unit, strlen(unit));
        used += strlen(unit);
    }
    assert_bytes_refused(text, used, wanted);
    free(text);
}

static void test_hostile_repetitions_are_refused(void **state)
{
    (void)state;
    refuse_repeated("suite: ", "[", "t.yaml:1:71: error: nested deeper than 64 levels");
    refuse_repeated("", "- ", "t.yaml:1:129: error: nested deeper than 64 levels");
    refuse_repeated("", "? ", "t.yaml:1:129: error: nested deeper than 64 levels");
    refuse_repeated("", "{a: ", "t.yaml:1:");
    refuse_repeated("suite: [", "x,", "t.yaml:1:123369: error: the suite grows beyond 1024 KiB");
    refuse_repeated("suite: \"", "\\", "t.yaml:1:");
    refuse_repeated("", "%", "t.yaml:1:2: error: ");
    refuse_repeated("", "\n", "t.yaml:1:1: error: there is nothing here");
    refuse_repeated("suite: |\n", " \n", "t.yaml:");
    refuse_repeated("", "&a ", "t.yaml:1:");
    refuse_repeated("", "'", "t.yaml:1:");
    refuse_repeated("suite: ", "a", "t.yaml:1:8: error: ");
    refuse_repeated("", "<<: {", "t.yaml:1:");
    refuse_repeated("a: b\n", "a: b\n", "t.yaml:2:1: error: key 'a' is given twice");
}

static void test_hostile_alias_bomb_is_refused(void **state)
{
    (void)state;
    char text[2048] = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n";
    for (int level = 1; level < 12; level++) {
        char line[160];
        (void)snprintf(line, sizeof line,
                       "l%d: &l%d [*l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d]\n",
                       level, level, level - 1, level - 1, level - 1, level - 1, level - 1,
                       level - 1, level - 1, level - 1, level - 1, level - 1);
        strcat(text, line);
    }
    assert_bytes_refused(text, strlen(text), "t.yaml:5:");
}

static void test_hostile_size_is_refused_before_reading(void **state)
{
    (void)state;
    char *text = calloc(BIG + 1, 1);
    assert_non_null(text);
    assert_bytes_refused(text, BIG + 1, "t.yaml: error: cannot read the suite: it is larger than");
    free(text);
}

static void test_hostile_many_exclusions_are_refused(void **state)
{
    (void)state;
    size_t room = 200000;
    char *text = malloc(room);
    assert_non_null(text);
    int used = snprintf(text, room,
                        "suite: s\nsweep: {mechanism: flow, seq_len: {from: 1, to: 90000, step: "
                        "1}}\nexclude: [");
    for (int i = 0; i < 3000; i++) {
        used += snprintf(text + used, room - (size_t)used, "{seq_len: 5},");
    }
    used += snprintf(text + used, room - (size_t)used, "]\n");
    assert_bytes_refused(text, (size_t)used, "t.yaml:3:10: error: exclude compares 90000 cases");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile_bytes_are_refused_at_their_place),
        cmocka_unit_test(test_hostile_documents_are_refused),
        cmocka_unit_test(test_hostile_repetitions_are_refused),
        cmocka_unit_test(test_hostile_alias_bomb_is_refused),
        cmocka_unit_test(test_hostile_size_is_refused_before_reading),
        cmocka_unit_test(test_hostile_many_exclusions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
