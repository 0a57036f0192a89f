#!/usr/bin/env python3
"""Writes tests/data/backend/ops.bin: results of the element-wise operations of llama and other models.

Run with torch and transformers installed (made with torch 2.15.0 and transformers 5.23.0; the versions used are in
the last line of the file). The operations are transformers' own modules and functions, on the CPU, in bfloat16.

The file is a list of records: a line "NAME COUNT TYPE\\n" (TYPE u16: bfloat16 bits; f32), then COUNT little-endian
values, then "\\n".
"""

import pathlib
from types import SimpleNamespace

import numpy
import torch
import transformers
from transformers.models.cohere import modeling_cohere
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.glm import modeling_glm
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssConfig, GptOssExperts, GptOssTopKRouter
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter
from transformers.models.olmo2 import modeling_olmo2
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "backend" / "ops.bin"
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


def norms():
    # LayerNorm in bfloat16, and in float32 of rows whose mean is large (its error is compared with ours)
    layer = torch.nn.LayerNorm(577, eps=1e-5).to(torch.bfloat16)
    layer.weight.copy_(normal(577, spread=0.5))
    layer.bias.copy_(normal(577, spread=0.5))
    x = normal(5, 577)
    x[3] *= 1e-4
    x[4] += 10
    put("layer_norm.x", x)
    put("layer_norm.weight", layer.weight)
    put("layer_norm.bias", layer.bias)
    put("layer_norm.y", layer(x))
    put("layer_norm.y_plain", torch.nn.functional.layer_norm(x, (577,), eps=1e-5))
    wide = normal(4, 1000)
    wide[1] += 30
    wide[2] = (wide[2].float() * 0.01 + 100).to(torch.bfloat16)
    put("layer_norm.wide_x", wide)
    put("layer_norm.wide_y", torch.nn.functional.layer_norm(wide.float(), (1000,), eps=1e-5))

    # gemma: (1 + w) in float32; olmo2: w in float32, rounded once; qwen3: llama's norm per head of 24
    x = normal(4, 96)
    put("norms.x", x)
    gemma = Gemma2RMSNorm(96, eps=1e-6).to(torch.bfloat16)
    gemma.weight.copy_(normal(96, spread=0.5))
    put("norms.weight", gemma.weight)
    put("norms.gemma", gemma(x))
    olmo = Olmo2RMSNorm(96, eps=1e-6).to(torch.bfloat16)
    olmo.weight.copy_(gemma.weight)
    put("norms.olmo2", olmo(x))
    heads = Qwen3RMSNorm(24, eps=1e-6).to(torch.bfloat16)
    heads.weight.copy_(gemma.weight[:24])
    put("norms.qwen3", heads(x.view(4, 4, 24)))


def positions():
    # 3 heads of 20 dimensions of which 12 turn, 4 tokens: interleaved (glm), and float32 tables (cohere, olmo2)
    heads, dim, turning, tokens = 3, 20, 12, 4
    q = normal(tokens, heads * dim)
    angles = torch.arange(tokens).float()[:, None] * 7.3 * 100.0 ** (-torch.arange(0, turning, 2).float() / turning)
    cos, sin = angles.cos(), angles.sin()
    wide = q.view(1, tokens, heads, dim).transpose(1, 2)
    put("positions.x", q)
    put("positions.cos", cos)
    put("positions.sin", sin)

    def back(rotated):
        return rotated.transpose(1, 2).reshape(tokens, heads * dim)

    tables = [torch.cat((t, t), -1)[None].to(torch.bfloat16) for t in (cos, sin)]
    put("positions.glm", back(modeling_glm.apply_rotary_pos_emb(wide, wide, *tables)[0]))
    # These turn whole heads: the first dimensions of each, then the rest put back.
    part, rest = wide[..., :turning], wide[..., turning:]
    tables = [t.repeat_interleave(2, -1)[None] for t in (cos, sin)]
    put("positions.cohere", back(torch.cat((modeling_cohere.apply_rotary_pos_emb(part, part, *tables)[0], rest), -1)))
    tables = [torch.cat((t, t), -1)[None] for t in (cos, sin)]
    put("positions.olmo2", back(torch.cat((modeling_olmo2.apply_rotary_pos_emb(part, part, *tables)[0], rest), -1)))


def activations(x):
    for name in ("gelu_new", "quick_gelu", "relu2", "gelu_pytorch_tanh"):
        put(f"activation.{name}", transformers.activations.ACT2FN[name](x))
    gate_up = normal(8, 200, scale=3.0)
    experts = GptOssExperts(GptOssConfig(hidden_size=8, intermediate_size=100, num_local_experts=1))
    put("swiglu.gate_up", gate_up)
    put("swiglu.y", experts._apply_gate(gate_up))


def routers():
    logits = (torch.randn(6, 16) * 2).to(torch.bfloat16)
    put("router.logits", logits)
    for name, top_k, kind, options in (("mixtral", 2, MixtralTopKRouter, {"num_local_experts": 16}),
                                       ("qwen3", 4, Qwen3MoeTopKRouter, {"num_experts": 16, "norm_topk_prob": False}),
                                       ("gpt_oss", 4, GptOssTopKRouter, {"num_local_experts": 16})):
        router = kind(SimpleNamespace(num_experts_per_tok=top_k, hidden_size=16, **options)).to(torch.bfloat16)
        router.weight.copy_(torch.eye(16))
        if name == "gpt_oss":
            router.bias.zero_()
        _, weights, experts = router(logits)
        order = experts.argsort(-1)
        put(f"router.{name}.experts", experts.gather(-1, order).float())
        put(f"router.{name}.weights", weights.gather(-1, order).float())


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

    norms()
    positions()
    activations(gate)
    routers()

    OUT.parent.mkdir(parents=True, exist_ok=True)
    with OUT.open("wb") as file:
        for name, kind, values in records:
            file.write(f"{name} {values.size} {kind}\n".encode())
            file.write(values.tobytes())
            file.write(b"\n")
        file.write(f"torch {torch.__version__} transformers {transformers.__version__}\n".encode())


if __name__ == "__main__":
    main()
