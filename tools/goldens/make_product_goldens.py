#!/usr/bin/env python3
"""Make tests/data/backend/mx_product_*.safetensors: one layer's MX products, in float64, from real operands.

usage: make_product_goldens.py --microxcaling FOLDER_OF_mx [-o tests/data/backend]

The operands are what a Linear of booklet-7m's layer 4 sees on the start of Alice (float32 forward) and rows of its
weight: down_proj (K = 704), gate_proj (K = 256), and down_proj cut to K = 77, which ends in a short block. Each file has
  x F32 [M, K], w F32 [N, K]      the operands, not quantised
  y.FORMAT F64 [M, N]             sum_k q(x)_mk q(w)_nk in float64: exact products of microxcaling's quantised operands
                                  (floor scales, rounding even, block 32)
  abs.FORMAT F64 [M, N]           sum_k |q(x)_mk q(w)_nk|, the scale of the error a float32 accumulation may have
Refuses operands that meet one of microxcaling's known faults (an amax just under a power of two, an element one ulp
under half of the smallest step), so every difference is ours.
Made with transformers 5.23.0, torch 2.15.0 (CPU), microxcaling 7bc41952.
"""
import argparse
import math
from pathlib import Path

import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from mx_oracle import FORMATS, Microxcaling

ROOT = Path(__file__).resolve().parents[2]
LAYER, TOKENS, ROWS, COLUMNS = 4, 256, 24, 40
# format -> (largest exponent, smallest step), of microxcaling's table
ELEMENTS = {"mxfp8_e4m3": (8, 2.0**-9), "mxfp8_e5m2": (15, 2.0**-16), "mxfp6_e3m2": (4, 2.0**-4),
            "mxfp6_e2m3": (2, 2.0**-3), "mxfp4_e2m1": (2, 2.0**-1), "mxint8": (0, 2.0**-6)}


def check_faultless(x, format):
    emax, step = ELEMENTS[format]
    blocks = torch.nn.functional.pad(x, (0, -x.shape[-1] % 32)).unflatten(-1, (-1, 32))
    amax = blocks.abs().amax(-1, keepdim=True)
    exact = torch.frexp(amax).exponent - 1
    assert bool((torch.floor(torch.log2(amax))[amax > 0] == exact[amax > 0]).all()), format
    v = blocks.abs().double() / 2.0 ** (exact - emax)
    assert not bool((v == math.nextafter(step / 2, 0)).any()), format
    assert not bool((v.float() == torch.nextafter(torch.tensor(step / 2), torch.tensor(0.0))).any()), format


def capture(name):
    """Input rows (spread over the text) of one Linear in the float32 model, and its weight."""
    model = AutoModelForCausalLM.from_pretrained(ROOT / "models/booklet-7m", dtype=torch.float32).eval()
    tokenizer = tokenizers.Tokenizer.from_file(str(ROOT / "models/booklet-7m/tokenizer.json"))
    text = (ROOT / "data/alice.txt").read_bytes().decode("utf-8")
    ids = tokenizer.encode(text[:4000]).ids[:TOKENS]
    seen = {}
    module = model.get_submodule(f"model.layers.{LAYER}.mlp.{name}")
    hook = module.register_forward_hook(lambda m, args, out: seen.update(x=args[0][0].detach().clone()))
    with torch.no_grad():
        model(torch.tensor([ids]))
    hook.remove()
    return seen["x"][:: TOKENS // ROWS][:ROWS], module.weight.detach()[:COLUMNS].clone()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--microxcaling", required=True, help="folder that holds microxcaling's `mx` package")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "tests/data/backend")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    oracle = Microxcaling(args.microxcaling)
    args.out.mkdir(parents=True, exist_ok=True)
    down, gate = capture("down_proj"), capture("gate_proj")
    for name, (x, w) in {"down_704": down, "gate_256": gate, "down_77": (down[0][:, :77], down[1][:, :77])}.items():
        tensors = {"x": x.contiguous(), "w": w.contiguous()}
        for format in FORMATS:
            check_faultless(x, format)
            check_faultless(w, format)
            qx, qw = (oracle.quantize(t.contiguous(), format).double() for t in (x, w))
            tensors[f"y.{format}"] = qx @ qw.T
            tensors[f"abs.{format}"] = qx.abs() @ qw.abs().T
            own = (qx.float() @ qw.float().T).double()
            share = ((own - tensors[f"y.{format}"]).abs() / tensors[f"abs.{format}"]).max().item()
            print(f"{name:9} {format:11} torch float32: max |y - y64| / sum |a w| = {share * 2**24:.3f} x 2^-24")
        path = args.out / f"mx_product_{name}.safetensors"
        save_file(tensors, path, {"transformers": transformers.__version__, "torch": torch.__version__,
                                  "microxcaling": "7bc41952"})
        path.chmod(0o644)


if __name__ == "__main__":
    main()
