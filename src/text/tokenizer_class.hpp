#pragma once

// The tokenizer classes of transformers.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::text {

/// How transformers 5.23 builds a tokenizer: with a class of its own for some models, which makes every part except
/// vocabulary, merges and template, or as `backend`, which takes tokenizer.json as it is.
enum class TokenizerClass : uint8_t { backend, gpt2, gpt_neox, qwen2, cohere, llama, code_llama, gemma, roberta, bert };

/// The name in transformers.
std::string_view class_name(TokenizerClass kind);

/// The class that AutoTokenizer takes. `declared` is "tokenizer_class" of tokenizer_config.json, else of config.json,
/// or ""; `byte_level` says whether tokenizer.json contains "ByteLevel". An unlisted class counts as `backend`.
TokenizerClass tokenizer_class(const std::string& model_type, std::string declared, bool byte_level);

/// The files with the class's vocabulary if there is no tokenizer.json; empty: the class has no other files.
std::vector<std::string> vocabulary_files(TokenizerClass kind);

/// The content of the class's named token (bos_token...) if no file mentions it; "" is none.
std::string default_token(TokenizerClass kind, const std::string& role);

/// The parts of a tokenizer.json as the class makes them: normalizer, pre_tokenizer, decoder, and "model" without
/// vocabulary and merges. `settings` is tokenizer_config.json, from which it reads add_prefix_space, legacy...;
/// `unknown` is the content of unk_token, or "". Throws Error if a setting has the wrong type. Not for `backend`.
nlohmann::json class_parts(TokenizerClass kind, const nlohmann::ordered_json& settings, const std::string& unknown);

/// The parts among normalizer, pre_tokenizer and model that give other ids in `ours` (a tokenizer.json; its model may
/// lack vocabulary and merges) than in `theirs`.
std::vector<std::string> different_parts(const nlohmann::json& ours, const nlohmann::json& theirs);

}  // namespace mxlm::text
