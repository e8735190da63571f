/*
 * Downloading: curl into DIR/.downloads/NAME.part, resumed when it is there; the sum compared with
 * the known or the recorded one; unpacked beside its place by tar or unzip, moved item by item. See
 * data_sets.h.
 */
#include "data_sets.h"
#include "external_command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 12, CURL_CANNOT_RESUME = 33 };

struct fetching {
    const struct fb_data_set *set;
    const char *data_dir, *url;
    struct fb_error *error;
    char part[FB_DATA_PATH_SIZE], unpacked[FB_DATA_PATH_SIZE], replaced[FB_DATA_PATH_SIZE];
};

/* Runs a program whose messages belong on stderr. */
static enum fb_status run(const struct fetching *f, const char *const *argv, int *code)
{
    return fb_command_run(argv, NULL, "/dev/stderr", code, f->error);
}

static enum fb_status run_curl(const struct fetching *f, int *code)
{
    const char *const argv[] = {
        "curl",     "--fail", "--location",    isatty(STDERR_FILENO) ? "--progress-bar" : "-sS",
        "--retry",  "3",      "--continue-at", "-",
        "--output", f->part,  f->url,          NULL};
    return run(f, argv, code);
}

static enum fb_status download(const struct fetching *f)
{
    int code = 0;
    enum fb_status status = run_curl(f, &code);
    if (status == FB_OK && code == CURL_CANNOT_RESUME) {
        (void)fprintf(stderr, "%s: its home cannot resume a download: from the start\n",
                      f->set->name);
        (void)unlink(f->part);
        status = run_curl(f, &code);
    }
    if (status != FB_OK || code == 0)
        return status;
    return fb_error_set(f->error, FB_ERROR_IO,
                        "curl gave up on %s (exit code %d); './bench data fetch %s' goes on from "
                        "'%s', --url names another home, and files that you put into '%s/%s' "
                        "need no download",
                        f->url, code, f->set->name, f->part, f->data_dir, f->set->folder);
}

/* Against the known sum, else the recorded one; a new one is recorded and printed. */
static enum fb_status verify(const struct fetching *f)
{
    char sum[FB_DATA_SUM_SIZE], recorded[FB_DATA_SUM_SIZE], label[FB_DATA_LABEL_SIZE];
    const char *wanted = f->set->archive_sum;
    const enum fb_status status = fb_data_sum(f->part, sum, f->error);
    if (status != FB_OK)
        return status;
    (void)snprintf(label, sizeof label, "download/%s", f->set->name);
    if (!wanted && fb_data_sum_recorded(f->data_dir, label, recorded))
        wanted = recorded;
    if (!wanted) {
        (void)fprintf(stderr,
                      "%s: SHA-256 %s; none is known for this download, so it is recorded in "
                      "'%s/recorded.sha256'\n",
                      f->set->name, sum, f->data_dir);
        return fb_data_sum_record(f->data_dir, label, sum, f->error);
    }
    if (strcmp(sum, wanted) == 0)
        return FB_OK;
    (void)unlink(f->part);
    return fb_error_set(f->error, FB_ERROR_INPUT,
                        "what %s gave has the SHA-256 %s, not %s: it is damaged, or was changed at "
                        "its home. It was removed; nothing else was touched",
                        f->url, sum, wanted);
}

/* tar keeps the review folders below the archive's first; other members are taken flat. */
static enum fb_status unpack(const struct fetching *f)
{
    const char *argv[ARGUMENTS_MAX + FB_DATA_FILES_MAX] = {NULL};
    char names[FB_DATA_FILES_MAX][2 * FB_DATA_PATH_SIZE];
    const bool folders = strchr(f->set->files[0], '/') != NULL;
    size_t n = 0;
    int code = 0;
    if (f->set->unpack == FB_UNPACK_FILE) {
        (void)snprintf(names[0], sizeof names[0], "%s/%s", f->unpacked, f->set->files[0]);
        return rename(f->part, names[0]) == 0
                   ? FB_OK
                   : fb_error_set(f->error, FB_ERROR_IO, "cannot move '%s': %s", f->part,
                                  strerror(errno));
    }
    if (f->set->unpack == FB_UNPACK_ZIP) {
        const char *const start[] = {"unzip", "-q", "-j", "-o", f->part};
        memcpy(argv, start, sizeof start);
        n = sizeof start / sizeof start[0];
    } else {
        const char *const start[] = {
            "tar",           "-xzf",
            f->part,         "-C",
            f->unpacked,     "--wildcards",
            "--no-anchored", folders ? "--strip-components=1" : "--transform=s,.*/,,"};
        memcpy(argv, start, sizeof start);
        n = sizeof start / sizeof start[0];
    }
    for (size_t i = 0; f->set->files[i]; i++) {
        (void)snprintf(names[i], sizeof names[i], "%s%s",
                       f->set->unpack == FB_UNPACK_ZIP ? "*" : "", f->set->files[i]);
        argv[n++] = names[i];
    }
    if (f->set->unpack == FB_UNPACK_ZIP) {
        argv[n++] = "-d";
        argv[n++] = f->unpacked;
    }
    const enum fb_status status = run(f, argv, &code);
    if (status == FB_OK && code != 0)
        return fb_error_set(f->error, FB_ERROR_INPUT,
                            "%s cannot unpack '%s' (exit code %d): it is no such archive, or lacks "
                            "one of the files of %s; remove it to download it anew",
                            argv[0], f->part, code, f->set->name);
    return status;
}

