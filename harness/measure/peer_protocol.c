/* Requests and answers: see peer_protocol.h. An answer is hostile until it is read. */
#include "peer_protocol.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- requests -------------------------------------------------------------------------------- */

json_t *fb_peer_say_hello(enum fb_backend device)
{
    return json_pack("{s:s, s:i, s:s}", "request", "hello", "protocol", FB_PEER_PROTOCOL, "device",
                     fb_backend_name(device));
}

static json_t *four(const int64_t values[4])
{
    return json_pack("[I, I, I, I]", (json_int_t)values[0], (json_int_t)values[1],
                     (json_int_t)values[2], (json_int_t)values[3]);
}

static json_t *tensor_json(const struct fb_peer_tensor *tensor)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:o, s:o}", "role", tensor->written ? "out" : "in",
                     "dtype", fb_dtype_name(tensor->view.dtype), "offset",
                     (json_int_t)tensor->offset_bytes, "bytes", (json_int_t)tensor->bytes, "shape",
                     four(tensor->view.shape), "strides", four(tensor->view.stride));
}

json_t *fb_peer_say_prepare(const struct fb_case *item, const struct fb_peer_tensors *tensors,
                            int memory_fd)
{
    json_t *object = json_object();
    for (int i = 0; object != NULL && i < tensors->count; i++) {
        if (json_object_set_new(object, tensors->items[i].name, tensor_json(&tensors->items[i])) !=
            0) {
            json_decref(object);
            object = NULL;
        }
    }
    return json_pack("{s:s, s:o, s:{s:i, s:I}, s:o}", "request", "prepare", "case",
                     fb_case_to_json(item), "memory", "fd", memory_fd, "bytes",
                     (json_int_t)tensors->total_bytes, "tensors", object);
}

json_t *fb_peer_say_call(int64_t calls, bool evict)
{
    return json_pack("{s:s, s:I, s:b}", "request", "call", "calls", (json_int_t)calls, "evict",
                     evict);
}

json_t *fb_peer_say_store(void)
{
    return json_pack("{s:s}", "request", "store");
}

/* ---- answers --------------------------------------------------------------------------------- */

/* For a cell of a table and for a terminal: printable ASCII, cut to size - 1 bytes, of which no
 * more are read. */
static void copy_plain(char *text, size_t size, const char *from)
{
    size_t length = 0;
    for (; length + 1 < size && *from != '\0'; from++) {
        const unsigned char c = (unsigned char)*from;
        text[length++] = c == '\n' || c == '\t' ? ' ' : c < 0x20 || c >= 0x7F ? '?' : (char)c;
    }
    text[length] = '\0';
}

static enum fb_status not_agreed(struct fb_error *error, const char *what)
{
    return fb_error_set(error, FB_ERROR_INPUT,
                        "the program's answer is not what docs/external-protocol.md says: %s",
                        what);
}

/* skip, oom and error answer any request. */
static bool read_refusal(const json_t *json, struct fb_peer_answer *answer)
{
    static const struct {
        const char *key;
        enum fb_peer_verdict verdict;
    } refusals[] = {{"skip", FB_PEER_SKIP}, {"oom", FB_PEER_OOM}, {"error", FB_PEER_FAILED}};
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        const char *text = json_string_value(json_object_get(json, refusals[i].key));
        if (text != NULL) {
            answer->verdict = refusals[i].verdict;
            copy_plain(answer->text, sizeof answer->text, text);
            return true;
        }
    }
    return false;
}

static enum fb_status read_hello(const json_t *json, struct fb_peer_answer *answer,
                                 struct fb_error *error)
{
    const json_t *protocol = json_object_get(json, "protocol");
    const char *version = json_string_value(json_object_get(json, "version"));
    if (!json_is_integer(protocol) || version == NULL || *version == '\0')
        return not_agreed(error, "hello is answered with a protocol (integer) and a version");
    if (json_integer_value(protocol) != FB_PEER_PROTOCOL)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "the program speaks protocol %" JSON_INTEGER_FORMAT
                            ", this flowbench %d: use versions that match",
                            json_integer_value(protocol), FB_PEER_PROTOCOL);
    copy_plain(answer->text, sizeof answer->text, version);
    return FB_OK;
}

