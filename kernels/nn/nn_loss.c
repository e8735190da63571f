/* Cross-entropy: see nn_loss.h. */
#include "nn_loss.h"

#include <math.h>
#include <string.h>

/* The loss of one row; its gradient times scale into drow unless NULL. */
static double row_loss(float *drow, const float *row, int32_t target, int64_t classes, double scale)
{
    const double most = (double)row[fb_nn_argmax(row, classes)];
    double sum = 0.0;
    for (int64_t c = 0; c < classes; c++)
        sum += exp((double)row[c] - most);
    for (int64_t c = 0; drow && c < classes; c++) {
        const double p = exp((double)row[c] - most) / sum;
        drow[c] = (float)(scale * (c == target ? p - 1.0 : p));
    }
    return log(sum) + most - (double)row[target];
}

double fb_nn_cross_entropy(float *dlogits, const float *logits, const int32_t *targets,
                           int64_t rows, int64_t classes)
{
    int64_t counted = 0;
    double sum = 0.0;
    for (int64_t r = 0; r < rows; r++)
        counted += targets[r] != FB_NN_IGNORED;
    for (int64_t r = 0; r < rows; r++) {
        float *drow = dlogits ? dlogits + r * classes : NULL;
        if (targets[r] != FB_NN_IGNORED)
            sum += row_loss(drow, logits + r * classes, targets[r], classes, 1.0 / (double)counted);
        else if (drow)
            memset(drow, 0, (size_t)classes * sizeof *drow);
    }
    return counted > 0 ? sum / (double)counted : 0.0;
}

int32_t fb_nn_argmax(const float *logits, int64_t classes)
{
    int64_t best = 0;
    for (int64_t c = 1; c < classes; c++)
        if (logits[c] > logits[best])
            best = c;
    return (int32_t)best;
}
