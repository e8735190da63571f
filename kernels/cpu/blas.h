/*
 * OpenBLAS for the plain variants: one thread per call, so that several heads can call it at the
 * same time and sums are taken in one order whatever the number of threads.
 */
#ifndef FB_BLAS_H
#define FB_BLAS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Makes OpenBLAS calls run on the calling thread alone; returns what fb_blas_threads_end restores.
 * The setting is the library's own and process-wide: plain variants must not run at the same time
 * as other users of OpenBLAS that want its threads. */
int fb_blas_threads_begin(void);
void fb_blas_threads_end(int previous);

#ifdef __cplusplus
}
#endif
#endif
