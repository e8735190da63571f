/* Suite files: read with limits, their `include:` layered below them. */
#include "suite_schema.h"

#include "nearest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 20, INCLUDE_DEPTH_MAX = 16, FILES_MAX = 64, NAMES_MAX = 256 };

struct file_id {
    dev_t device;
    ino_t inode;
};

/* The files being read, outermost first, and how many were read in all. */
struct loader {
    const struct fb_suite_reader *reader;
    struct file_id stack[INCLUDE_DEPTH_MAX + 1];
    size_t depth, files;
};

/* Where a refusal of a file is reported: at the include's value, or at the file itself. */
struct request {
    const char *path;
    const struct fb_yaml_node *include; /* NULL for the outermost file */
};

static bool refuse(const struct loader *loader, const struct request *request, const char *reason)
{
    struct fb_diagnostics *diagnostics = loader->reader->diagnostics;
    if (request->include != NULL) {
        fb_diagnose(diagnostics, request->include->mark, "cannot include '%.150s': %s",
                    request->path, reason);
    } else {
        fb_diagnose_file(diagnostics, request->path, "cannot read the suite: %s", reason);
    }
    return false;
}

/* "No such file; did you mean 'scaling.yaml'?" from the names beside it. */
static bool refuse_missing(const struct loader *loader, const struct request *request)
{
    const char *slash = strrchr(request->path, '/');
    const char *base = slash != NULL ? slash + 1 : request->path;
    struct fb_error error;
    const char *folder = slash == NULL
                             ? "."
                             : fb_arena_printf(loader->reader->arena, &error, "%.*s",
                                               (int)(slash - request->path + 1), request->path);
    DIR *directory = folder != NULL ? opendir(folder) : NULL;
    const char *names[NAMES_MAX];
    size_t count = 0;
    while (directory != NULL && count < NAMES_MAX) {
        const struct dirent *entry = readdir(directory);
        if (entry == NULL) {
            break;
        }
        const char *dot = strrchr(entry->d_name, '.');
        if (dot != NULL && strcmp(dot, ".yaml") == 0) {
            names[count] = fb_arena_strdup(loader->reader->arena, entry->d_name, &error);
            count += names[count] != NULL ? 1 : 0;
        }
    }
    if (directory != NULL) {
        (void)closedir(directory);
    }
    const char *near = fb_nearest_name(base, names, count);
    char reason[320] = "no such file";
    if (near != NULL) {
        (void)snprintf(reason, sizeof reason, "no such file; did you mean '%.255s'?", near);
    }
    return refuse(loader, request, reason);
}

/* Opens without blocking on a FIFO and checks kind and size before a byte is read. */
static int open_file(struct loader *loader, const struct request *request, struct stat *info)
{
    int file = open(request->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) {
        (void)(errno == ENOENT ? refuse_missing(loader, request)
                               : refuse(loader, request, strerror(errno)));
        return -1;
    }
    const char *reason = NULL;
    if (fstat(file, info) != 0) {
        reason = strerror(errno);
    } else if (S_ISDIR(info->st_mode)) {
        reason = "it is a folder";
    } else if (!S_ISREG(info->st_mode)) {
        reason = "it is not a regular file";
    } else if (info->st_size > FILE_BYTES_MAX) {
        reason = "it is larger than 1 MiB, the limit of a suite file";
    }
    for (size_t i = 0; reason == NULL && i < loader->depth; i++) {
        if (loader->stack[i].device == info->st_dev && loader->stack[i].inode == info->st_ino) {
            reason = "the files include each other in a loop";
        }
    }
    if (reason != NULL) {
        (void)refuse(loader, request, reason);
        (void)close(file);
        return -1;
    }
    return file;
}

static char *read_all(struct loader *loader, const struct request *request, int file,
                      size_t *length)
{
    char *text = fb_suite_alloc(loader->reader, (size_t)FILE_BYTES_MAX + 1, 1);
    *length = 0;
    while (text != NULL) {
        ssize_t got = read(file, text + *length, (size_t)FILE_BYTES_MAX + 1 - *length);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            (void)refuse(loader, request, strerror(errno));
            return NULL;
        }
        *length += (size_t)got;
        if (got == 0) {
            break;
        }
        if (*length > FILE_BYTES_MAX) {
            (void)refuse(loader, request, "it is larger than 1 MiB, the limit of a suite file");
            return NULL;
        }
    }
    return text;
}

static const struct fb_yaml_node *load_file(struct loader *loader, const struct request *request);

