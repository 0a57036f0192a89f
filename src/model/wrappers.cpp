#include "model/wrappers.hpp"

#include <algorithm>
#include <array>
#include <iterator>

#include "base/error.hpp"
#include "base/quote.hpp"

namespace mxlm {
namespace {

constexpr std::array kWrappers{
    // Gemma3ForConditionalGeneration does not cap its logits, whatever text_config says.
    Wrapper{"gemma3", "gemma3_text", true, false, false, R"({"final_logit_softcapping": null})"},
    Wrapper{"llava", "llama", false, true, false, "{}"},
    Wrapper{"llava_next", "llama", false, false, false, "{}"},
    Wrapper{"llava_onevision", "qwen2", false, true, false, "{}"},
    Wrapper{"mistral3", "mistral", true, false, false, "{}"},
    Wrapper{"qwen2_5_vl", "qwen2_5_vl_text", false, true, true, "{}"},
    Wrapper{"qwen2_vl", "qwen2_vl_text", false, true, true, "{}"},
    Wrapper{"qwen3_vl", "qwen3_vl_text", false, false, false, "{}"},
    Wrapper{"vipllava", "llama", false, false, false, "{}"},
};

/// A text part: its model_type in text_config, its family, and transformers' defaults of keys that files leave out. The
/// LM head of the family must be a plain Linear, because wrappers do not scale logits.
struct TextPart {
  std::string_view model_type, family, defaults;
};

constexpr std::array kTextParts{
    TextPart{"gemma3_text", "gemma3_text",
             R"({"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
                 "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
                 "max_position_embeddings": 131072})"},
    TextPart{"llama", "llama",
             R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                 "num_attention_heads": 32})"},
    TextPart{"mistral", "mistral",
             R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                 "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072})"},
    TextPart{"qwen2", "qwen2",
             R"({"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
                 "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32768})"},
    TextPart{"qwen2_5_vl_text", "qwen2",
             R"({"vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
                 "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 32768,
                 "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "max_window_layers": 80})"},
    TextPart{"qwen2_vl_text", "qwen2",
             R"({"vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
                 "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 32768,
                 "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "max_window_layers": 80})"},
    TextPart{"qwen3_vl_text", "qwen3",
             R"({"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
                 "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128,
                 "max_position_embeddings": 128000, "rope_theta": 500000.0})"},
};

/// The rotary parameters without the three sections of Qwen-VL. The positions of text are the same in all sections, so
/// the rotation is the plain rotation.
std::string plain_rotation(const Config& text) {
  std::string out;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto rope = text.object(key);
    if (!rope) continue;
    const bool sections = rope->string_or("rope_type", rope->string_or("type", "")) == "mrope";
    out += fmt::format(R"({}"{}": {})", out.empty() ? "" : ", ", key,
                       Config::merge({*rope, Config::parse(sections ? R"({"rope_type": "default", "type": null,
                                                                         "mrope_section": null,
                                                                         "mrope_interleaved": null})"
                                                                    : R"({"mrope_section": null,
                                                                         "mrope_interleaved": null})",
                                                           text.name())},
                                     text.name())
                           .json());
  }
  return "{" + out + "}";
}

bool take(std::string_view& name, std::string_view part) {
  if (!name.starts_with(part)) return false;
  name.remove_prefix(part.size());
  return true;
}

}  // namespace

const Wrapper* find_wrapper(std::string_view model_type) {
  const auto* found =
      std::find_if(kWrappers.begin(), kWrappers.end(), [&](const Wrapper& w) { return w.model_type == model_type; });
  return found == kWrappers.end() ? nullptr : found;
}

std::vector<std::string> known_wrappers() {
  std::vector<std::string> names;
  std::transform(kWrappers.begin(), kWrappers.end(), std::back_inserter(names),
                 [](const Wrapper& w) { return std::string(w.model_type); });
  return names;
}

Config text_config(const Wrapper& wrapper, const Config& config) {
  const std::string& name = config.name();
  auto text = config.object("text_config");
  if (!text && !wrapper.flat) {
    fail("'{}' of model type '{}' has no text_config, which describes the text part; get it again.", name,
         wrapper.model_type);
  }
  if (!text) text = config;
  std::string type = text->string_or("model_type", wrapper.text_type);
  // Some files repeat the wrapper's model_type in text_config.
  if (type == wrapper.model_type) type = wrapper.text_type;
  const auto* part =
      std::find_if(kTextParts.begin(), kTextParts.end(), [&](const TextPart& p) { return p.model_type == type; });
  if (part == kTextParts.end()) {
    fail("'{}': the text part of this model of type '{}' is {}, which is not known there; give a model of text alone.",
         name, wrapper.model_type, quote(type));
  }
  const bool tied = config.boolean_or("tie_word_embeddings", wrapper.tied) ||
                    (wrapper.tied_by_text && text->boolean_or("tie_word_embeddings", false));
  std::vector<Config> layers{Config::parse(part->defaults, name), *text, Config::parse(plain_rotation(*text), name),
                             Config::parse(wrapper.instead, name)};
  if (const auto quantization = config.object("quantization_config")) {
    layers.push_back(Config::parse(fmt::format(R"({{"quantization_config": {}}})", quantization->json()), name));
  }
  layers.push_back(
      Config::parse(fmt::format(R"({{"model_type": "{}", "tie_word_embeddings": {}}})", part->family, tied), name));
  return Config::merge(layers, name);
}

std::string text_name(const Wrapper& wrapper, std::string_view name) {
  if (name.starts_with("lm_head.")) return std::string(name);
  const std::string_view all = name;
  take(name, "model.");
  if (take(name, "language_model.")) {
    if (name.starts_with("lm_head.")) return std::string(name);
    // Versions 5.10 to 5.22 of transformers wrote a second "model." here.
    for (int i = 0; i < 2; ++i) take(name, "model.");
    return std::string("model.").append(name);
  }
  const bool plain = wrapper.flat && all.starts_with("model.") && !all.starts_with("model.visual.");
  return plain ? std::string(all) : "";
}

}  // namespace mxlm
