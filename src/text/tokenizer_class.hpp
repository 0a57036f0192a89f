#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::text {

/// How transformers 5.23 builds a tokenizer: a class that it has for some models, which makes every part but
/// vocabulary, merges and template by itself, or `backend`, which takes tokenizer.json as it is.
enum class TokenizerClass : uint8_t { backend, gpt2, gpt_neox, qwen2, cohere, llama, code_llama, gemma, roberta, bert };

/// The name in transformers.
std::string_view class_name(TokenizerClass kind);

/// The class that AutoTokenizer takes. `declared` is tokenizer_config.json's "tokenizer_class", else config.json's, or
/// ""; `byte_level` says whether tokenizer.json holds "ByteLevel". A class that is not listed here counts as `backend`.
TokenizerClass tokenizer_class(const std::string& model_type, std::string declared, bool byte_level);

/// The files that hold the class's vocabulary where there is no tokenizer.json; empty: it has no others.
std::vector<std::string> vocabulary_files(TokenizerClass kind);

/// The content of a named token (bos_token...) that the class has where no file speaks of it; "" is none.
std::string default_token(TokenizerClass kind, const std::string& role);

/// The parts of a tokenizer.json as the class makes them: normalizer, pre_tokenizer, decoder, and "model" without
/// vocabulary and merges. `settings` is tokenizer_config.json, of which it reads add_prefix_space, legacy...; `unknown`
/// the content of unk_token, or "". Throws Error if a setting is of the wrong type. Not for `backend`.
nlohmann::json class_parts(TokenizerClass kind, const nlohmann::ordered_json& settings, const std::string& unknown);

/// Those of the parts normalizer, pre_tokenizer and model that give other ids in `ours` (a tokenizer.json; its model
/// may lack vocabulary and merges) than in `theirs`.
std::vector<std::string> different_parts(const nlohmann::json& ours, const nlohmann::json& theirs);

}  // namespace mxlm::text
