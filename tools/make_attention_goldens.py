"""Writes tests/data/backend/attention_torch.txt: how far torch's scaled_dot_product_attention is from float64.

    python tools/make_attention_goldens.py tests/data/backend

Needs torch and numpy. Inputs come from the generator of tests/backend/attention_reference.hpp.
"""

import pathlib
import sys

import numpy as np
import torch


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


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    accuracy(target)
