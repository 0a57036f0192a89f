#pragma once

// Downloads from the hub into the cache.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hub/api.hpp"
#include "hub/cache.hpp"
#include "hub/client.hpp"
#include "hub/options.hpp"

namespace mxlm::hub {

/// The progress of a download.
struct FetchProgress {
  std::string what;  // the repository
  uint64_t bytes = 0, total_bytes = 0;
  int64_t files = 0, total_files = 0;
};
using OnFetch = std::function<void(const FetchProgress&)>;

/// A commit of a repository in the cache.
struct Snapshot {
  std::filesystem::path folder;
  std::string commit;
};

/// Selects the names to fetch from all files of a repository.
using Selection = std::function<std::vector<std::string>(const std::vector<ListedFile>&)>;

struct PlannedFile {
  std::string name;
  std::optional<uint64_t> size;  // bytes, if the hub said
  bool cached = false;
};

/// What a download would do.
struct FetchPlan {
  Repo repo;
  std::string commit;
  std::vector<PlannedFile> files;
};

/// Asks the hub for the files of a repository, of which `select` chooses some. Throws HubError.
FetchPlan plan_fetch(const Options& options, const Repo& repo, const Selection& select);

/// Downloads what the plan names and the cache lacks, several files at a time. Each file is verified before it gets its
/// name in the cache, and the revision is noted once all files are complete. If another process downloads the same
/// file, waits for it. Calls `on_progress` from this thread at least every 100 ms. Throws HubError, Error (disk full),
/// Interrupted; the next call continues from the bytes that arrived.
Snapshot fetch(const Options& options, const FetchPlan& plan, const OnFetch& on_progress);

/// Selects the files of a model's tokenizer and config.json; empty if mxlm reads none of its tokenizer files.
std::vector<std::string> tokenizer_files(const std::vector<ListedFile>& files);

/// True if a folder holds a vocabulary of a kind that mxlm reads.
bool has_tokenizer(const std::filesystem::path& folder);

/// Selects the files of a model that mxlm reads: configuration, tokenizer, and one kind of weights in the order of
/// Checkpoint::open: model.safetensors (or an index and its shards), then pytorch_model.bin (or an index), then other
/// safetensors. Shards are selected as far as the list of names allows; see fetch_model.
std::vector<std::string> model_files(const std::vector<ListedFile>& files);

/// What a folder lacks to be a model that loads (the name of a file), or nullopt. Looks up shards in the index.
std::optional<std::string> missing_model_file(const std::filesystem::path& folder, bool with_tokenizer);

/// The model in the cache, or nullopt if it is incomplete. Throws Error for a damaged ref or index.
std::optional<Snapshot> find_model(const Options& options, const Repo& repo, bool with_tokenizer);

/// Downloads the files of a model that the cache lacks. Throws HubError (offline, too).
Snapshot fetch_model(const Options& options, const Repo& repo, const OnFetch& on_progress);

}  // namespace mxlm::hub
