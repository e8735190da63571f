/* Trees of YAML: marks, merge keys, layers, and the text that comes out again. */
#include "suite_fixture.h"
#include "yaml_tree.h"

struct tree {
    struct fb_arena arena;
    struct fb_error error;
    struct fb_diagnostics diagnostics;
    struct fb_source source;
    const struct fb_yaml_node *root;
};

static void parse(struct tree *tree, const char *text)
{
    fb_arena_init(&tree->arena, 0);
    fb_diagnostics_init(&tree->diagnostics, &tree->error);
    tree->source = (struct fb_source){.name = "t", .text = text, .length = strlen(text)};
    tree->root = fb_yaml_parse(&tree->source, 0, 0, &tree->arena, &tree->diagnostics);
}

static const char *text_of(const struct fb_yaml_node *map, const char *key)
{
    const struct fb_yaml_pair *pair = fb_yaml_find(map, key);
    return pair != NULL ? pair->value->text : NULL;
}

static void test_tree_marks_count_lines_and_code_points(void **state)
{
    (void)state;
    struct tree tree;
    parse(&tree, "a: 1\n\xC3\xA4: [x, y]\n");
    assert_non_null(tree.root);
    const struct fb_yaml_pair *pair = fb_yaml_find(tree.root, "\xC3\xA4");
    assert_non_null(pair);
    assert_int_equal(pair->key->mark.line, 1);
    assert_int_equal(pair->key->mark.column, 0);
    assert_int_equal(pair->value->items[1]->mark.column, 7);
    fb_arena_free(&tree.arena);
}

static void test_tree_merge_keys_own_key_wins_then_the_earlier_map(void **state)
{
    (void)state;
    struct tree tree;
    parse(&tree, "one: &one {a: 1, b: 1}\ntwo: &two {b: 2, c: 2, d: 2}\n"
                 "all: {d: 3, <<: [*one, *two]}\nquoted: {'<<': 5}\n");
    assert_non_null(tree.root);
    const struct fb_yaml_node *all = fb_yaml_find(tree.root, "all")->value;
    assert_int_equal(all->count, 4);
    assert_string_equal(text_of(all, "a"), "1");
    assert_string_equal(text_of(all, "b"), "1");
    assert_string_equal(text_of(all, "c"), "2");
    assert_string_equal(text_of(all, "d"), "3");
    assert_string_equal(text_of(fb_yaml_find(tree.root, "quoted")->value, "<<"), "5");
    fb_arena_free(&tree.arena);
}

static void test_tree_layers_maps_merge_lists_replace(void **state)
{
    (void)state;
    struct tree base;
    struct tree over;
    parse(&base, "m: {a: 1, n: {x: 1, y: 1}}\nl: [1, 2, 3]\nonly: base\n");
    parse(&over, "m: {n: {y: 2, z: 2}}\nl: [4]\n");
    const struct fb_yaml_node *layered =
        fb_yaml_layer(over.root, base.root, &base.arena, &base.diagnostics);
    assert_non_null(layered);
    const char *text = fb_yaml_emit(layered, &base.arena, &base.diagnostics);
    assert_string_equal(text, "m:\n  a: 1\n  n: {x: 1, y: 2, z: 2}\nl:\n- 4\nonly: base\n");
    fb_arena_free(&base.arena);
    fb_arena_free(&over.arena);
}

static void test_tree_emit_keeps_quotes_and_reparses_equal(void **state)
{
    (void)state;
    struct tree tree;
    struct tree again;
    parse(&tree,
          "a: '> 5'\nb: \"512\"\nc: [\"it's\", 'a: b', '', plain text]\nd: |\n  two\n  lines\n");
    assert_non_null(tree.root);
    const char *text = fb_yaml_emit(tree.root, &tree.arena, &tree.diagnostics);
    assert_non_null(text);
    parse(&again, text);
    assert_non_null(again.root);
    assert_true(fb_yaml_find(again.root, "b")->value->quoted);
    assert_string_equal(text_of(again.root, "a"), "> 5");
    assert_string_equal(text_of(again.root, "d"), "two\nlines\n");
    assert_string_equal(fb_yaml_find(again.root, "c")->value->items[1]->text, "a: b");
    assert_string_equal(fb_yaml_emit(again.root, &again.arena, &again.diagnostics), text);
    fb_arena_free(&tree.arena);
    fb_arena_free(&again.arena);
}

static void test_tree_allocation_failure_is_reported(void **state)
{
    (void)state;
    for (long successes = 0; successes < 12; successes++) {
        struct tree tree;
        fb_arena_init(&tree.arena, 0);
        fb_arena_fail_after(&tree.arena, successes);
        fb_diagnostics_init(&tree.diagnostics, &tree.error);
        const char *text = "a: &x {b: [1, 2, 3], c: {d: 1}}\ne: {<<: *x}\n";
        tree.source = (struct fb_source){.name = "t", .text = text, .length = strlen(text)};
        assert_null(fb_yaml_parse(&tree.source, 0, 0, &tree.arena, &tree.diagnostics));
        assert_int_equal(fb_diagnostics_finish(&tree.diagnostics), FB_ERROR_MEMORY);
        fb_arena_free(&tree.arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree_marks_count_lines_and_code_points),
        cmocka_unit_test(test_tree_merge_keys_own_key_wins_then_the_earlier_map),
        cmocka_unit_test(test_tree_layers_maps_merge_lists_replace),
        cmocka_unit_test(test_tree_emit_keeps_quotes_and_reparses_equal),
        cmocka_unit_test(test_tree_allocation_failure_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
