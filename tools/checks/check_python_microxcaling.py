#!/usr/bin/env python3
"""Compares mxlm.quantize with microxcaling, bit for bit, on torch tensors in one process.

usage: check_python_microxcaling.py MICROXCALING     the folder that holds its package `mx`

Needs torch and mxlm (PYTHONPATH=build/release/python); prints their versions. Random tensors of several shapes, scales and dtypes, in every OCP format, with several block sizes, scale bits and
roundings. (float16 inputs are compared by their float32 values, as microxcaling computes in the tensor's dtype.)
"""

import itertools
import sys

import torch

import mxlm

FORMATS = {
    "mxfp8_e4m3": "fp8_e4m3",
    "mxfp8_e5m2": "fp8_e5m2",
    "mxfp6_e3m2": "fp6_e3m2",
    "mxfp6_e2m3": "fp6_e2m3",
    "mxfp4_e2m1": "fp4_e2m1",
    "mxint8": "int8",
    "mxint4": "int4",
}


def tensors():
    generator = torch.Generator().manual_seed(0)
    for shape in ((32,), (7, 33), (64, 96), (3, 5, 100), (2, 1, 4, 257)):
        for scale in (1.0, 1e-4, 300.0):
            x = torch.randn(shape, generator=generator) * scale
            yield x
            yield x * torch.exp2(torch.randint(-20, 20, shape, generator=generator).float())
    yield torch.zeros(4, 64)
    yield torch.full((4, 64), -0.5)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.path.insert(0, sys.argv[1])
    from mx.mx_ops import _quantize_mx

    print(f"torch {torch.__version__}, mxlm {mxlm.__version__}")
    compared = calls = 0
    inputs = list(tensors())
    for (ours, theirs), block, bits, rounding in itertools.product(
        FORMATS.items(), (0, 8, 16, 32, 64), (8, 6), ("even", "nearest", "floor")
    ):
        spec = f"{ours}@block={block}@scale_bits={bits}@round={rounding}"
        for x in inputs:
            expected = _quantize_mx(
                x, bits, theirs, shared_exp_method="max", axes=[-1], block_size=block, round=rounding
            )
            got = mxlm.quantize(x, spec)
            same = (got == expected) | (got.isnan() & expected.isnan())
            if not same.all():
                at = (~same).nonzero()[0]
                sys.exit(f"{spec} {tuple(x.shape)} at {at.tolist()}: {x[tuple(at)]} {got[tuple(at)]} {expected[tuple(at)]}")
            compared += x.numel()
            calls += 1
            for dtype in (torch.bfloat16, torch.float16):
                small = x.to(dtype)
                again = mxlm.quantize(small, spec)
                assert again.dtype == dtype
                assert torch.equal(again, mxlm.quantize(small.float(), spec).to(dtype)) or again.isnan().any(), spec
    print(f"{compared} values in {calls} tensors: all the same bits (zeros by value)")


if __name__ == "__main__":
    main()
