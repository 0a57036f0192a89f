#pragma once

// Models of several kinds of input whose text part is a family of its own (`text_config`): what of config.json and of
// the tensors belongs to that part. Images, video and sound are not read.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.hpp"

namespace mxlm {

struct Wrapper {
  std::string_view model_type;
  std::string_view text_type;  // model_type of text_config where it has none
  bool tied;                   // tie_word_embeddings when absent
  bool tied_by_text;           // a true one in text_config counts too
  bool flat;                   // the first files have the text part's keys and tensors without text_config
  std::string_view instead;    // JSON object of keys that the wrapper does not pass on, or fixes
};

/// nullptr if `model_type` is no wrapper.
const Wrapper* find_wrapper(std::string_view model_type);
std::vector<std::string> known_wrappers();

/// config.json of the text part alone, with the model_type of its family; keys that are absent there get transformers'
/// defaults, which such files rely on. Throws Error if the text part is of no family that is known in this wrapper.
Config text_config(const Wrapper& wrapper, const Config& config);

/// The name of a tensor in a checkpoint of the text part alone ("model.layers.0...", "lm_head..."); "" for one of
/// another part. Takes what transformers 5 takes: "language_model.", "model.language_model.", "language_model.model."
/// and the like.
std::string text_name(const Wrapper& wrapper, std::string_view name);

}  // namespace mxlm
