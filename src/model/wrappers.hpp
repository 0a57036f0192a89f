#pragma once

// Wrappers: multimodal models whose text part (`text_config`) is a model of a family. Selects the keys of config.json
// and the tensors that belong to the text part. Images, video and sound are not read.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.hpp"

namespace mxlm {

/// The model type of a multimodal model.
struct Wrapper {
  std::string_view model_type;
  std::string_view text_type;  // model_type of text_config if the file does not say it
  bool tied;                   // tie_word_embeddings when absent
  bool tied_by_text;           // tie_word_embeddings of text_config also ties
  bool flat;                   // early files hold the keys and tensors of the text part without text_config
  std::string_view instead;    // JSON object of keys whose values the wrapper replaces
};

/// The wrapper with this model type; nullptr if there is no such wrapper.
const Wrapper* find_wrapper(std::string_view model_type);
std::vector<std::string> known_wrappers();

/// The config of the text part alone, with the model_type of its family. Absent keys get the defaults of transformers,
/// because such files rely on them. Throws Error if the family of the text part is not supported in a wrapper.
Config text_config(const Wrapper& wrapper, const Config& config);

/// The name of a tensor in a checkpoint of the text part alone ("model.layers.0...", "lm_head..."); "" for a tensor of
/// another part. Accepts the prefixes that transformers 5 accepts: "language_model.", "model.language_model.",
/// "language_model.model." and similar.
std::string text_name(const Wrapper& wrapper, std::string_view name);

}  // namespace mxlm
