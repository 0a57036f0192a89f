#include "text/tokenizer_class.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"

namespace mxlm::text {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

struct ClassRow {
  TokenizerClass kind;
  std::string_view name;
};

/// The first name of a class is its current name; the others are older names, or names of classes that build the same.
constexpr std::array kClasses = {
    ClassRow{TokenizerClass::backend, "TokenizersBackend"}, ClassRow{TokenizerClass::gpt2, "GPT2Tokenizer"},
    ClassRow{TokenizerClass::gpt2, "CodeGenTokenizer"},     ClassRow{TokenizerClass::gpt_neox, "GPTNeoXTokenizer"},
    ClassRow{TokenizerClass::qwen2, "Qwen2Tokenizer"},      ClassRow{TokenizerClass::cohere, "CohereTokenizer"},
    ClassRow{TokenizerClass::llama, "LlamaTokenizer"},      ClassRow{TokenizerClass::code_llama, "CodeLlamaTokenizer"},
    ClassRow{TokenizerClass::gemma, "GemmaTokenizer"},      ClassRow{TokenizerClass::roberta, "RobertaTokenizer"},
    ClassRow{TokenizerClass::bert, "BertTokenizer"},
};

struct ModelRow {
  std::string_view model_type;
  TokenizerClass kind;
  bool overrules = false;  // it counts whatever class the files declare (MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS)
};

/// TOKENIZER_MAPPING_NAMES of transformers 5.23, for the models that mxlm has. A type outside this table (llama,
/// falcon, gpt_oss, smollm3) takes the class that its files declare.
constexpr std::array kModels = {
    ModelRow{"bert", TokenizerClass::bert},
    ModelRow{"codegen", TokenizerClass::gpt2},
    ModelRow{"cohere", TokenizerClass::cohere},
    ModelRow{"gemma", TokenizerClass::gemma},
    ModelRow{"gemma2", TokenizerClass::gemma},
    ModelRow{"gemma3", TokenizerClass::gemma},
    ModelRow{"gemma3_text", TokenizerClass::gemma},
    ModelRow{"gpt2", TokenizerClass::gpt2},
    ModelRow{"gpt_bigcode", TokenizerClass::backend},
    ModelRow{"gpt_neo", TokenizerClass::gpt2},
    ModelRow{"gpt_neox", TokenizerClass::gpt_neox},
    ModelRow{"gptj", TokenizerClass::gpt2},
    ModelRow{"granite", TokenizerClass::backend},
    ModelRow{"llava", TokenizerClass::backend, true},
    ModelRow{"mistral", TokenizerClass::backend},
    ModelRow{"mistral3", TokenizerClass::backend},
    ModelRow{"mixtral", TokenizerClass::backend},
    ModelRow{"mpt", TokenizerClass::gpt_neox},
    ModelRow{"olmo", TokenizerClass::gpt_neox},
    ModelRow{"olmo2", TokenizerClass::backend},
    ModelRow{"opt", TokenizerClass::gpt2},
    ModelRow{"phi", TokenizerClass::gpt2},
    ModelRow{"phi3", TokenizerClass::backend, true},
    ModelRow{"qwen2", TokenizerClass::qwen2, true},
    ModelRow{"qwen2_5_vl", TokenizerClass::qwen2},
    ModelRow{"qwen2_moe", TokenizerClass::qwen2},
    ModelRow{"qwen2_vl", TokenizerClass::qwen2},
    ModelRow{"qwen3", TokenizerClass::qwen2},
    ModelRow{"qwen3_moe", TokenizerClass::qwen2},
    ModelRow{"qwen3_vl", TokenizerClass::qwen2},
    ModelRow{"qwen3_vl_moe", TokenizerClass::qwen2},
    ModelRow{"roberta", TokenizerClass::roberta},
    ModelRow{"stablelm", TokenizerClass::backend},
    ModelRow{"starcoder2", TokenizerClass::gpt2},
};

constexpr const char* kSpace = "\u2581";  // SentencePiece's character for a space

json byte_level(bool add_prefix_space, bool use_regex = true) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

json metaspace(const char* prepend_scheme) {
  return {{"type", "Metaspace"}, {"replacement", kSpace}, {"prepend_scheme", prepend_scheme}, {"split", false}};
}

json replace(const char* what, const char* with) {
  return {{"type", "Replace"}, {"pattern", {{"String", what}}}, {"content", with}};
}

json pieces_decoder(bool strip) {
  json list = {replace(kSpace, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (strip) list.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", list}};
}

/// The result of Python's `if setting`, for null, booleans and an absent key.
bool flag(const ordered_json& settings, const char* key, bool absent, bool null) {
  const auto it = settings.find(key);
  if (it == settings.end()) return absent;
  if (it->is_null()) return null;
  if (!it->is_boolean()) fail("tokenizer_config.json: {} should be true or false", key);
  return it->get<bool>();
}

/// A pre-tokenizer or normalizer without the parts that do not affect ids: sequences of one step, omitted defaults.
json canonical(const json& part) {
  if (!part.is_object()) return nullptr;
  const std::string type = part.value("type", "");
  if (type == "Sequence") {
    json list = json::array();
    for (const char* key : {"pretokenizers", "normalizers"}) {
      if (!part.contains(key) || !part[key].is_array()) continue;
      for (const json& step : part[key]) {
        json inner = canonical(step);
        if (inner.is_array()) {
          list.insert(list.end(), inner.begin(), inner.end());
        } else if (!inner.is_null()) {
          list.push_back(std::move(inner));
        }
      }
    }
    if (list.empty()) return nullptr;
    return list.size() == 1 ? list[0] : list;
  }
  json out = part;
  if (type == "ByteLevel") {
    out = {{"type", type}, {"add_prefix_space", true}, {"use_regex", true}};
    for (const char* key : {"add_prefix_space", "use_regex"}) {
      if (part.contains(key)) out[key] = part[key];
    }
  } else if (type == "Metaspace") {
    out.erase("str_rep");
    if (!out.contains("prepend_scheme")) {
      out["prepend_scheme"] = out.value("add_prefix_space", json(true)) == json(false) ? "never" : "always";
    }
    out.erase("add_prefix_space");
    if (!out.contains("split")) out["split"] = true;
  } else if (type == "Split" && part.value("invert", json()) == json(false)) {
    out["invert"] = false;
  }
  return out;
}

/// The members of a model that affect ids, with their defaults.
json canonical_model(const json& model, bool byte_level_alphabet) {
  const auto member = [&](const char* key, const json& otherwise) {
    const auto it = model.find(key);
    return it == model.end() || it->is_null() ? otherwise : *it;
  };
  json out = {{"type", member("type", "BPE")}};
  for (const char* key : {"byte_fallback", "ignore_merges"}) out[key] = member(key, false);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) out[key] = member(key, "");
  // Every byte has a token there, so nothing is unknown.
  if (!byte_level_alphabet) {
    out["fuse_unk"] = member("fuse_unk", false);
    out["unk_token"] = member("unk_token", nullptr);
  }
  return out;
}

}  // namespace

std::string_view class_name(TokenizerClass kind) {
  return std::find_if(kClasses.begin(), kClasses.end(), [&](const ClassRow& row) { return row.kind == kind; })->name;
}

TokenizerClass tokenizer_class(const std::string& model_type, std::string declared, bool byte_level) {
  if (declared.ends_with("Fast")) declared.resize(declared.size() - 4);
  const auto model =
      std::find_if(kModels.begin(), kModels.end(), [&](const ModelRow& row) { return row.model_type == model_type; });
  if (model != kModels.end() && (declared.empty() || model->overrules || model->kind == TokenizerClass::backend)) {
    return model->kind;
  }
  // transformers concludes that LlamaTokenizer, which has no ByteLevel, cannot be meant.
  if (declared == "LlamaTokenizer" && byte_level) return TokenizerClass::backend;
  for (const ClassRow& row : kClasses) {
    if (row.name == declared) return row.kind;
  }
  return TokenizerClass::backend;
}

std::vector<std::string> vocabulary_files(TokenizerClass kind) {
  switch (kind) {
    case TokenizerClass::gpt2:
    case TokenizerClass::gpt_neox:
    case TokenizerClass::qwen2:
    case TokenizerClass::cohere:
    case TokenizerClass::roberta:
      return {"vocab.json", "merges.txt"};
    case TokenizerClass::bert:
      return {"vocab.txt"};
    case TokenizerClass::backend:
    case TokenizerClass::llama:
    case TokenizerClass::code_llama:
    case TokenizerClass::gemma:
      return {"tokenizer.model"};
  }
  return {};
}

std::string default_token(TokenizerClass kind, const std::string& role) {
  using Tokens = std::initializer_list<std::pair<std::string_view, const char*>>;
  const auto pick = [&](Tokens tokens) -> std::string {
    for (const auto& [name, content] : tokens) {
      if (name == role) return content;
    }
    return "";
  };
  switch (kind) {
    case TokenizerClass::backend:
      return "";
    case TokenizerClass::gpt2:
      return pick({{"bos_token", "<|endoftext|>"}, {"eos_token", "<|endoftext|>"}, {"unk_token", "<|endoftext|>"}});
    case TokenizerClass::gpt_neox:
      return pick({{"bos_token", "<|endoftext|>"},
                   {"eos_token", "<|endoftext|>"},
                   {"unk_token", "<|endoftext|>"},
                   {"pad_token", "<|padding|>"}});
    case TokenizerClass::qwen2:
      return pick({{"eos_token", "<|endoftext|>"}, {"unk_token", "<|endoftext|>"}, {"pad_token", "<|endoftext|>"}});
    case TokenizerClass::cohere:
      return pick({{"bos_token", "<BOS_TOKEN>"},
                   {"eos_token", "<|END_OF_TURN_TOKEN|>"},
                   {"unk_token", "<UNK>"},
                   {"sep_token", "<SEP>"},
                   {"pad_token", "<PAD>"},
                   {"cls_token", "<CLS>"},
                   {"mask_token", "<MASK_TOKEN>"}});
    case TokenizerClass::llama:
    case TokenizerClass::code_llama:
      return pick({{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}});
    case TokenizerClass::gemma:
      return pick({{"bos_token", "<bos>"},
                   {"eos_token", "<eos>"},
                   {"unk_token", "<unk>"},
                   {"pad_token", "<pad>"},
                   {"mask_token", "<mask>"}});
    case TokenizerClass::roberta:
      return pick({{"bos_token", "<s>"},
                   {"eos_token", "</s>"},
                   {"unk_token", "<unk>"},
                   {"sep_token", "</s>"},
                   {"pad_token", "<pad>"},
                   {"cls_token", "<s>"},
                   {"mask_token", "<mask>"}});
    case TokenizerClass::bert:
      return pick({{"unk_token", "[UNK]"},
                   {"sep_token", "[SEP]"},
                   {"pad_token", "[PAD]"},
                   {"cls_token", "[CLS]"},
                   {"mask_token", "[MASK]"}});
  }
  return "";
}

json class_parts(TokenizerClass kind, const ordered_json& settings, const std::string& unknown) {
  json model = {{"type", "BPE"}};
  json normalizer, pre_tokenizer;
  json decoder = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  const json unknown_token = unknown.empty() ? json() : json(unknown);
  const json nfc = {{"type", "NFC"}};
  switch (kind) {
    case TokenizerClass::backend:
      break;
    case TokenizerClass::gpt_neox:
      normalizer = nfc;
      [[fallthrough]];
    case TokenizerClass::gpt2:
    case TokenizerClass::roberta:
      pre_tokenizer = byte_level(flag(settings, "add_prefix_space", false, false));
      break;
    case TokenizerClass::qwen2:
      normalizer = nfc;
      pre_tokenizer = {
          {"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"},
             {"pattern",
              {{"Regex",
                R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}}},
             {"behavior", "Isolated"},
             {"invert", false}},
            byte_level(flag(settings, "add_prefix_space", false, false), false)}}};
      break;
    case TokenizerClass::cohere:
      normalizer = nfc;
      pre_tokenizer = {{"type", "Sequence"},
                       {"pretokenizers",
                        {{{"type", "Digits"}, {"individual_digits", true}},
                         byte_level(flag(settings, "add_prefix_space", false, false))}}};
      break;
    case TokenizerClass::llama: {
      const bool prefix = flag(settings, "add_prefix_space", true, true);
      const bool legacy = flag(settings, "legacy", false, false);
      model.update({{"fuse_unk", true}, {"byte_fallback", true}});
      pre_tokenizer = metaspace(!prefix ? "never" : legacy ? "always" : "first");
      decoder = pieces_decoder(prefix);
      break;
    }
    case TokenizerClass::code_llama:
      model.update({{"fuse_unk", true}, {"byte_fallback", true}, {"unk_token", unknown_token}});
      pre_tokenizer = metaspace(flag(settings, "add_prefix_space", true, true) ? "first" : "never");
      decoder = pieces_decoder(true);
      break;
    case TokenizerClass::gemma:
      model.update({{"fuse_unk", true}, {"byte_fallback", true}, {"unk_token", unknown_token}});
      normalizer = replace(" ", kSpace);
      pre_tokenizer = {
          {"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "MergedWithPrevious"}, {"invert", false}};
      decoder = pieces_decoder(false);
      break;
    case TokenizerClass::bert: {
      const auto accents = settings.find("strip_accents");
      model = {{"type", "WordPiece"},
               {"unk_token", unknown_token},
               {"continuing_subword_prefix", "##"},
               {"max_input_chars_per_word", 100}};
      normalizer = {{"type", "BertNormalizer"},
                    {"clean_text", true},
                    {"handle_chinese_chars", flag(settings, "tokenize_chinese_chars", true, false)},
                    {"strip_accents", accents == settings.end() || accents->is_null()
                                          ? json()
                                          : json(flag(settings, "strip_accents", false, false))},
                    {"lowercase", flag(settings, "do_lower_case", true, false)}};
      pre_tokenizer = {{"type", "BertPreTokenizer"}};
      decoder = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
      break;
    }
  }
  return {{"version", "1.0"},          {"normalizer", normalizer}, {"pre_tokenizer", pre_tokenizer},
          {"post_processor", nullptr}, {"decoder", decoder},       {"model", model}};
}

std::vector<std::string> different_parts(const json& ours, const json& theirs) {
  std::vector<std::string> out;
  for (const char* part : {"normalizer", "pre_tokenizer"}) {
    if (canonical(ours.value(part, json())) != canonical(theirs.value(part, json()))) out.emplace_back(part);
  }
  const bool bytes = canonical(ours.value("pre_tokenizer", json())).dump().find("\"ByteLevel\"") != std::string::npos;
  if (canonical_model(ours.value("model", json::object()), bytes) !=
      canonical_model(theirs.value("model", json::object()), bytes)) {
    out.emplace_back("model");
  }
  return out;
}

}  // namespace mxlm::text
