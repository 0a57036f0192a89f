#pragma once

// Checkpoints with weights in Microscaling formats: reads quantization_config, and decodes weights from codes and
// scales exactly. Layouts: compressed-tensors (mxfp4-pack-quantized, mxfp6-pack-quantized, mxfp8-quantized), NVIDIA
// ModelOpt (MXFP8), AMD Quark (fp4, fp6), and transformers' mxfp4 (gpt-oss). In each layout the codes of a row begin
// with the low bits, and every 32 values share an E8M0 scale.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/safetensors.hpp"
#include "model/config.hpp"
#include "mx/format.hpp"
#include "tensor/dtype.hpp"

namespace mxlm {

/// A weight [rows, cols] in codes and scales. The entries keep their files mapped.
struct PackedWeight {
  mx::ElementFormat element;
  int64_t rows = 0, cols = 0;
  TensorEntry codes, scales;  // [rows, bytes of a row's codes], [rows, cols / 32]

  /// Bits per element, including scales.
  [[nodiscard]] double bits() const;
  /// Writes the values, [rows, cols]; a block of scale 255 is NaN. Exact, except for values below bfloat16's smallest.
  void decode(BFloat16* out) const;
};

/// The formats that a checkpoint's quantization_config declares. The tensors themselves show which weights are in
/// codes, so the lists of modules (`ignore`, `targets`) are not needed.
class PackedFormats {
 public:
  /// nullopt if there is no quantization_config. Throws Error for methods and formats that cannot be read, with the
  /// reason and the readable ones.
  static std::optional<PackedFormats> read(const Config& config);

  /// The weight of a Linear, from MODULE.weight_packed or MODULE.weight, and MODULE.weight_scale; nullopt if
  /// MODULE.weight holds plain numbers or is missing. Throws Error if the tensors fit no declared format.
  [[nodiscard]] std::optional<PackedWeight> weight(const Checkpoint& checkpoint, const std::string& module,
                                                   int64_t rows, int64_t cols) const;
  /// Part `index` of TENSOR_blocks [parts, rows, cols / 32, 16] with TENSOR_scales [parts, rows, cols / 32]; nullopt if
  /// there is no TENSOR_blocks.
  [[nodiscard]] std::optional<PackedWeight> part(const Checkpoint& checkpoint, const std::string& tensor, int64_t parts,
                                                 int64_t index, int64_t rows, int64_t cols) const;

 private:
  [[nodiscard]] const mx::ElementFormat& element_of(const TensorEntry& codes, const std::string& name, int64_t rows,
                                                    int64_t cols) const;

  std::string config_name_;
  std::vector<mx::ElementFormat> elements_;  // declared, each once
};

}  // namespace mxlm
