#pragma once

// Weights in device memory, and the kernels that make them.

#include <memory>

#include "backend/backend.hpp"
#include "backend/cuda/runtime.hpp"

namespace mxlm::cuda {

/// How a weight is laid out for its products.
enum class Layout : uint8_t {
  bf16,    // [N, K] bfloat16: every value is one
  split,   // [N, 3 K] bfloat16: w = sum of its three parts, the smallest first ([w2 | w1 | w0])
  halves,  // [N, 3 K] float16: w = 2^e (h0 + h1) with an e a row, as [2^-5 h0 | 2^5 h1 | h0]
  folded,  // [N, K] E4M3 codes with a float32 scale a row: the block scales are folded into the elements
  native,  // [N, K] E4M3 codes with the blocks' E8M0 scales (native.hpp)
};

/// [N, K] ready to multiply with; K is padded with zeros to padded(K).
class Weight final : public PreparedWeight {
 public:
  [[nodiscard]] int64_t rows() const override { return n; }
  [[nodiscard]] int64_t cols() const override { return k; }
  [[nodiscard]] size_t bytes() const override { return size; }
  [[nodiscard]] DType storage() const override {
    return layout == Layout::split || layout == Layout::halves ? DType::f32 : DType::bf16;
  }
  [[nodiscard]] std::string route() const override;

  /// True for FP8 codes, whose scales are in their products.
  [[nodiscard]] bool fast() const { return layout == Layout::folded || layout == Layout::native; }

  Layout layout = Layout::bf16;
  int64_t n = 0, k = 0;
  int64_t stride = 0;                          // elements between rows: padded(k), 3 * padded(k) if split or halves
  size_t size = 0;                             // bytes of device memory
  std::shared_ptr<void> values;                // device
  std::shared_ptr<float> scales;               // device, [N] factors of the outputs; null if there are none
  std::shared_ptr<float> fold_scales;          // folded: device, [N]
  std::shared_ptr<void> block_scales;          // native: device, as scale_layout.hpp has them
  std::shared_ptr<float> powers;               // halves: device, [N] the 2^e
  mutable std::shared_ptr<const Weight> wide;  // in bfloat16 (of halves: split), once a product has needed it
};

/// A weight as codes and block scales (mx::keeps_codes), or the prepared form itself.
class Kept final : public KeptWeight {
 public:
  [[nodiscard]] size_t bytes() const override { return prepared ? prepared->bytes() : size; }
  std::shared_ptr<const PreparedWeight> prepared;  // if not null, that is all; else:
  mx::Format format;
  int64_t n = 0, k = 0;
  size_t size = 0;
  std::shared_ptr<void> codes;   // device, [N, mx::packed_bytes(element, K)] rows packed as in mx/quantize.hpp
  std::shared_ptr<void> scales;  // device, [N, mx::block_count(format, K)] E8M0 codes
};

// --- kernels (weights.cu). Everything is bit-exact with mx/quantize.hpp and mx/reference_format.hpp. Rows of `out` are
// zero from
//     their last column to their stride.

/// `in` (f32, f16 or bf16) quantised along its rows and decoded into `out` (bf16 or f32) without the row scales, which
/// go to `row_scales` ([rows], for formats that have them, else null). For formats that look at a whole tensor
/// `scratch` has 8 bytes that are used on the way. LLM.int8 has no outliers in a weight.
void quantize_matrix(const mx::Format& format, const View& in, const View& out, float* row_scales, void* scratch,
                     cudaStream_t stream);
/// `in` (f32, f16 or bf16) converted to `out`'s type, to nearest even.
void convert_matrix(const View& in, const View& out, cudaStream_t stream);
/// Codes and block scales of `in` (block formats of at most 8 bits), as Kept has them.
void encode_matrix(const mx::Format& format, const View& in, void* codes, void* scales, cudaStream_t stream);
/// The values of codes and scales as bfloat16.
void decode_matrix(const mx::Format& format, const void* codes, const void* scales, const View& out,
                   cudaStream_t stream);
/// The three bfloat16 parts of f32 values: x = x0 + x1 + x2 up to 2^-25 |x|; `out` is [rows, 3 * part] and holds them
/// as [x2 | x1 | x0] (`smallest_first`, a weight) or [x0 | x1 | x2] (an operand), each padded with zeros to `part`
/// columns. NaN and Inf stay what they are in x0 and are zero in the others.
void split_matrix(const View& in, const View& out, int64_t part, bool smallest_first, cudaStream_t stream);
/// Two float16 parts of values and a power of two a row: x = powers[row] (h0 + h1) up to 2^-23 |x| or 2^-44 of the
/// row's largest magnitude, whichever is more. `out` is [rows, 3 * part] and holds [2^-5 h0 | 2^5 h1 | h0] (`weight`)
/// or [2^5 h1 | 2^-5 h0 | h0] (an operand), each padded with zeros to `part` columns, a multiple of kRowStep. A row
/// with a NaN or Inf is all zeros with the power NaN.
void halve_matrix(const View& in, const View& out, float* powers, int64_t part, bool weight, cudaStream_t stream);
/// The sums of the parts of a weight as float32, exactly.
void join_halves(const View& in, const float* powers, int64_t part, const View& out, cudaStream_t stream);

}  // namespace mxlm::cuda
