/*
 * The device's best matrix product, by cuBLAS loaded at run time: see cuda_device.h. Its few
 * functions and values are declared here as its documentation has them, so that building needs no
 * cuBLAS.
 */
#include "cuda_check.h"
#include "cuda_device.h"

#include <assert.h>
#include <dlfcn.h>
#include <library_types.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLAS_OP_N = 0,
    BLAS_OP_T = 1,
    BLAS_COMPUTE_F32 = 68,
    BLAS_COMPUTE_TF32 = 77,
    BLAS_GEMM_DEFAULT = -1,
    SEED_BYTES = 4 << 20
};

typedef int gemm_fn(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha,
                    const void *a, int a_type, int lda, const void *b, int b_type, int ldb,
                    const void *beta, void *c, int c_type, int ldc, int compute, int algorithm);

typedef int create_fn(void **handle);
typedef int destroy_fn(void *handle);
typedef int stream_fn(void *handle, void *stream);

struct blas {
    void *library, *handle;
    destroy_fn *destroy;
    gemm_fn *gemm;
};

struct product {
    int side; /* of the three square matrices */
    int compute;
    double passes; /* products of this kind that make one of the dtype */
    const char *name;
};

/* As a number: ISO C has no cast from an object pointer to a function pointer. */
static uintptr_t find(void *library, const char *name)
{
    return (uintptr_t)dlsym(library, name);
}

static void blas_close(struct blas *blas)
{
    if (blas->handle != NULL)
        (void)blas->destroy(blas->handle);
    if (blas->library != NULL)
        (void)dlclose(blas->library);
}

static enum fb_status blas_open(struct blas *blas, void *stream, struct fb_error *error)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};
    *blas = (struct blas){.library = NULL};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && blas->library == NULL; i++)
        blas->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (blas->library == NULL)
        return fb_error_set(error, FB_ERROR_DEVICE,
                            "libcublas.so.13 or .12 cannot be loaded, so the GPU has no GEMM "
                            "ceiling: put its folder into LD_LIBRARY_PATH");
    create_fn *create = (create_fn *)find(blas->library, "cublasCreate_v2");
    stream_fn *set_stream = (stream_fn *)find(blas->library, "cublasSetStream_v2");
    blas->destroy = (destroy_fn *)find(blas->library, "cublasDestroy_v2");
    blas->gemm = (gemm_fn *)find(blas->library, "cublasGemmEx");
    if (create == NULL || set_stream == NULL || blas->destroy == NULL || blas->gemm == NULL ||
        create(&blas->handle) != 0 || set_stream(blas->handle, stream) != 0) {
        blas_close(blas);
        return fb_error_set(error, FB_ERROR_DEVICE,
                            "cuBLAS is there but cannot be used: is it as new as the driver?");
    }
    return FB_OK;
}

/* Numbers of +-[0.5, 1): of every bit of the fraction, since products of zeros run faster. */
static void draw_seed(enum fb_dtype dtype, unsigned char *bytes)
{
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < SEED_BYTES; i += sizeof(uint32_t)) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint32_t word = (uint32_t)(state >> 32);
        if (dtype == FB_F32)
            word = (word & UINT32_C(0x807fffff)) | UINT32_C(0x3f000000);
        else if (dtype == FB_BF16)
            word = (word & UINT32_C(0x807f807f)) | UINT32_C(0x3f003f00);
        else
            word = (word & UINT32_C(0x83ff83ff)) | UINT32_C(0x38003800);
        memcpy(bytes + i, &word, sizeof word);
    }
}

static enum fb_status fill_operands(enum fb_dtype dtype, unsigned char *data, size_t bytes,
                                    struct fb_error *error)
{
    unsigned char *seed = malloc(SEED_BYTES);
    if (seed == NULL)
        return fb_error_set(error, FB_ERROR_MEMORY, "no memory for the operands of the ceiling");
    draw_seed(dtype, seed);
    enum fb_status status = FB_OK;
    for (size_t done = 0; done < bytes && status == FB_OK; done += SEED_BYTES) {
        const size_t part = bytes - done < SEED_BYTES ? bytes - done : (size_t)SEED_BYTES;
        status = fb_cuda_upload(data + done, seed, part, error);
    }
    free(seed);
    return status;
}

