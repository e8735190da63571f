/* Pathfinder: our images against what 3,000 images of the original generator are like: the grey
 * levels that occur, and the distributions of several measures. */
#include "lanczos.h"
#include "pathfinder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include <cmocka.h>

enum { IMAGES = 400, ORIGINALS = 3000, BRIGHT = 40 };

static struct fb_arena arena;
static struct fb_error error;
static uint8_t images[IMAGES][FB_PATHFINDER_PIXELS], labels[IMAGES];

static int set_up(void **state)
{
    (void)state;
    fb_arena_init(&arena, 0);
    const struct fb_pathfinder *tables = fb_pathfinder_new(&arena, &error);
    for (uint64_t i = 0; i < IMAGES && tables; i++)
        fb_pathfinder_draw(tables, 1, i, images[i], &labels[i]);
    return tables ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    fb_arena_free(&arena);
    return 0;
}

static double mean(const uint8_t *pixels)
{
    double sum = 0.0;
    for (int i = 0; i < FB_PATHFINDER_PIXELS; i++)
        sum += pixels[i];
    return sum / FB_PATHFINDER_PIXELS;
}

static int count_above(const uint8_t *pixels, int level)
{
    int count = 0;
    for (int i = 0; i < FB_PATHFINDER_PIXELS; i++)
        count += pixels[i] > level;
    return count;
}

static double ink(const uint8_t *pixels)
{
    return count_above(pixels, BRIGHT);
}

static double white(const uint8_t *pixels)
{
    return count_above(pixels, 199);
}

/* Mean over a frame of pixels. */
static double frame_mean(const uint8_t *pixels, int from, int to)
{
    double sum = 0.0;
    int count = 0;
    for (int i = 0; i < FB_PATHFINDER_PIXELS; i++) {
        const int y = i / FB_PATHFINDER_SIZE, x = i % FB_PATHFINDER_SIZE;
        const int depth = (int)fmin(fmin(y, x), fmin(31 - y, 31 - x));
        if (depth < from || depth > to)
            continue;
        sum += pixels[i];
        count++;
    }
    return sum / count;
}

static double border(const uint8_t *pixels)
{
    return frame_mean(pixels, 0, 0);
}

static double centre(const uint8_t *pixels)
{
    return frame_mean(pixels, 12, 15);
}

static double row(const uint8_t *pixels)
{
    double sum = 0.0;
    for (int i = 0; i < FB_PATHFINDER_PIXELS; i++)
        sum += pixels[i] * (double)(i / FB_PATHFINDER_SIZE);
    return sum / FB_PATHFINDER_PIXELS / mean(pixels);
}

static double column(const uint8_t *pixels)
{
    double sum = 0.0;
    for (int i = 0; i < FB_PATHFINDER_PIXELS; i++)
        sum += pixels[i] * (double)(i % FB_PATHFINDER_SIZE);
    return sum / FB_PATHFINDER_PIXELS / mean(pixels);
}

static void test_measures_have_the_originals_means(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double (*measure)(const uint8_t *pixels);
        double mean, deviation; /* of the originals */
    } measures[] = {
        {"mean", mean, 20.1085, 1.9881},        {"bright pixels", ink, 140.329, 15.252},
        {"white pixels", white, 16.857, 4.989}, {"border", border, 0.4399, 0.5162},
        {"centre", centre, 39.4658, 15.9608},   {"row", row, 14.5273, 2.1402},
        {"column", column, 14.4439, 2.0232},
    };
    for (size_t m = 0; m < sizeof measures / sizeof measures[0]; m++) {
        double sum = 0.0;
        for (int i = 0; i < IMAGES; i++)
            sum += measures[m].measure(images[i]);
        const double z = (sum / IMAGES - measures[m].mean) /
                         (measures[m].deviation * sqrt(1.0 / IMAGES + 1.0 / ORIGINALS));
        if (fabs(z) > 4.0)
            fail_msg("%s: %g against %g, %g standard errors apart", measures[m].name, sum / IMAGES,
                     measures[m].mean, z);
    }
}

