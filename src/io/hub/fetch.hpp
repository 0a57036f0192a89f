#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/hub/api.hpp"
#include "io/hub/cache.hpp"
#include "io/hub/client.hpp"
#include "io/hub/options.hpp"

namespace mxlm::hub {

/// How far a download is.
struct FetchProgress {
  std::string what;  // the repository
  uint64_t bytes = 0, total_bytes = 0;
  int64_t files = 0, total_files = 0;
};
using OnFetch = std::function<void(const FetchProgress&)>;

/// A repository's commit in the cache.
struct Snapshot {
  std::filesystem::path folder;
  std::string commit;
};

/// The names to fetch, out of all files of a repository.
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

/// Asks the hub for the files of a repository; `select` picks among them. Throws HubError.
FetchPlan plan_fetch(const Options& options, const Repo& repo, const Selection& select);

/// Downloads what the plan names and the cache lacks, several files at a time, each verified before it gets its name in
/// the cache, and notes the revision once all are there. Another process that downloads the same file is waited for.
/// `on_progress` is called from this thread, at least every 100 ms. Throws HubError, Error (disk full), Interrupted;
/// what came so far is gone on with at the next call.
Snapshot fetch(const Options& options, const FetchPlan& plan, const OnFetch& on_progress);

/// Of all files of a model's repository those of its tokenizer, config.json among them; none where there is none that
/// mxlm reads.
std::vector<std::string> tokenizer_files(const std::vector<ListedFile>& files);

/// Whether a folder holds a tokenizer's vocabulary of a kind that mxlm reads.
bool has_tokenizer(const std::filesystem::path& folder);

/// Of all files of a model's repository those that mxlm reads: configuration, tokenizer, and one kind of weights in the
/// order in which Checkpoint::open looks for them, model.safetensors (or an index and its shards) before
/// pytorch_model.bin (or an index) before other safetensors. Shards are named as far as the listing tells; see
/// fetch_model.
std::vector<std::string> model_files(const std::vector<ListedFile>& files);

/// What a folder lacks to be a model that can be loaded (a file's name), or nullopt. Shards are looked up in the index.
std::optional<std::string> missing_model_file(const std::filesystem::path& folder, bool with_tokenizer);

/// The model in the cache if it is there as a whole; nullopt if not. Throws Error for a ref or an index that is
/// damaged.
std::optional<Snapshot> find_model(const Options& options, const Repo& repo, bool with_tokenizer);

/// Downloads a model's files into the cache as far as they are not there. Throws HubError (offline, too).
Snapshot fetch_model(const Options& options, const Repo& repo, const OnFetch& on_progress);

}  // namespace mxlm::hub
