/* One operation of a running model with its tensors looked up. Private to the room. */
#ifndef FB_GRAPH_STEP_H
#define FB_GRAPH_STEP_H

#include "graph_run.h"

/* The blocks of a run on a device are the device's, and so are these pointers. */
struct fb_graph_step {
    struct fb_graph_run *run;
    const struct fb_graph_op *op;
    const struct fb_graph_tensor *out, *in;
    float *y, *dy, *x, *dx, *w, *dw, *b, *db;
    int threads;
};

typedef enum fb_status (*fb_graph_step_fn)(const struct fb_graph_step *s, struct fb_error *error);

struct fb_graph_functions {
    fb_graph_step_fn forward, backward;
};

/* The gradient of a parameter; NULL where it is not trained. */
static inline float *fb_graph_param_gradient(const struct fb_graph_run *run, int param)
{
    const struct fb_graph *g = run->graph;
    const bool trained = param >= 0 && g->params[param].offset < g->trained_floats;
    return trained ? run->param_gradients + g->params[param].offset : NULL;
}

static inline struct fb_graph_step fb_graph_step_of(struct fb_graph_run *run,
                                                    const struct fb_graph_op *op)
{
    const struct fb_graph *g = run->graph;
    struct fb_graph_step s = {.op = op, .out = &g->tensors[op->out], .threads = g->threads};
    s.run = run;
    s.y = fb_graph_run_values(run, op->out);
    s.dy = fb_graph_run_gradient(run, op->out);
    if (op->in[0] >= 0) {
        s.in = &g->tensors[op->in[0]];
        s.x = fb_graph_run_values(run, op->in[0]);
        s.dx = fb_graph_run_gradient(run, op->in[0]);
    }
    s.w = op->w >= 0 ? run->params + g->params[op->w].offset : NULL;
    s.b = op->b >= 0 ? run->params + g->params[op->b].offset : NULL;
    s.dw = fb_graph_param_gradient(run, op->w);
    s.db = fb_graph_param_gradient(run, op->b);
    return s;
}

static inline int64_t fb_graph_tensor_count(const struct fb_graph_tensor *t)
{
    return t->rows * t->width;
}

/* The dropout that comes with the operation. */
static inline struct fb_nn_dropout fb_graph_step_dropout(const struct fb_graph_step *s)
{
    return (struct fb_nn_dropout){.p = s->run->training ? s->op->value : 0.0F,
                                  .seed = s->run->dropout_seed,
                                  .stream = (uint64_t)s->op->stream};
}

/* Every operation by its function, forward in order or backward in reverse. */
enum fb_status fb_graph_run_steps(struct fb_graph_run *run,
                                  const struct fb_graph_functions *functions, bool backward,
                                  struct fb_error *error) FB_MUST_CHECK;

#endif
