#include "hub/data_sets.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "base/suggest.hpp"
#include "io/file.hpp"
#include "io/parquet.hpp"

namespace mxlm::hub {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPile = "pile";
constexpr const char* kFallback = "wikitext2";

/// A place of the files of a split.
struct Place {
  const char* id;        // of the repository
  const char* revision;  // a branch
  // The files, separated by '
  // ': {} is the split, {valid} is the split with "valid" for "validation", ? is any digit, and * stands for the rest
  // of a shard's name, SPLIT-00000-of-00002.parquet; all shards are taken.
  const char* files;
};

/// What the rows or lines of a set become.
enum class Shape : uint8_t {
  documents,  // each is a document
  lines,      // one text: rows are its lines, and an empty row is a blank line (" \n"), as WikiText's were made
  sentences,  // one text: rows without blanks around them, a blank between two, as GPTQ joins the Penn Treebank
};

/// A data set that is known by name.
struct KnownSet {
  const char* name;
  Shape shape;
  std::vector<const char*> splits;  // the default first
  const char* more_splits;          // in words, "" if there are no more
  std::vector<const char*> fields;  // columns with the text, usually one; the first one that a file has counts
  std::vector<Place> places;        // the first place that has the files counts
};

// Branches of the hub hold what its own conversion made of scripted data sets: CONFIGURATION/SPLIT/0000.parquet and,
// for large splits, further files, which are not read here.
constexpr const char* kConverted = "refs/convert/parquet";

const std::vector<KnownSet>& known_sets() {
  static const std::vector<KnownSet> sets = {
      {kPile,
       Shape::documents,
       {"test", "val"},
       "one of train/00 to train/29",
       {"text"},
       {{"monology/pile-uncopyrighted", "main", "{}.jsonl.zst"}}},
      {kFallback,
       Shape::lines,
       {"test", "validation", "train"},
       "",
       {"text"},
       {{"Salesforce/wikitext", "main", "wikitext-2-raw-v1/{}-*.parquet"},
        {"wikitext", "main", "wikitext-2-raw-v1/{}-*.parquet"}}},
      {"wikitext103",
       Shape::lines,
       {"test", "validation", "train"},
       "",
       {"text"},
       {{"Salesforce/wikitext", "main", "wikitext-103-raw-v1/{}-*.parquet"},
        {"wikitext", "main", "wikitext-103-raw-v1/{}-*.parquet"}}},
      {"code",
       Shape::documents,
       {"test", "validation", "train"},
       "",
       {"func_code_string", "whole_func_string", "code"},
       {{"code-search-net/code_search_net", "main", "python/{}-*.parquet"},
        {"code-search-net/code_search_net", kConverted, "python/{}/0000.parquet"}}},
      {"c4",
       Shape::documents,
       {"validation", "train"},
       "",
       {"text"},
       {{"allenai/c4", "main", "en/c4-{}.00000-of-0????.json.gz"}}},
      {"fineweb-edu",
       Shape::documents,
       {"train"},
       "",
       {"text"},
       {{"HuggingFaceFW/fineweb-edu", "main", "sample/10BT/000_00000.parquet"}}},
      {"redpajama",
       Shape::documents,
       {"train"},
       "",
       {"text"},
       {{"togethercomputer/RedPajama-Data-1T-Sample", "main",
         "arxiv_sample.jsonl\nbook_sample.jsonl\nc4_sample.jsonl\ncc_2019-30_sample.jsonl\ncc_2020-05_sample.jsonl\n"
         "cc_2021-04_sample.jsonl\ncc_2022-05_sample.jsonl\ncc_2023-06_sample.jsonl\ngithub_sample.jsonl\n"
         "stackexchange_sample.jsonl\nwikipedia_sample.jsonl"}}},
      {"ptb",
       Shape::sentences,
       {"test", "validation", "train"},
       "",
       {"sentence"},
       {{"ptb-text-only/ptb_text_only", "main", "penn_treebank/{}-*.parquet"},
        {"ptb-text-only/ptb_text_only", "main", "ptb.{valid}.txt"},
        {"ptb-text-only/ptb_text_only", kConverted, "penn_treebank/{}/0000.parquet"}}},
      {"lambada",
       Shape::documents,
       {"test"},
       "",
       {"text"},
       {{"EleutherAI/lambada_openai", "main", "data/lambada_test_en.jsonl"},
        {"EleutherAI/lambada_openai", "main", "en/{}-*.parquet"},
        {"EleutherAI/lambada_openai", kConverted, "en/{}/0000.parquet"}}},
  };
  return sets;
}

const KnownSet* find_set(const std::string& name) {
  const auto& sets = known_sets();
  const auto at = std::find_if(sets.begin(), sets.end(), [&](const KnownSet& set) { return set.name == name; });
  return at == sets.end() ? nullptr : &*at;
}

bool is_pile(const KnownSet& set) { return std::string_view(set.name) == kPile; }

/// The repository's name of a split. Throws UsageError.
std::string canonical_split(const KnownSet& set, const std::string& split) {
  if (split.empty()) return set.splits.front();
  const bool validation = split == "validation" || split == "val" || split == "valid";
  for (const char* known : set.splits) {
    const bool same = known == split || (validation && std::string_view(known).starts_with("val"));
    if (same) return known;
  }
  const bool shard = split.size() == 8 && split.starts_with("train/") && split >= "train/00" && split <= "train/29" &&
                     split[7] >= '0' && split[7] <= '9';
  if (is_pile(set) && shard) return split;
  std::vector<std::string> words(set.splits.begin(), set.splits.end());
  if (*set.more_splits != '\0') words.emplace_back(set.more_splits);
  fail_usage("{} has no split {}; it is {}.", quote(set.name), quote(split), fmt::join(words, ", or "));
}

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += by.size()) text.replace(at, what.size(), by);
  return text;
}

