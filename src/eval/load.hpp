#pragma once

#include <optional>
#include <string>

#include "io/safetensors.hpp"
#include "model/spec.hpp"
#include "text/special_tokens.hpp"
#include "text/tokenizer.hpp"

namespace mxlm {

/// A checkpoint, opened and understood; the files stay mapped as long as it lives.
struct LoadedModel {
  std::string name;
  std::string revision;
  Checkpoint checkpoint;
  ModelSpec spec;
  std::optional<Tokenizer> tokenizer;
  SpecialTokens special;  // with a tokenizer only
};

/// Opens a model folder (config.json, safetensors, tokenizer.json); "" is the embedded model. Throws Error.
LoadedModel load_model(const std::string& model, bool with_tokenizer);

/// The tokenizer of a model folder or of a tokenizer.json; "" is the embedded one.
Tokenizer load_tokenizer(const std::string& model_or_file);

}  // namespace mxlm
