#!/usr/bin/env python3
"""Compares `mxlm cast` bit for bit with microxcaling (rule floor; PyTorch, CPU, float32) and torchao (rules floor, ceil,
even, rceil) on many hard values.

    python tools/checks/check_mx_oracle.py --mxlm build/release/mxlm --microxcaling PATH --values 1000000000

Needs torch, torchao, numpy, safetensors and a clone of github.com/microsoft/microxcaling. Differences are allowed only
where an exact predicate says that the oracle is at fault (docs/numerics.md, "Where the oracles are wrong"); those are
counted by kind. +0 equals -0, and NaN equals NaN. Exit code 1 if anything else differs."""

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))
from mx_faults import FORMATS, Microxcaling, Torchao  # noqa: E402
from mx_hard_values import hard_values  # noqa: E402

warnings.filterwarnings("ignore")

ROWS, COLS = 256, 4096


def cast(mxlm, folder, values, spec):
    """What the program under test makes of float32 [rows, cols]."""
    source, target = os.path.join(folder, "in.safetensors"), os.path.join(folder, "out.safetensors")
    if values is not None:
        save_file({"x": values}, source)
    command = [mxlm, "cast", source, "-o", target, "--threads", "1", "--format", spec]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load_file(target)["x"]


class Count:
    def __init__(self):
        self.values = self.blocks = 0
        self.differences = collections.Counter()
        self.unexplained = 0

    def compare(self, what, x, ours, theirs, faults):
        self.values += x.size
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        if same.all():
            return
        different = ~same
        for kind, mask in faults().items():
            explained = different & mask
            self.differences[kind] += int(explained.sum())
            different &= ~mask
        if different.any():
            self.unexplained += int(different.sum())
            row, col = np.argwhere(different)[0]
            print(f"DIFFERS {what} at [{row}, {col}]: {float(x[row, col]).hex()} ours {ours[row, col]!r} "
                  f"theirs {theirs[row, col]!r} ({int(different.sum())} values)", flush=True)

    def report(self, name):
        print(f"{name}: {self.values:,} values, {self.unexplained} unexplained differences")
        for kind, n in self.differences.most_common():
            print(f"    {n:>12,}  {kind}")


def draw(rng, chunk, scale_bits):
    """One array of hard values; what is hard about it goes round."""
    unit = int(rng.choice([8, 16, 32, 40, 64, 256, COLS]))
    if scale_bits < 8 or chunk % 3 == 0:
        exponents = (100, 150)  # everyday values, and the ends of 4 to 6 scale bits
    else:
        exponents = [(0, 254), (10, 254), (0, 2), (60, 200), (0, 60), (200, 254)][chunk // 3 % 6]
    specials = 1e-4 if chunk % 4 == 0 else 0.0
    cols = COLS if chunk % 2 else COLS - int(rng.integers(1, 64))  # short last blocks
    return hard_values(rng, ROWS, cols, unit, exponents, specials)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mxlm", required=True, help="the program under test")
    parser.add_argument("--microxcaling", required=True, help="folder of its clone")
    parser.add_argument("--values", type=float, default=1e9, help="comparisons in all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    microxcaling, torchao = Microxcaling(options.microxcaling), Torchao()
    mx_count, ao_count = Count(), Count()
    blocks = [32, 8, 16, 0, 64, 24, 128, 256, 100]
    bits = [8, 16, 8, 4, 8, 5, 8, 6]
    started, chunk = time.time(), 0
    with tempfile.TemporaryDirectory() as folder:
        while mx_count.values + ao_count.values < options.values:
            scale_bits = bits[chunk % len(bits)]
            x = draw(rng, chunk, scale_bits)
            block = blocks[chunk % len(blocks)]
            source = x
            for name in FORMATS:
                for rounding in ("even", "nearest", "floor"):
                    spec = f"{name}@block={block}@scale_bits={scale_bits}@round={rounding}"
                    ours = cast(options.mxlm, folder, source, spec)
                    source = None  # the file is there
                    theirs = microxcaling.run(x, name, block, scale_bits, rounding)
                    mx_count.compare(spec, x, ours, theirs,
                                     lambda: microxcaling.faults(x, name, block, scale_bits, rounding))
            block = blocks[chunk % len(blocks)] if blocks[chunk % len(blocks)] in (8, 16, 32, 64, 128, 256) else 32
            x = np.ascontiguousarray(x[:, : x.shape[1] // block * block])
            source = x
            for name, (_, element, *_rest) in FORMATS.items():
                if element is None:
                    continue
                for rule in torchao.modes:
                    spec = f"{name}@block={block}@rule={rule}"
                    ours = cast(options.mxlm, folder, source, spec)
                    source = None
                    theirs = torchao.run(x, name, block, rule)
                    ao_count.compare(spec, x, ours, theirs, lambda: torchao.faults(x, name, block, rule))
            chunk += 1
            if chunk % 5 == 0:
                done = mx_count.values + ao_count.values
                print(f"{done:,} values, {time.time() - started:.0f} s", file=sys.stderr, flush=True)
    import torchao as ao

    print(f"torch {torch.__version__}, torchao {ao.__version__}, seed {options.seed}")
    mx_count.report("microxcaling (floor; even, nearest, floor)")
    ao_count.report("torchao (floor, ceil, even, rceil; even)")
    return 1 if mx_count.unexplained + ao_count.unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
