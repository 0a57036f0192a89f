#pragma once

// Finds, downloads and opens models and tokenizers: from a folder, by a hub id or a short name, or the embedded model.

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

/// A model whose files are open. The files stay mapped as long as this object lives.
struct LoadedModel {
  std::string asked;  // the argument of load_model
  std::string name;
  std::string revision;  // commit on the hub; "" for a folder outside the hub's cache
  std::string config_sha256;
  Checkpoint checkpoint;
  ModelSpec spec;
  std::optional<Tokenizer> tokenizer;
  SpecialTokens special;           // set only if the tokenizer is loaded
  std::optional<Adapter> adapter;  // the adapter that is merged into the weights
};

/// The folder that a MODEL argument stands for.
struct ModelLocation {
  std::string name;  // for reports
  std::filesystem::path folder;
  std::string revision;  // commit, if the folder is in the hub's cache
};

/// The hub repository of a registry name or a hub id (ORG/NAME[@REVISION]); otherwise nullopt. An old id without an
/// organisation is a hub id if the cache has its repository.
std::optional<hub::Repo> hub_repo(const std::string& model, const hub::Options& options);

/// Finds a model. `model` is a folder, or else a registry name or hub id. A model of the hub is downloaded if the
/// Hugging Face cache does not hold all of it, unless HF_HUB_OFFLINE is set. Throws Error, which suggests the nearest
/// known name.
ModelLocation locate_model(const std::string& model, bool with_tokenizer, const hub::OnFetch& on_fetch);

/// Opens the model that locate_model finds (config.json, weights, tokenizer.json), or the embedded model if `model` is
/// "". `adapter` is the folder of a LoRA adapter that is merged into the weights, or "". An adapter beside the weights
/// is left out with a warning unless `adapter` names it. Throws Error.
LoadedModel load_model(const std::string& model, bool with_tokenizer, const hub::OnFetch& on_fetch = {},
                       const std::string& adapter = {});

/// Loads a tokenizer from a file tokenizer.json, from a folder, or from a model of the hub, of which only tokenizer
/// files are downloaded. "" is the tokenizer of the embedded model.
Tokenizer load_tokenizer(const std::string& model_or_file);

}  // namespace mxlm
