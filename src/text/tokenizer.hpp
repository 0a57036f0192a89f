#pragma once

// Tokenizers: text to ids and back.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {

namespace text {
struct AddedToken;
}

/// The changes that files beside a tokenizer.json make to it.
struct TokenizerAdditions {
  std::vector<text::AddedToken> tokens;  // added after those of tokenizer.json
  struct Template {
    std::vector<std::string> before, after;  // tokens around a single text
  };
  std::optional<Template> replaced_template;  // replaces the post-processor's template
};

/// A Hugging Face tokenizer.json: normaliser, pre-tokenizer, model, template. Its ids equal those of the `tokenizers`
/// library. Immutable and safe to use from several threads at once. "truncation" and "padding" of the file are not
/// applied: they belong to the use of a text, not to its ids.
class Tokenizer {
 public:
  /// `json` is the text of the file. Messages use `name`. Throws Error naming what is missing or unsupported.
  static Tokenizer from_json(std::string_view json, const std::string& name);
  static Tokenizer from_json(std::string_view json, const std::string& name, const TokenizerAdditions& additions);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// The ids of a text (valid UTF-8). `add_special` applies the post-processor's template. `parse_special` finds added
  /// tokens whose "special" is true in the text (the library always does; llama.cpp does not). May stop once there are
  /// `enough` ids: these are then the first ids of the text, without the template's tokens after it. Throws
  /// Interrupted.
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text, bool add_special, bool parse_special = true,
                                            size_t enough = SIZE_MAX) const;
  /// The text of ids, by the decoder of the file; special tokens stay.
  [[nodiscard]] std::string decode(const std::vector<int32_t>& ids) const;
  /// The ids that the template puts before and after a single text.
  [[nodiscard]] std::vector<int32_t> prefix() const;
  [[nodiscard]] std::vector<int32_t> suffix() const;
  /// The id of the token with exactly this content.
  [[nodiscard]] std::optional<int32_t> id_of(std::string_view token) const;
  /// One more than the largest id.
  [[nodiscard]] int32_t size() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mxlm
