// Activation functions; included once for each instruction set. `bf16`: rounded to bfloat16 wherever the portable form
// is.

template <bool bf16>
MXLM_OP Floats held(Floats x) {
  if constexpr (bf16) return truncate_bf16(round_bf16_bits(x));
  return x;
}

MXLM_OP Floats times(Floats x, float factor) { return mul(x, spread(factor)); }

/// act(x) before its last rounding.
template <Activation activation, bool bf16>
MXLM_OP Floats activate(Floats x) {
  if constexpr (activation == Activation::silu) {
    return silu(x);
  } else if constexpr (activation == Activation::gelu_tanh) {
    const Floats cubic = times(mul(mul(x, x), x), 0.044715F);
    return mul(x, sigmoid(times(add(x, cubic), 2 * kSqrt2OverPi)));
  } else if constexpr (activation == Activation::gelu_erf) {
    const Floats tail = times(erfc(times(and_not(spread(-0.0F), x), kInverseSqrt2)), 0.5F);
    return mul(x, blend(less(x, zeros()), tail, sub(spread(1.0F), tail)));
  } else if constexpr (activation == Activation::gelu_new) {
    const Floats cube = held<bf16>(mul(held<bf16>(mul(x, x)), x));
    const Floats inner = held<bf16>(add(x, held<bf16>(times(cube, 0.044715F))));
    const Floats t = held<bf16>(tanh(held<bf16>(times(inner, kSqrt2OverPi))));
    return mul(held<bf16>(times(x, 0.5F)), held<bf16>(add(spread(1.0F), t)));
  } else if constexpr (activation == Activation::quick_gelu) {
    return mul(x, held<bf16>(sigmoid(held<bf16>(times(x, 1.702F)))));
  } else {
    const Floats positive = blend(less(x, zeros()), zeros(), x);  // passes NaN on
    return activation == Activation::relu ? positive : mul(positive, positive);
  }
}

/// act(gate) * up before its last rounding.
template <Activation activation, bool bf16>
MXLM_OP Floats gate_value(Floats gate, Floats up, Floats limit) {
  if constexpr (activation == Activation::swiglu_oai) {
    gate = min_of(limit, gate);  // the second operand where it is NaN
    up = max_of(sub(zeros(), limit), min_of(limit, up));
    const Floats glu = mul(gate, held<bf16>(sigmoid(held<bf16>(times(gate, 1.702F)))));
    return mul(held<bf16>(add(up, spread(1.0F))), held<bf16>(glu));
  } else {
    return mul(held<bf16>(activate<activation, bf16>(gate)), up);
  }
}

template <Activation activation>
MXLM_BODY void activation_of_row(const BFloat16* x, int64_t n, BFloat16* y) {
  for (int64_t i = 0; i < n; i += 32) {
    const Left32 left = lanes_left_32(n - i);
    const Pair v = load_pair(left, x + i);
    store_pair(left, y + i, round_bf16_bits(activate<activation, true>(v.even)),
               round_bf16_bits(activate<activation, true>(v.odd)));
  }
}

template <Activation activation>
MXLM_BODY void activation_of_row(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += 16) {
    const Left left = lanes_left(n - i);
    store(left, y + i, activate<activation, false>(load(left, x + i)));
  }
}

template <Activation activation>
MXLM_BODY void gate_row(const GatedArgs& args, const BFloat16* gate, const BFloat16* up, int64_t n, BFloat16* y) {
  const Floats limit = held<true>(spread(limit_of(args)));
  if (args.interleaved) {  // a pair's even places are the gate
    for (int64_t i = 0; i < n; i += 16) {
      const Pair v = load_pair(lanes_left_32(2 * (n - i)), gate + 2 * i);
      store_bf16(lanes_left(n - i), y + i, round_bf16_bits(gate_value<activation, true>(v.even, v.odd, limit)));
    }
    return;
  }
  for (int64_t i = 0; i < n; i += 32) {
    const Left32 left = lanes_left_32(n - i);
    const Pair g = load_pair(left, gate + i);
    const Pair u = load_pair(left, up + i);
    store_pair(left, y + i, round_bf16_bits(gate_value<activation, true>(g.even, u.even, limit)),
               round_bf16_bits(gate_value<activation, true>(g.odd, u.odd, limit)));
  }
}

template <Activation activation>
MXLM_BODY void gate_row(const GatedArgs& args, const float* gate, const float* up, int64_t n, float* y) {
  const Floats limit = spread(limit_of(args));
  for (int64_t i = 0; i < n; i += 16) {
    const Left left = lanes_left(n - i);
    const Pair v =
        args.interleaved ? load_split(2 * (n - i), gate + 2 * i) : Pair{load(left, gate + i), load(left, up + i)};
    store(left, y + i, gate_value<activation, false>(v.even, v.odd, limit));
  }
}
