#!/usr/bin/env python3
"""Writes tests/data/mx/stages.txt: small tensors and what the reference implementations make of them in each stage.

    python tools/goldens/make_stage_goldens.py --microxcaling PATH -o tests/data/mx/stages.txt

Lines: `# comment`; `input ID ROWS COLS WORD...` (float32 bits in hex, row by row); `values ORACLE STAGE ROUND ID WORD...`
(decoded float32); `scaled ORACLE STAGE ID SCALES : WORD...` (float32 scales, one a row or one for the tensor, and the
values without them). A word `*` stands where a reference is at fault: microxcaling's rounded log2 of an element, and its
floor(|v| + 0.5) one unit in the last place under a half.
  bf16, fp8 unscaled   torch's casts (clamped to the largest number before fp8), and microxcaling's elementwise quantiser
  own exponent         microxcaling, shared_exp_method none
  fp8 tensor and row   torchao's _choose_scale_float8 and _quantize_affine_float8 on float32
  nvfp4                torchao's per_tensor_amax_to_scale and nvfp4_quantize
  int8_row, llm_int8   bitsandbytes' int8_vectorwise_quant (threshold 0 and 6) in torch; the scale is its row_stats / 127
Made with torch 2.15.0, torchao 0.18.0, microxcaling 7bc41952 (custom_cuda off), bitsandbytes 0.50.2."""

import argparse
import sys

import bitsandbytes  # noqa: F401  (registers its operations)
import numpy as np
import torch
from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale
from torchao.quantization.quant_primitives import _choose_scale_float8, _quantize_affine_float8

from mx_hard_values import hard_values, true_exponent

ROWS, COLS = 6, 32
FP8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
# element -> (mantissa bits as microxcaling counts them, exponent bits, smallest exponent of a normal number)
ELEMENTS = {"e4m3": (5, 4, -6), "e5m2": (4, 5, -14), "bf16": (9, 8, -126)}
FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def words(x):
    return [f"{w:x}" for w in np.ascontiguousarray(x.float().numpy()).view(np.uint32).reshape(-1)]


def inputs(rng):
    def tensor(x):
        return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))

    activations = rng.standard_normal((ROWS, COLS)) * 1.5
    activations[1, 5], activations[4, 5], activations[2, 17], activations[3, 30] = 9.5, -3.25, -6.0, 5.9999995
    activations[5] = 0
    bfloat = torch.from_numpy(activations.astype(np.float32)).bfloat16().float()
    return [
        tensor(activations),
        bfloat,
        tensor(hard_values(rng, ROWS, COLS, 16, (112, 140))),
        tensor(hard_values(rng, ROWS, COLS, 8, (1, 254))),
        tensor(hard_values(rng, ROWS, COLS, 48, (0, 30))),
        # ties of E4M3, E5M2, bfloat16 and E2M1 under the scales that these maxima give, and their neighbours
        tensor(np.resize(np.float32([448, 17, 19, 18.999998, 0.0009765625, 0.00097656256, 232, 0.25, 0.75, 1.75, 2.5, 5, 464,
                                     1.00390625, 1.01171875, 1e-6, -0.0, 3.5, 57344, 61440, 3.3895e38, -3.4e38]),
                         (ROWS, COLS))),
        tensor(np.resize(np.float32([6, 127, -127, 0.5, 1.5, 2.5, 126.5, -63.5, 2688, 1344, 0.25, 100.25, 37]), (ROWS, COLS))),
        tensor(np.zeros((ROWS, COLS))),
    ]


def elementwise(x, element, rounding):
    from mx.elemwise_ops import _quantize_elemwise_core
    bits, exponent_bits, _ = ELEMENTS[element]
    largest = 3.3895313892515355e38 if element == "bf16" else torch.finfo(FP8[element]).max
    return _quantize_elemwise_core(x, bits, exponent_bits, largest, round=rounding,
                                   saturate_normals=element != "bf16", allow_denorm=True, custom_cuda=False)


def log2_is_off(x):
    magnitude = x.abs()
    return (torch.floor(torch.log2(magnitude)).numpy() != true_exponent(magnitude.numpy())) & (magnitude.numpy() > 0)