/// All shards BEGINNING00000-of-00002END among `names`, in order; empty if one is missing.
std::vector<std::string> all_shards(std::string_view beginning, std::string_view end,
                                    const std::vector<std::string>& names) {
  std::vector<std::string> out;
  for (const std::string& name : names) {
    if (name.starts_with(beginning) && name.ends_with(end)) out.push_back(name);
  }
  std::sort(out.begin(), out.end());
  if (out.empty()) return out;
  const size_t of = out.front().rfind("-of-");
  size_t count = 0;
  if (of != out.front().npos) {
    const char* first = out.front().data() + of + 4;
    std::from_chars(first, out.front().data() + out.front().size(), count);
  }
  if (count != out.size()) out.clear();
  return out;
}

/// The files of a split among the files of a repository, in order; empty if they are incomplete.
std::vector<std::string> split_files(const Place& place, const std::string& split,
                                     const std::vector<std::string>& names) {
  const std::string files =
      replaced(replaced(place.files, "{valid}", split == "validation" ? "valid" : split), "{}", split);
  if (const size_t star = files.find('*'); star != files.npos) {
    const std::string_view pattern = files;
    return all_shards(pattern.substr(0, star), pattern.substr(star + 1), names);
  }
  std::vector<std::string> out;
  std::istringstream lines(files);
  for (std::string name; std::getline(lines, name);) {
    const auto at = std::find_if(names.begin(), names.end(), [&](const std::string& candidate) {
      return std::equal(name.begin(), name.end(), candidate.begin(), candidate.end(),
                        [](char c, char other) { return c == '?' ? other >= '0' && other <= '9' : c == other; });
    });
    if (at == names.end()) return {};
    out.push_back(*at);
  }
  return out;
}

Repo repo_of(const Place& place) { return {.kind = RepoKind::dataset, .id = place.id, .revision = place.revision}; }

