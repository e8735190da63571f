/*
 * The forward oracles against the reference values of spec/attention.md section 7 (printed to
 * 1e-7), and their own contract. The golden files: test_oracle_golden.c; gradients also:
 * test_oracle_gradient.c.
 */
#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* Mechanisms as the oracles see them: a name and the parameters. Kernels are not linked here, so
 * this is also where a mechanism without parameters is at the published defaults. */
static const char *const phis[] = {"sigmoid", "relu", "elu+1", NULL};
static const char *const competitions[] = {"tokens", "heads", "off", NULL};
static const char *const kernels[] = {"softmax", "relu", NULL};
static const char *const patterns[] = {"window", "strided", NULL};
enum { PHI, CLAMP, EXTRA_EPS, COMPETITION, ALLOCATION, FLOW_PARAMS };
enum { FEATURES, KERNEL, PERFORMER_PARAMS };
enum { WINDOW, PATTERN, BLOCK, LOCAL_PARAMS };
static const struct fb_param flow_params[FLOW_PARAMS] = {
    [PHI] = {.name = "phi", .type = FB_PARAM_CHOICE, .choices = phis},
    [CLAMP] = {.name = "clamp", .type = FB_PARAM_REAL, .default_value = 1},
    [EXTRA_EPS] = {.name = "extra_eps", .type = FB_PARAM_REAL},
    [COMPETITION] = {.name = "competition", .type = FB_PARAM_CHOICE, .choices = competitions},
    [ALLOCATION] = {.name = "allocation", .type = FB_PARAM_BOOL, .default_value = 1},
};
static const struct fb_param performer_params[PERFORMER_PARAMS] = {
    [FEATURES] = {.name = "features", .type = FB_PARAM_INT},
    [KERNEL] = {.name = "kernel", .type = FB_PARAM_CHOICE, .choices = kernels},
};
static const struct fb_param local_params[LOCAL_PARAMS] = {
    [WINDOW] = {.name = "window", .type = FB_PARAM_INT},
    [PATTERN] = {.name = "pattern", .type = FB_PARAM_CHOICE, .choices = patterns},
    [BLOCK] = {.name = "block", .type = FB_PARAM_INT},
};
static const struct fb_mechanism mechanisms[] = {
    {.name = "flow"},
    {.name = "softmax"},
    {.name = "linear"},
    {.name = "performer", .params = performer_params, .param_count = PERFORMER_PARAMS},
    {.name = "local", .params = local_params, .param_count = LOCAL_PARAMS},
};
static const struct fb_mechanism flow_with_options = {
    .name = "flow", .params = flow_params, .param_count = FLOW_PARAMS};

static const struct fb_mechanism *find_mechanism(const char *name)
{
    for (size_t i = 0; i < sizeof mechanisms / sizeof mechanisms[0]; i++)
        if (strcmp(mechanisms[i].name, name) == 0)
            return &mechanisms[i];
    return NULL;
}

/* ---- spec/attention.md section 7 ------------------------------------------------------------ */

enum { SPEC_HEADS = 2, SPEC_D = 3, SPEC_M = 2, SPEC_MAX = 6 };

struct spec_case {
    const char *row; /* of the tables there */
    const struct fb_mechanism *mechanism;
    bool causal;
    char set; /* A or B */
    double params[FLOW_PARAMS];
    double values[SPEC_HEADS * SPEC_MAX * SPEC_M];
};

