"""PyTorch as an external program of flowbench: docs/external-protocol.md is what it speaks.

Each variant is attention as a PyTorch user writes or calls it, on tensors of PyTorch's own:

  torch-official   Flow-Attention in PyTorch operations as its authors published it: bidirectional
                   through two matrix products; causal through the cumulative sum of all outer
                   products, N x d x d numbers per head
  torch-compiled   the same through torch.compile
  torch-chunked    causal Flow-Attention and causal linear attention as a careful user would write
                   them: the same normalisers, then chunks of 128 tokens instead of N outer products
  torch-sdpa       softmax: torch.nn.functional.scaled_dot_product_attention
  torch-linear     linear attention, elu(x) + 1, in PyTorch operations; causal as torch-official
  torch-window     local attention: scaled_dot_product_attention with a banded mask

Flow-Attention follows the paper (Wu et al., ICML 2022) at its published defaults: phi sigmoid, the
competition clamped to -1 .. 1, epsilon 1e-6 on both factors of the four inner products.
"""

import ctypes
import json
import math
import mmap
import os
import sys
import time

PROTOCOL = 1
EPSILON = 1e-6
CHUNK = 128

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


# ---- attention ----------------------------------------------------------------------------------


def flow(torch, q, k, v):
    """[B, H, N, D], bidirectional."""
    length, sources = q.shape[2], k.shape[2]
    q, k = torch.sigmoid(q), torch.sigmoid(k)
    incoming = 1.0 / ((q + EPSILON) * (k.sum(2, keepdim=True) + EPSILON)).sum(-1)
    outgoing = 1.0 / ((k + EPSILON) * (q.sum(2, keepdim=True) + EPSILON)).sum(-1)
    k_outgoing = (k * outgoing[..., None]).sum(2, keepdim=True)
    q_incoming = (q * incoming[..., None]).sum(2, keepdim=True)
    conserved_sink = ((q + EPSILON) * (k_outgoing + EPSILON)).sum(-1)
    conserved_source = ((k + EPSILON) * (q_incoming + EPSILON)).sum(-1).clamp(-1.0, 1.0)
    allocation = torch.sigmoid(conserved_sink * (float(length) / float(sources)))
    competition = torch.softmax(conserved_source, dim=-1) * float(sources)
    kv = k.transpose(-2, -1) @ (v * competition[..., None])
    return ((q * incoming[..., None]) @ kv) * allocation[..., None]


def flow_causal_parts(torch, q, k):
    """phi(q), phi(k), and per token the incoming flow, its count, allocation and competition."""
    q, k = torch.sigmoid(q), torch.sigmoid(k)
    count = torch.arange(1, q.shape[2] + 1, dtype=q.dtype, device=q.device)
    incoming = count / ((q + EPSILON) * (k.cumsum(2) + EPSILON)).sum(-1)
    outgoing = count / ((k + EPSILON) * (q.cumsum(2) + EPSILON)).sum(-1)
    k_outgoing = (k * outgoing[..., None]).cumsum(2)
    q_incoming = (q * incoming[..., None]).cumsum(2)
    conserved_sink = ((q + EPSILON) * (k_outgoing + EPSILON)).sum(-1) / count
    conserved_source = ((k + EPSILON) * (q_incoming + EPSILON)).sum(-1) / count
    weight = torch.exp(conserved_source.clamp(-1.0, 1.0))
    competition = count * weight / weight.cumsum(-1)
    return q, k, incoming / count, torch.sigmoid(conserved_sink), competition


def outer_sums(q, k, v):
    """sum over j <= i of (q_i . k_j) v_j, through the cumulative sum of N outer products."""
    sums = (k[..., :, None] * v[..., None, :]).cumsum(2)
    return (q[..., None, :] @ sums).squeeze(-2)


def chunked_sums(torch, q, k, v):
    """The same in chunks: what came before as a state, what is inside as a masked product."""
    length = q.shape[2]
    pad = -length % CHUNK
    if pad:
        q, k, v = (torch.nn.functional.pad(x, (0, 0, 0, pad)) for x in (q, k, v))
    q, k, v = (x.unflatten(2, (-1, CHUNK)) for x in (q, k, v))
    states = k.transpose(-2, -1) @ v
    before = states.cumsum(2) - states
    inside = (q @ k.transpose(-2, -1)).tril() @ v
    return (q @ before + inside).flatten(2, 3)[:, :, :length]


def flow_causal(torch, q, k, v):
    q, k, incoming, allocation, competition = flow_causal_parts(torch, q, k)
    out = outer_sums(q * incoming[..., None], k, v * competition[..., None])
    return out * allocation[..., None]


def flow_causal_chunked(torch, q, k, v):
    q, k, incoming, allocation, competition = flow_causal_parts(torch, q, k)
    out = chunked_sums(torch, q * incoming[..., None], k, v * competition[..., None])
    return out * allocation[..., None]


def linear(torch, q, k, v):
    q, k = torch.nn.functional.elu(q) + 1.0, torch.nn.functional.elu(k) + 1.0
    normaliser = 1.0 / ((q * k.sum(2, keepdim=True)).sum(-1) + EPSILON)
    return (q @ (k.transpose(-2, -1) @ v)) * normaliser[..., None]


def linear_causal(torch, q, k, v):
    q, k = torch.nn.functional.elu(q) + 1.0, torch.nn.functional.elu(k) + 1.0
    normaliser = 1.0 / ((q * k.cumsum(2)).sum(-1) + EPSILON)
    return outer_sums(q, k, v) * normaliser[..., None]