static int blas_type(enum fb_dtype dtype)
{
    return dtype == FB_F32 ? CUDA_R_32F : dtype == FB_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

/* One product, timed on the device; A transposed, the order that tensor cores like best. */
static enum fb_status time_product(const struct blas *blas, struct fb_cuda_timer *timer,
                                   enum fb_dtype dtype, const struct product *product,
                                   unsigned char *data, double *time_s, struct fb_error *error)
{
    const float one = 1.0F, zero = 0.0F;
    const int n = product->side, type = blas_type(dtype);
    const size_t matrix = (size_t)n * (size_t)n * fb_dtype_bytes(dtype);
    enum fb_status status = fb_cuda_timer_begin(timer, error);
    if (status == FB_OK && blas->gemm(blas->handle, BLAS_OP_T, BLAS_OP_N, n, n, n, &one, data, type,
                                      n, data + matrix, type, n, &zero, data + 2 * matrix, type, n,
                                      product->compute, BLAS_GEMM_DEFAULT) != 0)
        status = fb_error_set(error, FB_ERROR_DEVICE, "cuBLAS refused a product of %d x %d", n, n);
    const enum fb_status end = fb_cuda_timer_end(timer, time_s, error);
    return status == FB_OK ? end : status;
}

/* cuBLAS may prepare itself during the first product of a kind, which is not timed. */
static enum fb_status warm_product(const struct blas *blas, struct fb_cuda_timer *timer,
                                   enum fb_dtype dtype, const struct product *product,
                                   unsigned char *data, struct fb_error *error)
{
    const float one = 1.0F, zero = 0.0F;
    const int n = product->side, type = blas_type(dtype);
    const size_t matrix = (size_t)n * (size_t)n * fb_dtype_bytes(dtype);
    if (blas->gemm(blas->handle, BLAS_OP_T, BLAS_OP_N, n, n, n, &one, data, type, n, data + matrix,
                   type, n, &zero, data + 2 * matrix, type, n, product->compute,
                   BLAS_GEMM_DEFAULT) != 0)
        return fb_error_set(error, FB_ERROR_DEVICE, "cuBLAS refused a product of %d x %d", n, n);
    return fb_cuda_wait(fb_cuda_timer_stream(timer), error);
}

static enum fb_status best_rate(const struct blas *blas, struct fb_cuda_timer *timer,
                                enum fb_dtype dtype, unsigned char *data, double time_s,
                                double *flop_per_s, char *shape, size_t shape_size,
                                struct fb_error *error)
{
    static const struct product narrow[] = {{8192, BLAS_COMPUTE_F32, 1.0, ""},
                                            {4096, BLAS_COMPUTE_F32, 1.0, ""}};
    static const struct product wide[] = {{8192, BLAS_COMPUTE_TF32, 3.0, " 3xTF32"},
                                          {4096, BLAS_COMPUTE_F32, 1.0, ""}};
    const struct product *products = dtype == FB_F32 ? wide : narrow;
    *flop_per_s = 0.0;
    for (int i = 0; i < 2; i++) {
        const struct product *p = &products[i];
        const double flop = 2.0 * p->side * p->side * p->side;
        enum fb_status status = warm_product(blas, timer, dtype, p, data, error);
        for (double spent_s = 0.0; status == FB_OK && spent_s < time_s / 2.0;) {
            double one_s = 0.0;
            status = time_product(blas, timer, dtype, p, data, &one_s, error);
            spent_s += one_s;
            const double rate = flop / (one_s * p->passes);
            if (status == FB_OK && rate > *flop_per_s) {
                *flop_per_s = rate;
                snprintf(shape, shape_size, "%d x %d x %d%s", p->side, p->side, p->side, p->name);
            }
        }
        if (status != FB_OK)
            return status;
    }
    return FB_OK;
}

enum fb_status fb_cuda_gemm_rate(struct fb_cuda_timer *timer, enum fb_dtype dtype, double time_s,
                                 double *flop_per_s, char *shape, size_t shape_size,
                                 struct fb_error *error)
{
    enum { SIDE_MAX = 8192, MATRICES = 3 };
    const size_t bytes = (size_t)MATRICES * SIDE_MAX * SIDE_MAX * fb_dtype_bytes(dtype);
    struct blas blas;
    void *data = NULL;
    *flop_per_s = (double)NAN;
    if (dtype == FB_F64)
        return fb_error_set(error, FB_ERROR_UNSUPPORTED, "no device kernel computes in f64");
    enum fb_status status = blas_open(&blas, fb_cuda_timer_stream(timer), error);
    if (status != FB_OK)
        return status;
    assert(blas.gemm != NULL);
    status = fb_cuda_allocate(bytes, "the operands of the GEMM ceiling", &data, error);
    if (status == FB_OK)
        status = fill_operands(dtype, data, bytes, error);
    if (status == FB_OK)
        status = best_rate(&blas, timer, dtype, data, time_s, flop_per_s, shape, shape_size, error);
    fb_cuda_release(data);
    blas_close(&blas);
    return status;
}
