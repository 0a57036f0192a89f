#!/usr/bin/env python3
"""Writes tests/data/backend/ops.bin: bfloat16 results of llama's element-wise operations.

Run with torch and transformers installed (made with torch 2.15.0 and transformers 5.23.0; the versions used are in
the last line of the file). The operations are transformers' own modules and functions, on the CPU, in bfloat16.

The file is a list of records: a line "NAME COUNT TYPE\\n" (TYPE u16: bfloat16 bits; f32), then COUNT little-endian
values, then "\\n".
"""

import pathlib

import numpy
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "backend" / "ops.bin"
records = []


def put(name, tensor):
    if tensor.dtype == torch.bfloat16:
        values = tensor.contiguous().view(torch.int16).numpy().reshape(-1)
        records.append((name, "u16", values.astype("<i2")))
    else:
        records.append((name, "f32", tensor.float().numpy().reshape(-1).astype("<f4")))


def normal(*shape, scale=1.0, spread=1.0):
    """Values of many magnitudes, as activations with outlier channels have."""
    return (torch.randn(*shape) * scale * torch.exp(spread * torch.randn(shape[-1]))).to(torch.bfloat16)


@torch.no_grad()
def main():
    torch.manual_seed(20240607)
    torch.set_num_threads(1)

    # RMSNorm: 5 rows of 577, epsilon 1e-5
    norm = LlamaRMSNorm(577, eps=1e-5).to(torch.bfloat16)
    norm.weight.copy_(normal(577, spread=0.5))
    x = normal(5, 577)
    x[3] *= 1e-4  # epsilon counts
    put("norm.x", x)
    put("norm.weight", norm.weight)
    put("norm.y", norm(x))

    # Rotary: 3 heads of 38 dimensions, 4 tokens
    heads, dim, tokens = 3, 38, 4
    q = normal(tokens, heads * dim)
    angles = torch.arange(tokens).float()[:, None] * 7.3 * 10000.0 ** (-torch.arange(0, dim, 2).float() / dim)
    cos, sin = angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)
    wide = q.view(1, tokens, heads, dim).transpose(1, 2)
    rotated, _ = apply_rotary_pos_emb(wide, wide, torch.cat((cos, cos), -1)[None], torch.cat((sin, sin), -1)[None])
    put("rotary.x", q)
    put("rotary.cos", cos)
    put("rotary.sin", sin)
    put("rotary.y", rotated.transpose(1, 2).reshape(tokens, heads * dim))

    # silu(gate) * up: every 13th bit pattern (subnormals, infinities and NaNs are among them)
    gate = torch.arange(0, 65536, 13, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    up = normal(gate.numel())
    put("gated.gate", gate)
    put("gated.up", up)
    put("gated.silu", torch.nn.functional.silu(gate))
    put("gated.silu_up", torch.nn.functional.silu(gate) * up)
    put("gated.gelu_tanh", torch.nn.functional.gelu(gate, approximate="tanh"))
    put("gated.gelu_erf", torch.nn.functional.gelu(gate))

    # Linear with a residual: small integers and halves, whose sums are exact in float32 in any order
    a = torch.randint(-8, 9, (3, 70)).to(torch.bfloat16)
    w = (torch.randint(-16, 17, (37, 70)) / 2).to(torch.bfloat16)
    bias = torch.randn(37)
    residual = normal(3, 37, scale=30)
    product = ((a.float() @ w.float().T) + bias).to(torch.bfloat16)
    put("linear.a", a)
    put("linear.w", w)
    put("linear.bias", bias)
    put("linear.residual", residual)
    put("linear.y", product)
    put("linear.y_residual", residual + product)

    OUT.parent.mkdir(parents=True, exist_ok=True)
    with OUT.open("wb") as file:
        for name, kind, values in records:
            file.write(f"{name} {values.size} {kind}\n".encode())
            file.write(values.tobytes())
            file.write(b"\n")
        file.write(f"torch {torch.__version__} transformers {transformers.__version__}\n".encode())


if __name__ == "__main__":
    main()
