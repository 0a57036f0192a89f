#pragma once

// Quantising whole tensors, for arrays in memory and for files.

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

/// Stored values, f64, f32, f16 or bf16 at any alignment, in rows.
struct StoredRows {
  DType type = DType::f32;
  const std::byte* data = nullptr;
  int64_t rows = 0, cols = 0;
};

bool is_floating(DType type);

/// IEEE half of a float32, to nearest even; beyond its range Inf, NaN stays NaN.
uint16_t to_half(float x);

/// A tensor cut into pieces that threads take: whole rows, or parts of a long row that hold whole blocks and whole
/// bytes of codes. Pieces follow one another without gaps.
struct Pieces {
  int64_t rows = 1, cols = 1, length = 1, per_row = 1;

  Pieces(int64_t r, int64_t c, const mx::Format& format);
  [[nodiscard]] int64_t count() const { return rows * per_row; }
  [[nodiscard]] int64_t column(int64_t piece) const;
  /// Values before a piece.
  [[nodiscard]] int64_t begin(int64_t piece) const;
};

/// Quantises tensors in one format along their rows. Between pieces of work it throws Interrupted if that is asked for.
class Caster {
 public:
  /// Throws UsageError if the format is none of one tensor (`spec` names it).
  Caster(std::string_view spec, int threads);

  [[nodiscard]] const mx::Format& format() const { return format_; }
  /// Throws UsageError if codes with a scale a block cannot hold the format.
  void require_packable() const;

  /// Quantises and decodes into rows x cols values of f32, f16 or bf16; `out` may be in.data where types agree.
  void decode(const StoredRows& in, DType out_type, std::byte* out);
  /// The same, handed out in order, some megabytes at a time, as float32.
  void decode(const StoredRows& in, const std::function<void(std::span<const float>)>& sink);
  /// The codes, handed out in order; returns the scales.
  std::vector<uint8_t> pack(const StoredRows& in, const std::function<void(std::span<const uint8_t>)>& sink);

 private:
  /// Runs body(first piece of the batch, piece, values in it, values as float32) for every piece, in parallel, in
  /// batches; after each batch, done(its first piece, pieces in it).
  template <typename Body, typename Done>
  void for_pieces(const StoredRows& in, const Pieces& pieces, const Body& body, const Done& done);
  /// Values that a batch holds at most.
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
