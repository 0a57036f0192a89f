#include "hub/fetch.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <exception>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "io/descriptor.hpp"
#include "io/file.hpp"
#include "io/shard_index.hpp"

namespace mxlm::hub {
namespace {

namespace fs = std::filesystem;

/// The lock that huggingface_hub also takes on a blob; released by the destructor.
class BlobLock {
 public:
  BlobLock(const fs::path& path, const std::string& what, const std::atomic<bool>& cancelled) : file_(open_lock(path)) {
    for (int tries = 0; flock(file_.get(), LOCK_EX | LOCK_NB) != 0; ++tries) {
      // On a file system without locks, two processes would download twice; the hash shows whether they clashed.
      if (errno != EWOULDBLOCK && errno != EINTR) return;
      if (interrupt_requested() || cancelled) throw Interrupted();
      if (tries == 10) log_info("{}: another process downloads it; waiting", quote(what));
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

 private:
  static int open_lock(const fs::path& path) {
    std::error_code error;
    fs::create_directories(path.parent_path(), error);
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) fail_errno("written", path.native(), errno);
    return fd;
  }
  Descriptor file_;
};

/// A download of several files, as its threads share it.
class Fetcher {
 public:
  Fetcher(const Options& options, const FetchPlan& plan, std::vector<const PlannedFile*> files)
      : options_(options), plan_(plan), cache_(options.cache, plan.repo), files_(std::move(files)) {
    bytes_ = std::vector<std::atomic<uint64_t>>(files_.size());
    sizes_ = std::vector<std::atomic<uint64_t>>(files_.size());
    for (size_t i = 0; i < files_.size(); ++i) sizes_[i] = files_[i]->size.value_or(0);
  }

  void run(const OnFetch& on_progress) {
    const auto count = std::min<size_t>(static_cast<size_t>(std::max(options_.connections, 1)), files_.size());
    running_ = static_cast<int>(count);
    std::vector<std::jthread> threads;
    threads.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      threads.emplace_back([this, cancelled = current_cancellation()] {
        const CancellationScope scope(cancelled);
        work();
      });
    }
    while (running_ > 0) {
      if (on_progress) on_progress(progress());
      std::this_thread::sleep_for(std::chrono::milliseconds(running_ > 0 ? 20 : 0));
    }
    threads.clear();
    if (first_error_) std::rethrow_exception(first_error_);
    if (on_progress) on_progress(progress());
  }

 private:
  [[nodiscard]] FetchProgress progress() const {
    FetchProgress out;
    out.what = plan_.repo.id;
    for (size_t i = 0; i < files_.size(); ++i) {
      out.bytes += bytes_[i];
      out.total_bytes += sizes_[i];
    }
    out.files = done_;
    out.total_files = static_cast<int64_t>(files_.size());
    return out;
  }

