#!/usr/bin/env python3
"""Compares `mxlm cast` bit for bit with microxcaling (rule floor; PyTorch, CPU, float32) and torchao (rules floor, ceil,
even, rceil) on many hard values.

    python tools/check_mx_oracle.py --mxlm build/release/mxlm --microxcaling PATH --values 1000000000

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

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from mx_hard_values import hard_values, true_exponent

warnings.filterwarnings("ignore")

# ours: (microxcaling, torchao, largest exponent of the element, mantissa bits, largest element)
FORMATS = {
    "mxfp8_e4m3": ("fp8_e4m3", torch.float8_e4m3fn, 8, 3, 448.0),
    "mxfp8_e5m2": ("fp8_e5m2", torch.float8_e5m2, 15, 2, 57344.0),
    "mxfp6_e3m2": ("fp6_e3m2", "fp6_e3m2", 4, 2, 28.0),
    "mxfp6_e2m3": ("fp6_e2m3", "fp6_e2m3", 2, 3, 7.5),
    "mxfp4_e2m1": ("fp4_e2m1", getattr(torch, "float4_e2m1fn_x2", None), 2, 1, 6.0),
    "mxint8": ("int8", None, 0, 6, 127 / 64),
    "mxint4": ("int4", None, 0, 2, 7 / 4),
}
ROWS, COLS = 256, 4096


def cast(mxlm, folder, values, spec):
    """What the program under test makes of float32 [rows, cols]."""
    source, target = os.path.join(folder, "in.safetensors"), os.path.join(folder, "out.safetensors")
    if values is not None:
        save_file({"x": values}, source)
    command = [mxlm, "cast", source, "-o", target, "--threads", "1", "--format", spec]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load_file(target)["x"]


def blocks_of(x, block):
    """[rows, blocks, block], zero padded; block 0 is the row."""
    rows, cols = x.shape
    if block == 0:
        return x.reshape(rows, 1, cols)
    padded = np.zeros((rows, -(-cols // block) * block), dtype=x.dtype)
    padded[:, :cols] = x
    return padded.reshape(rows, -1, block)


def elements_of(mask, block, cols):
    """A mask per block as a mask per element."""
    width = cols if block == 0 else block
    return np.repeat(mask, width, axis=1)[:, :cols]


class Microxcaling:
    def __init__(self, path):
        sys.path.insert(0, path)
        from mx.formats import _get_format_params
        from mx.mx_ops import _quantize_mx, _reshape_to_blocks, _shared_exponents

        self.params, self.quantize = _get_format_params, _quantize_mx
        self.reshape, self.exponents = _reshape_to_blocks, _shared_exponents

    def run(self, x, name, block, scale_bits, rounding):
        element = FORMATS[name][0]
        return self.quantize(
            torch.from_numpy(x.copy()), scale_bits, element, axes=[-1], block_size=block, round=rounding
        ).numpy()

    def faults(self, x, name, block, scale_bits, rounding):
        """Masks [rows, cols] by kind of fault; each predicate says that a step of the oracle is inexact there."""
        ebits, mbits, emax, _, _ = self.params(FORMATS[name][0])
        cols = x.shape[1]
        a = torch.from_numpy(x.copy())
        if block > 0:
            a, axes, _, _ = self.reshape(a, [1], block)
            shared = self.exponents(a, axes=[axes[0] + 1])
        else:
            shared = self.exponents(a, axes=[1])
        shared = shared.numpy().reshape(x.shape[0], -1)
        amax = np.abs(blocks_of(x, block)).max(axis=2)  # NaN where one is inside
        finite = np.isfinite(amax)
        wrong = finite & (shared != true_exponent(np.where(finite, amax, 1)))
        # the fault is only ever: an amax just under a power of two, one too high
        k = true_exponent(np.where(finite, amax, 1))
        fraction = np.where(finite, amax, 1).astype(np.float64) / 2.0**k
        assert (~wrong | ((fraction > 2 - 2.0**-16) & (shared == k + 1))).all()
        faults = {"shared exponent from a rounded log2": elements_of(wrong, block, cols)}

        limit = 2 ** (scale_bits - 1) - 1
        e = np.maximum(shared - emax, -limit)
        if scale_bits == 16:
            faults["scale underflows float32"] = elements_of(finite & (e < -149), block, cols)
        with np.errstate(all="ignore"):
            scale = torch.exp2(torch.from_numpy(np.where(finite, e, 0).astype(np.float64))).numpy()
            v = np.abs(x.astype(np.float64)) / elements_of(scale, block, cols)
        if rounding == "floor":
            if ebits:
                v32 = torch.from_numpy(v.astype(np.float32))
                rounded = torch.floor(torch.log2(v32 + (v32 == 0))).numpy()
                own = np.where(v == 0, 0, np.frexp(v)[1] - 1)
                faults["element exponent from a rounded log2"] = rounded != own
        else:
            # |v| in quanta, one unit in the last place under a half: floor(|v| + 0.5) in float32 is 1
            quantum = 2.0 ** ((2 - 2 ** (ebits - 1) if ebits else 0) - (mbits - 2))
            steps = (v / quantum).astype(np.float32)
            faults["|v| + 0.5 rounds up to 1"] = (steps < 0.5) & (steps + np.float32(0.5) == 1)
        return faults


class Torchao:
    def __init__(self):
        from torchao.prototype.mx_formats.config import ScaleCalculationMode
        from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx

        self.to_mx, self.to_dtype = to_mx, to_dtype
        modes = ScaleCalculationMode
        self.modes = {"floor": modes.FLOOR, "ceil": modes.CEIL, "even": modes.EVEN, "rceil": modes.RCEIL}

    def run(self, x, name, block, rule):
        element = FORMATS[name][1]
        scale, data = self.to_mx(torch.from_numpy(x.copy()), element, block, self.modes[rule])
        return self.to_dtype(data, scale, element, block, torch.float32).numpy()

    def faults(self, x, name, block, rule):
        _, _, emax, mantissa, largest = FORMATS[name]
        cols = x.shape[1]
        amax = np.abs(blocks_of(x, block)).max(axis=2)
        faults = {"Inf saturates instead of spoiling its block": elements_of(np.isinf(amax), block, cols)}
        finite = np.where(np.isfinite(amax), amax, 1)
        k = true_exponent(finite)
        fraction = np.where(finite == 0, 1, finite.astype(np.float64) / 2.0**k)
        if rule == "floor":
            e = k
        elif rule == "ceil":
            e = k + (fraction != 1)
        elif rule == "even":
            e = k + (fraction + 2.0 ** -(mantissa + 1) >= 2)
        else:
            e = k + (fraction > largest / 2.0**emax)
            descale = torch.from_numpy(finite) / largest
            rounded = torch.ceil(torch.log2(descale)).numpy()
            wrong = np.isfinite(amax) & (amax > 0) & (rounded < e - emax) & (e - emax > -127)
            faults["ceil of a rounded log2"] = elements_of(wrong, block, cols)
        # its scale code 0 is not 2^-127 on both ways: to_mx divides by 2^-126 (rceil: by 1)
        faults["scale code 0"] = elements_of(np.isfinite(amax) & (e - emax <= -127), block, cols)
        return faults


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
