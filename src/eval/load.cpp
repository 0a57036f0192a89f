#include "eval/load.hpp"

#include <filesystem>

#include "base/error.hpp"
#include "io/embedded.hpp"
#include "io/file.hpp"
#include "model/config.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEmbeddedName = "booklet-7m";

/// The folder that a MODEL argument names.
fs::path model_folder(const std::string& model) {
  std::error_code error;
  fs::path path(model);
  if (fs::is_directory(path, error)) return path;
  if (fs::exists(path, error)) {
    fail("'{}' is a file; give the folder that holds config.json and the weights.", model);
  }
  fail("There is no model folder '{}'; give a folder that holds config.json, tokenizer.json and safetensors weights.",
       model);
}

FileView file_in(const fs::path& folder, const char* name) {
  const fs::path path = folder / name;
  std::error_code error;
  if (!fs::exists(path, error)) {
    fail("The model folder '{}' has no {}; is the download complete?", folder.string(), name);
  }
  return FileView::map(path);
}

}  // namespace

LoadedModel load_model(const std::string& model, bool with_tokenizer) {
  LoadedModel loaded;
  FileView config_file, tokenizer_file;
  std::optional<FileView> tokenizer_config;
  if (model.empty()) {
    loaded.name = kEmbeddedName;
    config_file = FileView::from_memory("embedded config.json", embedded::booklet_config());
    tokenizer_file = FileView::from_memory("embedded tokenizer.json", embedded::booklet_tokenizer());
    loaded.checkpoint =
        Checkpoint::from_file(FileView::from_memory("embedded model.safetensors", embedded::booklet_model()));
  } else {
    const fs::path folder = model_folder(model);
    loaded.name = fs::weakly_canonical(folder).filename().string();
    config_file = file_in(folder, "config.json");
    loaded.checkpoint = Checkpoint::open(folder);
    if (with_tokenizer) {
      tokenizer_file = file_in(folder, "tokenizer.json");
      std::error_code error;
      const fs::path path = folder / "tokenizer_config.json";
      if (fs::exists(path, error)) tokenizer_config = FileView::map(path);
    }
  }
  const Config config = Config::parse(config_file.text(), config_file.name());
  loaded.spec = load_spec(config, loaded.checkpoint);
  if (with_tokenizer) {
    loaded.tokenizer = Tokenizer::from_json(tokenizer_file.text(), tokenizer_file.name());
    loaded.special = read_special_tokens(tokenizer_config ? tokenizer_config->text() : std::string_view{},
                                         config_file.text(), *loaded.tokenizer);
  }
  return loaded;
}

Tokenizer load_tokenizer(const std::string& model_or_file) {
  FileView file;
  std::error_code error;
  if (model_or_file.empty()) {
    file = FileView::from_memory("embedded tokenizer.json", embedded::booklet_tokenizer());
  } else if (fs::is_directory(model_or_file, error)) {
    file = file_in(model_or_file, "tokenizer.json");
  } else {
    file = FileView::map(model_or_file);
  }
  return Tokenizer::from_json(file.text(), file.name());
}

}  // namespace mxlm
