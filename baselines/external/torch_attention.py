"""Attention as a PyTorch user writes or calls it: the variants of torch_adapter.py.

Flow-Attention follows the paper (Wu et al., ICML 2022) at its published defaults: phi sigmoid, the
competition clamped to -1 .. 1, epsilon 1e-6 on both factors of the four inner products. Performer is
FAVOR+ (Choromanski et al., ICLR 2021) with the features that the harness draws.

Tensors are [B, H, N, D]. Running sums are f32 whatever the inputs are: in bf16 a sum stops growing
after a few hundred tokens.
"""

import torch

EPSILON = 1e-6
FEATURE_EPSILON = 1e-4
CHUNK = 128


class Skip(Exception):
    """What cannot be served here, and what to do about it."""


# ---- Flow-Attention -----------------------------------------------------------------------------


def flow(q, k, v):
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


def flow_causal_parts(q, k):
    """phi(q), phi(k), and per token the incoming flow, its count, allocation and competition."""
    q, k = torch.sigmoid(q.float()), torch.sigmoid(k.float())
    count = torch.arange(1, q.shape[2] + 1, dtype=torch.float32, device=q.device)
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


def chunked_sums(q, k, v, dtype):
    """The same in chunks: what came before as a state, what is inside as a masked product."""
    length = q.shape[2]
    pad = -length % CHUNK
    q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    if pad:
        q, k, v = (torch.nn.functional.pad(x, (0, 0, 0, pad)) for x in (q, k, v))
    q, k, v = (x.unflatten(2, (-1, CHUNK)) for x in (q, k, v))
    states = (k.transpose(-2, -1) @ v).float()
    before = (states.cumsum(2) - states).to(dtype)
    inside = (q @ k.transpose(-2, -1)).tril() @ v
    return (q @ before + inside).flatten(2, 3)[:, :, :length]


def flow_causal(q, k, v):
    dtype = v.dtype
    q, k, incoming, allocation, competition = flow_causal_parts(q, k)
    out = outer_sums(q * incoming[..., None], k, v.float() * competition[..., None])
    return (out * allocation[..., None]).to(dtype)


def flow_causal_chunked(q, k, v):
    dtype = v.dtype
    q, k, incoming, allocation, competition = flow_causal_parts(q, k)
    out = chunked_sums(q * incoming[..., None], k, v.float() * competition[..., None], dtype)
    return (out * allocation[..., None]).to(dtype)


# ---- linear attention and Performer -------------------------------------------------------------


def linear(q, k, v):
    q, k = torch.nn.functional.elu(q) + 1.0, torch.nn.functional.elu(k) + 1.0
    normaliser = 1.0 / ((q * k.sum(2, keepdim=True)).sum(-1) + EPSILON)
    return (q @ (k.transpose(-2, -1) @ v)) * normaliser[..., None]


def linear_causal_parts(q, k):
    q, k = torch.nn.functional.elu(q.float()) + 1.0, torch.nn.functional.elu(k.float()) + 1.0
    return q, k, 1.0 / ((q * k.cumsum(2)).sum(-1) + EPSILON)


def linear_causal(q, k, v):
    dtype = v.dtype
    q, k, normaliser = linear_causal_parts(q, k)
    return (outer_sums(q, k, v.float()) * normaliser[..., None]).to(dtype)


def linear_causal_chunked(q, k, v):
    dtype = v.dtype
    q, k, normaliser = linear_causal_parts(q, k)
    return (chunked_sums(q * normaliser[..., None], k, v, dtype)).to(dtype)


def performer_features(projection):
    """The features of queries and keys, as functions of either."""

    def features(x, over):
        x = x * x.shape[-1] ** -0.25
        projected = (x @ projection.to(x.dtype).transpose(0, 1)).float()
        exponent = projected - 0.5 * x.float().square().sum(-1, keepdim=True)
        highest = projected.amax(over, keepdim=True).detach()
        return (torch.exp(exponent - highest) + FEATURE_EPSILON).to(x.dtype)

    return (lambda q: features(q, -1)), (lambda k: features(k, (-2, -1)))


def performer(projection):
    queries, keys = performer_features(projection)

    def attend(q, k, v):
        q, k = queries(q), keys(k)
        normaliser = (q * k.sum(2, keepdim=True)).sum(-1, keepdim=True)
        return (q @ (k.transpose(-2, -1) @ v)) / normaliser

    return attend


