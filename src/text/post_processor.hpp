#pragma once

// The tokens around a text.

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "text/json.hpp"

namespace mxlm::text {

/// The "post_processor" of a tokenizer.json, as far as ids go: the tokens before and after a single text.
class PostProcessor {
 public:
  PostProcessor() = default;
  PostProcessor(std::vector<int32_t> prefix, std::vector<int32_t> suffix)
      : prefix_(std::move(prefix)), suffix_(std::move(suffix)) {}
  /// nullopt: no tokens. Throws Error naming what is unsupported.
  static PostProcessor from_json(const std::optional<Json>& json);

  [[nodiscard]] const std::vector<int32_t>& prefix() const { return prefix_; }
  [[nodiscard]] const std::vector<int32_t>& suffix() const { return suffix_; }

 private:
  void add(const Json& json, int depth);
  void add_template(const Json& json);
  /// The library passes each part of a template to a later processor as a separate text.
  void refuse_after_template(const Json& json) const;
  /// Puts ids around the existing ones: a later processor works on the result of the earlier ones.
  void wrap(const std::vector<int32_t>& before, const std::vector<int32_t>& after);
  bool has_template_ = false;
  std::vector<int32_t> prefix_;
  std::vector<int32_t> suffix_;
};

}  // namespace mxlm::text
