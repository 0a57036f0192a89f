"""Values that quantisers get wrong: ties, edges of binades and blocks, every exponent, subnormals, Inf and NaN."""

import numpy as np

F32_BIAS = 127


def hard_values(rng, rows, cols, unit, exponents=(0, 254), specials=0.0):
    """float32 [rows, cols]. Each run of `unit` values of a row has a largest exponent drawn from `exponents` (biased), a
    kind of mantissa, and values that fall off below that exponent. `specials`: the share of Inf and NaN."""
    n = rows * cols
    unit = min(unit, cols)
    runs = rows * (-(-cols // unit))
    per_run = np.repeat(np.arange(runs).reshape(rows, -1), unit, axis=1)[:, :cols].reshape(-1)

    def spread(values):
        return values[per_run]

    top = spread(rng.integers(exponents[0], exponents[1] + 1, runs, dtype=np.int32))
    depth = spread(rng.choice(np.array([1, 2, 4, 8, 24, 40], dtype=np.int32), runs))
    fall = (rng.random(n, dtype=np.float32) ** 2 * depth).astype(np.int32)
    exponent = np.clip(top - fall, 0, 254).astype(np.uint32)

    bits = rng.integers(0, 1 << 32, n, dtype=np.uint32)
    mantissa = bits & 0x7FFFFF
    # 0: anything; 1..7: that many leading bits (ties); 8..: those bits and one unit in the last place more or less
    kind = spread(rng.integers(0, 14, runs, dtype=np.int32))
    leading = np.where(kind == 0, 23, np.where(kind < 8, kind, kind - 7)).astype(np.uint32)
    mantissa &= ~((np.uint32(1) << (23 - leading)) - np.uint32(1)) & np.uint32(0x7FFFFF)
    # subnormals of every size
    mantissa = np.where(exponent == 0, (mantissa | 0x800000) >> spread(rng.integers(1, 24, runs, dtype=np.uint32)), mantissa)
    magnitude = (exponent << 23) | mantissa
    nudge = np.where(kind >= 8, (bits >> 24 & 3).astype(np.int64) - 1, 0)  # -1, 0, 1, 2 units in the last place
    magnitude = np.clip(magnitude.astype(np.int64) + nudge, 0, 0x7F7FFFFF).astype(np.uint32)

    # zeros: a few anywhere, and whole runs
    zero = (bits >> 26 & 31) == 0
    zero |= spread(rng.random(runs) < 0.01)
    magnitude[zero] = 0
    if specials > 0:
        places = rng.random(n, dtype=np.float32) < specials
        magnitude[places] = np.where(bits[places] & 1, 0x7F800000, 0x7FC00000 | (bits[places] & 0x3FFFFF))
    sign = bits & 0x80000000
    return (sign | magnitude).view(np.float32).reshape(rows, cols)


def true_exponent(magnitude):
    """floor(log2(x)) of positive finite float32, exactly; 0 maps to -126 as in microxcaling."""
    exponent = np.frexp(magnitude.astype(np.float64))[1] - 1
    return np.where(magnitude == 0, -126, exponent)
