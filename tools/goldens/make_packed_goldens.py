#!/usr/bin/env python3
"""Writes tests/data/packed/NAME: tiny llama checkpoints that hold weights in MX codes, and their decoded values.

    python tools/goldens/make_packed_goldens.py [-o tests/data/packed]

Each folder has config.json (with quantization_config), model.safetensors (codes and scales where the config says so) and
decoded.safetensors (the same checkpoint with every weight in BF16). compressed-tensors' own compressors make and decode
its three formats; ModelOpt's MXFP8 has the same tensors; Quark's layouts are written and decoded here by numpy. Some
scales are set to hard codes: the smallest, and 255, which is NaN.
Made with torch 2.15.0, compressed-tensors 0.20.0, safetensors 0.8.0."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from compressed_tensors.compressors.mxfp4.base import MXFP4PackedCompressor
from compressed_tensors.compressors.mxfp6.base import MXFP6PackedCompressor
from compressed_tensors.compressors.mxfp8.base import MXFP8QuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file

HIDDEN, INTERMEDIATE, VOCABULARY, HEADS, KV_HEADS = 32, 64, 40, 2, 1
COMPRESSORS = {"mxfp4-pack-quantized": (MXFP4PackedCompressor, 4, 4.0),
               "mxfp6-pack-quantized": (MXFP6PackedCompressor, 6, 4.0),
               "mxfp8-quantized": (MXFP8QuantizationCompressor, 8, 256.0)}
LAYER = "model.layers.0."
SHAPES = {LAYER + "self_attn.q_proj": (HIDDEN, HIDDEN), LAYER + "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
          LAYER + "self_attn.v_proj": (HIDDEN // 2, HIDDEN), LAYER + "self_attn.o_proj": (HIDDEN, HIDDEN),
          LAYER + "mlp.gate_proj": (INTERMEDIATE, HIDDEN), LAYER + "mlp.up_proj": (INTERMEDIATE, HIDDEN),
          LAYER + "mlp.down_proj": (HIDDEN, INTERMEDIATE)}


def base_config():
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE, "num_hidden_layers": 1, "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS, "vocab_size": VOCABULARY, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
            "torch_dtype": "bfloat16"}


def plain_tensors(rng):
    def normal(*shape, scale=1.0):
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32) * scale).bfloat16()

    return {"model.embed_tokens.weight": normal(VOCABULARY, HIDDEN), "lm_head.weight": normal(VOCABULARY, HIDDEN),
            "model.norm.weight": 1 + normal(HIDDEN, scale=0.1),
            LAYER + "input_layernorm.weight": 1 + normal(HIDDEN, scale=0.1),
            LAYER + "post_attention_layernorm.weight": 1 + normal(HIDDEN, scale=0.1)}


def scheme(bits):
    weights = QuantizationArgs(num_bits=bits, type="float", strategy="group", group_size=32, symmetric=True,
                               dynamic=False, scale_dtype=torch.uint8)
    return QuantizationScheme(targets=["Linear"], weights=weights)


def compress(format_name, weight):
    """(tensors of the module, decoded weight), by compressed-tensors."""
    compressor, bits, largest_power = COMPRESSORS[format_name]
    amax = weight.float().unflatten(-1, (-1, 32)).abs().amax(-1)
    scale = torch.exp2(torch.floor(torch.log2(amax))) / largest_power
    packed = compressor.compress({"weight": weight.clone(), "weight_scale": scale.to(weight.dtype)}, scheme(bits))
    decoded = compressor.decompress({k: v.clone() for k, v in packed.items()}, scheme(bits))["weight"]
    return {k: v.contiguous() for k, v in packed.items()}, decoded.to(torch.bfloat16).contiguous()


def group(bits, targets, format_name=None):
    weights = {"num_bits": bits, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True,
               "dynamic": False, "scale_dtype": "torch.uint8"}
    out = {"targets": targets, "weights": weights, "input_activations": {**weights, "dynamic": True}}
    return {**out, "format": format_name} if format_name else out


def compressed_tensors_config(format_name, groups):
    return {"quant_method": "compressed-tensors", "format": format_name, "quantization_status": "compressed",
            "ignore": ["lm_head", "re:.*router.*"], "config_groups": groups, "kv_cache_scheme": None,
            "transform_config": {}}


def save(folder, quantization, packed, decoded):
    folder.mkdir(parents=True, exist_ok=True)
    config = {**base_config(), "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(packed, folder / "model.safetensors")
    save_file(decoded, folder / "decoded.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)


def float_grid(exponent_bits, mantissa_bits):
    """Values of all codes of a format without specials."""
    bias = 2 ** (exponent_bits - 1) - 1
    values = []
    for code in range(2 ** (exponent_bits + mantissa_bits)):
        e, m = code >> mantissa_bits, code & (2**mantissa_bits - 1)
        values.append(m * 2.0 ** (1 - bias - mantissa_bits) if e == 0 else (1 + m / 2**mantissa_bits) * 2.0 ** (e - bias))
    return np.array(values + [-v for v in values])


def quark(rng, shape, exponent_bits, mantissa_bits):
    """Random codes and scales of a weight, packed low bits first, and what they mean."""
    bits = 1 + exponent_bits + mantissa_bits
    codes = rng.integers(0, 2**bits, shape, dtype=np.uint8)
    scales = rng.integers(118, 124, (shape[0], shape[1] // 32), dtype=np.uint8)
    scales[0, 0], scales[1, -1] = 0, 2
    values = float_grid(exponent_bits, mantissa_bits)[codes] * np.repeat(2.0 ** (scales.astype(np.float64) - 127), 32, axis=1)
    stream = np.unpackbits(codes[..., None], axis=2, bitorder="little")[..., :bits].reshape(shape[0], -1)
    packed = np.packbits(stream, axis=1, bitorder="little")
    # float64 -> float32 is exact here, and the one rounding is to bfloat16
    return (torch.from_numpy(packed), torch.from_numpy(scales),
            torch.from_numpy(values.astype(np.float32)).bfloat16())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).resolve().parents[2] / "tests/data/packed")
    out = parser.parse_args().out
    rng = np.random.default_rng(3)

    def build(name, quantization, format_of):
        packed, decoded = plain_tensors(rng), {}
        decoded.update(packed)
        for module, shape in SHAPES.items():
            weight = torch.from_numpy(rng.standard_normal(shape).astype(np.float32) * 0.1).bfloat16()
            tensors, value = compress(format_of(module), weight)
            packed.update({f"{module}.{k}": v for k, v in tensors.items()})
            decoded[module + ".weight"] = value
        save(out / name, quantization, packed, decoded)

    for format_name, (_, bits, _) in COMPRESSORS.items():
        build("compressed_tensors_" + format_name.split("-")[0],
              compressed_tensors_config(format_name, {"group_0": group(bits, ["Linear"])}), lambda _, f=format_name: f)
    build("compressed_tensors_mixed",
          compressed_tensors_config("mixed-precision", {
              "group_0": group(8, ["re:.*self_attn.*"], "mxfp8-quantized"),
              "group_1": group(4, ["re:.*mlp.*"], "mxfp4-pack-quantized")}),
          lambda module: "mxfp8-quantized" if "self_attn" in module else "mxfp4-pack-quantized")
    build("modelopt_mxfp8", {"quant_method": "modelopt", "quant_algo": "MXFP8", "ignore": ["lm_head"],
                             "producer": {"name": "modelopt", "version": "0.40.0"}}, lambda _: "mxfp8-quantized")
    for dtype, bits in [("fp4", (2, 1)), ("fp6_e2m3", (2, 3)), ("fp6_e3m2", (3, 2))]:
        packed, decoded = plain_tensors(rng), {}
        decoded.update(packed)
        for module, shape in SHAPES.items():
            codes, scales, value = quark(rng, shape, *bits)
            if module.endswith("down_proj"):  # one that nobody reads as numbers
                scales[5, 0], value[5, :32] = 255, float("nan")
            packed[module + ".weight"], packed[module + ".weight_scale"] = codes, scales
            decoded[module + ".weight"] = value
        weight = {"dtype": dtype, "qscheme": "per_group", "group_size": 32, "ch_axis": -1, "scale_format": "e8m0",
                  "is_dynamic": False, "symmetric": None}
        save(out / ("quark_" + dtype), {
            "quant_method": "quark", "quant_mode": "eager_mode", "exclude": ["lm_head"], "layer_quant_config": {},
            "layer_type_quant_config": {}, "global_quant_config": {"weight": weight, "input_tensors": weight,
                                                                   "bias": None, "output_tensors": None},
            "export": {"pack_method": "reorder", "weight_format": "real_quantized", "kv_cache_group": []}},
             packed, decoded)


if __name__ == "__main__":
    main()
