#include "io/hub/data_sets.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <system_error>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "base/suggest.hpp"
#include "io/file.hpp"

namespace mxlm::hub {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPile = "pile";
constexpr const char* kFallback = "wikitext2";

/// A data set that is known by name.
struct KnownSet {
  const char* name;
  const char* title;
  std::vector<const char*> ids;  // on the hub, the present one first
  const char* folder;            // of its files in the repository; "" for the pile
};

const std::vector<KnownSet>& known_sets() {
  static const std::vector<KnownSet> sets = {
      {kPile, "the Pile", {"monology/pile-uncopyrighted"}, ""},
      {kFallback, "WikiText-2", {"Salesforce/wikitext", "wikitext"}, "wikitext-2-raw-v1"},
      {"wikitext103", "WikiText-103", {"Salesforce/wikitext", "wikitext"}, "wikitext-103-raw-v1"},
  };
  return sets;
}

const KnownSet* find_set(const std::string& name) {
  const auto& sets = known_sets();
  const auto at = std::find_if(sets.begin(), sets.end(), [&](const KnownSet& set) { return set.name == name; });
  return at == sets.end() ? nullptr : &*at;
}

bool is_wikitext(const KnownSet& set) { return *set.folder != '\0'; }

/// A split as the repository names it. Throws UsageError.
std::string canonical_split(const KnownSet& set, const std::string& split) {
  if (split.empty() || split == "test") return "test";
  const bool validation = split == "validation" || split == "val" || split == "valid";
  if (is_wikitext(set)) {
    if (validation) return "validation";
    if (split == "train") return split;
    fail_usage("{} has no split {}; it is test, validation or train.", quote(set.name), quote(split));
  }
  if (validation) return "val";
  const bool shard = split.size() == 8 && split.starts_with("train/") && split >= "train/00" && split <= "train/29" &&
                     split[7] >= '0' && split[7] <= '9';
  if (!shard) {
    fail_usage("{} has no split {}; it is test, val, or one of train/00 to train/29.", quote(set.name), quote(split));
  }
  return split;
}

/// The files of a split among those of a repository, in order; empty if they are not all there.
std::vector<std::string> split_files(const KnownSet& set, const std::string& split,
                                     const std::vector<std::string>& names) {
  std::vector<std::string> out;
  if (!is_wikitext(set)) {
    const std::string name = split + ".jsonl.zst";
    if (std::find(names.begin(), names.end(), name) != names.end()) out.push_back(name);
    return out;
  }
  // FOLDER/SPLIT-00000-of-00002.parquet
  const std::string prefix = fmt::format("{}/{}-", set.folder, split);
  for (const std::string& name : names) {
    if (name.starts_with(prefix) && name.ends_with(".parquet")) out.push_back(name);
  }
  std::sort(out.begin(), out.end());
  if (!out.empty()) {
    const size_t of = out.front().rfind("-of-");
    size_t count = 0;
    if (of != out.front().npos) {
      const char* begin = out.front().data() + of + 4;
      std::from_chars(begin, out.front().data() + out.front().size(), count);
    }
    if (count != out.size()) out.clear();
  }
  return out;
}

Repo repo_of(const std::string& id) { return {.kind = RepoKind::dataset, .id = id, .revision = "main"}; }

/// The files of a split in the cache; empty if it is not there as a whole.
std::vector<fs::path> find_cached(const Options& options, const KnownSet& set, const std::string& split) {
  for (const char* id : set.ids) {
    const RepoCache cache(options.cache, repo_of(id));
    const auto commit = cache.commit();
    if (!commit) continue;
    std::vector<fs::path> out;
    for (const std::string& name : split_files(set, split, cache.files(*commit))) {
      if (auto path = cache.file(*commit, name)) out.push_back(*path);
    }
    if (!out.empty()) return out;
  }
  return {};
}

FetchPlan plan_split(const Options& options, const KnownSet& set, const std::string& split) {
  if (options.offline) {
    throw HubError(HubError::Kind::offline,
                   fmt::format("The data set {0}:{1} is not in the cache and HF_HUB_OFFLINE is set; unset it, or run "
                               "'mxlm fetch {0}:{1}' where there is a network.",
                               set.name, split));
  }
  FetchPlan plan = plan_fetch(options, repo_of(set.ids.front()), [&](const std::vector<ListedFile>& files) {
    std::vector<std::string> names;
    names.reserve(files.size());
    for (const ListedFile& file : files) names.push_back(file.name);
    return split_files(set, split, names);
  });
  if (plan.files.empty()) {
    throw HubError(HubError::Kind::missing, fmt::format("The data set {} does not have the files of {}:{} any more.",
                                                        quote(set.ids.front()), set.name, split));
  }
  return plan;
}

std::vector<fs::path> find_or_fetch(const Options& options, const KnownSet& set, const std::string& split,
                                    const OnFetch& on_progress) {
  if (auto cached = find_cached(options, set, split); !cached.empty()) return cached;
  const FetchPlan plan = plan_split(options, set, split);
  const Snapshot snapshot = fetch(options, plan, on_progress);
  std::vector<fs::path> out;
  out.reserve(plan.files.size());
  for (const PlannedFile& file : plan.files) out.push_back(snapshot.folder / file.name);
  return out;
}

bool is_blank(const std::string& text) { return text.find_first_not_of(" \t\r\n") == text.npos; }

DocumentSource read_wikitext(const std::vector<std::string>& paths, const std::string& name, bool rows,
                             int64_t max_documents) {
  DocumentSource source = read_files(paths, name, "text", rows ? 0 : max_documents);
  if (rows) {
    std::erase_if(source.documents, [](const Document& row) { return is_blank(row.text); });
    if (max_documents > 0 && source.documents.size() > static_cast<size_t>(max_documents)) {
      source.documents.resize(static_cast<size_t>(max_documents));
    }
    return source;
  }
  // The data set made an empty row of each blank line (" \n") of the raw file; every other row is a line of it.
  Document text;
  for (const Document& row : source.documents) text.text += row.text.empty() ? " \n" : row.text;
  source.is_text = true;
  source.sha256 = sha256_hex(std::as_bytes(std::span(text.text)));
  source.documents.clear();
  source.documents.push_back(std::move(text));
  return source;
}

DocumentSource read_known(const Options& options, const DataRequest& request, const ReadDataOptions& how,
                          const OnFetch& on_progress) {
  const KnownSet& set = *find_set(request.name);
  const std::string split = canonical_split(set, request.split);
  if (is_wikitext(set) && !request.subset.empty()) {
    fail_usage("{} has no subsets; leave {} out.", set.name, quote(request.subset));
  }
  std::vector<std::string> paths;
  for (const fs::path& path : find_or_fetch(options, set, split, on_progress)) paths.push_back(path.string());
  const std::string name = fmt::format("{}:{}", set.name, split);
  if (is_wikitext(set)) return read_wikitext(paths, name, how.wikitext_rows, how.max_documents);
  DocumentSource source = read_files(paths, name, "text", how.max_documents, request.subset);
  if (!request.subset.empty()) source.name += ":" + request.subset;
  return source;
}

/// The files of a split in a folder: test.jsonl, test-00000-of-00001.parquet, but not testing.jsonl.
std::vector<std::string> split_of_folder(const std::string& folder, const std::string& split) {
  std::vector<std::string> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool mine = name.starts_with(split) && name.size() > split.size() &&
                      std::string_view("-_.").find(name[split.size()]) != std::string_view::npos;
    if (mine && it->is_regular_file(error)) paths.push_back(it->path().string());
  }
  if (paths.empty()) fail("{} has no files of a split {}.", quote(folder), quote(split));
  std::sort(paths.begin(), paths.end());
  return paths;
}

