#include "backend/cuda/products.hpp"

#include <algorithm>
#include <cassert>
#include <vector>

#include "backend/cuda/scale_layout.hpp"

namespace mxlm::cuda {
namespace {

/// The deepest part of a sum of bfloat16 parts' products; parts are summed in float32.
constexpr int64_t kDepth = 1024;

/// The same for float16 parts. Tensor cores cut their sum off every 16 products, which takes half a unit from its
/// magnitude on average, so a part of depth d loses d / 32 units. Float32 arithmetic rounds either way, so K
/// operations lose about 0.3 sqrt(K) units of a sum that grows: the losses are alike if d is about 16 sqrt(K).
int64_t depth_of_halves(int64_t k) {
  int64_t parts = 1;
  while (256 * parts * parts < k) ++parts;
  return padded((k + parts - 1) / parts);
}

/// A part of a product: `depth` columns of both sides from these on.
struct Term {
  int64_t x = 0, w = 0, depth = 0;
};

/// Smallest parts first, so that their sum is not lost.
std::vector<Term> terms_of(int x_parts, int w_parts, int64_t k) {
  if (x_parts == 1 && w_parts == 1) return {{0, 0, k}};
  if (w_parts == 1) return {{2 * k, 0, k}, {k, 0, k}, {0, 0, k}};
  if (x_parts == 1) return {{0, 0, k}, {0, k, k}, {0, 2 * k, k}};
  // [x0 | x1 | x2] [w2 | w1 | w0]: x0 w2 + x1 w1 + x2 w0, then x0 w1 + x1 w0, then x0 w0.
  return {{0, 0, 3 * k}, {0, k, 2 * k}, {0, 2 * k, k}};
}

/// [x1 | x0 | x0] [w0 | w1 | w0]: the small products and a part of x0 w0 in one sum, then the rest of it.
std::vector<Term> terms_of_halves(int64_t k) {
  const int64_t depth = depth_of_halves(k);
  std::vector<Term> terms{{0, 0, 2 * k + std::min(depth, k)}};
  for (int64_t at = depth; at < k; at += depth) terms.push_back({2 * k + at, 2 * k + at, std::min(depth, k - at)});
  return terms;
}

int parts_of(const Weight& w) { return w.layout == Layout::split || w.layout == Layout::halves ? 3 : 1; }

DType type_of(Layout layout) {
  if (layout == Layout::folded || layout == Layout::native) return DType::f8_e4m3;
  return layout == Layout::halves ? DType::f16 : DType::bf16;
}

}  // namespace

Factor Products::factor(const Tensor& values) {
  if (values.dtype() == DType::bf16) {
    return {.memory = nullptr,
            .data = values.data(),
            .type = DType::bf16,
            .rows = values.rows(),
            .stride = values.stride(),
            .parts = 1,
            .powers = nullptr};
  }
  const int64_t part = padded(values.cols());
  Factor out{.memory = memory_.allocate(std::max<size_t>(static_cast<size_t>(values.rows() * 3 * part) * 2, 1)),
             .data = nullptr,
             .type = DType::bf16,
             .rows = values.rows(),
             .stride = 3 * part,
             .parts = 3,
             .powers = nullptr};
  out.data = out.memory.get();
  split_matrix(
      view(values),
      {.data = out.memory.get(), .type = DType::bf16, .rows = values.rows(), .cols = 3 * part, .stride = 3 * part},
      part, /*smallest_first=*/false, stream_);
  return out;
}

Factor Products::halves(const Tensor& values) {
  assert(values.dtype() == DType::f32);
  const int64_t part = padded(values.cols());
  const auto bytes = static_cast<size_t>(values.rows() * 3 * part) * 2;  // a multiple of 128: powers behind are aligned
  Factor out{
      .memory = memory_.allocate(std::max<size_t>(bytes + static_cast<size_t>(values.rows()) * sizeof(float), 1)),
      .data = nullptr,
      .type = DType::f16,
      .rows = values.rows(),
      .stride = 3 * part,
      .parts = 3,
      .powers = nullptr};
  out.data = out.memory.get();
  auto* powers = reinterpret_cast<float*>(static_cast<std::byte*>(out.memory.get()) + bytes);
  out.powers = powers;
  halve_matrix(
      view(values),
      {.data = out.memory.get(), .type = DType::f16, .rows = values.rows(), .cols = 3 * part, .stride = 3 * part},
      powers, part, /*weight=*/false, stream_);
  return out;
}

Factor Products::scaled(const Tensor& codes, const Tensor& scales) {
  return {.memory = nullptr,
          .data = codes.data(),
          .type = codes.dtype(),
          .rows = codes.rows(),
          .stride = codes.stride(),
          .parts = 1,
          .scale_mode = scales.dtype() == DType::f8_e8m0 ? ScaleMode::blocks : ScaleMode::rows,
          .scales = scales.data(),
          .powers = nullptr};
}

bool Products::single(const Factor& x, const Weight& w) const {
  return x.parts == 1 && parts_of(w) == 1 && !(reversed_ && padded(w.k) > kRowStep);
}

void Products::multiply(const Factor& x, int64_t first_row, const Weight& w, int64_t first, const void* bias,
                        const View& out) {
  const bool native = w.layout == Layout::native;
  const int w_parts = parts_of(w);
  const int64_t k = native ? w.k : padded(w.k);  // no block beyond the last has a scale
  const bool halves = w.layout == Layout::halves;
  std::vector<Term> terms = halves ? terms_of_halves(k) : terms_of(x.parts, w_parts, k);
  if (!halves && terms.size() > 1) {
    // Sums of the tensor cores lose a little at every step; float32 additions between parts of them keep that small.
    const Term last = terms.back();
    terms.pop_back();
    for (int64_t at = 0; at < last.depth; at += kDepth) {
      terms.push_back({last.x + at, last.w + at, std::min(kDepth, last.depth - at)});
    }
  }
  if (reversed_) {
    std::vector<Term> smaller;
    for (const Term& term : terms) {
      const int64_t front = padded(term.depth / 2);
      if (front < term.depth) smaller.push_back({term.x + front, term.w + front, term.depth - front});
      smaller.push_back({term.x, term.w, std::min(front, term.depth)});
    }
    terms = std::move(smaller);
  }
  assert(terms.size() == 1 || (out.type == DType::f32 && bias == nullptr));
  const DType w_type = type_of(w.layout);
  assert((w_type == DType::bf16) == (x.type == DType::bf16) && (w_type == DType::f16) == (x.type == DType::f16));
  assert(native == (x.scale_mode == ScaleMode::blocks));
  const auto size = static_cast<int64_t>(dtype_size(w_type));
  const auto* x_data = static_cast<const std::byte*>(x.data) + first_row * x.stride * size;
  const auto* w_data = static_cast<const std::byte*>(w.values.get()) + first * w.stride * size;
  const auto* x_scales = static_cast<const std::byte*>(x.scales);
  const auto* w_scales = reinterpret_cast<const std::byte*>(w.fold_scales.get());
  if (native) {
    assert(first_row % kScaleTileRows == 0 && first % kScaleTileRows == 0);  // scales lie in tiles
    x_scales += scale_bytes(first_row, k / kScaledBlock);
    w_scales = static_cast<const std::byte*>(w.block_scales.get()) + scale_bytes(first, k / kScaledBlock);
  } else if (x.scale_mode == ScaleMode::rows) {
    x_scales += first_row * static_cast<int64_t>(sizeof(float));
    w_scales += first * static_cast<int64_t>(sizeof(float));
  }
  for (size_t t = 0; t < terms.size(); ++t) {
    gemm_.run({.x = x_data + terms[t].x * size,
               .w = w_data + terms[t].w * size,
               .out = out.data,
               .x_type = x.type,
               .w_type = w_type,
               .out_type = out.type,
               .m = out.rows,
               .n = out.cols,
               .k = terms[t].depth,
               .x_stride = x.stride,
               .w_stride = w.stride,
               .out_stride = out.stride,
               .bias = bias,
               .scale_mode = x.scale_mode,
               .x_scales = x_scales,
               .w_scales = w_scales,
               .add = t > 0},
              stream_);
  }
}

}  // namespace mxlm::cuda