/* The path of an included file: relative to the folder of the file that includes it. */
static const char *resolve_path(struct loader *loader, const char *from, const char *path)
{
    const char *slash = strrchr(from, '/');
    if (path[0] == '/' || slash == NULL) {
        return path;
    }
    struct fb_error error;
    const char *resolved = fb_arena_printf(loader->reader->arena, &error, "%.*s%s",
                                           (int)(slash - from + 1), from, path);
    if (resolved == NULL) {
        fb_diagnose_memory(loader->reader->diagnostics, &error);
    }
    return resolved;
}

/* Layers `include:` below the document: later files over earlier ones, the document over all. */
static const struct fb_yaml_node *apply_includes(struct loader *loader, const char *path,
                                                 const struct fb_yaml_node *root)
{
    const struct fb_suite_reader *reader = loader->reader;
    const struct fb_yaml_pair *pair = fb_yaml_find(root, "include");
    if (pair == NULL) {
        return root;
    }
    const struct fb_yaml_node *base = NULL;
    size_t count = pair->value->kind == FB_YAML_LIST ? pair->value->count : 1;
    for (size_t i = 0; i < count; i++) {
        const struct fb_yaml_node *item =
            pair->value->kind == FB_YAML_LIST ? pair->value->items[i] : pair->value;
        if (item->kind != FB_YAML_SCALAR || item->text[0] == '\0') {
            fb_diagnose(reader->diagnostics, item->mark,
                        "include is the path of a suite file, or a list of them");
            return NULL;
        }
        if (loader->depth > INCLUDE_DEPTH_MAX - 1 || loader->files == FILES_MAX) {
            fb_diagnose(reader->diagnostics, item->mark,
                        "includes go %d files deep and %d files in all at most", INCLUDE_DEPTH_MAX,
                        FILES_MAX);
            return NULL;
        }
        struct request request = {.path = resolve_path(loader, path, item->text), .include = item};
        const struct fb_yaml_node *layer =
            request.path != NULL ? load_file(loader, &request) : NULL;
        if (layer == NULL) {
            return NULL;
        }
        base =
            base == NULL ? layer : fb_yaml_layer(layer, base, reader->arena, reader->diagnostics);
        if (base == NULL) {
            return NULL;
        }
    }
    root = fb_yaml_without(root, "include", reader->arena, reader->diagnostics);
    return root == NULL || base == NULL
               ? root
               : fb_yaml_layer(root, base, reader->arena, reader->diagnostics);
}

static const struct fb_yaml_node *load_text(struct loader *loader, const char *path,
                                            const char *text, size_t length)
{
    const struct fb_suite_reader *reader = loader->reader;
    struct fb_source *source = fb_suite_alloc(reader, 1, sizeof *source);
    struct fb_error error;
    if (source == NULL) {
        return NULL;
    }
    *source = (struct fb_source){
        .name = fb_arena_strdup(reader->arena, path, &error), .text = text, .length = length};
    if (source->name == NULL) {
        fb_diagnose_memory(reader->diagnostics, &error);
        return NULL;
    }
    if (!fb_yaml_check_text(source, reader->diagnostics)) {
        return NULL;
    }
    const struct fb_yaml_node *root =
        fb_yaml_parse(source, 0, 0, reader->arena, reader->diagnostics);
    if (root != NULL && root->kind != FB_YAML_MAP) {
        fb_diagnose(reader->diagnostics, root->mark,
                    "a suite is a map of keys (suite: NAME, sweep: ...)");
        return NULL;
    }
    return root != NULL ? apply_includes(loader, path, root) : NULL;
}

static const struct fb_yaml_node *load_file(struct loader *loader, const struct request *request)
{
    struct stat info;
    int file = open_file(loader, request, &info);
    if (file < 0) {
        return NULL;
    }
    size_t length;
    char *text = read_all(loader, request, file, &length);
    (void)close(file);
    if (text == NULL) {
        return NULL;
    }
    loader->stack[loader->depth++] = (struct file_id){info.st_dev, info.st_ino};
    loader->files++;
    const struct fb_yaml_node *root = load_text(loader, request->path, text, length);
    loader->depth--;
    return root;
}

const struct fb_yaml_node *fb_suite_load_file(const struct fb_suite_reader *reader,
                                              const char *path)
{
    struct loader loader = {.reader = reader};
    struct request request = {.path = path};
    return load_file(&loader, &request);
}

const struct fb_yaml_node *fb_suite_load_text(const struct fb_suite_reader *reader,
                                              const char *text, size_t length, const char *path)
{
    struct loader loader = {.reader = reader};
    struct stat info;
    if (length > FILE_BYTES_MAX) {
        fb_diagnose_file(reader->diagnostics, path,
                         "cannot read the suite: it is larger than 1 MiB, the limit of a suite "
                         "file");
        return NULL;
    }
    if (stat(path, &info) == 0) {
        loader.stack[loader.depth++] = (struct file_id){info.st_dev, info.st_ino};
    }
    return load_text(&loader, path, text, length);
}