/* clang-format off */
static const struct spec_case spec_cases[] = {
    {"core normal (clamp +-1)", &mechanisms[0], false, 'A', {0}, {
        0.4600823, -0.3270548, 0.4638595, -0.3587718, 0.4304173, -0.3652879, 0.3680569,
        -0.3382758, 0.3375805, -0.2787112, 0.7656767, 0.1047558, 0.6813183, 0.0905899, 0.5763341,
        0.0816352, 0.5582211, 0.0903245, 0.6433083, 0.1049498}},
    {"core causal = TorchModule (clamp +-1)", &mechanisms[0], true, 'A', {0}, {
        0.0729838, -0.6813729, 0.1826965, -0.6107582, 0.2472692, -0.5045676, 0.2692814,
        -0.3771907, 0.3074773, -0.2317781, 0.5726563, -0.2846868, 0.5631724, -0.1402809,
        0.5047090, -0.0424787, 0.4863833, 0.0126603, 0.5297655, 0.0988816}},
    {"TS (no clamp)", &flow_with_options, false, 'A', {0, 0, 0, 0, 1}, {
        0.4194858, -0.4067191, 0.4242572, -0.4427642, 0.3951606, -0.4474935, 0.3390650,
        -0.4113607, 0.3095228, -0.3413404, 0.8061555, 0.0268555, 0.7158850, 0.0227317, 0.6053191,
        0.0232391, 0.5876066, 0.0304124, 0.6785814, 0.0348764}},
    {"CV (clamp +-1, extra eps)", &flow_with_options, false, 'A', {0, 1, 1e-6, 0, 1}, {
        0.4600824, -0.3270546, 0.4638596, -0.3587717, 0.4304173, -0.3652877, 0.3680569,
        -0.3382756, 0.3375804, -0.2787110, 0.7656765, 0.1047559, 0.6813181, 0.0905899, 0.5763339,
        0.0816352, 0.5582208, 0.0903246, 0.6433081, 0.1049499}},
    {"LRA JAX", &flow_with_options, false, 'A', {1, 0, 0, 1, 1}, {
        1.2576936, -0.9154575, 0.9284168, -1.7661351, 0.5011884, -1.9810354, 0.3657056,
        -1.4499109, 0.2890667, -0.4959285, 1.8941154, -0.0355441, 1.3960022, 0.0478436, 0.4785368,
        -0.0195197, 0.4785368, -0.0195197, 0.5977573, 0.0656697}},
    {"core w/o competition", &flow_with_options, false, 'A', {0, 1, 0, 2, 1}, {
        0.4724898, -0.2972378, 0.4757446, -0.3265378, 0.4407244, -0.3329262, 0.3763846,
        -0.3087461, 0.3459569, -0.2540567, 0.7281192, 0.1460963, 0.6469804, 0.1257713, 0.5485233,
        0.1126789, 0.5343850, 0.1243864, 0.6162980, 0.1452762}},
    {"core w/o allocation", &flow_with_options, false, 'A', {0, 1, 0, 0, 0}, {
        0.5893078, -0.4189162, 0.5758874, -0.4454197, 0.5604412, -0.4756371, 0.5471327,
        -0.5028617, 0.5657177, -0.4670645, 0.8991278, 0.1230139, 0.9052261, 0.1203612, 0.8992784,
        0.1273788, 0.8809522, 0.1425449, 0.8769021, 0.1430585}},
    {"NLP causal (clamp +-5)", &flow_with_options, true, 'A', {0, 5, 0, 0, 1}, {
        0.0729838, -0.6813729, 0.1826965, -0.6107581, 0.2472691, -0.5045676, 0.2692814,
        -0.3771907, 0.3074773, -0.2317781, 0.5726563, -0.2846868, 0.5631724, -0.1402809,
        0.5047089, -0.0424787, 0.4863832, 0.0126603, 0.5297654, 0.0988816}},
    {"RL causal (clamp +-10)", &flow_with_options, true, 'A', {0, 10, 0, 0, 1}, {
        0.0729838, -0.6813729, 0.1826965, -0.6107581, 0.2472691, -0.5045676, 0.2692814,
        -0.3771907, 0.3074773, -0.2317781, 0.5726563, -0.2846868, 0.5631724, -0.1402809,
        0.5047089, -0.0424787, 0.4863832, 0.0126603, 0.5297654, 0.0988816}},
    {"causal w/o competition", &flow_with_options, true, 'A', {0, 1, 0, 2, 1}, {
        0.0729838, -0.6813729, 0.1982811, -0.6340772, 0.2819311, -0.5333471, 0.3106410,
        -0.3988770, 0.3377368, -0.2480202, 0.5726563, -0.2846868, 0.5811851, -0.1402809,
        0.5399844, -0.0332731, 0.5335139, 0.0357360, 0.5859296, 0.1381176}},
    {"causal w/o allocation", &flow_with_options, true, 'A', {0, 1, 0, 0, 0}, {
        0.0998331, -0.9320360, 0.2420142, -0.8090586, 0.3395935, -0.6929609, 0.4157495,
        -0.5823530, 0.5278118, -0.3978675, 0.7833247, -0.3894172, 0.8398690, -0.2092034,
        0.8397871, -0.0706805, 0.8103311, 0.0210924, 0.7595581, 0.1417727}},
    {"softmax", &mechanisms[1], false, 'A', {0}, {
        0.5987715, -0.3085474, 0.2821647, -0.7438069, 0.3228546, -0.7419209, 0.5957767,
        -0.4926683, 0.8008567, -0.2344206, 0.8609506, -0.1170936, 0.8887575, 0.3417532, 0.8132230,
        0.6633260, 0.7464704, 0.7607775, 0.7460685, 0.6458184}},
    {"softmax causal", &mechanisms[1], true, 'A', {0}, {
        0.0998334, -0.9320391, 0.1641526, -0.8956626, 0.2652371, -0.8238523, 0.5706310,
        -0.5486961, 0.8008567, -0.2344206, 0.7833269, -0.3894183, 0.9045876, -0.1274152,
        0.9767471, 0.2794711, 0.8951011, 0.5887840, 0.7460685, 0.6458184}},
    {"linear elu+1", &mechanisms[2], false, 'A', {0}, {
        0.5747145, -0.3956059, 0.5312512, -0.4678370, 0.4901479, -0.5365657, 0.4676628,
        -0.5775360, 0.5125105, -0.5024614, 0.8667925, 0.0724138, 0.8741036, 0.0728102, 0.8667759,
        0.0832159, 0.8465056, 0.1143584, 0.8342317, 0.1319353}},
    {"linear elu+1 causal", &mechanisms[2], true, 'A', {0}, {
        0.0998334, -0.9320390, 0.2475569, -0.8484922, 0.3435888, -0.7670108, 0.4044990,
        -0.6940937, 0.5125105, -0.5024614, 0.7833268, -0.3894183, 0.8667522, -0.2091646,
        0.8935945, -0.0760486, 0.8831666, -0.0065003, 0.8342317, 0.1319353}},
    {"performer generalised (LRA default)", &mechanisms[3], false, 'A', {0, 1}, {
        0.5234539, -0.3626370, 0.3621386, -0.6382501, 0.2448051, -0.8387205, 0.2489284,
        -0.8460049, 0.3807192, -0.6089151, 0.8837993, -0.1126920, 0.9009759, -0.0610886,
        0.8773167, -0.1317323, 0.8773167, -0.1317323, 0.8655147, 0.0144404}},
    {"local LRA B=2 (groups p mod 3)", &mechanisms[4], false, 'A', {0, 1, 2}, {
        0.3118258, -0.7032797, 0.6592693, -0.3287750, 0.2632480, -0.1308695, 0.4764903,
        -0.5255914, 0.7053276, -0.2292587, 0.7885555, -0.3169763, 0.8483612, 0.2940899, 0.8052589,
        0.3162183, 0.8612434, 0.6901170, 0.6447970, 0.8137749}},
    {"B causal core/Torch +-1", &mechanisms[0], true, 'B', {0}, {
        0.0729837, -0.6813716, 0.1251060, -0.6640392, 0.1939109, -0.5512198, 0.2711947,
        -0.3293248, 0.4206000, -0.0523721, 0.5061424, 0.0642929, 0.5726562, -0.2846868, 0.4994053,
        -0.1413529, 0.4078772, -0.1001665, 0.4810365, 0.1928698, 0.6129353, 0.5370132, 0.6295954,
        0.6873689}},
    {"B causal NLP +-5", &flow_with_options, true, 'B', {0, 5, 0, 0, 1}, {
        0.0729837, -0.6813716, 0.1251060, -0.6640392, 0.1939109, -0.5512198, 0.4051157,
        -0.3293248, 0.8665957, 0.0849411, 0.9166585, 0.1758608, 0.5726562, -0.2846868, 0.4994053,
        -0.1413529, 0.4078772, -0.1001665, 0.4810365, 0.1928698, 0.8001483, 0.8285721, 0.8182025,
        1.0339815}},
    {"B causal RL +-10", &flow_with_options, true, 'B', {0, 10, 0, 0, 1}, {
        0.0729837, -0.6813716, 0.1251060, -0.6640392, 0.1939109, -0.5512198, 0.4051157,
        -0.3293248, 0.8665957, 0.0849411, 0.9166585, 0.1758608, 0.5726562, -0.2846868, 0.4994053,
        -0.1413529, 0.4078772, -0.1001665, 0.4810365, 0.1928698, 0.8001483, 0.8285721, 0.8182025,
        1.0339815}},
    {"B core normal +-1", &flow_with_options, false, 'B', {0, 1, 0, 0, 1}, {
        0.8043143, 0.1443429, 0.8253958, 0.1473246, 0.7329334, 0.1334056, 0.5192888, 0.0859463,
        0.4562301, 0.0760964, 0.5114498, 0.0815268, 0.5938205, 0.5651792, 0.4416122, 0.3824122,
        0.3486299, 0.3187625, 0.3690494, 0.4026463, 0.4781976, 0.5404013, 0.6120843, 0.6455996}},
    {"B TS no clamp", &flow_with_options, false, 'B', {0, 0, 0, 0, 1}, {
        0.9637818, 0.2620907, 0.9978638, 0.2775937, 0.8970309, 0.2596255, 0.6442540, 0.1872211,
        0.5580521, 0.1565946, 0.6037804, 0.1503144, 0.6107520, 0.7787622, 0.4471385, 0.5446937,
        0.3552617, 0.4426147, 0.3846157, 0.5165763, 0.5011068, 0.6840202, 0.6379479, 0.8496174}},
    {"B LRA JAX", &flow_with_options, false, 'B', {1, 0, 0, 1, 1}, {
        2.8064193, 0.5433966, 2.7298116, 0.7988200, 1.9415305, 0.7215954, 0.7320167, 0.2028155,
        0.7320167, 0.2028155, 0.7320167, 0.2028155, 1.3662394, 1.9819235, 0.3700506, 0.5243993,
        0.3700506, 0.5243993, 0.3700506, 0.5243993, 0.3700506, 0.5243993, 1.4104871, 1.9483883}},
};
/* clang-format on */

