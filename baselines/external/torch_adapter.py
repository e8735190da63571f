"""PyTorch as an external program of flowbench: docs/external-protocol.md is what it speaks.

Each variant is attention as a PyTorch user writes or calls it, on tensors of PyTorch's own
(torch_attention.py):

  torch-official   Flow-Attention in PyTorch operations as its authors published it: bidirectional
                   through two matrix products; causal through the cumulative sum of all outer
                   products, N x d x d numbers per head
  torch-chunked    causal Flow-Attention, linear attention and Performer as a careful user would
                   write them: the same normalisers, then chunks of 128 tokens instead of N outer
                   products
  torch-linear     linear attention, elu(x) + 1, in PyTorch operations; causal as torch-official
  torch-performer  FAVOR+ in PyTorch operations
  torch-compiled   torch-official through torch.compile; likewise torch-chunked-compiled,
                   torch-linear-compiled and torch-performer-compiled
  torch-sdpa       softmax: torch.nn.functional.scaled_dot_product_attention; torch-cudnn and
                   torch-flash hold it to that backend
  torch-window     local attention: scaled_dot_product_attention with a banded mask
  torch-flex       local attention: FlexAttention, compiled, with the window's blocks

On device: cuda they are timed by torch_device.py.
"""

import ctypes
import json
import math
import mmap
import os
import sys
import time

PROTOCOL = 1

# How PyTorch says that a kernel does not exist for what was asked.
NOT_SERVED = ("No available kernel", "No viable backend", "does not support backward")

# Inductor's pool of compilers would outlive a case that is killed, and compete with what is timed.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# Answers have the descriptor that stdout had; whatever a library prints goes to stderr.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


class Skip(Exception):
    """What cannot be served here, and what to do about it."""


def answer(**fields):
    ANSWERS.write(json.dumps(fields) + "\n")
    ANSWERS.flush()


