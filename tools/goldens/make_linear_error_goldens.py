#!/usr/bin/env python3
"""Writes tests/data/eval/linear_errors.json: what quantising does to the Linears and hidden states of a small model.

usage: make_linear_error_goldens.py --microxcaling FOLDER_OF_mx [-o OUT]

transformers runs tests/data/models/mlp_bias (float32, three layers) on random tokens; every replaced Linear reads and
multiplies what microxcaling made of its operands. NumPy computes the figures in float64:
  layers       SQNR and cosine of the hidden state against the baseline's, after attention and after the MLP
  linears      for weight and activation: SQNR, cosine, counts of elements saturated, flushed to zero and subnormal, the
               mean and the largest spread of shared exponents within a row; for the product its SQNR and cosine against
               the product of the same input and the weight as they are
  exponents    of the baseline: how many values have which floor(log2 |x|)
Shared exponents are floor(log2(largest magnitude)) - emax, by frexp. Made with the versions that are in the file.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

from mx_oracle import Microxcaling, free_head, role

ROOT = Path(__file__).resolve().parents[2]
# format -> (largest exponent, largest element, smallest normal exponent; None: integers have no subnormals)
ELEMENTS = {"mxfp8_e4m3": (8, 448.0, -6), "mxfp6_e2m3": (2, 7.5, 0), "mxfp4_e2m1": (2, 6.0, 0),
            "mxint8": (0, 2 - 2.0**-6, None)}
# variant -> role -> (format of weights, format of activations)
VARIANTS = {
    "linear=mxfp4@block=16/none": {r: ("mxfp4_e2m1", None) for r in ("attention", "mlp", "lm_head")},
    "attention=mxint8@block=16,mlp=mxfp8@block=16": {"attention": ("mxint8", "mxint8"), "mlp": ("mxfp8_e4m3", "mxfp8_e4m3")},
    "mlp=none/mxfp6_e2m3@block=16": {"mlp": (None, "mxfp6_e2m3")},
}
BLOCK = 16


def compared(reference, other):
    a, b = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    noise = ((b - a) ** 2).sum()
    return {"sqnr_db": None if noise == 0 else float(10 * np.log10((a**2).sum() / noise)),
            "cosine": float(a @ b / np.sqrt((a @ a) * (b @ b)))}


def operand(x, q, format):
    """Figures of rows x and what microxcaling made of them."""
    emax, largest, emin = ELEMENTS[format]
    x, q = x.astype(np.float64), q.astype(np.float64)
    out = compared(x, q)
    saturated = subnormal = 0
    spreads = []
    for row, done in zip(x, q):
        exponents = []
        for begin in range(0, len(row), BLOCK):
            block, result = np.abs(row[begin:begin + BLOCK]), np.abs(done[begin:begin + BLOCK])
            if block.max() == 0:
                continue
            e = int(np.frexp(block.max())[1]) - 1 - emax
            exponents.append(e)
            saturated += int((block > largest * 2.0**e).sum())
            if emin is not None:
                subnormal += int(((result > 0) & (result < 2.0 ** (e + emin))).sum())
        if exponents:
            spreads.append(max(exponents) - min(exponents))
    out.update(elements=x.size, saturated=saturated, flushed=int(((x != 0) & (q == 0)).sum()), subnormal=subnormal,
               spread_mean=float(np.mean(spreads)), spread_max=int(max(spreads)))
    return out


def histogram(x):
    x = x.astype(np.float64).ravel()
    exponents = np.frexp(np.abs(x[x != 0]))[1] - 1
    values, counts = np.unique(exponents, return_counts=True)
    return {"zeros": int((x == 0).sum()), "counts": {int(v): int(c) for v, c in zip(values, counts)}}


class Run:
    """The model under one policy, and what its Linears and hidden states were."""

    def __init__(self, folder, policy, oracle, windows):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        free_head(self.model)
        self.inputs, self.linears, self.states = {}, {}, []
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.Linear):
                self.replace(name, module, policy.get(role(name), (None, None)), oracle)
        with torch.no_grad():
            per_window = [self.run(window) for window in windows]
        self.states = [np.concatenate(parts) for parts in zip(*per_window)]

    def replace(self, name, module, formats, oracle):
        weights, activations = formats
        w = module.weight.detach().clone()
        qw = w if weights is None else oracle.quantize(w, weights, block=BLOCK)
        seen = self.inputs[name] = {"w": w.numpy(), "qw": qw.numpy(), "x": [], "qx": []}

        def forward(x):
            qx = x if activations is None else oracle.quantize(x.contiguous(), activations, block=BLOCK)
            seen["x"].append(x[0].numpy())
            seen["qx"].append(qx[0].numpy())
            return torch.nn.functional.linear(qx, qw, module.bias)

        module.forward = forward
        self.linears[name] = formats

    def run(self, window):
        """Hidden states after each attention and each MLP."""
        states, hooks = [], []
        for layer in self.model.model.layers:
            hooks.append(layer.post_attention_layernorm.register_forward_pre_hook(
                lambda m, args: states.append(args[0][0].numpy())))
            hooks.append(layer.register_forward_hook(
                lambda m, args, out: states.append((out[0] if isinstance(out, tuple) else out).reshape(
                    len(window), -1).numpy())))
        self.model(torch.tensor([window]))
        for hook in hooks:
            hook.remove()
        return states

    def figures(self):
        out = {}
        for name, (weights, activations) in self.linears.items():
            if weights is None and activations is None:
                continue
            seen = self.inputs[name]
            x, qx = np.concatenate(seen["x"]), np.concatenate(seen["qx"])
            w, qw = seen["w"], seen["qw"]
            product = compared(x.astype(np.float64) @ w.T.astype(np.float64),
                               qx.astype(np.float64) @ qw.T.astype(np.float64))
            out[name] = {"weight": None if weights is None else operand(w, qw, weights),
                         "activation": None if activations is None else operand(x, qx, activations),
                         "output": product}
        return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--microxcaling", required=True, help="folder that holds microxcaling's `mx` package")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "tests/data/eval/linear_errors.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    folder = ROOT / "tests/data/models/mlp_bias"
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    rng = np.random.default_rng(20241103)
    windows = [rng.integers(0, vocabulary, n).tolist() for n in (40, 23, 2)]
    oracle = Microxcaling(args.microxcaling)
    baseline = Run(folder, {}, oracle, windows)
    variants = []
    for name, policy in VARIANTS.items():
        run = Run(folder, policy, oracle, windows)
        layers = [compared(a, b) for a, b in zip(baseline.states, run.states)]
        variants.append({"variant": name, "layers": layers, "linears": run.figures()})
    exponents = {name: {"weight": histogram(seen["w"]), "activation": histogram(np.concatenate(seen["x"]))}
                 for name, seen in baseline.inputs.items()}
    made_with = (f"transformers {transformers.__version__}, torch {torch.__version__}, numpy {np.__version__}, "
                 "microxcaling 7bc41952")
    args.out.write_text(json.dumps({"made_with": made_with, "model": folder.name, "windows": windows,
                                    "variants": variants, "exponents": exponents}) + "\n")


if __name__ == "__main__":
    main()