static void fill_spec_set(char set, int len, float *q, float *k, float *v)
{
    for (int h = 0; h < SPEC_HEADS; h++)
        for (int t = 0; t < len; t++) {
            const int at = h * len + t;
            for (int d = 0; d < SPEC_D; d++) {
                const double wave = sin(0.9 * t + 1.7 * h + 0.5 * d + 0.3);
                q[at * SPEC_D + d] = (float)(set == 'A' ? 1.5 * wave : 3.0 * wave - 1.0);
                k[at * SPEC_D + d] =
                    (float)(set == 'A'
                                ? 1.5 * cos(0.7 * t - 0.6 * h + 1.1 * d + 0.2)
                                : 3.0 * cos(1.3 * t - 0.6 * h + 1.1 * d + 0.2) + 0.5 * t - 1.5);
            }
            for (int m = 0; m < SPEC_M; m++)
                v[at * SPEC_M + m] = (float)sin(0.4 * t + 0.8 * h - 1.3 * m + 0.1);
        }
}

static void test_oracle_spec_values_agree(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof spec_cases / sizeof spec_cases[0]; i++) {
        const struct spec_case *c = &spec_cases[i];
        const int len = c->set == 'A' ? 5 : 6;
        float q[SPEC_HEADS * SPEC_MAX * SPEC_D], k[SPEC_HEADS * SPEC_MAX * SPEC_D];
        float v[SPEC_HEADS * SPEC_MAX * SPEC_M];
        fill_spec_set(c->set, len, q, k, v);
        struct fb_problem problem = {.batch = 1,
                                     .heads = SPEC_HEADS,
                                     .kv_heads = SPEC_HEADS,
                                     .q_len = len,
                                     .kv_len = len,
                                     .qk_dim = SPEC_D,
                                     .v_dim = SPEC_M,
                                     .causal = c->causal};
        memcpy(problem.params, c->params, sizeof c->params);
        const struct fb_call call = {
            .q = fb_tensor_dense(q, FB_F32, FB_BHND, 1, SPEC_HEADS, len, SPEC_D),
            .k = fb_tensor_dense(k, FB_F32, FB_BHND, 1, SPEC_HEADS, len, SPEC_D),
            .v = fb_tensor_dense(v, FB_F32, FB_BHND, 1, SPEC_HEADS, len, SPEC_M),
        };
        const int64_t rows[SPEC_MAX] = {0, 1, 2, 3, 4, 5};
        for (int h = 0; h < SPEC_HEADS; h++) {
            double out[SPEC_MAX * SPEC_M];
            struct fb_error error = {0};
            if (fb_oracle_forward_rows(c->mechanism, &problem, &call, 0, h, rows, (size_t)len, out,
                                       &error) != FB_OK)
                fail_msg("%s: %s", c->row, error.text);
            for (int at = 0; at < len * SPEC_M; at++) {
                const double wanted = c->values[h * len * SPEC_M + at];
                /* printed to seven digits, inputs rounded to f32 */
                if (!(fabs(out[at] - wanted) < 1.6e-7 * fmax(1.0, fabs(wanted))))
                    fail_msg("%s head %d element %d: %.9f instead of %.7f", c->row, h, at, out[at],
                             wanted);
            }
        }
    }
}

