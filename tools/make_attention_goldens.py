"""Writes what the tests of attention compare with, from inputs of the generator of tests/backend/attention_reference.hpp:

attention_torch.txt: how far torch's scaled_dot_product_attention is from float64;
attention_mx.txt, attention_mx.bin: attention whose products read operands quantised by microxcaling, cases and float32
outputs [rows, heads * head_dim] one case after the other.

    PYTHONPATH=path/to/microxcaling python tools/make_attention_goldens.py tests/data/backend

Needs torch, numpy and microxcaling (github.com/microsoft/microxcaling).
"""

import pathlib
import sys

import numpy as np
import torch
from mx.mx_ops import quantize_mx_op


def random(seed, count):
    """`count` values of Generator(seed), as float32."""
    raw = np.empty(4 * count, dtype=np.int64)
    state = seed
    for i in range(4 * count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        raw[i] = state >> 20
    sums = raw.reshape(count, 4).sum(1) - 4 * 2048 + 2
    return sums.astype(np.float32) * np.float32(1.0 / 2365)


def inputs(rows, heads, kv_heads, head_dim, seed, spread, dtype):
    """q, k, v as [heads, rows, head_dim]."""
    sizes = [rows * heads * head_dim, rows * kv_heads * head_dim, rows * kv_heads * head_dim]
    values = np.split(random(seed, sum(sizes)), np.cumsum(sizes)[:-1])
    values[0] = values[0] * np.float32(spread)
    shaped = [torch.from_numpy(x).reshape(rows, -1, head_dim).transpose(0, 1).to(dtype) for x in values]
    return shaped


def attend64(q, k, v):
    q, k, v = q.double(), k.double(), v.double()
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scale = float(np.float32(1) / np.sqrt(np.float32(q.shape[-1])))
    scores = q @ k.transpose(1, 2) * scale
    scores.masked_fill_(~torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril(), -float("inf"))
    return scores.softmax(-1) @ v


def accuracy(folder):
    cases = [(300, 2, 1, 64, 1, 1), (300, 2, 1, 64, 2, 4), (200, 1, 1, 128, 3, 1), (150, 3, 1, 40, 4, 2)]
    lines = [f"# torch {torch.__version__}; dtype rows heads kv_heads head_dim seed spread rms"]
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "f32")):
        for case in cases:
            q, k, v = inputs(*case, dtype)
            out = torch.nn.functional.scaled_dot_product_attention(
                q[None], k[None], v[None], is_causal=True, enable_gqa=True)[0]
            rms = (out.double() - attend64(q, k, v)).square().mean().sqrt().item()
            lines.append(f"{name} {' '.join(map(str, case))} {rms:.6e}")
    (folder / "attention_torch.txt").write_text("\n".join(lines) + "\n")


def quantised(x, axis, name, block, rounding):
    """x quantised by microxcaling in float32 (its own range, golden in float32); "none" leaves it alone."""
    if name == "none":
        return x
    # Its formats have no prefix: mxfp8_e4m3 is fp8_e4m3 there. Blocks of 0 share one scale along the axis.
    return quantize_mx_op(x, {"scale_bits": 8, "shared_exp_method": "max", "mx_flush_fp32_subnorms": False,
                              "custom_cuda": False, "block_size": block}, elem_format=name.removeprefix("mx"),
                          block_size=block, axes=[axis], round=rounding)


def attend_mx(q, k, v, formats, block, rounding):
    """As eager attention computes it in float32, with P rounded to the model dtype before it is quantised."""
    dtype = q.dtype
    group = q.shape[0] // k.shape[0]
    q, k, v = q.float(), k.float(), v.float()
    q, k = (quantised(x, -1, f, block, rounding) for x, f in zip((q, k), formats[:2]))
    v = quantised(v, -2, formats[3], block, rounding)
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scores = q @ k.transpose(1, 2) * float(np.float32(1) / np.sqrt(np.float32(q.shape[-1])))
    scores.masked_fill_(~torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril(), -float("inf"))
    p = scores.softmax(-1).to(dtype).float()
    p = quantised(p, -1, formats[2], block, rounding)
    return (p @ v).to(dtype).float()


def microxcaling(folder):
    none, e4m3, e2m1, int8, e3m2 = "none", "mxfp8_e4m3", "mxfp4_e2m1", "mxint8", "mxfp6_e3m2"
    cases = [  # rows heads kv_heads head_dim seed spread, formats of Q K P V, block, rounding
        ((50, 2, 1, 40, 21, 1), (e4m3, e4m3, none, none), 32, "even"),
        ((50, 2, 2, 24, 22, 2), (e2m1, int8, none, none), 16, "nearest"),
        ((50, 2, 1, 16, 23, 1), (none, none, none, e4m3), 32, "even"),
        ((50, 2, 1, 16, 24, 1), (none, none, e4m3, none), 32, "even"),
        ((50, 2, 1, 16, 25, 1), (e4m3, e4m3, e4m3, e4m3), 32, "even"),
        ((50, 3, 1, 16, 26, 1), (e3m2, e2m1, e2m1, int8), 0, "floor"),
        ((70, 1, 1, 16, 27, 1), (e2m1, e2m1, e2m1, e2m1), 24, "even"),
    ]
    lines = [f"# torch {torch.__version__}; dtype rows heads kv_heads head_dim seed spread Q K P V block rounding"]
    outputs = []
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "f32")):
        for case, formats, block, rounding in cases:
            out = attend_mx(*inputs(*case, dtype), formats, block, rounding)
            outputs.append(out.transpose(0, 1).contiguous().numpy().tobytes())
            lines.append(f"{name} {' '.join(map(str, case))} {' '.join(formats)} {block} {rounding}")
    (folder / "attention_mx.txt").write_text("\n".join(lines) + "\n")
    (folder / "attention_mx.bin").write_bytes(b"".join(outputs))


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    accuracy(target)
    microxcaling(target)
