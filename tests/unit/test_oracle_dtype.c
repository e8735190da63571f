/* Oracles on 16-bit inputs, and the tokens whose gradient a rounding error decides. */
#include "dtype.h"
#include "oracle.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { H = 4, HKV = 2, LEN = 9, D = 5, M = 3, Q_COUNT = H * LEN * D, OUT_COUNT = H * LEN * M };

static const int64_t rows[LEN] = {0, 1, 2, 3, 4, 5, 6, 7, 8};

struct results {
    double out[LEN * M], dq[LEN * D], dk[LEN * D], dv[LEN * M];
    bool kinks[LEN];
};

/* The inputs of one call, each value representable in bf16 and f16. */
struct inputs {
    float values[4][Q_COUNT];
    uint16_t halves[4][Q_COUNT];
    float projection[8 * D];
    struct fb_call call;
};

static void fill(struct inputs *in, enum fb_dtype dtype)
{
    static const int64_t heads[4] = {H, HKV, HKV, H}, dims[4] = {D, D, M, M};
    struct fb_tensor *const tensors[4] = {&in->call.q, &in->call.k, &in->call.v, &in->call.dout};
    struct fb_random random;
    fb_random_init(&random, 3, 0);
    for (int i = 0; i < 8 * D; i++)
        in->projection[i] = (float)fb_random_normal(&random);
    for (int t = 0; t < 4; t++) {
        const int64_t count = heads[t] * LEN * dims[t];
        for (int64_t i = 0; i < count; i++)
            in->values[t][i] = (float)((int)fb_random_below(&random, 129) - 64) / 32.0F;
        fb_dtype_narrow(dtype, in->values[t], count,
                        dtype == FB_F32 ? (void *)in->values[t] : in->halves[t]);
        *tensors[t] = fb_tensor_dense(dtype == FB_F32 ? (void *)in->values[t] : in->halves[t],
                                      dtype, FB_BNHD, 1, heads[t], LEN, dims[t]);
    }
    in->call.constants = in->projection;
}

static void compute(const struct fb_mechanism *mechanism, const double *params, bool causal,
                    const struct inputs *in, double kink_width, struct results *results)
{
    struct fb_error error = {0};
    struct fb_problem p = {.batch = 1,
                           .heads = H,
                           .kv_heads = HKV,
                           .q_len = LEN,
                           .kv_len = LEN,
                           .qk_dim = D,
                           .v_dim = M,
                           .dtype = in->call.q.dtype,
                           .causal = causal};
    const struct fb_oracle_gradients wanted = {
        rows, LEN, results->dq, rows, LEN, results->dk, results->dv, results->kinks, kink_width};
    memcpy(p.params, params, (size_t)mechanism->param_count * sizeof *params);
    if (fb_oracle_forward_rows(mechanism, &p, &in->call, 0, 3, rows, LEN, results->out, &error) !=
            FB_OK ||
        fb_oracle_backward_rows(mechanism, &p, &in->call, 0, 3, &wanted, &error) != FB_OK)
        fail_msg("%s: %s", mechanism->name, error.text);
}

static const struct fb_param features = {.name = "features"}, window = {.name = "window"};
static const struct fb_mechanism mechanisms[] = {
    {.name = "flow"},
    {.name = "softmax"},
    {.name = "linear"},
    {.name = "performer", .params = &features, .param_count = 1},
    {.name = "local", .params = &window, .param_count = 1},
};
static const double params[][1] = {{0}, {0}, {0}, {8}, {2}};

static void test_16_bit_inputs_give_what_the_widened_ones_give(void **state)
{
    (void)state;
    static struct inputs wide, narrow;
    static struct results a, b;
    fill(&wide, FB_F32);
    for (size_t m = 0; m < sizeof mechanisms / sizeof mechanisms[0]; m++)
        for (int kind = 0; kind < 4; kind++) {
            fill(&narrow, kind / 2 ? FB_BF16 : FB_F16);
            compute(&mechanisms[m], params[m], kind % 2 != 0, &wide, 0.0, &a);
            compute(&mechanisms[m], params[m], kind % 2 != 0, &narrow, 0.0, &b);
            assert_memory_equal(&a, &b, sizeof a);
        }
}

/* The first token of causal flow competes with itself alone: its flow is 1, where the clamp is. */
static void test_kinks_are_the_sources_near_the_clamp(void **state)
{
    (void)state;
    static struct inputs in;
    static struct results r;
    static const double widths[] = {0.0, 1e-4, 1e9};
    fill(&in, FB_F32);
    for (int causal = 0; causal < 2; causal++)
        for (int width = 0; width < 3; width++) {
            int count = 0;
            compute(&mechanisms[0], params[0], causal != 0, &in, widths[width], &r);
            for (int j = 0; j < LEN; j++)
                count += r.kinks[j];
            if (width == 1 && causal)
                assert_true(r.kinks[0] && count < LEN);
            if (width != 1)
                assert_int_equal(count, width == 0 ? 0 : LEN);
        }
    compute(&mechanisms[1], params[1], false, &in, 1e9, &r);
    for (int j = 0; j < LEN; j++)
        assert_false(r.kinks[j]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_16_bit_inputs_give_what_the_widened_ones_give),
        cmocka_unit_test(test_kinks_are_the_sources_near_the_clamp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
