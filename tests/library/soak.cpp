// A thousand small evaluations in one process through libmxlm: memory in use, resident memory, descriptors and threads
// must not grow. usage: soak [RUNS [WARM_UP]]
//
// Each run loads the model, evaluates two variants on a short text, casts an array, is once cancelled and once refused.
// What is compared is the state after the warm-up and at the end:
// * allocations that are alive, and the bytes of them: the same number. They are counted where they are made, since the
//   allocator's own figures (mallinfo2) also move with what it keeps for later and cannot use again;
// * resident memory: at most kResidentGrowth bytes more in all, which is what pages that hold free memory move by;
// * open descriptors and threads: the same number.

#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <mxlm/mxlm.hpp>
#include <stdexcept>
#include <string>
#include <vector>

// glibc lets a program put these in the place of its own, for every library of the process.
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* old, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void* memory);
}

namespace {

constexpr int64_t kResidentGrowth = int64_t{4} << 20;

std::atomic<int64_t> live_allocations = 0, live_bytes = 0, made = 0;

void* count_in(void* memory) {
  if (memory != nullptr) {
    made += 1;
    live_allocations += 1;
    live_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  }
  return memory;
}

void count_out(void* memory) {
  if (memory == nullptr) return;
  live_allocations -= 1;
  live_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
}

}  // namespace

#pragma GCC visibility push(default)  // libraries shall find these
extern "C" {
void* malloc(size_t bytes) { return count_in(__libc_malloc(bytes)); }
void* calloc(size_t count, size_t bytes) { return count_in(__libc_calloc(count, bytes)); }
void* memalign(size_t alignment, size_t bytes) { return count_in(__libc_memalign(alignment, bytes)); }
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  *memory = memalign(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}
void* realloc(void* old, size_t bytes) {
  count_out(old);
  void* const memory = __libc_realloc(old, bytes);
  if (memory == nullptr && bytes > 0) count_in(old);  // it is still there
  return count_in(memory);
}
void free(void* memory) {
  count_out(memory);
  __libc_free(memory);
}
}
#pragma GCC visibility pop

namespace {

struct State {
  int64_t allocations = 0, bytes = 0;  // alive
  int64_t resident = 0;                // bytes
  int64_t descriptors = 0, threads = 0;
};

int64_t entries(const char* folder) {
  int64_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++n;
  return n;
}

State state() {
  State s;
  s.allocations = live_allocations;
  s.bytes = live_bytes;
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  s.resident = resident * sysconf(_SC_PAGESIZE);
  s.descriptors = entries("/proc/self/fd");
  s.threads = entries("/proc/self/task");
  return s;
}

void print(const char* when, const State& s) {
  std::cout << when << ": " << s.allocations << " allocations of " << s.bytes << " B, resident " << s.resident
            << " B, descriptors " << s.descriptors << ", threads " << s.threads << std::endl;
}

/// The NLLs of a run, which must be those of every other.
std::string once() {
  const auto model = mxlm::api::Model::load();
  const auto data = mxlm::api::Data::texts(
      {"Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once "
       "or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it."});
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
  std::cout << runs << " runs" << std::endl;  // makes the stream's buffer
  std::string first;
  State before, now;
  for (int run = 1; run <= runs; ++run) {
    const int64_t made_before = made;
    const std::string figures = once();
    if (made - made_before < 1000) {
      std::cerr << "the library's allocations are not counted\n";
      return 1;
    }
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
  const int64_t resident = now.resident - before.resident;
  std::cout << runs - warm_up << " runs: " << now.allocations - before.allocations << " allocations and "
            << now.bytes - before.bytes << " B more, " << resident << " B resident (bound " << kResidentGrowth << ")\n";
  if (now.allocations != before.allocations || now.bytes != before.bytes || resident > kResidentGrowth ||
      now.descriptors != before.descriptors || now.threads != before.threads) {
    std::cerr << "what a run takes is not given back\n";
    return 1;
  }
  return 0;
}
