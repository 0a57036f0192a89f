#include "eval/load.hpp"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "base/suggest.hpp"
#include "eval/registry.hpp"
#include "io/embedded.hpp"
#include "io/file.hpp"
#include "model/config.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEmbeddedName = "booklet-7m";

/// A folder as it is. One in the hub's cache, models--ORG--NAME/snapshots/COMMIT, is named after its repository.
ModelLocation location_of_folder(const fs::path& path) {
  const fs::path folder = fs::weakly_canonical(path);
  ModelLocation location{.name = folder.filename().string(), .folder = path, .revision = ""};
  const fs::path snapshots = folder.parent_path();
  std::string repo = snapshots.parent_path().filename().string();
  const std::string prefix = "models--";
  if (hub::is_commit(location.name) && snapshots.filename() == "snapshots" && repo.starts_with(prefix)) {
    location.revision = location.name;
    repo.erase(0, prefix.size());
    const size_t dashes = repo.find("--");
    location.name = dashes == repo.npos ? repo : fmt::format("{}/{}", repo.substr(0, dashes), repo.substr(dashes + 2));
  }
  return location;
}

hub::Snapshot find_or_fetch(const hub::Options& options, const hub::Repo& repo, bool with_tokenizer,
                            const hub::OnFetch& on_fetch) {
  if (auto snapshot = hub::find_model(options, repo, with_tokenizer)) return *snapshot;
  try {
    return hub::fetch_model(options, repo, on_fetch);
  } catch (const hub::HubError& error) {
    // (not for a name that is known, which is nearest to itself)
    const std::string meant =
        nearest_name(repo.id, registered_names()) == repo.id ? "" : suggestion(repo.id, registered_names());
    if (error.kind != hub::HubError::Kind::missing || meant.empty()) throw;
    throw hub::HubError(error.kind, fmt::format("{}{}", error.what(), meant));
  }
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

std::optional<hub::Repo> hub_repo(const std::string& model, const hub::Options& options) {
  const size_t at = model.find('@');
  if (const RegisteredModel* known = find_registered(model.substr(0, at))) {
    return hub::parse_repo(fmt::format("{}{}", known->id, at == model.npos ? "" : model.substr(at)),
                           hub::RepoKind::model);
  }
  if (auto repo = hub::parse_repo(model, hub::RepoKind::model)) return repo;
  auto bare = hub::parse_repo(model, hub::RepoKind::model, /*bare=*/true);
  if (bare && hub::RepoCache(options.cache, *bare).commit()) return bare;
  return std::nullopt;
}

namespace {

/// hub_repo, or Error with the nearest known name.
hub::Repo known_repo(const std::string& model, const hub::Options& options) {
  const auto repo = hub_repo(model, options);
  if (!repo) {
    fail(
        "There is no model folder {}, and no model is known by that name; give a folder that holds config.json, "
        "tokenizer.json and weights, a hub id (org/name), or a name that 'mxlm models' lists.{}",
        quote(model), suggestion(model, registered_names()));
  }
  return *repo;
}

/// The tokenizer.json of a repository, downloaded without the rest of the model if the cache lacks it.
fs::path hub_tokenizer(const hub::Options& options, const hub::Repo& repo) {
  const std::string name = "tokenizer.json";
  const hub::RepoCache cache(options.cache, repo);
  if (const auto commit = cache.commit()) {
    if (auto file = cache.file(*commit, name)) return *file;
  }
  const auto plan = hub::plan_fetch(options, repo, [&](const std::vector<hub::ListedFile>& files) {
    const bool there =
        std::any_of(files.begin(), files.end(), [&](const hub::ListedFile& f) { return f.name == name; });
    return there ? std::vector<std::string>{name} : std::vector<std::string>{};
  });
  if (plan.files.empty()) fail("The model {} has no {}; mxlm reads no other kind of tokenizer.", quote(repo.id), name);
  return hub::fetch(options, plan, {}).folder / name;
}

}  // namespace

ModelLocation locate_model(const std::string& model, bool with_tokenizer, const hub::OnFetch& on_fetch) {
  std::error_code error;
  if (fs::is_directory(model, error)) return location_of_folder(model);
  if (fs::exists(model, error)) {
    fail("'{}' is a file; give the folder that holds config.json and the weights.", model);
  }
  const hub::Options options = hub::Options::from_environment();
  const hub::Repo repo = known_repo(model, options);
  const hub::Snapshot snapshot = find_or_fetch(options, repo, with_tokenizer, on_fetch);
  return {.name = repo.id, .folder = snapshot.folder, .revision = snapshot.commit};
}

LoadedModel load_model(const std::string& model, bool with_tokenizer, const hub::OnFetch& on_fetch) {
  LoadedModel loaded;
  loaded.asked = model;
  FileView config_file, tokenizer_file;
  std::optional<FileView> tokenizer_config;
  if (model.empty()) {
    loaded.name = kEmbeddedName;
    config_file = FileView::from_memory("embedded config.json", embedded::booklet_config());
    tokenizer_file = FileView::from_memory("embedded tokenizer.json", embedded::booklet_tokenizer());
    loaded.checkpoint =
        Checkpoint::from_file(FileView::from_memory("embedded model.safetensors", embedded::booklet_model()));
  } else {
    const ModelLocation location = locate_model(model, with_tokenizer, on_fetch);
    const fs::path& folder = location.folder;
    loaded.name = location.name;
    loaded.revision = location.revision;
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
  loaded.config_sha256 = sha256_hex(config_file.bytes());
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
  } else if (fs::exists(model_or_file, error) || model_or_file.ends_with(".json")) {
    file = FileView::map(model_or_file);
  } else {
    const hub::Options options = hub::Options::from_environment();
    file = FileView::map(hub_tokenizer(options, known_repo(model_or_file, options)));
  }
  return Tokenizer::from_json(file.text(), file.name());
}

}  // namespace mxlm
