"""A case on a GPU, timed as flowbench times its own kernels there (docs/gpu.md): by events behind a
kernel that blocks the stream until all of the calls are queued, from an evicted L2 cache.

Two times are told. Device time is that of the calls captured in a CUDA graph, so that neither Python
nor launching is in it. Host time is the same calls made as a PyTorch user makes them, from the call
to its completion.
"""

import time

import torch

EVICT_FACTOR = 4  # caches that are written and then read


class Timer:
    def __init__(self):
        self.stream = torch.cuda.Stream()
        torch.cuda.set_stream(self.stream)
        self.start = torch.cuda.Event(enable_timing=True)
        self.stop = torch.cuda.Event(enable_timing=True)
        cache_bytes = torch.cuda.get_device_properties(0).L2_cache_size
        self.buffer = torch.empty(EVICT_FACTOR * cache_bytes // 4, device="cuda")
        self.block_cycles = 1 << 19  # a third of a millisecond

    def evict(self):
        """Written and then read, so that no dirty line is left for what follows."""
        self.buffer.fill_(0.5)
        self.buffer.amax()

    def device_time(self, replay, calls, prepare):
        """Of `calls` replays in a row. When the block ended before all of them were queued, the
        time would hold gaps of the host: it is taken again behind a longer block."""
        for _ in range(8):
            prepare()
            torch.cuda._sleep(self.block_cycles)
            self.start.record()
            for _ in range(calls):
                replay()
            self.stop.record()
            queued_in_time = not self.start.query()
            self.stop.synchronize()
            if queued_in_time:
                return 1e-3 * self.start.elapsed_time(self.stop)
            self.block_cycles *= 2
        raise RuntimeError("the GPU was quicker than its queue was filled, eight times in a row")


class DeviceCase:
    """inputs: q, k, v on the GPU; dout: on the GPU, or None without gradients. Compiles, captures,
    and makes the first calls."""

    def __init__(self, function, inputs, dout, which):
        self.function, self.inputs, self.dout, self.which = function, inputs, dout, which
        if which == "backward":  # what the forward saved serves every replay
            import torch._functorch.config as functorch_config

            functorch_config.donated_buffer = False
        self.timer = Timer()
        self.run()  # compiles, loads
        self.peak_bytes = self.measure_peak()
        self.out, self.grads = None, ()
        self.graph = self.capture()
        self.graph.replay()
        torch.cuda.synchronize()

    # ---- the pass ---------------------------------------------------------------------------

    def forward(self):
        if self.which == "forward":
            with torch.inference_mode():
                return self.function(*self.inputs)
        return self.function(*self.inputs)

    def backward(self, out, **options):
        return torch.autograd.grad(out, self.inputs, self.dout, **options)

    def run(self):
        out = self.forward()
        grads = () if self.which == "forward" else self.backward(out)
        torch.cuda.synchronize()
        return out, grads

    def measure_peak(self):
        """Bytes beside inputs and outputs while the pass runs; backward has what the forward
        saved."""
        self.run()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        out = self.forward()
        if self.which == "backward":
            torch.cuda.reset_peak_memory_stats()
        grads = () if self.which == "forward" else self.backward(out)
        torch.cuda.synchronize()
        results = sum(x.numel() * x.element_size() for x in (out, *grads))
        return max(0, torch.cuda.max_memory_allocated() - before - results)

    def capture(self):
        graph = torch.cuda.CUDAGraph()
        stream = self.timer.stream
        if self.which == "backward":
            self.forward_graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.forward_graph, stream=stream):
                self.out = self.forward()
            self.forward_graph.replay()
            with torch.cuda.graph(graph, pool=self.forward_graph.pool(), stream=stream):
                self.grads = self.backward(self.out, retain_graph=True)
            return graph
        with torch.cuda.graph(graph, stream=stream):
            self.out = self.forward()
            if self.which == "both":
                self.grads = self.backward(self.out)
        return graph

    # ---- calls ------------------------------------------------------------------------------

    def host_time(self, calls, evict):
        """Each call of its own, since a backward takes a forward before it."""
        total_s = 0.0
        for _ in range(calls):
            out = self.forward() if self.which == "backward" else None
            if evict:
                self.timer.evict()
            torch.cuda.synchronize()
            start_s = time.perf_counter()
            if self.which != "backward":
                out = self.forward()
            if self.which != "forward":
                self.backward(out)
            torch.cuda.synchronize()
            total_s += time.perf_counter() - start_s
        return total_s

    def call(self, calls, evict):
        host_s = self.host_time(calls, evict)

        def prepare():
            with torch.inference_mode():  # what is stored later is what the calls have written
                for result in self.grads if self.which == "backward" else (self.out, *self.grads):
                    result.fill_(float("nan"))
            if evict:
                self.timer.evict()

        device_s = self.timer.device_time(self.graph.replay, calls, prepare)
        return {"time_s": host_s, "device_time_s": device_s}
