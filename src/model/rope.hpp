#pragma once

// Rotary position embeddings, and the keys of config.json that describe them.

#include <cstdint>
#include <optional>
#include <vector>

#include "model/config.hpp"

namespace mxlm {

/// A rotary position embedding: its frequencies, and how they depend on the length of a window. Source: transformers
/// modeling_rope_utils.py (types default, linear, dynamic, llama3, longrope, yarn).
struct RopeSpec {
  enum class Type : uint8_t { standard, linear, dynamic, llama3, longrope, yarn };
  Type type = Type::standard;
  int64_t dim = 0;  // rotary dimension of a head, even
  double theta = 10000;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_positions = 0;  // of pre-training; dynamic: the model's max_positions
  // longrope: [dim / 2] factors for windows up to / beyond original_max_positions.
  std::vector<double> short_factors, long_factors;
  double beta_fast = 32, beta_slow = 1;  // of yarn
  bool truncate = true;                  // yarn: the ramp begins and ends at whole dimensions
  double attention_factor = 1;           // multiplies cos and sin
  bool float32_tables = false;           // cos and sin are not rounded to the model dtype
  bool interleaved = false;              // rotates pairs (2i, 2i + 1) instead of (i, i + dim / 2)

  /// Windows whose lengths have the same key share frequencies.
  [[nodiscard]] int64_t length_key(int64_t length) const;
  /// The dim / 2 inverse frequencies for windows of this key, rounded to float32 where the reference rounds.
  [[nodiscard]] std::vector<float> inverse_frequencies(int64_t length_key) const;
};

/// The object that holds the rotary keys of some layers; nullopt if these layers have no such object.
struct RopeKeys {
  std::optional<Config> parameters;
};

/// rope_scaling, or rope_parameters if rope_scaling is absent or empty, as in transformers.
std::optional<Config> rope_parameters(const Config& config);

/// Reads the old keys (rope_theta, rope_scaling) and the new key (rope_parameters). `dim` is the rotary dimension and
/// `theta` is the default base. If `keys` is given, it replaces rope_theta, rope_scaling and rope_parameters of config,
/// because gemma3 has such keys for each layer type. Throws Error, which names the key; for an unsupported type, it
/// lists the supported types.
RopeSpec parse_rope(const Config& config, int64_t dim, int64_t max_positions, double theta = 10000,
                    const std::optional<RopeKeys>& keys = std::nullopt);

}  // namespace mxlm