/// The files of a split in the cache; empty if they are incomplete.
std::vector<fs::path> find_cached(const Options& options, const KnownSet& set, const std::string& split) {
  for (const Place& place : set.places) {
    const RepoCache cache(options.cache, repo_of(place));
    const auto commit = cache.commit();
    if (!commit) continue;
    std::vector<fs::path> out;
    for (const std::string& name : split_files(place, split, cache.files(*commit))) {
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
  std::optional<HubError> first;
  for (const Place& place : set.places) {
    try {
      FetchPlan plan = plan_fetch(options, repo_of(place), [&](const std::vector<ListedFile>& files) {
        std::vector<std::string> names;
        names.reserve(files.size());
        for (const ListedFile& file : files) names.push_back(file.name);
        return split_files(place, split, names);
      });
      if (!plan.files.empty()) return plan;
    } catch (const HubError& error) {
      // If a place has disappeared, the next place may still exist.
      if (error.kind != HubError::Kind::missing) throw;
      if (!first) first = error;
    }
  }
  if (first) throw HubError(*first);
  throw HubError(HubError::Kind::missing, fmt::format("The data set {} does not have the files of {}:{} any more.",
                                                      quote(set.places.front().id), set.name, split));
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

constexpr const char* kBlanks = " \t\r\n";

bool is_blank(const std::string& text) { return text.find_first_not_of(kBlanks) == text.npos; }

/// The field of the set that the files have. If there is a choice, a log line names it.
std::string field_of(const KnownSet& set, const std::vector<std::string>& paths) {
  if (set.fields.size() == 1 || !paths.front().ends_with(".parquet")) return set.fields.front();
  for (const char* field : set.fields) {
    if (!parquet_has_strings(paths.front(), field)) continue;
    log_info("{}: the texts are the column {}", set.name, quote(field));
    return field;
  }
  fail("{} has none of the columns {}; the data set has changed.", quote(paths.front()), fmt::join(set.fields, ", "));
}

void keep_first(DocumentSource& source, int64_t count) {
  if (count > 0 && source.documents.size() > static_cast<size_t>(count)) {
    source.documents.resize(static_cast<size_t>(count));
  }
}

/// Turns a plain text into the rows that the script of the data set made of its lines: without blanks around them.
void split_lines(DocumentSource& source) {
  std::vector<Document> rows;
  for (const Document& text : source.documents) {
    std::istringstream lines(text.text);
    for (std::string line; std::getline(lines, line);) {
      const size_t begin = std::min(line.find_first_not_of(kBlanks), line.size());
      const size_t end = line.find_last_not_of(kBlanks) + 1;
      rows.push_back({.text = line.substr(begin, std::max(begin, end) - begin), .subset = ""});
    }
  }
  source.documents = std::move(rows);
}

/// Makes one text of the rows.
void join_rows(DocumentSource& source, Shape shape) {
  Document text;
  for (const Document& row : source.documents) {
    if (shape == Shape::lines) {
      text.text += row.text.empty() ? " \n" : row.text;
    } else {
      if (&row != &source.documents.front()) text.text += ' ';
      text.text += row.text;
    }
  }
  source.is_text = true;
  source.sha256 = sha256_hex(std::as_bytes(std::span(text.text)));
  source.documents.clear();
  source.documents.push_back(std::move(text));
}

DocumentSource read_known(const Options& options, const DataRequest& request, const ReadDataOptions& how,
                          const OnFetch& on_progress) {
  const KnownSet& set = *find_set(request.name);
  const std::string split = canonical_split(set, request.split);
  if (!is_pile(set) && !request.subset.empty()) {
    fail_usage("{} has no subsets; leave {} out.", quote(set.name), quote(request.subset));
  }
  std::vector<std::string> paths;
  for (const fs::path& path : find_or_fetch(options, set, split, on_progress)) paths.push_back(path.string());
  const std::string name = fmt::format("{}:{}", set.name, split);
  const std::string field = field_of(set, paths);
  if (set.shape == Shape::documents) {
    DocumentSource source = read_files(paths, name, field, how.max_documents, request.subset);
    if (!request.subset.empty()) source.name += ":" + request.subset;
    return source;
  }
  const bool plain = paths.front().ends_with(".txt");
  DocumentSource source = read_files(paths, name, field, how.wikitext_rows || plain ? 0 : how.max_documents);
  if (plain) split_lines(source);
  if (how.wikitext_rows) std::erase_if(source.documents, [](const Document& row) { return is_blank(row.text); });
  keep_first(source, how.max_documents);
  if (!how.wikitext_rows) join_rows(source, set.shape);
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
    fail_usage("--data {} is neither a data set nor a file; known data sets are {}.{}", quote(text),
               fmt::join(data_set_names(), ", "), suggestion(head, data_set_names()));
  }
  request.path = text;  // the reader says what is wrong
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
    // The prototype did the same without saying so.
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
