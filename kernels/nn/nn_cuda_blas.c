/*
 * Products by cuBLASLt: see nn_cuda_blas.h. The library is loaded at run time, and the values it
 * defines are declared here as its documentation has them, so that building needs no cuBLAS.
 */
#include "nn_cuda_blas.h"

#include "cuda_check.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <library_types.h>
#include <stdlib.h>
#include <string.h>

enum {
    LT_COMPUTE_F32 = 68,
    LT_COMPUTE_TF32 = 77,
    LT_DESC_TRANSA = 3,
    LT_DESC_TRANSB = 4,
    LT_DESC_EPILOGUE = 7,
    LT_DESC_BIAS_POINTER = 8,
    LT_EPILOGUE_BIAS = 4,
    LT_PREF_WORKSPACE = 1,
    LT_PREF_REDUCTION = 3,
    LT_PREF_ALIGNMENT_A = 5,  /* B, C and D follow */
    LT_REDUCTION_ORDERED = 2, /* partial products summed in the compute type, by a second kernel */
    OP_T = 1,
    POINTER_BYTES = 16,
    PLANS_MAX = 256,
    WORKSPACE_BYTES = 64 << 20
};

struct algorithm {
    uint64_t data[8];
};

struct heuristic {
    struct algorithm algorithm;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};

typedef int create_fn(void **object);
typedef int destroy_fn(void *object);
typedef int desc_create_fn(void **desc, int compute, int scale);
typedef int set_fn(void *object, int attribute, const void *value, size_t bytes);
typedef int layout_create_fn(void **layout, int type, uint64_t rows, uint64_t columns, int64_t ld);
typedef int heuristic_fn(void *handle, void *desc, void *a, void *b, void *c, void *d, void *pref,
                         int asked, struct heuristic *results, int *found);
typedef int matmul_fn(void *handle, void *desc, const void *alpha, const void *a, void *a_layout,
                      const void *b, void *b_layout, const void *beta, const void *c,
                      void *c_layout, void *d, void *d_layout, const struct algorithm *algorithm,
                      void *workspace, size_t workspace_bytes, void *stream);

struct plan {
    struct fb_nn_cuda_product product;
    void *desc, *a, *b, *c;
    struct algorithm algorithm;
};

struct fb_nn_cuda_blas {
    void *library, *handle, *stream, *workspace;
    destroy_fn *destroy, *desc_destroy, *layout_destroy, *pref_destroy;
    desc_create_fn *desc_create;
    layout_create_fn *layout_create;
    create_fn *pref_create;
    set_fn *desc_set, *pref_set;
    heuristic_fn *heuristic;
    matmul_fn *matmul;
    struct plan plans[PLANS_MAX];
    int plan_count;
};

/* As a number: ISO C has no cast from an object pointer to a function pointer. */
static uintptr_t find(struct fb_nn_cuda_blas *blas, const char *name, bool *whole)
{
    const uintptr_t function = (uintptr_t)dlsym(blas->library, name);
    *whole = *whole && function != 0;
    return function;
}

static bool resolve(struct fb_nn_cuda_blas *blas)
{
    bool whole = true;
    blas->destroy = (destroy_fn *)find(blas, "cublasLtDestroy", &whole);
    blas->desc_create = (desc_create_fn *)find(blas, "cublasLtMatmulDescCreate", &whole);
    blas->desc_destroy = (destroy_fn *)find(blas, "cublasLtMatmulDescDestroy", &whole);
    blas->desc_set = (set_fn *)find(blas, "cublasLtMatmulDescSetAttribute", &whole);
    blas->layout_create = (layout_create_fn *)find(blas, "cublasLtMatrixLayoutCreate", &whole);
    blas->layout_destroy = (destroy_fn *)find(blas, "cublasLtMatrixLayoutDestroy", &whole);
    blas->pref_create = (create_fn *)find(blas, "cublasLtMatmulPreferenceCreate", &whole);
    blas->pref_destroy = (destroy_fn *)find(blas, "cublasLtMatmulPreferenceDestroy", &whole);
    blas->pref_set = (set_fn *)find(blas, "cublasLtMatmulPreferenceSetAttribute", &whole);
    blas->heuristic = (heuristic_fn *)find(blas, "cublasLtMatmulAlgoGetHeuristic", &whole);
    blas->matmul = (matmul_fn *)find(blas, "cublasLtMatmul", &whole);
    create_fn *create = (create_fn *)find(blas, "cublasLtCreate", &whole);
    return whole && create(&blas->handle) == 0;
}

