#include "load/load.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "base/suggest.hpp"
#include "io/embedded.hpp"
#include "io/file.hpp"
#include "load/folder_kind.hpp"
#include "load/registry.hpp"
#include "model/config.hpp"
#include "text/tokenizer_files.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEmbeddedName = "booklet-7m";

/// The location of a folder. A folder of the hub's cache (models--ORG--NAME/snapshots/COMMIT) gets the name of its
/// repository.
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
    // A known name gets no suggestion, because the nearest known name is the name itself.
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

/// As hub_repo, but throws Error with the nearest known name if there is no repository.
hub::Repo known_repo(const std::string& model, const hub::Options& options) {
  const auto repo = hub_repo(model, options);
  if (!repo) {
    fail(
        "There is no model folder {}, and no known model has that name; give a folder that holds config.json, "
        "tokenizer.json and weights, a hub id (org/name), or a name that 'mxlm models' lists.{}",
        quote(model), suggestion(model, registered_names()));
  }
  return *repo;
}

/// The folder of a repository's tokenizer files. If the cache lacks them, they are downloaded without the weights.
fs::path hub_tokenizer(const hub::Options& options, const hub::Repo& repo) {
  const hub::RepoCache cache(options.cache, repo);
  if (const auto commit = cache.commit()) {
    // file() throws for a name that leads outside the cache.
    for (const std::string& name : cache.files(*commit)) (void)cache.file(*commit, name);
    if (hub::has_tokenizer(cache.snapshot(*commit))) return cache.snapshot(*commit);
  }
  const auto plan = hub::plan_fetch(options, repo, hub::tokenizer_files);
  if (plan.files.empty()) fail("The model {} has no tokenizer file that mxlm reads.", quote(repo.id));
  return hub::fetch(options, plan, {}).folder;
}

/// The files of a tokenizer. They stay mapped as long as this object lives.
class OpenTokenizerFiles {
 public:
  static OpenTokenizerFiles embedded() {
    OpenTokenizerFiles out;
    out.folder_ = kEmbeddedName;
    out.files_.emplace("tokenizer.json",
                       FileView::from_memory("embedded tokenizer.json", embedded::booklet_tokenizer()));
    out.files_.emplace("config.json", FileView::from_memory("embedded config.json", embedded::booklet_config()));
    return out;
  }
  static OpenTokenizerFiles in(const fs::path& folder) {
    OpenTokenizerFiles out;
    out.folder_ = folder.string();
    std::error_code error;
    for (const std::string& name : tokenizer_file_names()) {
      const fs::path path = folder / name;
      if (fs::exists(path, error)) out.files_.emplace(name, FileView::map(path));
    }
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (!out.files_.contains(name) && is_other_tokenizer_file(name)) out.others_.push_back(name);
    }
    std::sort(out.others_.begin(), out.others_.end());
    return out;
  }
  [[nodiscard]] FolderTokenizer read() const {
    TokenizerFiles files{.folder = folder_, .files = {}, .others = others_};
    for (const auto& [name, view] : files_) files.files.emplace(name, view.text());
    FolderTokenizer out = read_tokenizer(files);
    if (!out.difference.empty()) log_warn("{}", out.difference);
    return out;
  }

 private:
  std::string folder_;
  std::map<std::string, FileView> files_;
  std::vector<std::string> others_;
};

}  // namespace

ModelLocation locate_model(const std::string& model, bool with_tokenizer, const hub::OnFetch& on_fetch) {
  std::error_code error;
  if (fs::is_directory(model, error)) return location_of_folder(model);
  if (fs::exists(model, error)) {
    fail("{} {}.", quote(model), describe_other_file(model));
  }
  const hub::Options options = hub::Options::from_environment();
  const hub::Repo repo = known_repo(model, options);
  const hub::Snapshot snapshot = find_or_fetch(options, repo, with_tokenizer, on_fetch);
  return {.name = repo.id, .folder = snapshot.folder, .revision = snapshot.commit};
}

namespace {

/// Throws Error if a folder lacks config.json or weights. The message says what the folder holds instead.
void check_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "config.json", error) && Checkpoint::is_in(folder)) return;
  const std::string other = describe_other_folder(folder);
  if (!other.empty()) fail("The folder {} {}{}", quote(folder.native()), other, other.ends_with('?') ? "" : ".");
}

}  // namespace

LoadedModel load_model(const std::string& model, bool with_tokenizer, const hub::OnFetch& on_fetch,
                       const std::string& adapter) {
  LoadedModel loaded;
  loaded.asked = model;
  FileView config_file;
  OpenTokenizerFiles tokenizer_files;
  if (model.empty()) {
    loaded.name = kEmbeddedName;
    config_file = FileView::from_memory("embedded config.json", embedded::booklet_config());
    tokenizer_files = OpenTokenizerFiles::embedded();
    loaded.checkpoint =
        Checkpoint::from_file(FileView::from_memory("embedded model.safetensors", embedded::booklet_model()));
  } else {
    const ModelLocation location = locate_model(model, with_tokenizer, on_fetch);
    const fs::path& folder = location.folder;
    loaded.name = location.name;
    loaded.revision = location.revision;
    check_folder(folder);
    config_file = file_in(folder, "config.json");
    loaded.checkpoint = Checkpoint::open(folder);
    if (const auto base = adapter_base(folder); base && adapter.empty()) {
      log_warn(
          "{} also holds a LoRA adapter, which is left out; --adapter {} applies it "
          "(transformers applies it if peft is installed)",
          quote(folder.native()), quote(folder.native()));
    }
    if (with_tokenizer) tokenizer_files = OpenTokenizerFiles::in(folder);
  }
  const Config config = Config::parse(config_file.text(), config_file.name());
  loaded.config_sha256 = sha256_hex(config_file.bytes());
  if (!adapter.empty()) loaded.adapter = Adapter::open(adapter);
  loaded.spec = load_spec(config, loaded.checkpoint, loaded.adapter ? &*loaded.adapter : nullptr);
  if (with_tokenizer) {
    FolderTokenizer read = tokenizer_files.read();
    loaded.tokenizer = std::move(read.tokenizer);
    loaded.special = read.special;
  }
  return loaded;
}

Tokenizer load_tokenizer(const std::string& model_or_file) {
  std::error_code error;
  if (model_or_file.empty()) return OpenTokenizerFiles::embedded().read().tokenizer;
  if (fs::is_directory(model_or_file, error)) return OpenTokenizerFiles::in(model_or_file).read().tokenizer;
  if (fs::exists(model_or_file, error) || model_or_file.ends_with(".json")) {
    const FileView file = FileView::map(model_or_file);
    return Tokenizer::from_json(file.text(), file.name());
  }
  const hub::Options options = hub::Options::from_environment();
  return OpenTokenizerFiles::in(hub_tokenizer(options, known_repo(model_or_file, options))).read().tokenizer;
}

}  // namespace mxlm
