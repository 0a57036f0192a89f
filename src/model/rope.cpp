#include "model/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "base/error.hpp"

namespace mxlm {

int64_t RopeSpec::length_key(int64_t length) const {
  return type == Type::dynamic ? std::max(length, original_max_positions) : 0;
}

std::vector<float> RopeSpec::inverse_frequencies(int64_t length_key) const {
  double base = theta;
  if (type == Type::dynamic && length_key > original_max_positions) {
    const double stretch =
        factor * static_cast<double>(length_key) / static_cast<double>(original_max_positions) - (factor - 1);
    base *= std::pow(stretch, static_cast<double>(dim) / static_cast<double>(dim - 2));
  }
  std::vector<float> out(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < out.size(); ++i) {
    // The reference raises a float32 base to a float32 exponent and takes the reciprocal in float32.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    const auto power = static_cast<float>(std::pow(static_cast<double>(static_cast<float>(base)), exponent));
    float f = 1.0F / power;
    if (type == Type::linear) f /= static_cast<float>(factor);
    if (type == Type::llama3) {
      const auto old_length = static_cast<double>(original_max_positions);
      const auto wavelength = static_cast<float>(2 * std::numbers::pi) / f;
      const auto low = static_cast<float>(old_length / low_freq_factor);
      const auto high = static_cast<float>(old_length / high_freq_factor);
      if (wavelength > low) {
        f /= static_cast<float>(factor);
      } else if (wavelength >= high) {
        const float smooth = (static_cast<float>(old_length) / wavelength - static_cast<float>(low_freq_factor)) /
                             static_cast<float>(high_freq_factor - low_freq_factor);
        f = (1 - smooth) * f / static_cast<float>(factor) + smooth * f;
      }
    }
    out[i] = f;
  }
  return out;
}

RopeSpec parse_rope(const Config& config, int64_t head_dim, int64_t max_positions) {
  constexpr int64_t kMaxPositions = int64_t{1} << 31;
  RopeSpec rope;
  rope.dim = head_dim;
  if (head_dim % 2 != 0)
    fail("'{}': head_dim {} is odd, so rotary positions cannot be applied.", config.name(), head_dim);
  auto parameters = config.object("rope_parameters");
  if (!parameters) parameters = config.object("rope_scaling");
  rope.theta = config.number_or("rope_theta", 10000);
  if (parameters) rope.theta = parameters->number_or("rope_theta", rope.theta);
  if (!(rope.theta > 1)) fail("'{}': rope_theta is {}; it should be above 1.", config.name(), rope.theta);
  if (!parameters) return rope;

  const std::string type = parameters->string_or("rope_type", parameters->string_or("type", "default"));
  if (type == "default") return rope;
  if (type == "linear") {
    rope.type = RopeSpec::Type::linear;
  } else if (type == "dynamic") {
    rope.type = RopeSpec::Type::dynamic;
  } else if (type == "llama3") {
    rope.type = RopeSpec::Type::llama3;
  } else {
    fail(
        "'{}': rope type '{}' is not supported for this family; the supported ones are default, linear, dynamic and "
        "llama3.",
        config.name(), type);
  }
  rope.factor = parameters->number("factor");
  if (!(rope.factor > 0)) fail("'{}': the rope factor is {}; it should be positive.", config.name(), rope.factor);
  rope.original_max_positions = max_positions;
  if (rope.type == RopeSpec::Type::dynamic && rope.dim < 4) {
    fail("'{}': dynamic rope needs a head_dim of 4 or more.", config.name());
  }
  if (rope.type == RopeSpec::Type::llama3) {
    rope.low_freq_factor = parameters->number("low_freq_factor");
    rope.high_freq_factor = parameters->number("high_freq_factor");
    if (!(rope.low_freq_factor > 0) || !(rope.high_freq_factor > rope.low_freq_factor)) {
      fail("'{}': llama3 rope needs 0 < low_freq_factor < high_freq_factor.", config.name());
    }
    rope.original_max_positions =
        parameters->integer_or("original_max_position_embeddings", max_positions, 1, kMaxPositions);
    // A top-level key wins, as in the reference.
    rope.original_max_positions =
        config.integer_or("original_max_position_embeddings", rope.original_max_positions, 1, kMaxPositions);
  }
  return rope;
}

}  // namespace mxlm
