"""Writes what the tests of attention compare with, from inputs of the generator of tests/backend/attention_reference.hpp:

attention_torch.txt: how far torch's scaled_dot_product_attention is from float64;
attention_mx.txt, attention_mx.bin: attention whose products read operands quantised by microxcaling, cases and float32
outputs [rows, heads * head_dim] one case after the other;
attention_eager.txt, attention_eager.bin: the eager attention of transformers' models in float32, cases and slopes,
sinks and outputs one case after the other.

    PYTHONPATH=path/to/microxcaling python tools/goldens/make_attention_goldens.py tests/data/backend

Needs torch, numpy, transformers and microxcaling (github.com/microsoft/microxcaling).
"""

import pathlib
import sys

from types import SimpleNamespace

import numpy as np
import torch
import transformers
from mx.mx_ops import quantize_mx_op
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.mpt import modeling_mpt


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


def eager_mask(rows, window, keys):
    """Additive [1, 1, rows, rows]: the model's own mask function, and padding on the right."""
    function = sliding_window_causal_mask_function(window) if window else causal_mask_function
    q, k = torch.arange(rows)[:, None], torch.arange(rows)[None, :]
    seen = function(0, 0, q, k) & (k < (keys or rows))
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]


def eager(model, q, k, v, scale, softcap, window, keys, sinks):
    """[rows, heads * head_dim] and the slopes of the heads."""
    heads, rows, head_dim = q.shape
    if model == "mpt":
        config = modeling_mpt.MptConfig(d_model=heads * head_dim, n_heads=heads, attn_config={"softmax_scale": scale})
        module = modeling_mpt.MptAttention(config)
        fused = torch.cat([x.transpose(0, 1).reshape(rows, -1) for x in (q, k, v)], -1)
        del module.Wqkv
        module.Wqkv, module.out_proj = lambda _: fused[None], torch.nn.Identity()
        bias = modeling_mpt.build_mpt_alibi_tensor(heads, rows)
        out = module(torch.zeros(1, rows, heads * head_dim), bias, attention_mask=eager_mask(rows, window, keys) != 0)[0]
        return out[0], (bias[:, 0, -1] - bias[:, 0, -2])
    module = SimpleNamespace(num_key_value_groups=heads // k.shape[0], training=False, sinks=sinks)
    family = modeling_gpt_oss if model == "gpt_oss" else modeling_gemma2
    out = family.eager_attention_forward(module, q[None], k[None], v[None], eager_mask(rows, window, keys),
                                         scaling=scale, **({"softcap": softcap or None} if model == "gemma2" else {}))[0]
    return out[0].reshape(rows, -1), torch.zeros(0)


def transformers_models(folder):
    cases = [  # rows heads kv_heads head_dim seed spread, scale, softcap, window, keys, sinks
        ("gemma2", (140, 2, 1, 24, 41, 8), 0.0625, 5.0, 40, 0, 0),
        ("gemma2", (40, 1, 1, 256, 42, 1), 0.0625, 50.0, 0, 0, 0),
        ("gpt_oss", (160, 4, 2, 10, 43, 1), 0.25, 0.0, 128, 0, 4),
        ("gpt_oss", (60, 2, 1, 64, 44, 2), 0.125, 0.0, 0, 33, 2),
        ("mpt", (140, 6, 6, 8, 45, 1), 0.25, 0.0, 0, 0, 0),
        ("mpt", (50, 4, 4, 16, 46, 1), 0.25, 0.0, 0, 21, 0),
    ]
    lines = [f"# torch {torch.__version__} transformers {transformers.__version__}; model rows heads kv_heads head_dim "
             "seed spread scale softcap window keys slopes sinks"]
    values = []
    for model, case, scale, softcap, window, keys, count in cases:
        sinks = torch.linspace(-1.5, 2.5, count)
        out, slopes = eager(model, *inputs(*case, torch.float32), scale, softcap, window, keys, sinks)
        values += [x.detach().contiguous().numpy().tobytes() for x in (slopes, sinks, out)]
        lines.append(f"{model} {' '.join(map(str, case))} {scale} {softcap} {window} {keys} {len(slopes)} {count}")
    (folder / "attention_eager.txt").write_text("\n".join(lines) + "\n")
    (folder / "attention_eager.bin").write_bytes(b"".join(values))


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    accuracy(target)
    microxcaling(target)
    transformers_models(target)