  void work() {
    try {
      Client client(options_, cancelled_);
      for (size_t i = next_++; i < files_.size() && !cancelled_; i = next_++) {
        one(client, i);
        ++done_;
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      // The first failure cancels the other threads, whose Interrupted means nothing.
      if (!first_error_) first_error_ = std::current_exception();
      cancelled_ = true;
    }
    --running_;
  }

  void one(Client& client, size_t index) {
    const std::string& name = files_[index]->name;
    const RemoteFile file = client.head(plan_.repo, plan_.commit, name);
    if (file.size) sizes_[index] = *file.size;
    const fs::path blob = cache_.blob(file.etag);
    std::error_code error;
    if (!fs::is_regular_file(blob, error)) {
      const BlobLock lock(cache_.lock(file.etag), name, cancelled_);
      if (!fs::is_regular_file(blob, error)) {
        fs::create_directories(blob.parent_path(), error);
        if (error) fail("The folder {} cannot be made ({}).", quote(blob.parent_path().string()), error.message());
        fs::path partial = blob;
        partial += ".incomplete";
        client.download(plan_.repo, plan_.commit, file, partial, [&](uint64_t bytes) { bytes_[index] = bytes; });
        fs::rename(partial, blob, error);
        if (error) fail("{} cannot be written ({}).", quote(blob.string()), error.message());
      }
    }
    bytes_[index] = fs::file_size(blob, error);
    cache_.link(plan_.commit, name, file.etag);
  }

  const Options& options_;
  const FetchPlan& plan_;
  RepoCache cache_;
  std::vector<const PlannedFile*> files_;
  std::vector<std::atomic<uint64_t>> bytes_, sizes_;
  std::atomic<size_t> next_{0};
  std::atomic<int64_t> done_{0};
  std::atomic<int> running_{0};
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  std::exception_ptr first_error_;
};

/// Downloads what the cache lacks of the plan, without noting the revision.
void fetch_missing(const Options& options, const FetchPlan& plan, const OnFetch& on_progress) {
  const RepoCache cache(options.cache, plan.repo);
  std::vector<const PlannedFile*> missing;
  uint64_t needed = 0;
  for (const PlannedFile& file : plan.files) {
    if (cache.file(plan.commit, file.name)) continue;
    missing.push_back(&file);
    needed += file.size.value_or(0);
  }
  if (missing.empty()) return;
  std::error_code error;
  fs::create_directories(options.cache, error);
  if (error) {
    fail("The cache {} cannot be made ({}); set HF_HOME or HF_HUB_CACHE to a place that can be written.",
         quote(options.cache.string()), error.message());
  }
  // Bytes of an interrupted download count as still needed here, so a disk that is just large enough may be refused.
  // The opposite mistake would fill the disk.
  const fs::space_info space = fs::space(options.cache, error);
  if (!error && space.available < needed) {
    fail("{} needs {:.1f} GB in {}, where {:.1f} GB are free; make room, or set HF_HOME to another disk.",
         quote(plan.repo.id), static_cast<double>(needed) / 1e9, quote(options.cache.string()),
         static_cast<double>(space.available) / 1e9);
  }
  Fetcher(options, plan, std::move(missing)).run(on_progress);
}

std::string model_index(const std::set<std::string>& names) {
  for (const char* index : {"model.safetensors.index.json", "pytorch_model.bin.index.json"}) {
    if (names.contains(index)) return index;
  }
  return "";
}

std::set<std::string> read_index(const fs::path& path) {
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : parse_index(FileView::map(path).text(), path.string())) {
    shards.insert(fs::path(shard).lexically_normal().string());
  }
  return shards;
}

[[noreturn]] void fail_offline(const Repo& repo) {
  throw HubError(HubError::Kind::offline,
                 fmt::format("The {} {} is not in the cache and HF_HUB_OFFLINE is set; unset it, or run 'mxlm fetch "
                             "{}{}' where there is a network.",
                             repo.what(), quote(repo.id), repo.id, repo.kind == RepoKind::dataset ? " --dataset" : ""));
}

}  // namespace

FetchPlan plan_fetch(const Options& options, const Repo& repo, const Selection& select) {
  if (options.offline) fail_offline(repo);
  const std::atomic<bool> never{false};
  Client client(options, never);
  const RepoInfo info = client.info(repo);
  FetchPlan plan{.repo = repo, .commit = info.commit, .files = {}};
  const RepoCache cache(options.cache, repo);
  const std::vector<std::string> names = select(info.files);
  for (const std::string& name : names) {
    const auto at = std::find_if(info.files.begin(), info.files.end(), [&](const auto& f) { return f.name == name; });
    plan.files.push_back({.name = name,
                          .size = at == info.files.end() ? std::nullopt : at->size,
                          .cached = cache.file(info.commit, name).has_value()});
  }
  return plan;
}

Snapshot fetch(const Options& options, const FetchPlan& plan, const OnFetch& on_progress) {
  fetch_missing(options, plan, on_progress);
  const RepoCache cache(options.cache, plan.repo);
  cache.write_ref(plan.commit);
  return {.folder = cache.snapshot(plan.commit), .commit = plan.commit};
}

namespace {

std::set<std::string> names_at_top(const std::vector<ListedFile>& files) {
  std::set<std::string> names;
  for (const ListedFile& file : files) {
    if (file.name.find('/') == file.name.npos) names.insert(file.name);
  }
  return names;
}

/// True if `there` holds a vocabulary: tokenizer.json, or one of the older kinds.
template <typename There>
bool has_vocabulary(const There& there) {
  return there("tokenizer.json") || there("tokenizer.model") || there("vocab.txt") ||
         (there("vocab.json") && there("merges.txt"));
}

}  // namespace

std::vector<std::string> tokenizer_files(const std::vector<ListedFile>& files) {
  const std::set<std::string> names = names_at_top(files);
  if (!has_vocabulary([&](const char* name) { return names.contains(name); })) return {};
  std::vector<std::string> out;
  const auto add = [&](std::initializer_list<const char*> wanted) {
    for (const char* name : wanted) {
      if (names.contains(name)) out.emplace_back(name);
    }
  };
  add({"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"});
  if (!names.contains("tokenizer.json")) add({"vocab.json", "merges.txt", "vocab.txt", "tokenizer.model"});
  return out;
}

bool has_tokenizer(const fs::path& folder) {
  std::error_code error;
  return has_vocabulary([&](const char* name) { return fs::is_regular_file(folder / name, error); });
}

std::vector<std::string> model_files(const std::vector<ListedFile>& files) {
  const std::set<std::string> names = names_at_top(files);
  std::vector<std::string> out = tokenizer_files(files);
  if (out.empty() || out.front() != "config.json") {
    if (names.contains("config.json")) out.insert(out.begin(), "config.json");
  }
  if (names.contains("generation_config.json")) out.emplace_back("generation_config.json");
  const auto add_ending = [&](std::string_view ending, std::string_view beginning) {
    for (const std::string& name : names) {
      if (name.ends_with(ending) && name.starts_with(beginning)) out.push_back(name);
    }
  };
  if (names.contains("model.safetensors")) {
    out.emplace_back("model.safetensors");
  } else if (names.contains("model.safetensors.index.json")) {
    out.emplace_back("model.safetensors.index.json");
    add_ending(".safetensors", "model-");
  } else if (names.contains("pytorch_model.bin")) {
    out.emplace_back("pytorch_model.bin");
  } else if (names.contains("pytorch_model.bin.index.json")) {
    out.emplace_back("pytorch_model.bin.index.json");
    add_ending(".bin", "pytorch_model-");
  } else {
    add_ending(".safetensors", "");
  }
  return out;
}

std::optional<std::string> missing_model_file(const fs::path& folder, bool with_tokenizer) {
  std::error_code error;
  const auto there = [&](const std::string& name) { return fs::is_regular_file(folder / name, error); };
  if (!there("config.json")) return "config.json";
  if (with_tokenizer && !has_tokenizer(folder)) return "tokenizer.json";
  // The order in which Checkpoint::open looks for them.
  for (const char* kind : {"model.safetensors", "pytorch_model.bin"}) {
    if (there(kind)) return std::nullopt;
    const std::string index = fmt::format("{}.index.json", kind);
    if (!there(index)) continue;
    for (const std::string& shard : read_index(folder / index)) {
      if (!there(shard)) return shard;
    }
    return std::nullopt;
  }
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".safetensors") return std::nullopt;
  }
  return "model.safetensors";
}