/* ---- contract ------------------------------------------------------------------------------- */

struct tiny {
    float q[24], k[24], v[24];
    struct fb_problem problem;
    struct fb_call call;
    double out[24];
};

/* heads query heads of q_len tokens, kv_heads key heads of kv_len tokens, dimension 2. */
static void tiny_init(struct tiny *t, int64_t heads, int64_t kv_heads, int64_t q_len,
                      int64_t kv_len)
{
    *t = (struct tiny){0};
    for (int i = 0; i < 24; i++) {
        t->q[i] = (float)sin(i);
        t->k[i] = (float)cos(2 * i);
        t->v[i] = (float)sin(3 * i + 1);
    }
    t->problem = (struct fb_problem){.batch = 1,
                                     .heads = heads,
                                     .kv_heads = kv_heads,
                                     .q_len = q_len,
                                     .kv_len = kv_len,
                                     .qk_dim = 2,
                                     .v_dim = 2};
    t->call.q = fb_tensor_dense(t->q, FB_F32, FB_BHND, 1, heads, q_len, 2);
    t->call.k = fb_tensor_dense(t->k, FB_F32, FB_BHND, 1, kv_heads, kv_len, 2);
    t->call.v = fb_tensor_dense(t->v, FB_F32, FB_BHND, 1, kv_heads, kv_len, 2);
}

