#pragma once

#include <cstdint>
#include <vector>

#include "model/config.hpp"

namespace mxlm {

/// Rotary position embedding: which frequencies, and how they depend on the length of a window.
/// Source: transformers modeling_rope_utils.py (types default, linear, dynamic, llama3).
struct RopeSpec {
  enum class Type : uint8_t { standard, linear, dynamic, llama3 };
  Type type = Type::standard;
  int64_t dim = 0;  // rotary dimension of a head, even
  double theta = 10000;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_positions = 0;  // llama3: of pre-training; dynamic: the model's maximum positions

  /// Windows whose lengths have the same key share frequencies.
  [[nodiscard]] int64_t length_key(int64_t length) const;
  /// dim / 2 inverse frequencies for windows of this key, rounded to float32 where the reference rounds.
  [[nodiscard]] std::vector<float> inverse_frequencies(int64_t length_key) const;
};

/// Reads both the old (rope_theta, rope_scaling) and the new (rope_parameters) keys. Throws Error naming the key; an
/// unsupported type is named together with the supported ones.
RopeSpec parse_rope(const Config& config, int64_t head_dim, int64_t max_positions);

}  // namespace mxlm
