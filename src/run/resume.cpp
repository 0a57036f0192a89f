#include "run/resume.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <memory>

#include "base/error.hpp"
#include "base/log.hpp"
#include "io/sha256.hpp"
#include "journal/records.hpp"

namespace mxlm {
namespace {

/// A hash of the windows, which depend on texts, tokenizer and protocol.
std::string hash_of(std::span<const Window> windows) {
  Sha256 hash;
  for (const Window& window : windows) {
    const int32_t numbers[] = {static_cast<int32_t>(window.tokens.size()), window.score_begin, window.next,
                               window.keys};
    hash.update(std::as_bytes(std::span(numbers)));
    hash.update(std::as_bytes(std::span(window.tokens)));
  }
  return hash.hex();
}

/// The first version whose figures of windows are the same as this version's. A release that changes a figure of any
/// family on any device sets its own number here; then journals of earlier versions are refused.
constexpr const char* kFiguresSince = "0.2.0";

std::string text_of(const Variant& variant, bool baseline) { return baseline ? "" : variant.canonical(); }

std::string listed(const std::vector<std::string>& variants) {
  std::vector<std::string> out;
  std::transform(variants.begin(), variants.end(), std::back_inserter(out),
                 [](const std::string& v) { return v.empty() ? "baseline" : v; });
  return fmt::format("{}", fmt::join(out, " + "));
}

/// Makes the missing folders, readable for their user alone, as the XDG specification requires for state. A failure
/// shows when a journal is made in them.
void make_private_folders(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (folder.empty() || std::filesystem::exists(folder, ignored)) return;
  make_private_folders(folder.parent_path());
  if (mkdir(folder.c_str(), 0700) != 0) log_debug("'{}' cannot be made", folder.native());
}

bool same_bits(const WindowScores& a, const WindowScores& b) {
  return std::equal(a.tokens.begin(), a.tokens.end(), b.tokens.begin(), b.tokens.end(),
                    [](const TokenScore& x, const TokenScore& y) {
                      return std::bit_cast<uint64_t>(x.nll) == std::bit_cast<uint64_t>(y.nll) &&
                             std::bit_cast<uint32_t>(x.p) == std::bit_cast<uint32_t>(y.p) &&
                             std::bit_cast<uint32_t>(x.entropy) == std::bit_cast<uint32_t>(y.entropy) &&
                             x.top1 == y.top1 && x.finite == y.finite;
                    });
}

}  // namespace

std::vector<JournalFact> journal_facts(const LoadedModel& model, const std::string& model_sha256,
                                       const DocumentSource& data, const ProtocolOptions& protocol,
                                       std::span<const Window> windows, DType compute, const BackendKind& backend,
                                       const ResolvedOptions& options) {
  return {
      {"version", kFiguresSince},
      // This fact identifies a journal with another layout before its records are read.
      {"records", std::string(kJournalHeader)},
      {"model", model_sha256},
      {"adapter", model.adapter ? model.adapter->sha256() : "none"},
      {"configuration", model.config_sha256},
      {"data", data.sha256},
      {"protocol",
       fmt::format("{}, context {}, stride {}, at most {} windows{}", protocol.name, protocol.context, protocol.stride,
                   protocol.max_windows, protocol.windows > 0 ? fmt::format(", {} spread", protocol.windows) : "")},
      {"windows", fmt::format("{} {}", windows.size(), hash_of(windows))},
      {"dtype", compute == DType::f32 ? "float32" : "bfloat16"},
      {"backend", backend.description},
      {"libraries", backend.libraries},
      {"noise", options.asked.noise ? "measured" : "not measured"},
      {"Jensen-Shannon divergence", options.asked.jensen_shannon ? "measured" : "not measured"},
  };
}

std::unique_ptr<Journal> open_journal(const ResolvedOptions& options, std::vector<JournalFact> facts, size_t windows) {
  namespace fs = std::filesystem;
  const api::EvaluateOptions& asked = options.asked;
  using Open = Journal::Open;
  const Open open = asked.shared ? Open::share : asked.resume ? Open::resume : Open::fresh;
  if (!asked.journal.empty()) {
    if (asked.resume && !holds_journal(asked.journal)) log_info("there is nothing to resume yet; a new run begins");
    return std::make_unique<Journal>(asked.journal, open, std::move(facts), windows);
  }
  Sha256 hash;
  for (const JournalFact& fact : facts) {
    hash.update(std::as_bytes(std::span(fact.name)));
    hash.update(std::as_bytes(std::span(fact.value)));
    hash.update(std::as_bytes(std::span("\n", 1)));
  }
  const fs::path folder = options.journal_root / hash.hex().substr(0, 16);
  make_private_folders(options.journal_root);
  if (asked.resume && !holds_journal(folder)) {
    log_info("there is no unfinished run of this kind to resume; a new run begins");
  }
  try {
    // A journal without shards must not replace an older journal that holds shards.
    if (!asked.resume && holds_journal(folder) && !holds_rounds(folder)) remove_journal(folder);
    if (!asked.resume && holds_journal(folder) && !journal_in_use(folder)) {
      fs::path aside = folder;
      aside += ".old";
      remove_journal(aside);
      std::error_code error;
      fs::rename(folder, aside, error);
      if (!error) {
        log_warn("there is an unfinished run of this kind; to go on with it, use --journal '{}' --resume",
                 aside.native());
      }
    }
    return std::make_unique<Journal>(folder, open, std::move(facts), windows);
  } catch (const Error& error) {
    if (asked.resume) throw;
    log_info("this run keeps no journal: {}", error.what());
  }
  return nullptr;
}

std::vector<ResumedPass> resume_passes(Journal& journal, std::span<const Variant> variants, bool noise) {
  std::vector<std::string> wanted;
  for (size_t v = 0; v < variants.size(); ++v) wanted.push_back(text_of(variants[v], v == 0));
  const auto complete = [&](size_t s) { return journal.complete(s, false) && (!noise || journal.complete(s, true)); };
  const auto holds = [](const std::vector<std::string>& list, const std::string& variant) {
    return std::find(list.begin(), list.end(), variant) != list.end();
  };
  std::vector<std::string> missing{""};
  for (const std::string& variant : wanted) {
    const auto& all = journal.passes();
    const bool there = std::any_of(all.begin(), all.end(), [&](const auto& list) { return holds(list, variant); });
    if (!there && !holds(missing, variant)) missing.push_back(variant);
  }
  for (size_t s = 0; s < journal.passes().size(); ++s) {
    const std::vector<std::string>& list = journal.passes()[s];
    const bool all_wanted = std::all_of(list.begin(), list.end(), [&](const auto& v) { return holds(wanted, v); });
    if (complete(s) || (all_wanted && missing.size() == 1)) continue;
    fail(
        "The variants differ from those of the journal's run, which is not finished: {} there, {} now; finish that run "
        "first, then add or leave out variants.",
        listed(list), listed(wanted));
  }
  if (journal.passes().empty() || missing.size() > 1) journal.add_pass(missing);

  std::vector<ResumedPass> out;
  std::vector<bool> placed(variants.size(), false);
  for (size_t s = 0; s < journal.passes().size(); ++s) {
    const std::vector<std::string>& list = journal.passes()[s];
    ResumedPass pass{.pass = s, .variants = {}, .place = {}};
    pass.place.resize(variants.size());
    bool used = variants.size() == 1;  // the baseline alone is in every pass, so the first pass is enough
    for (size_t v = 0; v < variants.size(); ++v) {
      const auto found = std::find(list.begin(), list.end(), wanted[v]);
      if (placed[v] || found == list.end()) continue;
      pass.place[v] = static_cast<size_t>(found - list.begin());
      used = used || v > 0;
    }
    if (!used || (variants.size() == 1 && !out.empty())) continue;
    for (size_t v = 0; v < variants.size(); ++v) placed[v] = placed[v] || pass.place[v].has_value();
    for (const std::string& text : list) pass.variants.push_back(Variant::parse_or_baseline(text));
    out.push_back(std::move(pass));
  }
  return out;
}

RunScores journaled_result(const Journal& journal, size_t pass, bool reversed, std::span<const size_t> windows) {
  const size_t variants = journal.passes().at(pass).size();
  RunScores out;
  out.windows.assign(windows.begin(), windows.end());
  out.scores.resize(variants);
  out.layer_errors.resize(variants);
  out.routes.resize(variants);
  auto known = journal.known(pass, reversed);
  for (const size_t w : windows) {
    for (size_t v = 0; v < variants; ++v) {
      out.scores[v].push_back(std::move(known[w]->scores[v]));
      auto& sums = out.layer_errors[v];
      const auto& steps = known[w]->layer_errors[v];
      sums.resize(std::max(sums.size(), steps.size()));
      for (size_t s = 0; s < steps.size(); ++s) sums[s] += steps[s];
    }
  }
  const JournalTimes times = journal.times(pass, reversed);
  out.seconds = times.seconds;
  WorkerReport& worker = out.workers.emplace_back();
  worker.rounds = 1;
  worker.positions = times.positions;
  worker.seconds = times.seconds;
  return out;
}

RunScores assemble(std::span<const ResumedPass> passes, std::vector<RunScores> results) {
  const size_t variants = passes.front().place.size();
  RunScores out;
  out.windows = results.front().windows;
  out.scores.resize(variants);
  out.layer_errors.resize(variants);
  out.seconds.resize(variants);
  out.routes.resize(variants);
  for (size_t s = 0; s < passes.size(); ++s) {
    RunScores& result = results[s];
    for (size_t i = 0; i < out.windows.size(); ++i) {
      if (same_bits(result.scores[0][i], results[0].scores[0][i])) continue;
      fail(
          "The baseline of window {} differs from the journal's baseline, so old and new variants cannot be compared; "
          "run all variants again with another journal.",
          out.windows[i]);
    }
    out.complete = out.complete && result.complete;
    if (out.stopped.empty()) out.stopped = result.stopped;
    out.positions += result.positions;
    out.wall_seconds += result.wall_seconds;
    for (WorkerReport& worker : result.workers) {
      std::vector<VariantSeconds> seconds(variants);
      for (size_t v = 0; v < variants; ++v) {
        const auto place = passes[s].place[v];
        // A worker whose device lacked memory from the start has no times.
        if (place && *place < worker.seconds.size()) seconds[v] = worker.seconds[*place];
      }
      worker.seconds = std::move(seconds);
      out.workers.push_back(std::move(worker));
    }
    for (size_t v = 0; v < variants; ++v) {
      const auto place = passes[s].place[v];
      if (!place) continue;
      out.scores[v] = result.scores[*place];
      out.layer_errors[v] = result.layer_errors[*place];
      out.seconds[v] = result.seconds[*place];
      out.routes[v] = result.routes[*place];
    }
  }
  return out;
}

}  // namespace mxlm
