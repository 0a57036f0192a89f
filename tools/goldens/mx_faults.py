"""microxcaling and torchao as oracles for hard values, and exact predicates that say where each of them is at fault
(docs/numerics.md, "Where the oracles are wrong"). make_mx_goldens.py and checks/check_mx_oracle.py use them."""
import sys

import numpy as np
import torch

from mx_hard_values import true_exponent

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