static enum fb_status tiny_run(struct tiny *t, const char *mechanism, int64_t h, int64_t first,
                               int64_t second, struct fb_error *error)
{
    const int64_t rows[2] = {first, second};
    return fb_oracle_forward_rows(find_mechanism(mechanism), &t->problem, &t->call, 0, h, rows,
                                  second < 0 ? 1 : 2, t->out, error);
}

static void test_oracle_local_row_without_key_is_zero(void **state)
{
    (void)state;
    struct tiny t;
    struct fb_error error = {0};
    tiny_init(&t, 1, 1, 6, 2);
    t.problem.params[0] = 1;
    t.out[2] = t.out[3] = 9.0;
    assert_int_equal(tiny_run(&t, "local", 0, 2, 5, &error), FB_OK);
    assert_true(fabs(t.out[0] - (double)t.v[2]) < 1e-15); /* row 2 sees key 1 alone */
    assert_true(t.out[2] == 0.0 && t.out[3] == 0.0);
}

static void test_oracle_causal_more_sinks_than_sources_sees_all(void **state)
{
    (void)state;
    static const char *const names[] = {"softmax", "linear"};
    for (size_t i = 0; i < 2; i++) {
        struct tiny t;
        struct fb_error error = {0};
        double bidirectional[2];
        tiny_init(&t, 1, 1, 6, 3);
        assert_int_equal(tiny_run(&t, names[i], 0, 5, -1, &error), FB_OK);
        memcpy(bidirectional, t.out, sizeof bidirectional);
        t.problem.causal = true;
        assert_int_equal(tiny_run(&t, names[i], 0, 5, -1, &error), FB_OK);
        assert_memory_equal(t.out, bidirectional, sizeof bidirectional);
    }
}

static void test_oracle_grouped_queries_share_a_key_head(void **state)
{
    (void)state;
    struct tiny grouped, plain;
    struct fb_error error = {0};
    tiny_init(&grouped, 4, 2, 3, 3);
    tiny_init(&plain, 4, 4, 3, 3);
    memcpy(plain.k + 6, grouped.k, 6 * sizeof(float));
    memcpy(plain.v + 6, grouped.v, 6 * sizeof(float));
    assert_int_equal(tiny_run(&grouped, "flow", 1, 0, 2, &error), FB_OK);
    assert_int_equal(tiny_run(&plain, "flow", 1, 0, 2, &error), FB_OK);
    assert_memory_equal(grouped.out, plain.out, 4 * sizeof(double));
}