DocumentSource read_path(const DataRequest& request, const ReadDataOptions& how) {
  if (request.split.empty() && request.subset.empty()) {
    return read_documents(request.path, how.field, how.max_documents);
  }
  std::error_code error;
  const bool folder = fs::is_directory(request.path, error);
  if (!request.split.empty() && !folder) {
    fail_usage("{} is one file and has no split {}; leave it out.", quote(request.path), quote(request.split));
  }
  if (request.split.empty() && folder) {
    fail_usage("{} is a folder; name the split that holds the subset {}, too.", quote(request.path),
               quote(request.subset));
  }
  const auto paths = folder ? split_of_folder(request.path, request.split) : std::vector{request.path};
  DocumentSource source = read_files(paths, request.path, how.field, how.max_documents, request.subset);
  source.name =
      fmt::format("{}:{}{}{}", request.path, request.split, request.subset.empty() ? "" : ":", request.subset);
  return source;
}

}  // namespace

const std::vector<std::string>& data_set_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const KnownSet& set : known_sets()) out.emplace_back(set.name);
    return out;
  }();
  return names;
}

DataRequest parse_data_request(const std::string& text) {
  std::error_code error;
  DataRequest request;
  if (fs::exists(text, error)) {
    request.path = text;
    return request;
  }
  const auto take = [&request](std::string_view rest) {
    if (rest.empty()) return;
    const size_t colon = rest.find(':', 1);
    request.split = rest.substr(1, colon == rest.npos ? rest.npos : colon - 1);
    if (colon != rest.npos) request.subset = rest.substr(colon + 1);
  };
  const size_t first = text.find(':');
  const std::string head = text.substr(0, first);
  if (find_set(head) != nullptr) {
    request.name = head;
    take(std::string_view(text).substr(std::min(first, text.size())));
    return request;
  }
  // The longest beginning that exists is the path.
  for (size_t colon = text.rfind(':'); colon != text.npos && colon > 0; colon = text.rfind(':', colon - 1)) {
    if (!fs::exists(text.substr(0, colon), error)) continue;
    request.path = text.substr(0, colon);
    take(std::string_view(text).substr(colon));
    return request;
  }
  if (text.find_first_of("/.") == text.npos) {
    fail_usage("--data {} is no data set and no file; known data sets are {}.{}", quote(text),
               fmt::join(data_set_names(), ", "), suggestion(head, data_set_names()));
  }
  request.path = text;  // reading it says what is wrong
  return request;
}

FetchPlan plan_data_set(const Options& options, const DataRequest& request) {
  const KnownSet& set = *find_set(request.name);
  return plan_split(options, set, canonical_split(set, request.split));
}

DocumentSource read_data_set(const Options& options, const DataRequest& request, const ReadDataOptions& how,
                             const OnFetch& on_progress) {
  if (request.name.empty()) return read_path(request, how);
  if (request.name != kPile) return read_known(options, request, how, on_progress);
  try {
    return read_known(options, request, how, on_progress);
  } catch (const HubError& pile) {
    if (pile.kind == HubError::Kind::damaged) throw;
    // As the prototype did, but not silently.
    const DataRequest fallback{.name = kFallback, .path = "", .split = "", .subset = ""};
    ReadDataOptions rows = how;
    rows.wikitext_rows = true;
    DocumentSource source;
    try {
      source = read_known(options, fallback, rows, on_progress);
    } catch (const HubError& wikitext) {
      fail("Neither the Pile nor WikiText-2 in its place can be had: {} {}", pile.what(), wikitext.what());
    }
    log_warn("the Pile is not to be had, SO THE ROWS OF WIKITEXT-2 TAKE ITS PLACE ({})", pile.what());
    return source;
  }
}

}  // namespace mxlm::hub