enum fb_status fb_nn_cuda_blas_open(struct fb_nn_cuda_blas **opened, void *stream,
                                    struct fb_error *error)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    *opened = NULL;
    struct fb_nn_cuda_blas *blas = calloc(1, sizeof *blas);
    if (!blas)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the plans of cuBLASLt");
    blas->stream = stream;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !blas->library; i++)
        blas->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    enum fb_status status = FB_OK;
    if (!blas->library)
        status = fb_error_set(error, FB_ERROR_DEVICE,
                              "libcublasLt.so.13 or .12 cannot be loaded, which training on a GPU "
                              "needs: put its folder into LD_LIBRARY_PATH");
    else if (!resolve(blas))
        status = fb_error_set(error, FB_ERROR_DEVICE,
                              "cuBLASLt is there but cannot be used: is it as new as the driver?");
    if (status == FB_OK)
        status = fb_cuda_status(cudaMalloc(&blas->workspace, WORKSPACE_BYTES),
                                "allocating the workspace of cuBLASLt", error);
    if (status == FB_OK)
        *opened = blas;
    else
        fb_nn_cuda_blas_close(blas);
    return status;
}

static void release_plan(const struct fb_nn_cuda_blas *blas, const struct plan *plan)
{
    void *const layouts[] = {plan->a, plan->b, plan->c};
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            (void)blas->layout_destroy(layouts[i]);
    if (plan->desc)
        (void)blas->desc_destroy(plan->desc);
}

void fb_nn_cuda_blas_close(struct fb_nn_cuda_blas *blas)
{
    if (!blas)
        return;
    for (int i = 0; i < blas->plan_count; i++)
        release_plan(blas, &blas->plans[i]);
    if (blas->workspace)
        (void)cudaFree(blas->workspace);
    if (blas->handle)
        (void)blas->destroy(blas->handle);
    if (blas->library)
        (void)dlclose(blas->library);
    free(blas);
}

/* Whether the product's description and matrices could be made. */
static bool describe(const struct fb_nn_cuda_blas *blas, struct plan *plan)
{
    const struct fb_nn_cuda_product *p = &plan->product;
    const int op_a = p->transpose_a ? OP_T : 0, op_b = p->transpose_b ? OP_T : 0;
    const int epilogue = LT_EPILOGUE_BIAS, compute = p->tf32 ? LT_COMPUTE_TF32 : LT_COMPUTE_F32;
    const int narrow = p->bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const int result = p->wide_c ? CUDA_R_32F : narrow;
    const uint64_t m = (uint64_t)p->m, n = (uint64_t)p->n, k = (uint64_t)p->k;
    return blas->desc_create(&plan->desc, compute, CUDA_R_32F) == 0 &&
           blas->desc_set(plan->desc, LT_DESC_TRANSA, &op_a, sizeof op_a) == 0 &&
           blas->desc_set(plan->desc, LT_DESC_TRANSB, &op_b, sizeof op_b) == 0 &&
           (!p->bias ||
            blas->desc_set(plan->desc, LT_DESC_EPILOGUE, &epilogue, sizeof epilogue) == 0) &&
           blas->layout_create(&plan->a, narrow, p->transpose_a ? k : m, p->transpose_a ? m : k,
                               p->lda) == 0 &&
           blas->layout_create(&plan->b, narrow, p->transpose_b ? n : k, p->transpose_b ? k : n,
                               p->ldb) == 0 &&
           blas->layout_create(&plan->c, result, m, n, p->ldc) == 0;
}