/* Decoding with the stabiliser that the causal form finds is a row of it, with another is not. */
static void test_oracle_decode_row_takes_the_stabiliser_given(void **state)
{
    (void)state;
    static const float identity[4] = {1.0f, 0.0f, 0.0f, 1.0f};
    struct tiny t;
    struct fb_error error = {0};
    double row[2];
    tiny_init(&t, 1, 1, 5, 5);
    t.problem.causal = true;
    t.problem.params[FEATURES] = 2;
    t.call.constants = identity;
    assert_int_equal(tiny_run(&t, "performer", 0, 3, -1, &error), FB_OK);
    /* u = k D^(-1/4), and the largest component of k is cos(0) */
    t.call.key_stabiliser = pow(2.0, -0.25);
    for (int wrong = 0; wrong < 2; wrong++) {
        t.call.key_stabiliser += wrong;
        assert_int_equal(fb_oracle_decode_row(find_mechanism("performer"), &t.problem, &t.call, 0,
                                              0, 3, row, &error),
                         FB_OK);
        const double difference = fabs(row[0] - t.out[0]) + fabs(row[1] - t.out[1]);
        assert_true(wrong ? difference > 1e-7 : difference < 1e-14);
    }
}

static void test_oracle_bad_requests_are_refused(void **state)
{
    (void)state;
    struct tiny t;
    struct fb_error error = {0};
    tiny_init(&t, 1, 1, 4, 4);
    assert_int_equal(tiny_run(&t, "softmax", 0, 2, 1, &error), FB_ERROR_USAGE);
    assert_int_equal(tiny_run(&t, "softmax", 0, 1, 1, &error), FB_ERROR_USAGE);
    assert_int_equal(tiny_run(&t, "softmax", 0, 4, -1, &error), FB_ERROR_USAGE);
    assert_int_equal(tiny_run(&t, "softmax", 1, 0, -1, &error), FB_ERROR_USAGE);
    assert_int_equal(tiny_run(&t, "performer", 0, 0, -1, &error), FB_ERROR_USAGE);
    const int64_t length = 5;
    t.problem.kv_lengths = &length;
    assert_int_equal(tiny_run(&t, "softmax", 0, 0, -1, &error), FB_ERROR_USAGE);
    assert_non_null(strstr(error.text, "kv_lengths"));
    t.problem.kv_lengths = NULL;
    t.call.k.dtype = FB_F64;
    assert_int_equal(tiny_run(&t, "softmax", 0, 0, -1, &error), FB_ERROR_UNSUPPORTED);
    t.call.k.dtype = FB_F32;
    t.call.k.shape[2] = 3;
    assert_int_equal(tiny_run(&t, "softmax", 0, 0, -1, &error), FB_ERROR_USAGE);
    tiny_init(&t, 1, 1, 4, 3);
    t.problem.causal = true;
    assert_int_equal(tiny_run(&t, "flow", 0, 0, -1, &error), FB_ERROR_UNSUPPORTED);
    const struct fb_mechanism unknown = {.name = "unknown"};
    const int64_t row = 0;
    assert_int_equal(
        fb_oracle_forward_rows(&unknown, &t.problem, &t.call, 0, 0, &row, 1, t.out, &error),
        FB_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "unknown"));
    assert_false(fb_oracle_exists("unknown"));
    assert_true(isinf(fb_oracle_cost(&unknown, &t.problem, 1)) != 0);
}

static void test_oracle_cost_grows_with_rows_and_stays_linear(void **state)
{
    (void)state;
    struct fb_problem p = {.batch = 1,
                           .heads = 1,
                           .kv_heads = 1,
                           .q_len = 1024,
                           .kv_len = 1024,
                           .qk_dim = 64,
                           .v_dim = 64};
    p.params[0] = 256;
    for (size_t i = 0; i < sizeof mechanisms / sizeof mechanisms[0]; i++) {
        p.q_len = p.kv_len = 1024;
        const double one = fb_oracle_cost(&mechanisms[i], &p, 1);
        assert_true(one > 0.0 && isfinite(one));
        assert_true(fb_oracle_cost(&mechanisms[i], &p, 64) > one);
        p.q_len = p.kv_len = 65536;
        assert_true(fb_oracle_cost(&mechanisms[i], &p, 1) <= 64.0 * one * (1.0 + 1e-9));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle_spec_values_agree),
        cmocka_unit_test(test_oracle_local_row_without_key_is_zero),
        cmocka_unit_test(test_oracle_causal_more_sinks_than_sources_sees_all),
        cmocka_unit_test(test_oracle_grouped_queries_share_a_key_head),
        cmocka_unit_test(test_oracle_decode_row_takes_the_stabiliser_given),
        cmocka_unit_test(test_oracle_bad_requests_are_refused),
        cmocka_unit_test(test_oracle_cost_grows_with_rows_and_stays_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
