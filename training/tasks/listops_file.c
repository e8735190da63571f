/* See listops_file.h. */
#include "listops_file.h"

#include "data_file.h"
#include "distinct.h"

#include <string.h>

#define PERMUTATION_STREAM UINT64_MAX
#define TREE_SEED          0x6c6973746f7073ULL

struct reader {
    struct fb_data_lines lines;
    struct fb_error *error;
    uint8_t *tokens, *targets;
    int64_t *starts, count;
};

static enum fb_status read_tree(struct reader *r, const char *line, int64_t length)
{
    const char *tab = memchr(line, '\t', (size_t)length);
    size_t at;
    int value;
    if (!tab || line + length - tab != 2 || tab[1] < '0' || tab[1] > '9')
        return fb_data_line_bad(&r->lines, r->error,
                                "expected a tree, a tab and one digit: the file is truncated or no "
                                "ListOps file; './bench data make listops' writes it anew");
    uint8_t *tokens = r->tokens + r->starts[r->count];
    const int tokens_count =
        fb_listops_tokenise(line, (size_t)(tab - line), tokens, FB_LISTOPS_LENGTH_MAX, &at);
    if (tokens_count < 0)
        return fb_data_line_bad(&r->lines, r->error,
                                "column %zu is no digit, operator or bracket, or the tree has more "
                                "than %d of them",
                                at + 1, (int)FB_LISTOPS_LENGTH_MAX);
    if (!fb_listops_evaluate(tokens, tokens_count, &value))
        return fb_data_line_bad(&r->lines, r->error,
                                "the brackets do not fit together: no tree of at most %d levels "
                                "with 1 to %d arguments each",
                                (int)FB_LISTOPS_DEPTH_MAX, (int)FB_LISTOPS_ARGUMENTS_MAX);
    if (value != tab[1] - '0')
        return fb_data_line_bad(&r->lines, r->error,
                                "the target is %c, the value of the tree %d: the file is damaged; "
                                "'./bench data make listops' writes it anew",
                                tab[1], value);
    r->targets[r->count++] = (uint8_t)value;
    r->starts[r->count] = r->starts[r->count - 1] + tokens_count;
    return FB_OK;
}

static int64_t count_lines(const struct fb_data_file *file)
{
    int64_t count = 1;
    for (int64_t i = 0; i < file->size; i++)
        count += file->bytes[i] == '\n';
    return count;
}

/* A token takes at least one byte of text and the blank behind it. */
static enum fb_status make_room(struct reader *r, const struct fb_data_file *file,
                                struct fb_arena *arena)
{
    const size_t lines = (size_t)count_lines(file);
    r->starts = fb_arena_alloc(arena, lines + 1, sizeof *r->starts, r->error);
    r->targets = r->starts ? fb_arena_alloc(arena, lines, 1, r->error) : NULL;
    r->tokens = r->targets ? fb_arena_alloc(arena, (size_t)file->size / 2 + FB_LISTOPS_LENGTH_MAX,
                                            1, r->error)
                           : NULL;
    return r->tokens ? FB_OK : FB_ERROR_MEMORY;
}

static enum fb_status read_lines(struct reader *r)
{
    static const char header[] = "Source\tTarget";
    const char *line;
    int64_t length;
    if (!fb_data_line_next(&r->lines, &line, &length) || length != (int64_t)strlen(header) ||
        memcmp(line, header, strlen(header)) != 0) {
        r->lines.number = 1;
        return fb_data_line_bad(&r->lines, r->error,
                                "expected the header 'Source<TAB>Target': is this a ListOps file?");
    }
    while (fb_data_line_next(&r->lines, &line, &length)) {
        const enum fb_status status = read_tree(r, line, length);
        if (status != FB_OK)
            return status;
    }
    return r->count > 0 ? FB_OK
                        : fb_data_line_bad(&r->lines, r->error, "no tree follows: it is truncated");
}

enum fb_status fb_listops_read(struct fb_listops_examples *examples, const char *path,
                               struct fb_arena *arena, struct fb_error *error)
{
    struct fb_data_file file;
    struct fb_arena text; /* five times as large as what is kept */
    struct reader r = {.lines = {.file = &file}, .error = error};
    fb_arena_init(&text, 0);
    enum fb_status status = fb_data_file_read(&file, path, &text, error);
    if (status == FB_OK)
        status = make_room(&r, &file, arena);
    if (status == FB_OK)
        status = read_lines(&r);
    fb_arena_free(&text);
    *examples = (struct fb_listops_examples){r.count, r.starts, r.tokens, r.targets};
    return status;
}

/* ---- choosing ------------------------------------------------------------------------------ */

int fb_listops_redraw(uint64_t seed, uint64_t stream, uint8_t *tokens)
{
    struct fb_random random;
    fb_random_init(&random, seed ^ TREE_SEED, stream);
    return fb_listops_draw(&random, tokens);
}

uint64_t *fb_listops_choose(int64_t count, uint64_t seed, struct fb_arena *arena,
                            struct fb_error *error)
{
    struct fb_distinct seen;
    uint8_t tokens[FB_LISTOPS_LENGTH_MAX];
    uint64_t *streams = fb_arena_alloc(arena, (size_t)count, sizeof *streams, error);
    struct fb_random random;
    if (!streams || fb_distinct_init(&seen, count, arena, error) != FB_OK)
        return NULL;
    int64_t found = 0;
    for (uint64_t stream = 0; found < count; stream++) {
        const int length = fb_listops_redraw(seed, stream, tokens);
        if (length > 0 && fb_distinct_add(&seen, tokens, (size_t)length))
            streams[found++] = stream;
    }
    fb_random_init(&random, seed ^ TREE_SEED, PERMUTATION_STREAM);
    for (int64_t i = count - 1; i > 0; i--) {
        const uint64_t j = fb_random_below(&random, (uint64_t)i + 1), stream = streams[i];
        streams[i] = streams[j];
        streams[j] = stream;
    }
    return streams;
}
