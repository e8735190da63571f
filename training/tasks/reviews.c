/* The folders of IMDb reviews: see documents.h. */
#include "documents.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_FIRST = 4096 };

struct names {
    const char **list;
    size_t count, capacity;
};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum fb_status add_name(struct names *names, const char *name, struct fb_arena *arena,
                               struct fb_error *error)
{
    if (names->count == names->capacity) {
        const size_t capacity = names->capacity > 0 ? 2 * names->capacity : NAMES_FIRST;
        const char **list = fb_arena_alloc(arena, capacity, sizeof *list, error);
        if (!list)
            return FB_ERROR_MEMORY;
        if (names->count > 0)
            memcpy(list, names->list, names->count * sizeof *list);
        names->list = list;
        names->capacity = capacity;
    }
    names->list[names->count] = fb_arena_strdup(arena, name, error);
    return names->list[names->count++] ? FB_OK : FB_ERROR_MEMORY;
}

/* The .txt files of a folder, sorted. */
static enum fb_status read_names(struct names *names, const char *folder, struct fb_arena *arena,
                                 struct fb_error *error)
{
    enum fb_status status = FB_OK;
    const struct dirent *entry;
    DIR *directory = opendir(folder);
    if (!directory)
        return fb_error_set(error, FB_ERROR_IO,
                            "cannot read the folder '%s': %s; './bench data fetch text' gets it",
                            folder, strerror(errno));
    while (status == FB_OK && (entry = readdir(directory)) != NULL) {
        const size_t length = strlen(entry->d_name);
        if (entry->d_name[0] != '.' && length > 4 &&
            strcmp(entry->d_name + length - 4, ".txt") == 0)
            status = add_name(names, entry->d_name, arena, error);
    }
    (void)closedir(directory);
    if (status == FB_OK && names->count == 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "the folder '%s' holds no review (NAME.txt): unpack the archive again",
                            folder);
    if (status == FB_OK)
        qsort(names->list, names->count, sizeof *names->list, by_text);
    return status;
}

static enum fb_status read_review(struct fb_document *document, const char *path, uint8_t *bytes,
                                  int64_t bytes_max, struct fb_error *error)
{
    FILE *file = fopen(path, "rbe");
    if (!file)
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s': %s", path, strerror(errno));
    const size_t length = fread(bytes, 1, (size_t)bytes_max, file);
    const bool failed = ferror(file) != 0;
    (void)fclose(file);
    if (failed)
        return fb_error_set(error, FB_ERROR_IO, "cannot read '%s'", path);
    if (length == 0)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "the review '%s' is empty: unpack the archive again", path);
    *document = (struct fb_document){bytes, (int64_t)length};
    return FB_OK;
}

static enum fb_status read_label(struct fb_documents *set, const char *folder, int32_t label,
                                 int64_t bytes_max, struct fb_arena *arena, struct fb_error *error)
{
    struct names names = {NULL, 0, 0};
    char path[1024];
    enum fb_status status = read_names(&names, folder, arena, error);
    uint8_t *bytes =
        status == FB_OK ? fb_arena_alloc(arena, names.count, (size_t)bytes_max, error) : NULL;
    if (status == FB_OK && !bytes)
        return FB_ERROR_MEMORY;
    for (size_t i = 0; i < names.count && status == FB_OK; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, names.list[i]);
        status = fb_documents_grow(set, arena, error);
        if (status == FB_OK)
            status = read_review(&set->documents[set->count], path, bytes + (int64_t)i * bytes_max,
                                 bytes_max, error);
        if (status == FB_OK)
            set->labels[set->count++] = label;
    }
    return status;
}

enum fb_status fb_reviews_read(struct fb_documents *set, const char *folder, int64_t bytes_max,
                               struct fb_arena *arena, struct fb_error *error)
{
    static const char *const labels[] = {"neg", "pos"};
    enum fb_status status = FB_OK;
    *set = (struct fb_documents){.each = 1};
    for (int32_t label = 0; label < 2 && status == FB_OK; label++) {
        char path[960];
        (void)snprintf(path, sizeof path, "%s/%s", folder, labels[label]);
        status = read_label(set, path, label, bytes_max, arena, error);
    }
    return status;
}
