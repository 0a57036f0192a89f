#pragma once

// Quantises whole tensors, for arrays in memory and for files.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "backend/cpu/quantize.hpp"
#include "backend/cpu/reference_formats.hpp"
#include "base/parallel.hpp"
#include "tensor/dtype.hpp"

namespace mxlm {

/// Rows of stored values of type f64, f32, f16 or bf16, at any alignment.
struct StoredRows {
  DType type = DType::f32;
  const std::byte* data = nullptr;
  int64_t rows = 0, cols = 0;
};

bool is_floating(DType type);

/// Rounds a float32 to an IEEE half, to nearest even. Values outside the range become Inf; NaN stays NaN.
uint16_t to_half(float x);

/// A tensor cut into pieces, which are the units of work of threads. A piece is a whole row, or a part of a long row
/// with whole blocks and whole bytes of codes. Pieces follow one another without gaps.
struct Pieces {
  int64_t rows = 1, cols = 1, length = 1, per_row = 1;

  Pieces(int64_t r, int64_t c, const mx::Format& format);
  [[nodiscard]] int64_t count() const { return rows * per_row; }
  [[nodiscard]] int64_t column(int64_t piece) const;
  /// The number of values before a piece.
  [[nodiscard]] int64_t begin(int64_t piece) const;
};

/// Quantises tensors in one format along their rows. Throws Interrupted between batches if an interrupt was requested.
class Caster {
 public:
  /// `spec` is the text of the format. Throws UsageError if it is not a format of one tensor.
  Caster(std::string_view spec, int threads);

  [[nodiscard]] const mx::Format& format() const { return format_; }
  /// Throws UsageError if the format cannot be stored as codes with one scale per block.
  void require_packable() const;

  /// Quantises and decodes into rows x cols values of f32, f16 or bf16. `out` may be in.data if the types are equal.
  void decode(const StoredRows& in, DType out_type, std::byte* out);
  /// The same as float32; `sink` receives the values in order, some megabytes at a time.
  void decode(const StoredRows& in, const std::function<void(std::span<const float>)>& sink);
  /// Quantises to codes, which `sink` receives in order. Returns the scales.
  std::vector<uint8_t> pack(const StoredRows& in, const std::function<void(std::span<const uint8_t>)>& sink);

 private:
  /// Calls body(first piece of the batch, piece, number of values, values as float32) for every piece, batch by batch
  /// and in parallel within a batch. Calls done(first piece, number of pieces) after each batch.
  template <typename Body, typename Done>
  void for_pieces(const StoredRows& in, const Pieces& pieces, const Body& body, const Done& done);
  /// The most values of a batch.
  [[nodiscard]] static int64_t batch_values(const Pieces& pieces);
  void find_tensor_scale(const StoredRows& in);
  void quantize(const float* values, int64_t n, float* out) const;

  std::string spec_;
  mx::Format format_;
  cpu::OuterScale tensor_scale_;
  cpu::Isa isa_;
  ThreadPool pool_;
};

}  // namespace mxlm