/* How many distractors fit shapes this distribution: it has steps of about 15 pixels. */
static void test_bright_pixels_have_the_originals_quantiles(void **state)
{
    (void)state;
    static const int deciles[9] = {122, 125, 131, 136, 139, 142, 147, 154, 160};
    for (int d = 0; d < 9; d++) {
        int below = 0, at = 0;
        for (int i = 0; i < IMAGES; i++) {
            const int count = count_above(images[i], BRIGHT);
            below += count < deciles[d];
            at += count <= deciles[d];
        }
        const double share = 0.1 * (d + 1);
        const double slack = 4.0 * sqrt(share * (1.0 - share) * (1.0 / IMAGES + 1.0 / ORIGINALS));
        if ((double)below / IMAGES > share + slack || (double)at / IMAGES < share - slack)
            fail_msg("decile %d: %g to %g of the images are up to %d", d + 1,
                     (double)below / IMAGES, (double)at / IMAGES, deciles[d]);
    }
}

static void test_only_the_originals_grey_levels_occur(void **state)
{
    (void)state;
    static const uint8_t never[] = {13,  14,  15,  16,  17,  18,  19,  20,  22,  58,  77,  79,
                                    80,  83,  84,  103, 106, 109, 110, 140, 158, 185, 206, 216,
                                    218, 223, 233, 235, 237, 245, 246, 247, 248, 252};
    for (int i = 0; i < IMAGES * FB_PATHFINDER_PIXELS; i++) {
        const uint8_t level = images[i / FB_PATHFINDER_PIXELS][i % FB_PATHFINDER_PIXELS];
        if (memchr(never, level, sizeof never))
            fail_msg("image %d has a pixel of %d", i / FB_PATHFINDER_PIXELS, level);
    }
    for (int i = 0; i < IMAGES; i++)
        assert_true(count_above(images[i], 254) > 0);
}

static void test_images_follow_from_seed_and_index(void **state)
{
    (void)state;
    uint8_t pixels[FB_PATHFINDER_PIXELS], label;
    int positive = 0;
    const struct fb_pathfinder *tables = fb_pathfinder_new(&arena, &error);
    assert_non_null(tables);
    fb_pathfinder_draw(tables, 1, 7, pixels, &label);
    assert_memory_equal(pixels, images[7], sizeof pixels);
    assert_int_equal(label, labels[7]);
    fb_pathfinder_draw(tables, 2, 7, pixels, &label);
    assert_memory_not_equal(pixels, images[7], sizeof pixels);
    for (int i = 0; i < IMAGES; i++)
        positive += labels[i];
    assert_in_range(positive, IMAGES / 2 - 40, IMAGES / 2 + 40);
}

/* By hand: halving keeps a constant, and clips the overshoot at an edge. */
static void test_shrinking_rounds_and_clips(void **state)
{
    (void)state;
    uint8_t image[64], out[16];
    memset(image, 77, sizeof image);
    fb_lanczos_shrink(image, 8, 4, out);
    for (int i = 0; i < 16; i++)
        assert_int_equal(out[i], 77);
    for (int i = 0; i < 64; i++)
        image[i] = i % 8 < 4 ? 0 : 255;
    fb_lanczos_shrink(image, 8, 4, out);
    for (int y = 0; y < 4; y++) {
        assert_true(out[4 * y] <= 8 && out[4 * y + 3] >= 247);
        assert_int_equal(out[4 * y + 1] + out[4 * y + 2], 255);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measures_have_the_originals_means),
        cmocka_unit_test(test_bright_pixels_have_the_originals_quantiles),
        cmocka_unit_test(test_only_the_originals_grey_levels_occur),
        cmocka_unit_test(test_images_follow_from_seed_and_index),
        cmocka_unit_test(test_shrinking_rounds_and_clips),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
