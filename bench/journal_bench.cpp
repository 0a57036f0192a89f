// What keeping a finished round costs: its record made and read back, and appended to a journal on a disk with a sync.
// A round is MXLM_BENCH_TOKENS tokens (65,536) x MXLM_BENCH_VARIANTS variants (5) in windows of 2,048; the journal lies
// in the folder MXLM_BENCH_DIR (the current one).

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "journal/journal.hpp"
#include "journal/records.hpp"

namespace {

namespace fs = std::filesystem;
using mxlm::Journal;
using mxlm::JournalRound;

constexpr int64_t kWindow = 2048;

int64_t number(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoll(text, nullptr, 10) : otherwise;
}

int64_t tokens() { return number("MXLM_BENCH_TOKENS", 65536); }
int64_t variants() { return number("MXLM_BENCH_VARIANTS", 5); }

const JournalRound& round_of_bench() {
  static const JournalRound round = [] {
    JournalRound out;
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(0, 1);
    const auto count = static_cast<size_t>(variants());
    out.result.positions = tokens();
    out.result.seconds.resize(count, {.forward = 1, .prepare = 1, .head = 1});
    for (int64_t begin = 0; begin < tokens(); begin += kWindow) {
      out.windows.push_back(static_cast<uint32_t>(begin / kWindow));
      mxlm::WindowResult& window = out.result.windows.emplace_back();
      window.scores.resize(count);
      window.layer_errors.resize(count, std::vector<mxlm::ErrorSums>(64, {1, 1, 1}));
      for (mxlm::WindowScores& scores : window.scores) {
        scores.tokens.resize(kWindow - 1);
        for (mxlm::TokenScore& token : scores.tokens) {
          token.p = uniform(random);
          token.nll = 3 * static_cast<double>(token.p);
          token.kld = static_cast<double>(uniform(random));
          token.top1 = static_cast<int32_t>(random() % 128256);
        }
      }
    }
    return out;
  }();
  return round;
}

void count(benchmark::State& state, size_t bytes) {
  state.SetBytesProcessed(static_cast<int64_t>(bytes) * state.iterations());
  state.counters["record_bytes"] = static_cast<double>(bytes);
  state.counters["bytes_a_token"] = static_cast<double>(bytes) / static_cast<double>(tokens() * variants());
}

void encode(benchmark::State& state) {
  const JournalRound& round = round_of_bench();
  size_t bytes = 0;
  for (auto _ : state) {
    const auto record = mxlm::encode_record(round);
    bytes = record.size();
    benchmark::DoNotOptimize(record.data());
  }
  count(state, bytes);
}

void scan(benchmark::State& state) {
  auto file = mxlm::journal_header();
  const auto record = mxlm::encode_record(round_of_bench());
  file.insert(file.end(), record.begin(), record.end());
  for (auto _ : state) {
    const auto found = mxlm::scan_journal(file);
    if (found.rounds.size() != 1) state.SkipWithError("the record was not found again");
  }
  count(state, record.size());
}

/// append and flush: the record is on the disk after each.
void append_and_sync(benchmark::State& state) {
  const char* where = std::getenv("MXLM_BENCH_DIR");
  const fs::path folder = fs::path(where != nullptr ? where : ".") / "journal_bench.tmp";
  fs::remove_all(folder);
  const JournalRound& round = round_of_bench();
  {
    Journal journal(folder, Journal::Open::fresh, {{"benchmark", "journal_bench"}}, round.windows.size());
    const size_t segment = journal.add_pass(std::vector<std::string>(static_cast<size_t>(variants()), ""));
    for (auto _ : state) {
      journal.append(segment, false, round.windows, round.result);
      journal.flush();
    }
    if (journal.failure()) state.SkipWithError(journal.failure()->c_str());
  }
  count(state, mxlm::encode_record(round).size());
  fs::remove_all(folder);
}

BENCHMARK(encode)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(scan)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(append_and_sync)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
