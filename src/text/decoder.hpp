#pragma once

// From tokens back to text.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "text/json.hpp"

namespace mxlm::text {

/// The "decoder" of a tokenizer.json: from tokens to text.
class Decoder {
 public:
  class Step {
   public:
    virtual ~Step() = default;
    virtual void apply(std::vector<std::string>& tokens) const = 0;
  };

  /// nullopt: tokens are joined with spaces. Throws Error naming an unsupported step.
  static Decoder from_json(const std::optional<Json>& json);

  [[nodiscard]] std::string decode(std::vector<std::string> tokens) const;

 private:
  void add(const Json& json, int depth);
  bool present_ = false;
  std::vector<std::unique_ptr<const Step>> steps_;
};

}  // namespace mxlm::text