std::optional<Snapshot> find_model(const Options& options, const Repo& repo, bool with_tokenizer) {
  const RepoCache cache(options.cache, repo);
  const auto commit = cache.commit();
  if (!commit) return std::nullopt;
  const fs::path folder = cache.snapshot(*commit);
  if (missing_model_file(folder, with_tokenizer)) return std::nullopt;
  return Snapshot{.folder = folder, .commit = *commit};
}

Snapshot fetch_model(const Options& options, const Repo& repo, const OnFetch& on_progress) {
  FetchPlan plan = plan_fetch(options, repo, model_files);
  std::set<std::string> names;
  for (const PlannedFile& file : plan.files) names.insert(file.name);
  if (!names.contains("config.json")) {
    throw HubError(
        HubError::Kind::missing,
        fmt::format("The repository {} has no config.json; it holds no model in Hugging Face layout.", quote(repo.id)));
  }
  const RepoCache cache(options.cache, repo);
  if (const std::string index = model_index(names); !index.empty()) {
    // The index says which of the files that look like shards are shards.
    FetchPlan first = plan;
    std::erase_if(first.files, [](const PlannedFile& f) { return !f.name.ends_with(".json"); });
    fetch_missing(options, first, nullptr);
    const std::set<std::string> shards = read_index(cache.snapshot(plan.commit) / index);
    std::erase_if(plan.files, [&](const PlannedFile& f) {
      return (f.name.ends_with(".safetensors") || f.name.ends_with(".bin")) && !shards.contains(f.name);
    });
    for (const std::string& shard : shards) {
      if (!names.contains(shard)) plan.files.push_back({.name = shard, .size = std::nullopt, .cached = false});
    }
  }
  return fetch(options, plan, on_progress);
}

}  // namespace mxlm::hub
