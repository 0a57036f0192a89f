#pragma once

// Sixteen float32 lanes in memory, in plain C++: the names of avx512.hpp for processors without FMA, where a fused
// product rounds twice.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "backend/cpu/vector_math.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu::portable {

#define MXLM_PORTABLE_OP __attribute__((always_inline)) static inline

struct Floats {
  float lane[16];
};
struct Ints {
  uint32_t lane[16];
};
struct Mask {
  bool lane[16];
};
struct Left {
  int64_t count;
};
struct Left32 {
  int64_t count;
};

/// The lanes that f gives, f(i) being lane i.
template <typename V = Floats, typename F>
MXLM_PORTABLE_OP V each(const F& f) {
  V out;
  for (int i = 0; i < 16; ++i) out.lane[i] = f(i);
  return out;
}

MXLM_PORTABLE_OP Left lanes_left(int64_t left) { return {std::clamp<int64_t>(left, 0, 16)}; }
MXLM_PORTABLE_OP Left32 lanes_left_32(int64_t left) { return {std::clamp<int64_t>(left, 0, 32)}; }

MXLM_PORTABLE_OP Floats spread(float x) {
  return each([=](int) { return x; });
}
MXLM_PORTABLE_OP Floats zeros() { return {}; }
MXLM_PORTABLE_OP Floats places() {
  return each([](int i) { return static_cast<float>(i); });
}
MXLM_PORTABLE_OP Floats load(const float* x) {
  return each([=](int i) { return x[i]; });
}
MXLM_PORTABLE_OP Floats load(Left left, const float* x) {
  if (left.count == 16) return load(x);
  Floats out{};
  std::copy_n(x, left.count, out.lane);
  return out;
}
MXLM_PORTABLE_OP void store(float* x, const Floats& v) { std::copy_n(v.lane, 16, x); }
MXLM_PORTABLE_OP void store(Left left, float* x, const Floats& v) { std::copy_n(v.lane, left.count, x); }

#define MXLM_LANES(type, name, expression)                \
  MXLM_PORTABLE_OP type name {                            \
    return each<type>([&](int i) { return expression; }); \
  }
MXLM_LANES(Floats, add(const Floats& a, const Floats& b), a.lane[i] + b.lane[i])
MXLM_LANES(Floats, sub(const Floats& a, const Floats& b), a.lane[i] - b.lane[i])
MXLM_LANES(Floats, mul(const Floats& a, const Floats& b), a.lane[i] * b.lane[i])
MXLM_LANES(Floats, div(const Floats& a, const Floats& b), a.lane[i] / b.lane[i])
MXLM_LANES(Floats, fma(const Floats& a, const Floats& b, const Floats& c), a.lane[i] * b.lane[i] + c.lane[i])
MXLM_LANES(Floats, fms(const Floats& a, const Floats& b, const Floats& c), a.lane[i] * b.lane[i] - c.lane[i])
MXLM_LANES(Floats, fnma(const Floats& a, const Floats& b, const Floats& c), c.lane[i] - a.lane[i] * b.lane[i])
MXLM_LANES(Floats, min_of(const Floats& a, const Floats& b), a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i])
MXLM_LANES(Floats, max_of(const Floats& a, const Floats& b), a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i])
MXLM_LANES(Floats, and_not(const Floats& a, const Floats& b),
           std::bit_cast<float>(~std::bit_cast<uint32_t>(a.lane[i]) & std::bit_cast<uint32_t>(b.lane[i])))
MXLM_LANES(Mask, less(const Floats& a, const Floats& b), a.lane[i] < b.lane[i])
MXLM_LANES(Mask, not_less(const Floats& a, const Floats& b), !(a.lane[i] < b.lane[i]))
MXLM_LANES(Mask, not_equal(const Floats& a, const Floats& b), a.lane[i] != b.lane[i])
MXLM_LANES(Floats, blend(const Mask& m, const Floats& yes, const Floats& no), m.lane[i] ? yes.lane[i] : no.lane[i])
MXLM_LANES(Floats, keep(const Mask& m, const Floats& x), m.lane[i] ? x.lane[i] : 0.0F)
MXLM_LANES(Mask, lanes(int64_t begin, int64_t end), i >= begin && i < end)

