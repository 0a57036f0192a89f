#!/usr/bin/env python3
"""Writes tests/data/outputs/goldens.safetensors: float32 logits with the outputs of Linears quantised.

    python tools/goldens/make_output_goldens.py --microxcaling PATH [-o tests/data/outputs/goldens.safetensors]

The model is tests/data/models/attention_bias (so that the place of the bias shows). As the prototype's --quantize_outputs
does it, each Linear of attention and MLP gets its weight and input quantised along the last axis (floor scales, rounding
even, block 32), F.linear in float32, the bias, and its output quantised the same way. Tensors: `tokens` I64 [tokens],
`baseline` F32 [tokens, vocabulary], `weights.FORMAT` with weights alone, and for each format `outputs.FORMAT` with weights
and outputs, `all.FORMAT` with weights, inputs and outputs.
Made with transformers 5.23.0, torch 2.15.0 (CPU), microxcaling 7bc41952."""

import argparse
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

from mx_oracle import Microxcaling, quantize_weights, role

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("mxint8", "mxfp8_e4m3", "mxfp4_e2m1")


def logits(tokens, oracle=None, format=None, inputs=False, outputs=False):
    model = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "tests/data/models/attention_bias",
                                                              dtype=torch.float32).eval()
    if oracle is not None:
        quantize_weights(model, oracle, format)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and role(name) != "lm_head":
            if inputs:
                module.register_forward_pre_hook(lambda m, a: (oracle.quantize(a[0].contiguous(), format),))
            if outputs:
                module.register_forward_hook(lambda m, a, y: oracle.quantize(y.contiguous(), format))
    with torch.no_grad():
        return model(tokens[None]).logits[0].contiguous()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--microxcaling", required=True, help="folder that holds microxcaling's `mx` package")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "tests/data/outputs/goldens.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    oracle = Microxcaling(args.microxcaling)
    config = transformers.AutoConfig.from_pretrained(ROOT / "tests/data/models/attention_bias")
    tokens = torch.randint(0, config.vocab_size, (24,), generator=torch.Generator().manual_seed(7))
    tensors = {"tokens": tokens, "baseline": logits(tokens)}
    for format in FORMATS:
        tensors[f"weights.{format}"] = logits(tokens, oracle, format)
        tensors[f"outputs.{format}"] = logits(tokens, oracle, format, outputs=True)
        tensors[f"all.{format}"] = logits(tokens, oracle, format, inputs=True, outputs=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out)
    args.out.chmod(0o644)


if __name__ == "__main__":
    main()
