// Transforms of scores and logits; included once for each instruction set.

template <bool capped, bool sloped>
MXLM_BODY void transform_values(const Row& row, int64_t n, float* x) {
  const Floats inner = spread(row.inner);
  const Floats limit = spread(row.limit);
  const Floats slope = spread(row.slope);
  Floats distance = add(spread(row.distance), places());
  for (int64_t j = 0; j < n; j += 16) {
    const Left left = lanes_left(n - j);
    Floats v = mul(load(left, x + j), inner);
    if constexpr (capped) v = mul(tanh(v), limit);
    if constexpr (sloped) {
      v = fma(slope, distance, v);
      distance = add(distance, spread(16));
    }
    store(left, x + j, v);
  }
}

MXLM_BODY static void transform(const Row& row, int64_t n, float* x) {
  if (row.slope == 0) {
    return row.limit == 0 ? transform_values<false, false>(row, n, x) : transform_values<true, false>(row, n, x);
  }
  row.limit == 0 ? transform_values<false, true>(row, n, x) : transform_values<true, true>(row, n, x);
}
