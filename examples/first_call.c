/* Flow-Attention over 1024 random tokens, 8 heads of 64 components; prints one number.
 *     cc first_call.c $(pkg-config --cflags --libs flowbench) -o first_call && ./first_call */
#include <flowbench/attention.h>
#include <flowbench/cpu_features.h>
#include <flowbench/registry.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 8, TOKENS = 1024, DIM = 64, COUNT = HEADS * TOKENS * DIM };
static _Alignas(FB_ALIGNMENT) float q[COUNT], k[COUNT], v[COUNT], out[COUNT];

static struct fb_tensor view(float *data)
{
    return fb_tensor_dense(data, FB_F32, FB_BHND, 1, HEADS, TOKENS, DIM);
}

static struct fb_tensor random_view(float *data)
{
    for (int i = 0; i < COUNT; i++)
        data[i] = (float)(rand() % 2001 - 1000) / 500.0F;
    return view(data);
}

int main(void)
{
    struct fb_call call = {.q = random_view(q), .k = random_view(k), .v = random_view(v)};
    call.out = view(out);
    call.threads = 2;

    const struct fb_mechanism *flow = fb_mechanism_find("flow");
    const struct fb_attention *fused = fb_attention_find(flow, NULL, FB_CPU, fb_cpu_best_isa());
    struct fb_problem problem;
    fb_problem_init(&problem, flow, 1, HEADS, TOKENS, DIM);

    struct fb_sizes sizes;
    fb_attention_sizes(fused, &problem, call.threads, &sizes);
    call.scratch = aligned_alloc(FB_ALIGNMENT, (sizes.forward_scratch_bytes + 64) / 64 * 64);

    struct fb_error error;
    if (!call.scratch || fb_attention_forward(fused, &problem, &call, &error) != FB_OK)
        return fprintf(stderr, "error: %s\n", call.scratch ? error.text : "out of memory"), 1;
    printf("out[0][0][0] = %.6f, with %zu bytes of scratch on %s\n", (double)out[0],
           sizes.forward_scratch_bytes, fb_isa_name(fused->isa));
    free(call.scratch);
    return 0;
}