static enum fb_status read_ready(const json_t *json, struct fb_peer_answer *answer,
                                 struct fb_error *error)
{
    const json_t *peak = json_object_get(json, "device_peak_bytes");
    if (!json_is_true(json_object_get(json, "ready")))
        return not_agreed(error, "prepare is answered with ready: true");
    if (peak != NULL && (!json_is_integer(peak) || json_integer_value(peak) < 0))
        return not_agreed(error, "device_peak_bytes is an integer of at least 0, or absent");
    answer->device_peak_bytes = peak != NULL ? (int64_t)json_integer_value(peak) : -1;
    return FB_OK;
}

static bool read_time(const json_t *json, double *time_s)
{
    *time_s = json_number_value(json);
    return json_is_number(json) && isfinite(*time_s) && *time_s > 0.0;
}

static enum fb_status read_times(const json_t *json, struct fb_peer_answer *answer,
                                 struct fb_error *error)
{
    const json_t *device = json_object_get(json, "device_time_s");
    if (!read_time(json_object_get(json, "time_s"), &answer->time_s))
        return not_agreed(error, "call is answered with time_s, a finite number above 0");
    if (device != NULL && !read_time(device, &answer->device_time_s))
        return not_agreed(error, "device_time_s is a finite number above 0, or absent");
    return FB_OK;
}

static bool same_shape(const json_t *json, const int64_t shape[4])
{
    if (!json_is_array(json) || json_array_size(json) != 4)
        return false;
    for (size_t i = 0; i < 4; i++) {
        const json_t *size = json_array_get(json, i);
        if (!json_is_integer(size) || json_integer_value(size) != (json_int_t)shape[i])
            return false;
    }
    return true;
}

static enum fb_status read_stored(const json_t *json, const struct fb_peer_tensors *tensors,
                                  struct fb_error *error)
{
    const json_t *stored = json_object_get(json, "stored");
    if (!json_is_object(stored))
        return not_agreed(error, "store is answered with stored, the shape of each output");
    for (int i = 0; i < tensors->count; i++) {
        const struct fb_peer_tensor *tensor = &tensors->items[i];
        const int64_t *shape = tensor->view.shape;
        if (tensor->written && !same_shape(json_object_get(stored, tensor->name), shape))
            return fb_error_set(error, FB_ERROR_INPUT,
                                "the program's %s does not have the shape [%" PRId64 ", %" PRId64
                                ", %" PRId64 ", %" PRId64 "] that was asked for",
                                tensor->name, shape[0], shape[1], shape[2], shape[3]);
    }
    return FB_OK;
}

enum fb_status fb_peer_parse(enum fb_peer_request request, const char *line, size_t length,
                             const struct fb_peer_tensors *tensors, struct fb_peer_answer *answer,
                             struct fb_error *error)
{
    json_error_t where;
    *answer = (struct fb_peer_answer){.verdict = FB_PEER_DONE,
                                      .time_s = (double)NAN,
                                      .device_time_s = (double)NAN,
                                      .device_peak_bytes = -1};
    json_t *json = json_loadb(line, length, JSON_REJECT_DUPLICATES, &where);
    enum fb_status status = FB_OK;
    if (!json_is_object(json)) {
        char start[64];
        char text[128];
        copy_plain(start, length + 1 < sizeof start ? length + 1 : sizeof start, line);
        (void)snprintf(text, sizeof text, "a line is one JSON object, not '%s'", start);
        status = not_agreed(error, text);
    } else if (!read_refusal(json, answer)) {
        switch (request) {
        case FB_PEER_HELLO:
            status = read_hello(json, answer, error);
            break;
        case FB_PEER_PREPARE:
            status = read_ready(json, answer, error);
            break;
        case FB_PEER_CALL:
            status = read_times(json, answer, error);
            break;
        case FB_PEER_STORE:
            status = read_stored(json, tensors, error);
            break;
        }
    }
    json_decref(json);
    return status;
}

enum fb_status fb_peer_check_times(enum fb_backend device, const struct fb_peer_answer *answer,
                                   struct fb_error *error)
{
    const bool told = !isnan(answer->device_time_s);
    if (device == FB_CPU && told)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "the program tells a device_time_s, which device: cpu does not have");
    if (device != FB_CPU && !told)
        return fb_error_set(error, FB_ERROR_INPUT,
                            "the program tells no device_time_s: on device: %s a call is answered "
                            "with time_s, seen by the host, and device_time_s, by the device's "
                            "clock",
                            fb_backend_name(device));
    return FB_OK;
}
