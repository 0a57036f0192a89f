// Norms of rows; included once for each instruction set.

/// 32 values of a row as two vectors: bfloat16s at even and at odd places, float32s one half after the other.
MXLM_OP Pair load_halves(const BFloat16* x, int64_t left) { return load_pair(lanes_left_32(left), x); }
MXLM_OP Pair load_halves(const float* x, int64_t left) {
  return {load(lanes_left(left), x), load(lanes_left(left - 16), x + 16)};
}
MXLM_OP void store_halves(BFloat16* y, int64_t left, const Pair& v) {
  store_pair(lanes_left_32(left), y, round_bf16_bits(v.even), round_bf16_bits(v.odd));
}
MXLM_OP void store_halves(float* y, int64_t left, const Pair& v) {
  store(lanes_left(left), y, v.even);
  store(lanes_left(left - 16), y + 16, v.odd);
}
/// `x` with zeros in the lanes that hold no value.
template <typename T>
MXLM_OP Pair keep_values(int64_t left, const Pair& x) {
  if constexpr (sizeof(T) == 2) return {keep(lanes(0, (left + 1) / 2), x.even), keep(lanes(0, left / 2), x.odd)};
  return {keep(lanes(0, left), x.even), keep(lanes(0, left - 16), x.odd)};
}

MXLM_OP float sum_of_pair(const Pair& x) {
  alignas(64) std::array<float, 2 * kLanes> lane;
  store(lane.data(), x.even);
  store(lane.data() + kLanes, x.odd);
  return sum_lanes(lane.data());
}

template <typename T>
MXLM_BODY Moments moments_of(const NormRow<T>& norm, const T* x, int64_t n) {
  Pair sum{zeros(), zeros()};
  const bool rms = norm.kind == NormKind::rms;
  for (int64_t i = 0; i < n; i += 32) {
    const Pair v = load_halves(x + i, n - i);
    sum.even = add(sum.even, rms ? mul(v.even, v.even) : v.even);  // not fused: the portable form's bits
    sum.odd = add(sum.odd, rms ? mul(v.odd, v.odd) : v.odd);
  }
  if (rms) return {0, 1.0F / std::sqrt(sum_of_pair(sum) / static_cast<float>(n) + norm.epsilon)};

  const float first = sum_of_pair(sum) / static_cast<float>(n);
  const Floats center = spread(first);
  sum = {zeros(), zeros()};
  Pair squares = sum;
  for (int64_t i = 0; i < n; i += 32) {
    const Pair v = load_halves(x + i, n - i);
    const Pair d = keep_values<T>(n - i, {sub(v.even, center), sub(v.odd, center)});
    sum = {add(sum.even, d.even), add(sum.odd, d.odd)};
    squares = {add(squares.even, mul(d.even, d.even)), add(squares.odd, mul(d.odd, d.odd))};
  }
  return layer_moments(first, sum_of_pair(sum), sum_of_pair(squares), n, norm.epsilon);
}

template <typename T>
MXLM_OP Floats rounded_to(Floats x) {
  if constexpr (sizeof(T) == 2) return truncate_bf16(round_bf16_bits(x));
  return x;
}

template <typename T>
MXLM_BODY void normalise(const NormRow<T>& norm, const T* x, int64_t n, T* y) {
  const Moments m = moments_of(norm, x, n);
  const Floats scale = spread(m.scale);
  if (rounds_twice(norm)) {
    for (int64_t i = 0; i < n; i += 32) {
      const Pair v = load_halves(x + i, n - i);
      const Pair w = load_halves(norm.weight + i, n - i);
      store_halves(y + i, n - i, {mul(rounded_to<T>(mul(v.even, scale)), w.even),
                                  mul(rounded_to<T>(mul(v.odd, scale)), w.odd)});
    }
    return;
  }
  const Floats mean = spread(norm.kind == NormKind::rms ? 0 : m.mean);  // x - 0 is x
  const Floats offset = spread(norm.weight_offset);
  for (int64_t i = 0; i < n; i += 32) {
    Pair v = load_halves(x + i, n - i);
    v = {mul(sub(v.even, mean), scale), mul(sub(v.odd, mean), scale)};
    if (norm.weight != nullptr) {
      const Pair w = load_halves(norm.weight + i, n - i);
      v = {mul(v.even, add(w.even, offset)), mul(v.odd, add(w.odd, offset))};
    }
    if (norm.bias != nullptr) {
      const Pair b = load_halves(norm.bias + i, n - i);
      v = {add(v.even, b.even), add(v.odd, b.odd)};
    }
    store_halves(y + i, n - i, v);
  }
}
