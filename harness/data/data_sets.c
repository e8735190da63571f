/* The table of data sets: see data_sets.h. */
#include "data_sets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SERIES_URL "https://www.timeseriesclassification.com/aeon-toolkit/"
#define WIKI_URL   "https://wikitext.smerity.com/"
#define WIKI_FILES                                                                                 \
    {                                                                                              \
        "wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"                               \
    }

/* A UEA set: two files of one zip. The sums are those of the files that the project's own results
 * come from. */
#define SERIES(id, train_sum, test_sum, train_count, test_count)                                   \
    {                                                                                              \
        .name = (id), .folder = "uea/" id, .files = {id "_TRAIN.ts", id "_TEST.ts"},               \
        .sums = {(train_sum), (test_sum)}, .unpack = FB_UNPACK_ZIP, .url = SERIES_URL id ".zip",   \
        .counts = {                                                                                \
            train_count,                                                                           \
            0,                                                                                     \
            test_count                                                                             \
        }                                                                                          \
    }

static const struct fb_data_set sets[] = {
    {.name = "listops",
     .folder = "listops",
     .files = {"basic_train.tsv", "basic_val.tsv", "basic_test.tsv"},
     .unpack = FB_UNPACK_MADE,
     .size = "0.8 GB",
     .counts = {96000, 2000, 20000}},
    {.name = "pathfinder",
     .folder = "pathfinder",
     .files = {"pathfinder32_hard.bin"},
     .unpack = FB_UNPACK_MADE,
     .size = "205 MB",
     .counts = {160000, 20000, 20000}},
    {.name = "text",
     .folder = "aclImdb",
     .files = {"train/neg", "train/pos", "test/neg", "test/pos"},
     .unpack = FB_UNPACK_TAR,
     .url = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
     .size = "84 MB",
     .counts = {25000, 0, 25000}},
    {.name = "retrieval",
     .folder = "aan",
     .files = {"new_aan_pairs.train.tsv", "new_aan_pairs.eval.tsv", "new_aan_pairs.test.tsv"},
     .unpack = FB_UNPACK_TAR,
     .url = "https://storage.googleapis.com/long-range-arena/lra_release.gz",
     .size = "several GB"},
    {.name = "image",
     .folder = "cifar-10-batches-bin",
     .files = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
               "data_batch_5.bin", "test_batch.bin"},
     .unpack = FB_UNPACK_TAR,
     .url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
     .archive_sum = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
     .size = "170 MB",
     .counts = {45000, 5000, 10000}},
    {.name = "tiny-shakespeare",
     .folder = "tiny-shakespeare",
     .files = {"input.txt"},
     .sums = {"86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
     .unpack = FB_UNPACK_FILE,
     .url = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"
            "input.txt",
     .archive_sum = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
     .size = "1.1 MB"},
    {.name = "wikitext-103",
     .folder = "wikitext-103",
     .files = WIKI_FILES,
     .unpack = FB_UNPACK_ZIP,
     .url = WIKI_URL "wikitext-103-v1.zip",
     .archive_sum = "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
     .size = "190 MB"},
    {.name = "wikitext-2",
     .folder = "wikitext-2",
     .files = WIKI_FILES,
     .unpack = FB_UNPACK_ZIP,
     .url = WIKI_URL "wikitext-2-v1.zip",
     .archive_sum = "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
     .size = "4 MB"},
    SERIES("EthanolConcentration", NULL, NULL, 261, 263),
    SERIES("FaceDetection", NULL, NULL, 5890, 3524),
    SERIES("Handwriting", "c187e2288bd7f0667ab7453de436feeadb5dd417c5778a6c62b71852b50736cc",
           "156ee781ad41d58b4e5d48a907aef956f5a3756e1ab2d796c785db1a47863524", 150, 850),
    SERIES("Heartbeat", NULL, NULL, 204, 205),
    SERIES("JapaneseVowels", "72736f735163ce25d1dab5566a1115254601642db12c3b72b3ca5f49aafc95be",
           "41760aefffc8e4dd221ae33954ddbab2df8c15fd66ca0efe08b744e962311ac2", 270, 370),
    SERIES("PEMS-SF", NULL, NULL, 267, 173),
    SERIES("SelfRegulationSCP1", NULL, NULL, 268, 293),
    SERIES("SelfRegulationSCP2", NULL, NULL, 200, 180),
    SERIES("SpokenArabicDigits", NULL, NULL, 6599, 2199),
    SERIES("UWaveGestureLibrary",
           "cb7cd8cb995775d30dacbfd5c2a9cb3a80dfbd186fd444294bae70c9162dead1",
           "517dbc817c3f181c64727a84ee8bd0cedd3554346042898b9107010b690c331a", 120, 320),
};

size_t fb_data_set_count(void)
{
    return sizeof sets / sizeof sets[0];
}

const struct fb_data_set *fb_data_set_at(size_t index)
{
    return &sets[index];
}

const struct fb_data_set *fb_data_set_find(const char *name)
{
    for (size_t i = 0; i < fb_data_set_count(); i++)
        if (strcmp(sets[i].name, name) == 0)
            return &sets[i];
    return NULL;
}

enum fb_data_state fb_data_set_state(const struct fb_data_set *set, const char *data_dir,
                                     int64_t *bytes)
{
    int there = 0, wanted = 0;
    *bytes = 0;
    for (; set->files[wanted]; wanted++) {
        char path[FB_DATA_PATH_SIZE];
        struct stat info;
        (void)snprintf(path, sizeof path, "%s/%s/%s", data_dir, set->folder, set->files[wanted]);
        if (stat(path, &info) != 0)
            continue;
        there++;
        *bytes += S_ISREG(info.st_mode) ? (int64_t)info.st_size : 0;
    }
    return there == wanted ? FB_DATA_COMPLETE : there > 0 ? FB_DATA_PARTIAL : FB_DATA_MISSING;
}

const char *fb_data_dir(const char *named)
{
    const char *variable = getenv("FLOWBENCH_DATA");
    if (named)
        return named;
    return variable && *variable ? variable : "data";
}

enum fb_status fb_data_create_folder(const char *path, struct fb_error *error)
{
    char part[FB_DATA_PATH_SIZE];
    if (strlen(path) >= sizeof part)
        return fb_error_set(error, FB_ERROR_USAGE, "the path '%s' is longer than %d bytes", path,
                            (int)sizeof part - 1);
    for (size_t i = 1; i <= strlen(path); i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return fb_error_set(error, FB_ERROR_IO, "cannot create the folder '%s': %s", part,
                                strerror(errno));
    }
    return FB_OK;
}