def performer_causal_chunked(projection):
    queries, keys = performer_features(projection)

    def attend(q, k, v):
        q, k = queries(q).float(), keys(k).float()
        normaliser = 1.0 / (q * k.cumsum(2)).sum(-1)
        return chunked_sums(q * normaliser[..., None], k, v, v.dtype).to(v.dtype)

    return attend


# ---- softmax and local attention ----------------------------------------------------------------


def softmax(causal, backend):
    """backend: of scaled_dot_product_attention, by its name in SDPBackend; None leaves the choice
    to PyTorch."""

    def attend(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
        )

    if backend is None:
        return attend
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attend_by(q, k, v):
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return attend(q, k, v)

    return attend_by


def window_mask(causal, width, row, column):
    distance = row - column
    return (distance >= 0) & (distance <= width) if causal else distance.abs() <= width


def window(causal, width):
    def attend(q, k, v):
        rows = torch.arange(q.shape[2], device=q.device)[:, None]
        columns = torch.arange(k.shape[2], device=q.device)[None, :]
        mask = window_mask(causal, width, rows, columns)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return attend


def flex_window(case):
    """The blocks that the window touches are found once, untimed, as FlexAttention wants it."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    causal, width = case["causal"], case["params"]["window"]

    def is_seen(batch, head, row, column):
        return window_mask(causal, width, row, column)

    blocks = create_block_mask(
        is_seen, None, None, case["seq_len"], case["kv_len"], device=case["device"]
    )

    def attend(q, k, v):
        return flex_attention(q, k, v, block_mask=blocks)

    return attend


# ---- which is which -----------------------------------------------------------------------------

# The parameters at which a variant computes what the mechanism defines; others are skipped.
PLAIN = {
    "flow": {
        "phi": "sigmoid",
        "clamp": 1.0,
        "competition": "tokens",
        "allocation": True,
        "extra_eps": False,
    },
    "performer": {"kernel": "softmax"},
    "local": {"pattern": "window"},
}

FLOWS = {
    ("torch-official", False): flow,
    ("torch-official", True): flow_causal,
    ("torch-chunked", True): flow_causal_chunked,
}

LINEARS = {
    ("torch-linear", False): linear,
    ("torch-linear", True): linear_causal,
    ("torch-chunked", True): linear_causal_chunked,
}

PERFORMERS = {
    ("torch-performer", False): performer,
    ("torch-chunked", True): performer_causal_chunked,
}

SOFTMAX_BACKENDS = {
    "torch-sdpa": None,
    "torch-cudnn": "CUDNN_ATTENTION",
    "torch-flash": "FLASH_ATTENTION",
}


def find_plain(case, variant, projection):
    """The function of (q, k, v), or None."""
    mechanism, causal = case["mechanism"], case["causal"]
    if mechanism == "flow":
        return FLOWS.get((variant, causal))
    if mechanism == "linear":
        return LINEARS.get((variant, causal))
    if mechanism == "softmax" and variant in SOFTMAX_BACKENDS:
        return softmax(causal, SOFTMAX_BACKENDS[variant])
    if mechanism == "performer" and (variant, causal) in PERFORMERS:
        return PERFORMERS[variant, causal](projection)
    if mechanism == "local" and variant == "torch-window":
        return window(causal, case["params"]["window"])
    if mechanism == "local" and variant == "torch-flex":
        return flex_window(case)
    return None


def find_function(case, projection):
    """projection: Performer's, [features, D]. A name that ends in -compiled is the variant before it
    through torch.compile; torch-compiled is torch-official."""
    mechanism, variant = case["mechanism"], case["variant"]
    compiled = variant.endswith("-compiled")
    plain = variant[: -len("-compiled")] if compiled else variant
    for name, value in PLAIN.get(mechanism, {}).items():
        if name in case["params"] and case["params"][name] != value:
            raise Skip(f"the PyTorch adapter computes {mechanism} with {name}: {value} only")
    if mechanism != "softmax" and case["heads"] != case["kv_heads"]:
        raise Skip(f"the PyTorch adapter computes {mechanism} with kv_heads = heads only")
    function = find_plain(case, "torch-official" if plain == "torch" else plain, projection)
    if function is None or (compiled and mechanism in ("softmax", "local")):
        direction = "causal" if case["causal"] else "bidirectional"
        raise Skip(f"the PyTorch adapter has no {direction} {mechanism} called {variant}")
    if compiled or variant == "torch-flex":
        function = torch.compile(function, dynamic=False)
    return function
