#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "hub/fetch.hpp"
#include "io/safetensors.hpp"
#include "model/adapter.hpp"
#include "model/spec.hpp"
#include "text/special_tokens.hpp"
#include "text/tokenizer.hpp"

namespace mxlm {

/// A checkpoint, opened and understood; the files stay mapped as long as it lives.
struct LoadedModel {
  std::string asked;  // what load_model was given
  std::string name;
  std::string revision;  // commit on the hub, "" for a folder that is none of its cache
  std::string config_sha256;
  Checkpoint checkpoint;
  ModelSpec spec;
  std::optional<Tokenizer> tokenizer;
  SpecialTokens special;           // with a tokenizer only
  std::optional<Adapter> adapter;  // merged into the weights
};

/// Where a MODEL argument leads.
struct ModelLocation {
  std::string name;  // for reports
  std::filesystem::path folder;
  std::string revision;  // commit, if it is in the hub's cache
};

/// A model's hub repository by its registry name or hub id (ORG/NAME[@REVISION]); nullopt if `model` is neither (an old
/// id without an organisation counts if the cache has it).
std::optional<hub::Repo> hub_repo(const std::string& model, const hub::Options& options);

/// Finds a model: a folder, else a registry name or hub id, which is looked up in the Hugging Face cache and downloaded
/// if it is not there as a whole (unless HF_HUB_OFFLINE is set). Throws Error with the nearest known name.
ModelLocation locate_model(const std::string& model, bool with_tokenizer, const hub::OnFetch& on_fetch);

/// Opens a model (config.json, weights, tokenizer.json) that locate_model finds; "" is the embedded one. `adapter` is
/// the folder of a LoRA adapter to merge into it, "" = none; one that lies beside the weights is named in a warning and
/// left out. Throws Error.
LoadedModel load_model(const std::string& model, bool with_tokenizer, const hub::OnFetch& on_fetch = {},
                       const std::string& adapter = {});

/// The tokenizer of a tokenizer.json, of a folder that holds one, or of a model known by name (of which nothing else is
/// downloaded); "" is the embedded one.
Tokenizer load_tokenizer(const std::string& model_or_file);

}  // namespace mxlm