def trim_memory():
    """Gives freed memory back, so that the growth of the next call is what the call needs."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass  # another C library: the growth may read too small


# ---- one case -----------------------------------------------------------------------------------


class HostCase:
    """function of q, k, v on the processor, dout or None."""

    def __init__(self, torch, function, inputs, dout, which, threads):
        self.torch, self.function, self.inputs = torch, function, inputs
        self.dout, self.which = dout, which
        self.peak_bytes = None  # the harness looks at the process itself
        self.out = None
        torch.set_num_threads(threads)
        # Harness and program share the processors: its threads sleep while ours work.
        self.wake = torch.zeros(1 << 17)
        self.one_call()  # compiles, starts threads
        self.forget()
        trim_memory()

    @property
    def grads(self):
        return [tensor.grad for tensor in self.inputs]

    def forward(self):
        if self.which != "forward":
            self.out = self.function(*self.inputs)
        else:
            with self.torch.inference_mode():
                self.out = self.function(*self.inputs)

    def forget(self):
        self.out = None
        for tensor in self.inputs:
            tensor.grad = None

    def one_call(self):
        self.forget()
        if self.which == "backward":
            self.forward()
        self.wake.add_(1.0)
        start = time.perf_counter()
        if self.which != "backward":
            self.forward()
        if self.which != "forward":
            self.out.backward(self.dout)
        return time.perf_counter() - start

    def call(self, calls, evict):
        return {"time_s": math.fsum(self.one_call() for _ in range(calls))}


class Job:
    """The tensors of a case in the memory that is shared with the harness, and what computes it."""

    def __init__(self, torch, request):
        import torch_attention

        self.torch = torch
        self.tensors = request["tensors"]
        self.memory = mmap.mmap(request["memory"]["fd"], request["memory"]["bytes"])
        case = request["case"]
        which, device = case["pass"], case["device"]
        if which not in ("forward", "backward", "both"):
            raise Skip(f"the PyTorch adapter has no pass {which}")
        inputs = [self.copy_of(name, device) for name in ("q", "k", "v")]
        for tensor in inputs:
            tensor.requires_grad_(which != "forward")
        dout = self.copy_of("dout", device) if which != "forward" else None
        projection = None
        if "constants" in self.tensors:
            projection = self.copy_of("constants", device).reshape(-1, case["head_dim"])
        if device != "cpu" and case["dtype"] != "f32":  # TF32 is finer than what went in
            torch.set_float32_matmul_precision("high")
        try:
            function = torch_attention.find_function(case, projection)
            if device == "cpu":
                self.case = HostCase(torch, function, inputs, dout, which, case["threads"])
            else:
                import torch_device

                self.case = torch_device.DeviceCase(function, inputs, dout, which)
        except torch_attention.Skip as skip:
            raise Skip(str(skip)) from skip
        except RuntimeError as error:
            if not any(words in str(error) for words in NOT_SERVED):
                raise
            raise Skip(
                f"PyTorch {torch.__version__} has no kernel of {case['variant']} for "
                f"{case['dtype']}, head_dim {case['head_dim']} and pass {which} on this device"
            ) from error

    def shared(self, name):
        torch, tensor = self.torch, self.tensors[name]
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[
            tensor["dtype"]
        ]
        flat = torch.frombuffer(
            self.memory,
            dtype=dtype,
            count=tensor["bytes"] // dtype.itemsize,
            offset=tensor["offset"],
        )
        return flat.as_strided(tensor["shape"], tensor["strides"])

    def copy_of(self, name, device):
        shared = self.shared(name)
        return shared.clone() if device == "cpu" else shared.to(device)

    def store(self):
        stored = {}
        results = dict(zip(("out", "dq", "dk", "dv"), (self.case.out, *self.case.grads)))
        for name, tensor in self.tensors.items():
            if tensor["role"] != "out":
                continue
            result = results[name].detach()
            if list(result.shape) == tensor["shape"]:
                self.shared(name).copy_(result)
            stored[name] = list(result.shape)
        answer(stored=stored)


# ---- requests -----------------------------------------------------------------------------------


def load_torch(device):
    try:
        import torch
    except ImportError as error:
        raise Skip(
            f"PyTorch is not there ({error}); pip install torch, or set FLOWBENCH_PYTHON to the "
            "Python of an environment that has it"
        ) from error
    if device != "cpu" and not torch.cuda.is_available():
        raise Skip(
            f"PyTorch {torch.__version__} sees no CUDA device; install a build for this driver's "
            "CUDA, or set FLOWBENCH_PYTHON to the Python of an environment that has one"
        )
    return torch


def version_of(torch, device):
    version = f"PyTorch {torch.__version__}"
    if device != "cpu":
        number = torch.backends.cudnn.version() or 0  # 9.19.0 is 91900
        version += f", cuDNN {number // 10000}.{number // 100 % 100}.{number % 100}"
    return version


def serve(request, state):
    kind = request["request"]
    if kind == "hello":
        device = request.get("device", "cpu")
        state["torch"] = load_torch(device)
        answer(protocol=PROTOCOL, version=version_of(state["torch"], device))
    elif kind == "prepare":
        state["job"] = Job(state["torch"], request)
        peak = state["job"].case.peak_bytes
        answer(ready=True, **({} if peak is None else {"device_peak_bytes": peak}))
    elif kind == "call":
        answer(**state["job"].case.call(request["calls"], request.get("evict", False)))
    elif kind == "store":
        state["job"].store()
    else:
        answer(error=f"unknown request {kind}")


def main():
    state = {}
    for line in sys.stdin:
        try:
            serve(json.loads(line), state)
        except Skip as skip:
            answer(skip=str(skip))
        except MemoryError as error:
            answer(oom=f"PyTorch: {error}")
        except Exception as error:  # of PyTorch or a compiler: one row, told in words
            text = " ".join(str(error).split())
            memory = any(
                words in text
                for words in ("not enough memory", "can't allocate memory", "out of memory")
            )
            answer(**{"oom" if memory else "error": f"{type(error).__name__}: {text}"[:350]})
    sys.stdout.flush()
    os._exit(0)  # PyTorch's own end takes longer than a small case


if __name__ == "__main__":
    main()
