#pragma once

// The steps that change a text before it is divided.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/json.hpp"

namespace mxlm::text {

/// A text on its way through the normaliser. It refers to the caller's bytes until a step changes them.
class WorkText {
 public:
  /// `origin`: the number of leading bytes that come from the first character of the whole input (0 for a later piece).
  /// Metaspace's prepend_scheme "first" depends on it.
  WorkText(std::string_view text, size_t origin) : view_(text), origin_(origin) {}
  WorkText(const WorkText&) = delete;
  WorkText& operator=(const WorkText&) = delete;

  [[nodiscard]] std::string_view view() const { return view_; }
  [[nodiscard]] size_t origin() const { return origin_; }
  void replace(std::string text, size_t origin) {
    owned_ = std::move(text);
    view_ = owned_;
    origin_ = origin;
  }
  void narrow(size_t begin, size_t size) {
    view_ = view_.substr(begin, size);
    origin_ = origin_ > begin ? origin_ - begin : 0;
    if (origin_ > size) origin_ = size;
  }

 private:
  std::string_view view_;
  std::string owned_;
  size_t origin_;
};

/// The "normalizer" of a tokenizer.json.
class Normalizer {
 public:
  class Step {
   public:
    virtual ~Step() = default;
    virtual void apply(WorkText& text) const = 0;
  };

  /// nullopt: no normaliser. Throws Error naming an unsupported step.
  static Normalizer from_json(const std::optional<Json>& json);

  [[nodiscard]] bool empty() const { return steps_.empty(); }
  void apply(WorkText& text) const {
    for (const auto& step : steps_) step->apply(text);
  }

 private:
  void add(const Json& json, int depth);
  std::vector<std::unique_ptr<const Step>> steps_;
};

}  // namespace mxlm::text
