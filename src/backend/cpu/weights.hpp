#pragma once

// Weights of the CPU backend: panels ready for the matrix products, and codes with scales to keep between rounds.

#include <memory>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cpu/buffers.hpp"
#include "backend/cpu/gemm.hpp"
#include "base/parallel.hpp"

namespace mxlm::cpu {

/// What prepares weights: where they get memory and who does the work.
struct WeightMaker {
  Isa isa = Isa::portable;
  ThreadPool* pool = nullptr;
  BufferCache* buffers = nullptr;
};

/// Panels of a weight, and what its outputs are still to be multiplied by.
class Panels final : public PreparedWeight {
 public:
  Panels(PackedPanels packed, std::shared_ptr<void> memory, size_t bytes, std::vector<float> output_scales)
      : packed_(packed),
        memory_(std::move(memory)),
        bytes_(bytes + output_scales.size() * sizeof(float)),
        output_scales_(std::move(output_scales)) {}
  [[nodiscard]] int64_t rows() const override { return packed_.n; }
  [[nodiscard]] int64_t cols() const override { return packed_.k; }
  [[nodiscard]] size_t bytes() const override { return bytes_; }
  [[nodiscard]] DType storage() const override { return packed_.type; }
  [[nodiscard]] const PackedPanels& packed() const { return packed_; }
  /// [rows()] factors of the outputs, of formats whose float32 scales are apart from the values; null if there are
  /// none.
  [[nodiscard]] const float* output_scales() const { return output_scales_.empty() ? nullptr : output_scales_.data(); }

 private:
  PackedPanels packed_;
  std::shared_ptr<void> memory_;
  size_t bytes_;
  std::vector<float> output_scales_;
};

/// Codes and scales of every row, or, for formats that have none, the panels themselves.
class KeptCodes final : public KeptWeight {
 public:
  [[nodiscard]] size_t bytes() const override;

  int64_t rows = 0, cols = 0;
  std::shared_ptr<const PreparedWeight> prepared;  // if not null, that is all; else:
  mx::Format format;
  DType storage = DType::bf16;          // of the panels to make
  std::shared_ptr<void> codes, scales;  // [rows, code_bytes], [rows, block_scale_bytes]
  std::vector<float> output_scales;     // [rows], of formats with row scales
  /// Bytes of the scales of a row's blocks.
  [[nodiscard]] int64_t block_scale_bytes() const;
};

/// Quantises (where there is a spec) and lays out. The panels are bfloat16 if every value is one that the products take
/// as it is: a bfloat16 source without a spec, or a spec that decodes exactly and a weight without values so small that
/// they could be subnormal bfloat16s, which the processors' products take for zeros. Otherwise float32.
std::shared_ptr<const PreparedWeight> prepare_weight(const WeightMaker& maker, const HostMatrix& source,
                                                     const OperandSpec& spec);
std::shared_ptr<const KeptWeight> keep_weight(const WeightMaker& maker, const HostMatrix& source,
                                              const OperandSpec& spec);
std::shared_ptr<const PreparedWeight> prepare_kept(const WeightMaker& maker, const KeptCodes& kept);

}  // namespace mxlm::cpu
