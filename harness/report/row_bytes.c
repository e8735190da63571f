/* The bytes of a row: see row_bytes.h. */
#include "row_bytes.h"

#include "attention.h"

#include <math.h>
#include <string.h>

bool fb_row_is_decode(const struct fb_row *row)
{
    return strcmp(row->pass, "decode") == 0;
}

double fb_row_io_bytes(const struct fb_row *row)
{
    int dtype = fb_dtype_parse(row->dtype);
    if (dtype < 0 || row->batch < 1 || row->heads < 1 || row->seq_len < 1 || row->head_dim < 1) {
        return (double)NAN;
    }
    bool decode = fb_row_is_decode(row);
    double q_len = decode ? 1.0 : (double)row->seq_len;
    double kv_len = decode ? 1.0 : (double)(row->kv_len > 0 ? row->kv_len : row->seq_len);
    double kv_heads = (double)(row->kv_heads > 0 ? row->kv_heads : row->heads);
    double value_dim = (double)(row->value_dim > 0 ? row->value_dim : row->head_dim);
    double tokens = (double)row->heads * q_len + kv_heads * kv_len;
    bool gradients = strcmp(row->pass, "backward") == 0 || strcmp(row->pass, "both") == 0;
    return (gradients ? 2.0 : 1.0) * (double)row->batch * tokens *
           ((double)row->head_dim + value_dim) * (double)fb_dtype_bytes((enum fb_dtype)dtype);
}

static double known(int64_t bytes)
{
    return bytes > 0 ? (double)bytes : 0.0;
}

/* Of a program nothing is known but how much it grows, its outputs included. */
double fb_row_memory_bytes(const struct fb_row *row)
{
    if (row->program[0] != '\0') {
        return row->mem_peak_bytes < 0 ? (double)NAN : (double)row->mem_peak_bytes;
    }
    if (row->mem_workspace_bytes < 0 || (fb_row_is_decode(row) && row->mem_state_bytes < 0)) {
        return (double)NAN;
    }
    return known(row->mem_workspace_bytes) + known(row->mem_saved_bytes) +
           known(row->mem_state_bytes);
}