/* Whether cuBLASLt has a way with this workspace, sums in a fixed order and this alignment. */
static bool choose(const struct fb_nn_cuda_blas *blas, struct plan *plan)
{
    const uint32_t alignment = POINTER_BYTES;
    const uint64_t workspace = WORKSPACE_BYTES;
    const uint32_t reduction = LT_REDUCTION_ORDERED;
    struct heuristic result;
    void *pref = NULL;
    int found = 0;
    memset(&result, 0, sizeof result);
    bool fine = blas->pref_create(&pref) == 0 &&
                blas->pref_set(pref, LT_PREF_WORKSPACE, &workspace, sizeof workspace) == 0 &&
                blas->pref_set(pref, LT_PREF_REDUCTION, &reduction, sizeof reduction) == 0;
    for (int i = 0; i < 4 && fine; i++)
        fine = blas->pref_set(pref, LT_PREF_ALIGNMENT_A + i, &alignment, sizeof alignment) == 0;
    fine = fine &&
           blas->heuristic(blas->handle, plan->desc, plan->a, plan->b, plan->c, plan->c, pref, 1,
                           &result, &found) == 0 &&
           found == 1 && result.state == 0;
    if (pref)
        (void)blas->pref_destroy(pref);
    plan->algorithm = result.algorithm;
    return fine;
}

static bool same(const struct fb_nn_cuda_product *a, const struct fb_nn_cuda_product *b)
{
    return a->transpose_a == b->transpose_a && a->transpose_b == b->transpose_b &&
           a->add == b->add && a->bias == b->bias && a->tf32 == b->tf32 && a->bf16 == b->bf16 &&
           a->wide_c == b->wide_c && a->m == b->m && a->n == b->n && a->k == b->k &&
           a->lda == b->lda && a->ldb == b->ldb && a->ldc == b->ldc;
}

static struct plan *plan_of(struct fb_nn_cuda_blas *blas, const struct fb_nn_cuda_product *product,
                            const void *bias)
{
    for (int i = 0; i < blas->plan_count; i++)
        if (same(&blas->plans[i].product, product))
            return &blas->plans[i];
    if (blas->plan_count == PLANS_MAX)
        return NULL;
    struct plan *plan = &blas->plans[blas->plan_count];
    *plan = (struct plan){.product = *product};
    if (!describe(blas, plan) ||
        (product->bias &&
         blas->desc_set(plan->desc, LT_DESC_BIAS_POINTER, (const void *)&bias, sizeof bias) != 0) ||
        !choose(blas, plan)) {
        release_plan(blas, plan);
        return NULL;
    }
    blas->plan_count++;
    return plan;
}

enum fb_status fb_nn_cuda_blas_multiply(struct fb_nn_cuda_blas *blas,
                                        const struct fb_nn_cuda_product *product, const void *a,
                                        const void *b, void *c, const void *bias,
                                        struct fb_error *error)
{
    const float one = 1.0F, beta = product->add ? 1.0F : 0.0F;
    const struct plan *plan = plan_of(blas, product, bias);
    if (plan &&
        (!product->bias ||
         blas->desc_set(plan->desc, LT_DESC_BIAS_POINTER, (const void *)&bias, sizeof bias) == 0) &&
        blas->matmul(blas->handle, plan->desc, &one, a, plan->a, b, plan->b, &beta, c, plan->c, c,
                     plan->c, &plan->algorithm, blas->workspace, WORKSPACE_BYTES,
                     blas->stream) == 0)
        return FB_OK;
    return fb_error_set(error, FB_ERROR_DEVICE,
                        "cuBLASLt refused a product of %" PRId64 " x %" PRId64 " x %" PRId64,
                        product->m, product->n, product->k);
}