def just_under_half(x, smallest_step):
    half = np.float32(smallest_step / 2)
    return x.abs().numpy() == np.nextafter(half, np.float32(0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--microxcaling", required=True)
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    sys.path.insert(0, options.microxcaling)
    from mx.mx_ops import quantize_mx_op
    from mx.specs import MxSpecs

    lines = ["# Written by tools/goldens/make_stage_goldens.py; see there for the lines."]
    tensors = inputs(np.random.default_rng(11))
    for i, x in enumerate(tensors):
        lines.append(f"input {i} {x.shape[0]} {x.shape[1]} " + " ".join(words(x)))

    def values(oracle, stage, rounding, i, y, fault=None):
        out = words(y)
        if fault is not None:
            out = ["*" if bad else w for w, bad in zip(out, np.asarray(fault).reshape(-1))]
        lines.append(f"values {oracle} {stage} {rounding} {i} " + " ".join(out))

    def scaled(oracle, stage, i, scales, y):
        lines.append(f"scaled {oracle} {stage} {i} " + " ".join(words(scales)) + " : " + " ".join(words(y)))

    for i, x in enumerate(tensors):
        values("torch", "bf16", "even", i, x.bfloat16())
        for name, dtype in FP8.items():
            largest = torch.finfo(dtype).max
            values("torch", f"fp8_{name}_unscaled", "even", i, x.clamp(-largest, largest).to(dtype))
        for name, stage in [("bf16", "bf16"), ("e4m3", "fp8_e4m3_unscaled"), ("e5m2", "fp8_e5m2_unscaled")]:
            bits, _, smallest = ELEMENTS[name]
            for rounding in ("even", "nearest", "floor"):
                fault = log2_is_off(x) | just_under_half(x, 2.0 ** (smallest - bits + 2))
                if name == "bf16":  # its shift by 2^133 leaves float32
                    fault |= (x.abs() < 2.0**-126).numpy()
                values("microxcaling", stage, rounding, i, elementwise(x, name, rounding), fault)
        specs = MxSpecs({"scale_bits": 8, "block_size": 0, "custom_cuda": False, "shared_exp_method": "none"})
        for name in FP8:
            for rounding in ("even", "nearest", "floor"):
                y = quantize_mx_op(x.clone(), specs, elem_format=f"fp8_{name}", axes=[-1], block_size=0, round=rounding)
                bits, _, smallest = ELEMENTS[name]
                # under the smallest scale an element may fall to the subnormals
                fault = log2_is_off(x) | just_under_half(x, 2.0 ** (smallest - bits + 2 - 127))
                values("microxcaling", f"fp8_{name}_own_exponent", rounding, i, y, fault)
        if not bool((x != 0).any()):
            continue  # the rest divides zero by zero
        for name, dtype in FP8.items():
            scale = _choose_scale_float8(x, list(x.shape), dtype)
            scaled("torchao", f"fp8_{name}_tensor", i, scale, _quantize_affine_float8(x, scale, dtype).float())
            rows = x[(x != 0).any(dim=1)]
            if len(rows) == len(x):
                scale = _choose_scale_float8(x, [1, x.shape[1]], dtype)
                scaled("torchao", f"fp8_{name}_row", i, scale, _quantize_affine_float8(x, scale, dtype).float())
        scale = per_tensor_amax_to_scale(x.abs().amax())
        if float(1.0 / scale) < float("inf"):
            blocks, packed = nvfp4_quantize(x, 16, scale)
            codes = torch.stack([packed & 15, packed >> 4], dim=-1).reshape(x.shape).long()
            block_scale = blocks.float().reshape(ROWS, -1).repeat_interleave(16, dim=1)
            scaled("torchao", "nvfp4", i, scale.reshape(1), FP4[codes] * block_scale)
        for stage, threshold in [("int8_row", 0.0), ("llm_int8", 6.0)]:
            codes, stats, _ = torch.ops.bitsandbytes.int8_vectorwise_quant(x.clone(), threshold)
            if bool(torch.isfinite(127.0 / stats[stats > 0]).all()):
                scaled("bitsandbytes", stage, i, stats / 127.0, codes)
    with open(options.output, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