/* Moves what was unpacked into place; what was there goes aside first. */
static enum fb_status move_into_place(const struct fetching *f)
{
    struct stat info;
    for (size_t i = 0; f->set->files[i]; i++) {
        char from[FB_DATA_PATH_SIZE * 2], to[FB_DATA_PATH_SIZE * 2], parent[FB_DATA_PATH_SIZE * 2];
        char aside[FB_DATA_PATH_SIZE * 2];
        (void)snprintf(from, sizeof from, "%s/%s", f->unpacked, f->set->files[i]);
        (void)snprintf(to, sizeof to, "%s/%s/%s", f->data_dir, f->set->folder, f->set->files[i]);
        (void)snprintf(aside, sizeof aside, "%s/%zu", f->replaced, i);
        (void)snprintf(parent, sizeof parent, "%s", to);
        *strrchr(parent, '/') = '\0';
        if (stat(from, &info) != 0)
            return fb_error_set(f->error, FB_ERROR_INPUT,
                                "the download of %s holds no '%s': it is another archive",
                                f->set->name, f->set->files[i]);
        const enum fb_status status = fb_data_create_folder(parent, f->error);
        if (status != FB_OK)
            return status;
        if ((S_ISDIR(info.st_mode) && access(to, F_OK) == 0 && rename(to, aside) != 0) ||
            rename(from, to) != 0)
            return fb_error_set(f->error, FB_ERROR_IO, "cannot move '%s' to '%s': %s", from, to,
                                strerror(errno));
    }
    return FB_OK;
}

static enum fb_status remove_tree(const struct fetching *f, const char *path)
{
    const char *const argv[] = {"rm", "-rf", "--", path, NULL};
    int code = 0;
    const enum fb_status status = run(f, argv, &code);
    if (status == FB_OK && code != 0)
        return fb_error_set(f->error, FB_ERROR_IO, "cannot remove '%s'", path);
    return status;
}

/* Every file that must come out of the archive is looked at before the first one is moved. */
static enum fb_status check_unpacked(const struct fetching *f)
{
    for (size_t i = 0; f->set->files[i]; i++) {
        char path[FB_DATA_PATH_SIZE * 2];
        (void)snprintf(path, sizeof path, "%s/%s", f->unpacked, f->set->files[i]);
        if (access(path, R_OK) != 0)
            return fb_error_set(f->error, FB_ERROR_INPUT,
                                "the download of %s holds no '%s': it is another archive",
                                f->set->name, f->set->files[i]);
    }
    return FB_OK;
}

enum fb_status fb_data_fetch(const struct fb_data_set *set, const char *data_dir, const char *url,
                             struct fb_error *error)
{
    struct fetching f = {
        .set = set, .data_dir = data_dir, .url = url ? url : set->url, .error = error};
    int64_t bytes;
    if (set->unpack == FB_UNPACK_MADE)
        return fb_error_set(error, FB_ERROR_USAGE,
                            "%s is generated: './bench data make %s' writes it", set->name,
                            set->name);
    if (fb_data_set_state(set, data_dir, &bytes) == FB_DATA_COMPLETE)
        return FB_OK;
    (void)snprintf(f.part, sizeof f.part, "%s/.downloads/%s.part", data_dir, set->name);
    (void)snprintf(f.unpacked, sizeof f.unpacked, "%s/.downloads/%s.new", data_dir, set->name);
    (void)snprintf(f.replaced, sizeof f.replaced, "%s/.downloads/%s.old", data_dir, set->name);
    (void)fprintf(stderr, "%s: %s\n", set->name, f.url);
    enum fb_status status = remove_tree(&f, f.unpacked);
    if (status == FB_OK)
        status = fb_data_create_folder(f.unpacked, error);
    if (status == FB_OK)
        status = fb_data_create_folder(f.replaced, error);
    if (status == FB_OK)
        status = download(&f);
    if (status == FB_OK)
        status = verify(&f);
    if (status == FB_OK)
        status = unpack(&f);
    if (status == FB_OK)
        status = check_unpacked(&f);
    if (status == FB_OK)
        status = move_into_place(&f);
    if (status != FB_OK)
        return status;
    (void)unlink(f.part);
    status = remove_tree(&f, f.unpacked);
    return status == FB_OK ? remove_tree(&f, f.replaced) : status;
}
