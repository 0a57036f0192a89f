#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "model/config.hpp"

namespace mxlm {

/// Rotary position embedding: which frequencies, and how they depend on the length of a window.
/// Source: transformers modeling_rope_utils.py (types default, linear, dynamic, llama3,
/// longrope, yarn).
struct RopeSpec {
  enum class Type : uint8_t { standard, linear, dynamic, llama3, longrope, yarn };
  Type type = Type::standard;
  int64_t dim = 0;  // rotary dimension of a head, even
  double theta = 10000;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_positions = 0;               // of pre-training; dynamic: the model's maximum positions
  std::vector<double> short_factors, long_factors;  // longrope: [dim / 2], for windows up to / beyond the original
  double beta_fast = 32, beta_slow = 1;             // yarn
  bool truncate = true;                             // yarn: the ramp begins and ends at whole dimensions
  double attention_factor = 1;                      // of cos and sin
  bool float32_tables = false;                      // cos and sin are not rounded to the model dtype
  bool interleaved = false;                         // pairs (2i, 2i + 1) instead of (i, i + dim / 2)

  /// Windows whose lengths have the same key share frequencies.
  [[nodiscard]] int64_t length_key(int64_t length) const;
  /// dim / 2 inverse frequencies for windows of this key, rounded to float32 where the reference rounds.
  [[nodiscard]] std::vector<float> inverse_frequencies(int64_t length_key) const;
};

/// The object that holds the rotary keys of some layers; nullopt if there is none.
struct RopeKeys {
  std::optional<Config> parameters;
};

/// rope_scaling, or rope_parameters where that is absent or empty, as transformers chooses.
std::optional<Config> rope_parameters(const Config& config);

/// Reads both the old (rope_theta, rope_scaling) and the new (rope_parameters) keys. Throws Error naming the key; an
/// unsupported type is named together with the supported ones.
/// `dim` is the rotary dimension; `theta` the default base. `keys`, if given, are read instead of config's own
/// rope_theta, rope_scaling and rope_parameters (gemma3 has some for each layer type).
RopeSpec parse_rope(const Config& config, int64_t dim, int64_t max_positions, double theta = 10000,
                    const std::optional<RopeKeys>& keys = std::nullopt);

}  // namespace mxlm
