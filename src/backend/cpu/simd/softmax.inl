// A block of an online softmax; included once for each instruction set.

/// Raises the maxima and sets the factors of all rows.
MXLM_OP void raise_maxima(const SoftmaxBlock& b) {
  for (int64_t i = 0; i < b.rows; ++i) {
    const int64_t visible = b.end(i);
    const float* s = b.scores + i * b.score_stride;
    Floats m0 = spread(-kInfinity);
    Floats m1 = m0;
    int64_t j = b.begin(i);
    for (; j + 32 <= visible; j += 32) {
      m0 = max_of(m0, load(s + j));
      m1 = max_of(m1, load(s + j + 16));
    }
    if (j + 16 <= visible) {
      m0 = max_of(m0, load(s + j));
      j += 16;
    }
    if (j < visible) m1 = blend(lanes(0, visible - j), max_of(m1, load(lanes_left(visible - j), s + j)), m1);
    b.factors[i] = max_of_lanes(max_of(m0, m1));
  }
  const Floats scale = spread(b.log2_scale);
  for (int64_t i = 0; i < b.rows; i += 16) {
    const Left left = lanes_left(b.rows - i);
    const Floats before = load(left, b.maximum + i);
    const Floats maximum = max_of(before, mul(load(left, b.factors + i), scale));
    const Mask started = not_equal(before, spread(-kInfinity));
    store(left, b.maximum + i, maximum);
    store(left, b.factors + i, keep(started, exp2_sum(sub(before, maximum))));
  }
}

/// The exponentials of one vector of scores; P in bfloat16 needs no more than exp2_coarse.
template <typename P>
MXLM_OP Floats probability(const float* s, Floats scale, Floats maximum) {
  const Floats x = fms(load(s), scale, maximum);
  if constexpr (sizeof(P) == sizeof(float)) return exp2_sum(x);
  return exp2_coarse(x);
}

MXLM_OP void store_probability(float* p, Floats e) { store(p, e); }
MXLM_OP void store_probability(BFloat16* p, Floats e) { store_bf16(lanes_left(16), p, round_bf16(e)); }

/// Columns [j, to) of a row, both multiples of 16, of which [begin, end) are visible: the partial vectors and the
/// zeros.
template <typename P>
MXLM_OP Floats masked_part(const float* s, P* p, int64_t j, int64_t to, int64_t begin, int64_t end, Floats scale,
                           Floats maximum, Floats sum) {
  for (; j < to; j += 16) {
    Floats e = zeros();
    if (j < end && j + 16 > begin) e = keep(lanes(begin - j, end - j), probability<P>(s + j, scale, maximum));
    sum = add(sum, e);
    store_probability(p + j, e);
  }
  return sum;
}

template <typename P>
MXLM_BODY void softmax_rows(const SoftmaxBlock& b) {
  raise_maxima(b);
  const Floats scale = spread(b.log2_scale);
  for (int64_t i = 0; i < b.rows; ++i) {
    const int64_t begin = b.begin(i);
    const int64_t end = b.end(i);
    const float* s = b.scores + i * b.score_stride;
    P* p = static_cast<P*>(b.p) + i * b.p_stride;
    const Floats maximum = spread(b.maximum[i]);
    float* sums = b.sums + i * kSumLanes;
    Floats sum = mul(load(sums), spread(b.factors[i]));
    int64_t j = round_up(begin, 16);
    sum = masked_part(s, p, 0, j, begin, end, scale, maximum, sum);
    for (; j + 16 <= end; j += 16) {
      const Floats e = probability<P>(s + j, scale, maximum);
      sum = add(sum, e);
      store_probability(p + j, e);
    }
    store(sums, masked_part(s, p, j, b.keys, begin, end, scale, maximum, sum));
  }
}

MXLM_BODY static void rescale_add_rows(int64_t rows, int64_t cols, const float* factors, const float* product,
                                       float* output) {
  for (int64_t i = 0; i < rows; ++i) {
    const Floats factor = spread(factors[i]);
    for (int64_t j = i * cols; j < (i + 1) * cols; j += 16) {
      store(output + j, fma(load(output + j), factor, load(product + j)));
    }
  }
}

template <typename T>
MXLM_BODY void divide_rows(int64_t rows, int64_t cols, const float* sums, const float* output, int64_t output_stride,
                           T* out, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    const Floats sum = spread(divisor(sum_of_lanes(load(sums + i * kSumLanes))));
    for (int64_t j = 0; j < cols; j += 16) {
      const Left left = lanes_left(cols - j);
      const Floats y = div(load(left, output + i * output_stride + j), sum);
      if constexpr (sizeof(T) == 2) {
        store_bf16(left, out + i * stride + j, round_bf16(y));
      } else {
        store(left, out + i * stride + j, y);
      }
    }
  }
}
