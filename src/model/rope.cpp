#include "model/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "base/error.hpp"

namespace mxlm {
namespace {

/// The ramp of YaRN. It is 0 for dimensions that turn fast and keep their frequency, and 1 for dimensions that are
/// stretched.
float yarn_ramp(const RopeSpec& rope, float i) {
  const auto dim = static_cast<double>(rope.dim);
  const auto dimension_of = [&](double turns) {
    return dim * std::log(static_cast<double>(rope.original_max_positions) / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = dimension_of(rope.beta_fast), high = dimension_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  return std::clamp((i - static_cast<float>(low)) / static_cast<float>(high - low), 0.0F, 1.0F);
}

}  // namespace

int64_t RopeSpec::length_key(int64_t length) const {
  if (type == Type::dynamic) return std::max(length, original_max_positions);
  return type == Type::longrope && length > original_max_positions ? 1 : 0;
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
    if (type == Type::longrope) {
      const auto& factors = length_key != 0 ? long_factors : short_factors;
      out[i] = 1.0F / (static_cast<float>(factors[i]) * power);
      continue;
    }
    float f = 1.0F / power;
    if (type == Type::yarn) {
      const float kept = 1 - yarn_ramp(*this, static_cast<float>(i));
      const float stretched = 1.0F / (static_cast<float>(factor) * power);
      out[i] = stretched * (1 - kept) + f * kept;
      continue;
    }
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

namespace {

constexpr int64_t kMaxPositions = int64_t{1} << 31;

/// The factors of longrope: a positive number for each pair of rotary dimensions.
std::vector<double> rope_factors(const Config& config, const Config& parameters, const char* key, int64_t dim) {
  std::vector<double> factors = parameters.numbers(key);
  const bool positive = std::all_of(factors.begin(), factors.end(), [](double f) { return f > 0; });
  if (static_cast<int64_t>(factors.size()) != dim / 2 || !positive) {
    fail("'{}': longrope needs {} positive numbers in '{}', one for each pair of rotary dimensions.", config.name(),
         dim / 2, key);
  }
  return factors;
}

}  // namespace

std::optional<Config> rope_parameters(const Config& config) {
  auto parameters = config.object("rope_scaling");
  return parameters && !parameters->keys().empty() ? parameters : config.object("rope_parameters");
}

RopeSpec parse_rope(const Config& config, int64_t dim, int64_t max_positions, double theta,
                    const std::optional<RopeKeys>& keys) {
  RopeSpec rope;
  rope.dim = dim;
  if (dim % 2 != 0 || dim < 2) {
    fail("'{}': rotary positions need an even number of dimensions, not {}.", config.name(), dim);
  }
  std::optional<Config> parameters;
  if (keys) {
    parameters = keys->parameters;
    rope.theta = theta;
  } else {
    parameters = rope_parameters(config);
    rope.theta = config.number_or("rope_theta", theta);
  }
  if (parameters) rope.theta = parameters->number_or("rope_theta", rope.theta);
  if (!(rope.theta > 1)) fail("'{}': rope_theta is {}; it should be above 1.", config.name(), rope.theta);
  if (!parameters) return rope;

  std::string type = parameters->string_or("rope_type", parameters->string_or("type", "default"));
  if (type == "default") return rope;
  // Phi-3's first configs use the names "su" and "yarn" for longrope.
  if (parameters->has("long_factor") && (type == "su" || type == "yarn")) type = "longrope";
  using Type = RopeSpec::Type;
  if (type == "linear") {
    rope.type = Type::linear;
  } else if (type == "dynamic") {
    rope.type = Type::dynamic;
  } else if (type == "llama3") {
    rope.type = Type::llama3;
  } else if (type == "longrope") {
    rope.type = Type::longrope;
  } else if (type == "yarn") {
    rope.type = Type::yarn;
  } else {
    fail(
        "'{}': rope type '{}' is not supported; the supported ones are default, linear, dynamic, llama3, longrope and "
        "yarn.",
        config.name(), type);
  }
  rope.original_max_positions = max_positions;
  if (rope.type != Type::linear && rope.type != Type::dynamic) {
    rope.original_max_positions =
        parameters->integer_or("original_max_position_embeddings", max_positions, 1, kMaxPositions);
    // A key at the top level wins, as in the reference.
    rope.original_max_positions =
        config.integer_or("original_max_position_embeddings", rope.original_max_positions, 1, kMaxPositions);
  }
  const auto stretch = static_cast<double>(max_positions) / static_cast<double>(rope.original_max_positions);
  const bool has_default_factor = rope.type == Type::longrope || rope.type == Type::yarn;
  rope.factor = has_default_factor ? parameters->number_or("factor", stretch) : parameters->number("factor");
  if (!(rope.factor > 0)) fail("'{}': the rope factor is {}; it should be positive.", config.name(), rope.factor);
  switch (rope.type) {
    case Type::standard:
    case Type::linear:
      break;
    case Type::dynamic:
      if (rope.dim < 4) fail("'{}': dynamic rope needs 4 rotary dimensions or more.", config.name());
      break;
    case Type::llama3:
      rope.low_freq_factor = parameters->number("low_freq_factor");
      rope.high_freq_factor = parameters->number("high_freq_factor");
      if (!(rope.low_freq_factor > 0) || !(rope.high_freq_factor > rope.low_freq_factor)) {
        fail("'{}': llama3 rope needs 0 < low_freq_factor < high_freq_factor.", config.name());
      }
      break;
    case Type::longrope:
      rope.short_factors = rope_factors(config, *parameters, "short_factor", dim);
      rope.long_factors = rope_factors(config, *parameters, "long_factor", dim);
      if (rope.factor > 1 && rope.original_max_positions > 1) {
        rope.attention_factor =
            std::sqrt(1 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_max_positions)));
      }
      rope.attention_factor = parameters->number_or("attention_factor", rope.attention_factor);
      break;
    case Type::yarn: {
      const auto scale = [&](double mscale) { return rope.factor <= 1 ? 1 : 0.1 * mscale * std::log(rope.factor) + 1; };
      const double mscale = parameters->number_or("mscale", 0), all = parameters->number_or("mscale_all_dim", 0);
      rope.attention_factor = mscale != 0 && all != 0 ? scale(mscale) / scale(all) : scale(1);
      rope.attention_factor = parameters->number_or("attention_factor", rope.attention_factor);
      rope.beta_fast = parameters->number_or("beta_fast", 32);
      rope.beta_slow = parameters->number_or("beta_slow", 1);
      if (!(rope.beta_fast > 0) || !(rope.beta_slow > 0)) {
        fail("'{}': yarn rope needs positive beta_fast and beta_slow.", config.name());
      }
      rope.truncate = parameters->boolean_or("truncate", true);
      break;
    }
  }
  return rope;
}

}  // namespace mxlm
