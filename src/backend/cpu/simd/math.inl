// Exponentials of 16 lanes (vector_math.hpp says how exact); included once for each instruction set.

/// e^r - 1 for |r| <= ln 2 / 32, within 3e-9 absolutely: Taylor, the fourth power folded into the second.
MXLM_OP Floats expm1_small(Floats r) {
  const Floats c = fma(r, spread(1.0F / 6), spread(0.5F + 1.955e-5F));
  return fma(mul(r, r), c, r);
}

/// e^x in the lanes of `kept` and +0 in the others; the kept x are in (-110, 100) or NaN.
MXLM_OP Floats exp_in_range(Mask kept, Floats x) {
  const Floats magic = spread(detail::kSixteenthsMagic);
  const Floats shifted = fma(x, spread(kLog2e), magic);
  const Floats n = sub(shifted, magic);
  Floats r = fnma(n, spread(detail::kLn2), x);
  r = fnma(n, spread(detail::kLn2Low), r);
  const Floats t = sixteenth_power(shifted);
  return keep(kept, times_power(fma(t, expm1_small(r), t), n));
}

/// e^x.
MXLM_OP Floats exp(Floats x) {
  return exp_in_range(not_less(x, spread(detail::kExpLowest)), min_of(spread(detail::kExpHighest), x));
}

/// e^x for x <= 0 or NaN: exp without the care for overflow.
MXLM_OP Floats exp_nonpositive(Floats x) { return exp_in_range(not_less(x, spread(detail::kExpLowest)), x); }

/// 2^y for y <= 0.
MXLM_OP Floats exp2_sum(Floats y) {
  const Floats magic = spread(detail::kSixteenthsMagic);
  const Floats shifted = add(y, magic);
  const Floats n = sub(shifted, magic);
  const Floats r = sub(y, n);
  const Floats t = sixteenth_power(shifted);
  // 2^r - 1 = r (ln2 + r (ln2^2/2 + r ln2^3/6)), |r| <= 1/32, the fourth power folded into the second
  Floats q = fma(r, spread(0x1.c6b08ep-5F), spread(0.2402265070F + 9.3924e-6F));
  q = fma(q, r, spread(0x1.62e430p-1F));
  q = mul(q, r);
  return times_power(fma(t, q, t), n);
}

/// 2^x for x <= 0, 0 for -inf, within 9e-5 of its value, for results that are rounded to bfloat16 at once (which adds
/// up to 4e-3): a cubic on [0, 1) that minimises the largest relative error and is exactly 1 at 0.
MXLM_OP Floats exp2_coarse(Floats x) {
  const Floats f = fraction(x);
  Floats y = fma(f, spread(0x1.3baaa6p-4F), spread(0x1.d2378ap-3F));
  y = fma(y, f, spread(0x1.63e658p-1F));
  y = fma(y, f, spread(1.0F));
  return times_power(y, x);
}

/// x / (1 + e^-x).
MXLM_OP Floats silu(Floats x) {
  // e = e^-|x| does not overflow: x / (1 + e) or x * e / (1 + e). The divider works beside the other units, so that a
  // division costs less than an estimate and its refinement.
  const Floats minus_abs = bit_or(x, spread(-0.0F));
  const Floats e = exp_in_range(not_less(minus_abs, spread(-detail::kExpOverflow)), minus_abs);
  return div(blend(less(x, zeros()), mul(x, e), x), add(e, spread(1.0F)));
}

/// 1 / (1 + e^-x).
MXLM_OP Floats sigmoid(Floats x) {
  const Floats one = spread(1.0F);
  return div(one, add(one, exp(sub(zeros(), x))));
}

/// erfc z for z >= 0.
MXLM_OP Floats erfc(Floats z) {
  const Floats one = spread(1.0F);
  const Floats t = div(one, fma(spread(detail::kErfcStep), z, one));
  Floats p = spread(detail::kErfc[0]);
#pragma GCC unroll 8
  for (int i = 1; i < 9; ++i) p = fma(p, t, spread(detail::kErfc[i]));
  return mul(mul(p, t), exp_nonpositive(sub(zeros(), mul(z, z))));
}

/// tanh x.
MXLM_OP Floats tanh(Floats x) {
  const Floats sign = spread(-0.0F);
  const Floats one = spread(1.0F);
  const Floats z = mul(x, x);
  Floats p = fma(spread(detail::kTanh4), z, spread(detail::kTanh3));
  p = fma(p, z, spread(detail::kTanh2));
  p = fma(p, z, spread(detail::kTanh1));
  p = fma(p, z, spread(detail::kTanh0));
  const Floats small = fma(mul(p, z), x, x);
  // 1 - 2 e / (1 + e) with e = e^-2|x|, which does not overflow
  const Floats e = exp_nonpositive(mul(bit_or(x, sign), spread(2.0F)));
  const Floats ratio = div(add(e, e), add(e, one));
  const Floats large = bit_or(sub(one, ratio), bit_and(x, sign));
  return blend(less(and_not(sign, x), spread(detail::kTanhSmall)), small, large);
}
