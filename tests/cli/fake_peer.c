/*
 * An external program for tests of the protocol (docs/external-protocol.md): softmax attention,
 * forward, f32, computed as it stands in the book. The variant names how it misbehaves; anything
 * else computes well.
 */
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct tensor {
    float *data;
    json_int_t shape[4], stride[4];
};

struct state {
    unsigned char *memory;
    char variant[64];
    int causal;
    int on_device; /* which it only pretends: it computes here, and tells two times */
    struct tensor q, k, v, out;
    float *result; /* [B,H,L,M] */
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int is(const struct state *state, const char *variant)
{
    return strcmp(state->variant, variant) == 0;
}

static void say(json_t *answer)
{
    json_dumpf(answer, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(answer);
}

static struct tensor find(const struct state *state, const json_t *tensors, const char *name)
{
    struct tensor tensor = {NULL, {0}, {0}};
    const json_t *json = json_object_get(tensors, name);
    tensor.data =
        (float *)(void *)(state->memory + json_integer_value(json_object_get(json, "offset")));
    for (size_t i = 0; i < 4; i++) {
        tensor.shape[i] = json_integer_value(json_array_get(json_object_get(json, "shape"), i));
        tensor.stride[i] = json_integer_value(json_array_get(json_object_get(json, "strides"), i));
    }
    return tensor;
}

static float *row(const struct tensor *t, json_int_t b, json_int_t h, json_int_t i)
{
    return t->data + b * t->stride[0] + h * t->stride[1] + i * t->stride[2];
}

static void attend(const struct state *s, json_int_t b, json_int_t h, json_int_t i, float *out)
{
    const json_int_t keys = s->causal ? i + 1 : s->k.shape[2];
    const json_int_t kv_head = h / (s->q.shape[1] / s->k.shape[1]);
    double sum = 0.0;
    double *wide = calloc((size_t)s->v.shape[3], sizeof *wide);
    for (json_int_t j = 0; wide != NULL && j < keys; j++) {
        double dot = 0.0;
        for (json_int_t d = 0; d < s->q.shape[3]; d++)
            dot += (double)row(&s->q, b, h, i)[d] * (double)row(&s->k, b, kv_head, j)[d];
        const double weight = exp(dot / sqrt((double)s->q.shape[3]));
        sum += weight;
        for (json_int_t m = 0; m < s->v.shape[3]; m++)
            wide[m] += weight * (double)row(&s->v, b, kv_head, j)[m];
    }
    for (json_int_t m = 0; wide != NULL && m < s->v.shape[3]; m++)
        out[m] = (float)(wide[m] / sum);
    free(wide);
}

static void compute(struct state *s)
{
    float *out = s->result;
    for (json_int_t b = 0; b < s->out.shape[0]; b++)
        for (json_int_t h = 0; h < s->out.shape[1]; h++)
            for (json_int_t i = 0; i < s->out.shape[2]; i++, out += s->out.shape[3])
                attend(s, b, h, i, out);
}

static void prepare(struct state *state, const json_t *request)
{
    const json_t *item = json_object_get(request, "case");
    const json_t *memory = json_object_get(request, "memory");
    const json_t *tensors = json_object_get(request, "tensors");
    const int fd = (int)json_integer_value(json_object_get(memory, "fd"));
    const size_t bytes = (size_t)json_integer_value(json_object_get(memory, "bytes"));
    snprintf(state->variant, sizeof state->variant, "%s",
             json_string_value(json_object_get(item, "variant")));
    state->causal = json_is_true(json_object_get(item, "causal"));
    state->on_device = strcmp(json_string_value(json_object_get(item, "device")), "cpu") != 0 &&
                       !is(state, "fake-no-clock");
    state->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    state->q = find(state, tensors, "q");
    state->k = find(state, tensors, "k");
    state->v = find(state, tensors, "v");
    state->out = find(state, tensors, "out");
    state->result = calloc((size_t)(state->out.shape[0] * state->out.shape[1] *
                                    state->out.shape[2] * state->out.shape[3]),
                           sizeof *state->result);
    if (is(state, "fake-skip"))
        say(json_pack("{s:s}", "skip", "this fake does not serve it; take another"));
    else if (is(state, "fake-oom"))
        say(json_pack("{s:s}", "oom", "no memory for the fake"));
    else if (state->on_device)
        say(json_pack("{s:b, s:i}", "ready", 1, "device_peak_bytes", 4096));
    else
        say(json_pack("{s:b}", "ready", 1));
}

static void call(struct state *state, const json_t *request)
{
    const json_int_t calls = json_integer_value(json_object_get(request, "calls"));
    const double start_s = now_s();
    if (is(state, "fake-crash"))
        raise(SIGSEGV);
    if (is(state, "fake-exit"))
        exit(7);
    while (is(state, "fake-hang"))
        sleep(1000);
    for (json_int_t i = 0; i < calls; i++)
        compute(state);
    if (is(state, "fake-garbage"))
        puts("Traceback (most recent call last): \x1b[31m oh");
    else if (is(state, "fake-error"))
        say(json_pack("{s:s}", "error", "the fake has failed\non two lines"));
    else if (is(state, "fake-slow-clock"))
        say(json_pack("{s:f}", "time_s", 1e6));
    else if (state->on_device || is(state, "fake-device"))
        say(json_pack("{s:f, s:f}", "time_s", (now_s() - start_s) / 2.0, "device_time_s",
                      (now_s() - start_s) / 2.0));
    else
        say(json_pack("{s:f}", "time_s", now_s() - start_s));
    fflush(stdout);
}

static void store(struct state *state)
{
    const float *from = state->result;
    const struct tensor *out = &state->out;
    for (json_int_t b = 0; b < out->shape[0]; b++)
        for (json_int_t h = 0; h < out->shape[1]; h++)
            for (json_int_t i = 0; i < out->shape[2]; i++, from += out->shape[3])
                if (!is(state, "fake-unwritten") || i > 0)
                    memcpy(row(out, b, h, i), from, sizeof(float) * (size_t)out->shape[3]);
    if (is(state, "fake-wrong"))
        row(out, 0, 0, 0)[0] += 0.1F;
    if (is(state, "fake-nan"))
        row(out, 0, 0, 0)[0] = NAN;
    say(json_pack("{s:{s:[I, I, I, I]}}", "stored", "out", out->shape[0], out->shape[1],
                  out->shape[2], out->shape[3] + (is(state, "fake-shape") ? 1 : 0)));
}

int main(void)
{
    static char line[1 << 16];
    struct state state = {.causal = 0};
    while (fgets(line, sizeof line, stdin)) {
        json_t *request = json_loads(line, 0, NULL);
        const char *name = json_string_value(json_object_get(request, "request"));
        if (name == NULL)
            return 1;
        if (strcmp(name, "hello") == 0)
            say(json_pack("{s:i, s:s}", "protocol", 1, "version", "fake 1.0"));
        else if (strcmp(name, "prepare") == 0)
            prepare(&state, request);
        else if (strcmp(name, "call") == 0)
            call(&state, request);
        else if (strcmp(name, "store") == 0)
            store(&state);
        json_decref(request);
    }
    return 0;
}
