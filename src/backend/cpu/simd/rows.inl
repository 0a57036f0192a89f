// Elementwise operations of rows; included once for each instruction set.

/// A vector of a row, and back. What may be rounded are values that came from a row alone or with a finite factor: NaNs
/// of any payload where the row is float32.
MXLM_OP Floats load_row(Left left, const BFloat16* x) { return load_bf16(left, x); }
MXLM_OP Floats load_row(Left left, const float* x) { return load(left, x); }
MXLM_OP void store_row(Left left, BFloat16* x, Floats v) { store_bf16(left, x, round_bf16(v)); }
MXLM_OP void store_row(Left left, float* x, Floats v) { store(left, x, v); }
template <typename T>
MXLM_OP Floats as_stored(Floats v) {
  if constexpr (sizeof(T) == 2) return truncate_bf16(round_bf16(v));
  return v;
}

/// Pairs that lie `half` apart; products are rounded to the tables' type.
template <typename T, typename Table>
MXLM_BODY void rotate_halves(const Rotation& r, T* x, const Table* cos, const Table* sin) {
  for (int i = 0; i < r.half; i += 16) {
    const Left left = lanes_left(r.half - i);
    const Floats c = load_row(left, cos + i);
    const Floats s = load_row(left, sin + i);
    for (int h = 0; h < r.heads; ++h) {
      T* first = x + static_cast<int64_t>(h) * r.head_stride + i;
      T* second = first + r.half;
      const Floats a = load_row(left, first);
      const Floats b = load_row(left, second);
      store_row(left, first, sub(as_stored<Table>(mul(a, c)), as_stored<Table>(mul(b, s))));
      store_row(left, second, add(as_stored<Table>(mul(b, c)), as_stored<Table>(mul(a, s))));
    }
  }
}

/// Bits of round(round(a c) +- round(b s)).
MXLM_OP Ints turn(Floats a, Floats c, Floats b, Floats s) {
  return round_bf16_bits(add(truncate_bf16(round_bf16_bits(mul(a, c))), truncate_bf16(round_bf16_bits(mul(b, s)))));
}
MXLM_OP Ints turn_back(Floats a, Floats c, Floats b, Floats s) {
  return round_bf16_bits(sub(truncate_bf16(round_bf16_bits(mul(a, c))), truncate_bf16(round_bf16_bits(mul(b, s)))));
}

/// The same for bfloat16s alone, 32 at a time, which round without care for NaNs.
MXLM_BODY static void rotate_halves(const Rotation& r, BFloat16* x, const BFloat16* cos, const BFloat16* sin) {
  for (int i = 0; i < r.half; i += 32) {
    const Left32 left = lanes_left_32(r.half - i);
    const Pair c = load_pair(left, cos + i);
    const Pair s = load_pair(left, sin + i);
    for (int h = 0; h < r.heads; ++h) {
      BFloat16* first = x + static_cast<int64_t>(h) * r.head_stride + i;
      BFloat16* second = first + r.half;
      const Pair a = load_pair(left, first);
      const Pair b = load_pair(left, second);
      store_pair(left, first, turn_back(a.even, c.even, b.even, s.even), turn_back(a.odd, c.odd, b.odd, s.odd));
      store_pair(left, second, turn(b.even, c.even, a.even, s.even), turn(b.odd, c.odd, a.odd, s.odd));
    }
  }
}

/// 16 pairs that lie side by side, and back.
MXLM_OP Pair load_pairs(int64_t left, const BFloat16* x) { return load_pair(lanes_left_32(2 * left), x); }
MXLM_OP Pair load_pairs(int64_t left, const float* x) { return load_split(2 * left, x); }
MXLM_OP void store_pairs(int64_t left, BFloat16* x, const Pair& v) {
  store_pair(lanes_left_32(2 * left), x, round_bf16(v.even), round_bf16(v.odd));
}
MXLM_OP void store_pairs(int64_t left, float* x, const Pair& v) { store_split(2 * left, x, v); }

template <typename T, typename Table>
MXLM_BODY void rotate(const Rotation& r, T* x, const Table* cos, const Table* sin) {
  if (!r.interleaved) return rotate_halves(r, x, cos, sin);
  for (int i = 0; i < r.half; i += 16) {
    const int64_t count = r.half - i;
    const Floats c = load_row(lanes_left(count), cos + i);
    const Floats s = load_row(lanes_left(count), sin + i);
    for (int h = 0; h < r.heads; ++h) {
      T* at = x + static_cast<int64_t>(h) * r.head_stride + 2 * i;
      const Pair v = load_pairs(count, at);
      store_pairs(count, at,
                  {sub(as_stored<Table>(mul(v.even, c)), as_stored<Table>(mul(v.odd, s))),
                   add(as_stored<Table>(mul(v.odd, c)), as_stored<Table>(mul(v.even, s)))});
    }
  }
}

/// sum + bias, rounded; times the multiplier, rounded; + residual, rounded. The sums may hold NaNs of any payload.
template <typename T>
MXLM_BODY void finish_values(const float* sum, const float* bias, float multiplier, const T* residual, int64_t n,
                             T* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const Left left = lanes_left(n - i);
    Floats v = load(left, sum + i);
    if (bias != nullptr) v = add(v, load(left, bias + i));
    v = as_stored<T>(v);
    if (multiplier != 1) v = as_stored<T>(mul(v, spread(multiplier)));
    if (residual != nullptr) v = add(load_row(left, residual + i), v);
    store_row(left, out + i, v);
  }
}

template <typename A, typename T>
MXLM_BODY void add_values(const A* a, const T* b, float multiplier, int64_t n, T* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const Left left = lanes_left(n - i);
    Floats v = load_row(left, a + i);
    if constexpr (!std::is_same_v<A, T>) v = as_stored<T>(v);
    if (multiplier != 1) v = as_stored<T>(mul(v, spread(multiplier)));
    store_row(left, out + i, add(v, load_row(left, b + i)));
  }
}

template <typename T>
MXLM_BODY void scale_values(float multiplier, int64_t n, T* x) {
  for (int64_t i = 0; i < n; i += 16) {
    const Left left = lanes_left(n - i);
    store_row(left, x + i, mul(load_row(left, x + i), spread(multiplier)));
  }
}

template <typename T>
MXLM_BODY void clamp_values(float limit, int64_t n, T* x) {
  for (int64_t i = 0; i < n; i += 16) {
    const Left left = lanes_left(n - i);
    store_row(left, x + i, max_of(spread(-limit), min_of(spread(limit), load_row(left, x + i))));  // pass NaN on
  }
}

template <typename T>
MXLM_BODY void accumulate_values(const T* y, float weight, int64_t n, float* sum) {
  for (int64_t i = 0; i < n; i += 16) {
    const Left left = lanes_left(n - i);
    store(left, sum + i, add(load(left, sum + i), mul(load_row(left, y + i), spread(weight))));
  }
}