MXLM_PORTABLE_OP bool any(const Mask& m) {
  bool out = false;
  for (const bool lane : m.lane) out |= lane;
  return out;
}
template <typename F>
MXLM_PORTABLE_OP float fold(Floats x, const F& f) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) x.lane[i] = f(x.lane[i + width], x.lane[i]);
  }
  return x.lane[0];
}
MXLM_PORTABLE_OP float sum_of_lanes(const Floats& x) {
  return fold(x, [](float a, float b) { return a + b; });
}
MXLM_PORTABLE_OP float max_of_lanes(const Floats& x) {
  return fold(x, [](float a, float b) { return a > b ? a : b; });
}

MXLM_LANES(Floats, exp2_sum(const Floats& y), exp2_sum_portable(y.lane[i]))
MXLM_LANES(Floats, exp2_coarse(const Floats& y), exp2_sum_portable(y.lane[i]))
MXLM_LANES(Floats, silu(const Floats& x), silu_portable(x.lane[i]))
MXLM_LANES(Floats, sigmoid(const Floats& x), sigmoid_portable(x.lane[i]))
MXLM_LANES(Floats, erfc(const Floats& z), erfc_portable(z.lane[i]))
MXLM_LANES(Floats, tanh(const Floats& x), tanh_portable(x.lane[i]))

// --- bfloat16

MXLM_PORTABLE_OP Floats load_bf16(Left left, const BFloat16* x) {
  Floats out{};
  for (int64_t i = 0; i < left.count; ++i) out.lane[i] = to_float(x[i]);
  return out;
}
MXLM_LANES(Ints, round_bf16(const Floats& x), static_cast<uint32_t>(to_bfloat16(x.lane[i]).bits) << 16)
MXLM_PORTABLE_OP Ints round_bf16_bits(const Floats& x) { return round_bf16(x); }
MXLM_LANES(Floats, truncate_bf16(const Ints& bits), std::bit_cast<float>(bits.lane[i] & 0xffff0000U))
MXLM_PORTABLE_OP void store_bf16(Left left, BFloat16* out, const Ints& bits) {
  for (int64_t i = 0; i < left.count; ++i) out[i].bits = static_cast<uint16_t>(bits.lane[i] >> 16);
}

struct Pair {
  Floats even, odd;
};
MXLM_PORTABLE_OP Pair load_pair(Left32 left, const BFloat16* x) {
  Pair out{};
  for (int64_t i = 0; i < left.count; ++i) (i % 2 == 0 ? out.even : out.odd).lane[i / 2] = to_float(x[i]);
  return out;
}
MXLM_PORTABLE_OP void store_pair(Left32 left, BFloat16* out, const Ints& even, const Ints& odd) {
  for (int64_t i = 0; i < left.count; ++i) {
    out[i].bits = static_cast<uint16_t>((i % 2 == 0 ? even : odd).lane[i / 2] >> 16);
  }
}
MXLM_PORTABLE_OP Pair load_split(int64_t left, const float* x) {
  Pair out{};
  for (int64_t i = 0; i < std::min<int64_t>(left, 32); ++i) (i % 2 == 0 ? out.even : out.odd).lane[i / 2] = x[i];
  return out;
}
MXLM_PORTABLE_OP void store_split(int64_t left, float* x, const Pair& v) {
  for (int64_t i = 0; i < std::min<int64_t>(left, 32); ++i) x[i] = (i % 2 == 0 ? v.even : v.odd).lane[i / 2];
}

#undef MXLM_LANES

}  // namespace mxlm::cpu::portable
