// Tokens of whole texts and of single lines, on one thread. bench/peers/tokenizer_speed.py runs this beside the
// library.
//
// Environment: MXLM_TOKENIZER (a tokenizer.json; default booklet-7m's), MXLM_TEXT (default data/wiki.test.raw).

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.hpp"

namespace {

std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

struct Inputs {
  std::string path = setting("MXLM_TOKENIZER", "models/booklet-7m/tokenizer.json");
  std::string json = read(path);
  std::string text = read(setting("MXLM_TEXT", "data/wiki.test.raw"));
};

const Inputs& inputs() {
  static const Inputs all;
  return all;
}

/// A tokenizer that has seen nothing each time: its word cache starts empty.
void whole_text_first_time(benchmark::State& state) {
  for (auto _ : state) {
    state.PauseTiming();
    const auto tokenizer = mxlm::Tokenizer::from_json(inputs().json, inputs().path);
    state.ResumeTiming();
    benchmark::DoNotOptimize(tokenizer.encode(inputs().text, false));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(inputs().text.size()));
}

void whole_text(benchmark::State& state) {
  const auto tokenizer = mxlm::Tokenizer::from_json(inputs().json, inputs().path);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.encode(inputs().text, false));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(inputs().text.size()));
}

void lines(benchmark::State& state) {
  const auto tokenizer = mxlm::Tokenizer::from_json(inputs().json, inputs().path);
  std::vector<std::string_view> all;
  const std::string_view text = inputs().text;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    all.push_back(text.substr(at, end - at));
    at = end;
  }
  for (auto _ : state) {
    for (const std::string_view line : all) benchmark::DoNotOptimize(tokenizer.encode(line, false));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

void load(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(mxlm::Tokenizer::from_json(inputs().json, inputs().path));
}

BENCHMARK(whole_text_first_time)->Unit(benchmark::kMillisecond);
BENCHMARK(whole_text)->Unit(benchmark::kMillisecond);
BENCHMARK(lines)->Unit(benchmark::kMillisecond);
BENCHMARK(load)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