def linear_causal_chunked(torch, q, k, v):
    q, k = torch.nn.functional.elu(q) + 1.0, torch.nn.functional.elu(k) + 1.0
    normaliser = 1.0 / ((q * k.cumsum(2)).sum(-1) + EPSILON)
    return chunked_sums(torch, q, k, v) * normaliser[..., None]


def softmax(causal):
    def attend(torch, q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
        )

    return attend


def window(causal, width):
    def attend(torch, q, k, v):
        distance = torch.arange(q.shape[2])[:, None] - torch.arange(k.shape[2])[None, :]
        mask = (distance >= 0) & (distance <= width) if causal else distance.abs() <= width
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return attend


# The parameters at which a variant computes what the mechanism defines; others are skipped.
PLAIN = {
    "flow": {
        "phi": "sigmoid",
        "clamp": 1.0,
        "competition": "tokens",
        "allocation": True,
        "extra_eps": False,
    },
    "softmax": {},
    "linear": {},
}


def find_function(case):
    mechanism, variant, causal = case["mechanism"], case["variant"], case["causal"]
    flows = {
        ("torch-official", False): flow,
        ("torch-compiled", False): flow,
        ("torch-official", True): flow_causal,
        ("torch-compiled", True): flow_causal,
        ("torch-chunked", True): flow_causal_chunked,
    }
    linears = {
        ("torch-linear", False): linear,
        ("torch-linear", True): linear_causal,
        ("torch-chunked", True): linear_causal_chunked,
    }
    if mechanism == "flow" and (variant, causal) in flows:
        function = flows[variant, causal]
    elif mechanism == "linear" and (variant, causal) in linears:
        function = linears[variant, causal]
    elif mechanism == "softmax" and variant == "torch-sdpa":
        return softmax(causal)
    elif mechanism == "local" and variant == "torch-window":
        return window(causal, case["params"]["window"])
    else:
        direction = "causal" if causal else "bidirectional"
        raise Skip(f"the PyTorch adapter has no {direction} {mechanism} called {variant}")
    for name, value in PLAIN[mechanism].items():
        if name in case["params"] and case["params"][name] != value:
            raise Skip(f"the PyTorch adapter computes {mechanism} with {name}: {value} only")
    if case["heads"] != case["kv_heads"]:
        raise Skip(f"the PyTorch adapter computes {mechanism} with kv_heads = heads only")
    return function


def trim_memory():
    """Gives freed memory back, so that the growth of the next call is what the call needs."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass  # another C library: the growth may read too small


# ---- one case -----------------------------------------------------------------------------------


class Job:
    def __init__(self, torch, request):
        self.torch = torch
        self.case = case = request["case"]
        self.tensors = request["tensors"]
        if case["device"] != "cpu":
            raise Skip("this PyTorch adapter measures on device: cpu")
        if case["pass"] not in ("forward", "backward", "both"):
            raise Skip(f"the PyTorch adapter has no pass {case['pass']}")
        torch.set_num_threads(case["threads"])
        self.memory = mmap.mmap(request["memory"]["fd"], request["memory"]["bytes"])
        self.gradients = case["pass"] != "forward"
        self.function = find_function(case)
        if case["variant"] == "torch-compiled":
            self.function = torch.compile(self.function, dynamic=False)
        self.inputs = [self.shared(name).clone() for name in ("q", "k", "v")]
        for tensor in self.inputs:
            tensor.requires_grad_(self.gradients)
        self.dout = self.shared("dout").clone() if self.gradients else None
        self.out = None
        # Harness and program share the processors: its threads sleep while ours work.
        self.wake = torch.zeros(1 << 17)
        self.one_call()  # compiles, starts threads
        self.forget()
        trim_memory()

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

    def forward(self):
        if self.gradients:
            self.out = self.function(self.torch, *self.inputs)
        else:
            with self.torch.inference_mode():
                self.out = self.function(self.torch, *self.inputs)

    def backward(self):
        self.out.backward(self.dout)

    def forget(self):
        self.out = None
        for tensor in self.inputs:
            tensor.grad = None

    def one_call(self):
        which = self.case["pass"]
        self.forget()
        if which == "backward":
            self.forward()
        self.wake.add_(1.0)
        start = time.perf_counter()
        if which != "backward":
            self.forward()
        if which != "forward":
            self.backward()
        return time.perf_counter() - start

    def store(self):
        stored = {}
        results = {"out": self.out}
        for name, tensor in zip(("dq", "dk", "dv"), self.inputs):
            results[name] = tensor.grad
        for name, tensor in self.tensors.items():
            if tensor["role"] != "out":
                continue
            result = results[name].detach()
            if list(result.shape) == tensor["shape"]:
                self.shared(name).copy_(result)
            stored[name] = list(result.shape)
        answer(stored=stored)


# ---- requests -----------------------------------------------------------------------------------


def load_torch():
    try:
        import torch
    except ImportError as error:
        raise Skip(
            f"PyTorch is not there ({error}); pip install torch, or set FLOWBENCH_PYTHON to the "
            "Python of an environment that has it"
        ) from error
    return torch


def serve(request, state):
    kind = request["request"]
    if kind == "hello":
        state["torch"] = load_torch()
        answer(protocol=PROTOCOL, version=f"PyTorch {state['torch'].__version__}")
    elif kind == "prepare":
        state["job"] = Job(state["torch"], request)
        answer(ready=True)
    elif kind == "call":
        answer(time_s=math.fsum(state["job"].one_call() for _ in range(request["calls"])))
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
            memory = "not enough memory" in text or "can't allocate memory" in text
            answer(**{"oom" if memory else "error": f"{type(error).__name__}: {text}"[:350]})
    sys.stdout.flush()
    os._exit(0)  # PyTorch's own end takes longer than a small case


if __name__ == "__main__":
    main()
