// A thousand small evaluations in one process through libmxlm: memory in use, resident memory, descriptors and threads
// must not grow. usage: soak [RUNS [WARM_UP]]
//
// Each run loads the model, evaluates two variants on one window, casts an array, is once cancelled and once refused.
// What is compared is the state after the warm-up and at the end:
// * bytes in use on the heap, as the allocator counts them, which trimming does not change: at most kHeapGrowth bytes a
//   run more;
// * resident memory: at most kResidentGrowth bytes more in all, which is what pages of the heap that hold free memory
//   move by between runs;
// * open descriptors and threads: the same number.

#include <malloc.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <mxlm/mxlm.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr double kHeapGrowth = 16;  // a single leaked allocation a run is more
constexpr int64_t kResidentGrowth = int64_t{4} << 20;

struct State {
  int64_t heap = 0, resident = 0;  // bytes
  int64_t descriptors = 0, threads = 0;
};

int64_t entries(const char* folder) {
  int64_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++n;
  return n;
}

State state() {
  State s;
  const struct mallinfo2 info = mallinfo2();
  s.heap = static_cast<int64_t>(info.uordblks + info.hblkhd);
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  s.resident = resident * sysconf(_SC_PAGESIZE);
  s.descriptors = entries("/proc/self/fd");
  s.threads = entries("/proc/self/task");
  return s;
}

void print(const char* when, const State& s) {
  std::cout << when << ": heap in use " << s.heap << " B, resident " << s.resident << " B, descriptors "
            << s.descriptors << ", threads " << s.threads << std::endl;
}

/// The NLLs of a run, which must be those of every other.
std::string once() {
  const auto model = mxlm::api::Model::load();
  const auto data = mxlm::api::Data::embedded();
  mxlm::api::EvaluateOptions options;
  options.variants = {"mlp=mxfp4", "linear=mxint8/none"};
  options.context = 64;
  options.max_windows = 1;
  options.threads = 2;
  options.device = "cpu";
  const auto result = mxlm::api::evaluate(model, data, options);
  std::string figures;
  for (const auto& f : result.figures) figures += std::to_string(f.nll) + " ";

  bool cancelled = false;
  options.cancelled = [] { return true; };
  try {
    mxlm::api::evaluate(model, data, options);
  } catch (const mxlm::Interrupted&) {
    cancelled = true;
  }
  if (!cancelled) throw std::logic_error("a cancelled evaluation went on");
  bool refused = false;
  options.variants = {"mlp=mxfp3"};
  try {
    mxlm::api::evaluate(model, data, options);
  } catch (const mxlm::UsageError&) {
    refused = true;
  }
  if (!refused) throw std::logic_error("an unknown format was taken");

  std::vector<float> values(1 << 18);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 251) - 125;
  figures += std::to_string(mxlm::api::quantize("mxfp4", values, 256)[1]);
  return figures;
}

}  // namespace

int main(int argc, char** argv) {
  const int runs = argc > 1 ? std::atoi(argv[1]) : 1000;
  const int warm_up = argc > 2 ? std::atoi(argv[2]) : 100;
  if (warm_up < 1 || runs <= warm_up) {
    std::cerr << "usage: soak [RUNS [WARM_UP]], RUNS > WARM_UP > 0\n";
    return 2;
  }
  std::string first;
  State before, now;
  for (int run = 1; run <= runs; ++run) {
    const std::string figures = once();
    if (run == 1) first = figures;
    if (figures != first) {
      std::cerr << "run " << run << " has other figures: " << figures << "instead of " << first << '\n';
      return 1;
    }
    now = state();
    if (run == warm_up) {
      before = now;
      print("after the warm-up", now);
    } else if (run > warm_up && (run % 100 == 0 || run == runs)) {
      print(("after " + std::to_string(run)).c_str(), now);
    }
  }
  const double heap = static_cast<double>(now.heap - before.heap) / (runs - warm_up);
  const int64_t resident = now.resident - before.resident;
  std::cout << "a run: " << heap << " B of heap (bound " << kHeapGrowth << "); in all: " << resident
            << " B resident (bound " << kResidentGrowth << ")\n";
  if (heap > kHeapGrowth || resident > kResidentGrowth || now.descriptors != before.descriptors ||
      now.threads != before.threads) {
    std::cerr << "what a run takes is not given back\n";
    return 1;
  }
  return 0;
}
