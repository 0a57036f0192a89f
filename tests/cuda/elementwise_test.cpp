// The GPU's operations on single values and rows beside the CPU's, to the bit; sums over rows within their rounding.

#include <deque>

#include "base/error.hpp"
#include "support.hpp"

namespace mxlm::cuda_test {
namespace {

using Elementwise = CudaTest;

constexpr int64_t kWidths[] = {1, 31, 64, 100, 576, 4099};

/// The result of `run` on both backends, which is the same to the bit.
template <typename Run>
void expect_same(const std::string& what, const Run& run, Backend& gpu, Backend& cpu) {
  EXPECT_EQ(different(run(gpu), run(cpu)), 0U) << what;
}

TEST_F(Elementwise, CopiesClearsGathersAndClamps) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : kWidths) {
      const auto x = random_values(static_cast<size_t>(13 * cols), 1, 3, true);
      const auto y = random_values(static_cast<size_t>(13 * (cols + 9)), 2);
      const std::string what = std::to_string(cols);
      const auto into_view = [&](Backend& b) {
        const Tensor from = b.upload(matrix(x, 13, cols), type);
        Tensor to = b.upload(matrix(y, 13, cols + 9), type);
        Tensor part = to.columns(5, cols);
        b.copy(from, part);
        if (cols > 31) {
          Tensor cleared = to.view(3, 4, 7, 20);
          b.zero(cleared);
        }
        return values_of(b, to);
      };
      expect_same(what, into_view, gpu(), cpu());
      const auto gathered = [&](Backend& b) {
        const Tensor from = b.upload(matrix(x, 13, cols), type);
        const std::vector<int32_t> rows{12, 0, 5, 5, 7};
        const Tensor picked = b.gather(from, rows);
        const Tensor view = from.columns(cols / 2, cols - cols / 2);
        const Tensor part = b.gather(view, rows);
        std::vector<float> all = values_of(b, picked);
        const std::vector<float> more = values_of(b, part);
        all.insert(all.end(), more.begin(), more.end());
        return all;
      };
      expect_same(what, gathered, gpu(), cpu());
      const auto clamped = [&](Backend& b) {
        Tensor t = b.upload(matrix(x, 13, cols), type);
        Tensor part = t.columns(cols / 3, cols - cols / 3);
        b.clamp(part, 1.25F);
        b.round_to_bf16(t);
        return values_of(b, t);
      };
      expect_same(what, clamped, gpu(), cpu());
    }
    Tensor none = gpu().empty(type, 0, 64);
    Tensor target = gpu().empty(type, 0, 64);
    gpu().copy(none, target);
    gpu().zero(none);
    gpu().clamp(none, 1);
    gpu().round_to_bf16(none);
    gpu().add(none, none, 1, target);
    EXPECT_EQ(gpu().gather(none, {}).rows(), 0);
  }
}

TEST_F(Elementwise, Adds) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const DType first : {type, DType::f32}) {
      for (const int64_t cols : kWidths) {
        const auto x = random_values(static_cast<size_t>(7 * cols), 3, 3, true),
                   y = random_values(static_cast<size_t>(7 * cols), 4, 2, true);
        for (const float multiplier : {1.0F, 0.22F}) {
          for (const bool in_place : {false, true}) {
            const auto run = [&](Backend& b) {
              const Tensor a = b.upload(matrix(x, 7, cols), first);
              Tensor c = b.upload(matrix(y, 7, cols), type);
              Tensor out = b.empty(type, 7, cols);
              b.add(a, c, multiplier, in_place ? c : out);
              return values_of(b, in_place ? c : out);
            };
            expect_same(std::to_string(cols), run, gpu(), cpu());
          }
        }
      }
    }
  }
}

TEST_F(Elementwise, Rotates) {
  struct Case {
    int heads, head_stride, half;
  };
  for (const Case& c :
       {Case{1, 2, 1}, Case{3, 64, 32}, Case{5, 80, 16}, Case{2, 128, 64}, Case{3, 20, 7}, Case{2, 9, 4}}) {
    const int64_t cols = int64_t{c.heads} * c.head_stride;
    const int64_t rows = 11, table_rows = 6;
    const auto x = random_values(static_cast<size_t>(rows * cols), 5, 2, true);
    const auto cos = random_values(static_cast<size_t>(table_rows * c.half), 6),
               sin = random_values(static_cast<size_t>(table_rows * c.half), 7);
    const std::vector<int32_t> places{0, 1, 2, 3, 4, 5, 0, 1, 2, 5, 3};
    for (const auto& [type, table] :
         {std::pair{DType::f32, DType::f32}, std::pair{DType::bf16, DType::f32}, std::pair{DType::bf16, DType::bf16}}) {
      for (const bool interleaved : {false, true}) {
        for (const int64_t offset : {0, 3}) {
          const auto run = [&, type = type, table = table](Backend& b) {
            Tensor wide = b.empty(type, rows, cols + offset);
            b.zero(wide);
            Tensor part = wide.columns(offset, cols);
            b.copy(b.upload(matrix(x, rows, cols), type), part);
            const Tensor cosines = b.upload(matrix(cos, table_rows, c.half), table),
                         sines = b.upload(matrix(sin, table_rows, c.half), table);
            Rotary rotary;
            rotary.cos = &cosines;
            rotary.sin = &sines;
            rotary.rows = places;
            rotary.interleaved = interleaved;
            b.rotate(part, c.heads, c.head_stride, rotary);
            return values_of(b, wide);
          };
          expect_same(std::to_string(c.heads) + " x " + std::to_string(c.head_stride) + " half " +
                          std::to_string(c.half) + (interleaved ? " interleaved" : ""),
                      run, gpu(), cpu());
        }
      }
    }
  }
}

/// Two windows of tokens of a vocabulary of 50.
Batch some_tokens() {
  Batch batch;
  batch.tokens = {49, 0, 3, 3, 7, 49, 12, 1, 0};
  batch.offsets = {0, 4, 9};
  return batch;
}

constexpr int64_t kVocabulary = 50, kPositions = 12;

TEST_F(Elementwise, Embeds) {
  const Batch batch = some_tokens();
  // A backend knows tables by where they lie, so all stay to the end.
  static std::deque<std::vector<float>> wide;
  static std::deque<std::vector<BFloat16>> narrow;
  static std::deque<std::vector<uint16_t>> halves;
  for (const int64_t cols : {1, 31, 100, 576}) {
    const auto size = static_cast<size_t>(kVocabulary * cols);
    const auto& words = wide.emplace_back(random_values(size, 8, 2, true));
    const auto& places = wide.emplace_back(random_values(static_cast<size_t>(kPositions * cols), 9));
    const auto& rounded = narrow.emplace_back(to_bf16(words));
    auto& bits = halves.emplace_back(size);
    std::mt19937 engine(10);
    for (uint16_t& h : bits) h = static_cast<uint16_t>(engine() % 0x7c00U | (engine() % 2) << 15);
    const HostMatrix half{.type = DType::f16,
                          .rows = kVocabulary,
                          .cols = cols,
                          .stride = cols,
                          .data = reinterpret_cast<const std::byte*>(bits.data())};
    const HostMatrix learned = matrix(places, kPositions, cols);
    for (const DType type : {DType::bf16, DType::f32}) {
      for (const HostMatrix& table : {matrix(words, kVocabulary, cols), matrix(rounded, kVocabulary, cols), half}) {
        for (const float multiplier : {1.0F, 22.6F}) {
          for (const int64_t offset : {-1, 0, 2}) {  // -1: no positions
            const auto run = [&](Backend& b) {
              Tensor hidden = b.empty(type, batch.rows(), cols);
              b.embed(batch, table, multiplier, offset < 0 ? nullptr : &learned, std::max<int64_t>(offset, 0), hidden);
              return values_of(b, hidden);
            };
            expect_same(std::to_string(cols) + " from " + std::to_string(static_cast<int>(table.type)), run, gpu(),
                        cpu());
          }
        }
      }
    }
  }
  Tensor hidden = gpu().empty(DType::f32, batch.rows(), 1);
  const HostMatrix too_few = matrix(wide.front(), 40, 1);
  EXPECT_THROW(gpu().embed(batch, too_few, 1, nullptr, 0, hidden), Error);
}

TEST_F(Elementwise, EmbedsFromATableThatIsTooLargeForTheGpu) {
  const Batch batch = some_tokens();
  constexpr int64_t kCols = 1000;
  const auto small = make_cuda_backend({.memory_limit = uint64_t{1} << 20});
  const auto words = random_values(kVocabulary * kCols, 8);
  const auto rounded = to_bf16(words);
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const HostMatrix& table : {matrix(words, kVocabulary, kCols), matrix(rounded, kVocabulary, kCols)}) {
      const auto run = [&](Backend& b) {
        Tensor hidden = b.empty(type, batch.rows(), kCols);
        b.embed(batch, table, 3.5F, nullptr, 0, hidden);
        return values_of(b, hidden);
      };
      expect_same("", run, *small, cpu());
    }
  }
}

TEST_F(Elementwise, RoutesAndAccumulates) {
  for (const DType type : {DType::bf16, DType::f32}) {
    auto logits = random_values(40 * 9, 12, 2);
    logits[9] = logits[10] = logits[11];  // ties
    logits[20] = NAN;
    for (const auto score : {RoutingArgs::Score::softmax_all, RoutingArgs::Score::softmax_chosen}) {
      RoutingArgs args;
      args.top_k = 3;
      args.score = score;
      args.normalise = score == RoutingArgs::Score::softmax_all;
      args.round_weights = true;
      std::vector<Routing> routings;
      for (Backend* b : {&gpu(), &cpu()})
        routings.push_back(b->choose_experts(b->upload(matrix(logits, 40, 9), type), args));
      EXPECT_EQ(routings[0].experts, routings[1].experts);
      EXPECT_EQ(different(routings[0].weights, routings[1].weights), 0U);
    }
    for (const int64_t cols : kWidths) {
      const auto y = random_values(static_cast<size_t>(5 * cols), 13, 1, true),
                 start = random_values(static_cast<size_t>(20 * cols), 14);
      const std::vector<int32_t> rows{3, 19, 0, 7, 8};
      const std::vector<float> weights{0.25F, 0.1F, 1.0F, 0.77F, 0.0F};
      const auto run = [&](Backend& b) {
        Tensor sum = b.upload(matrix(start, 20, cols), DType::f32);
        b.accumulate(b.upload(matrix(y, 5, cols), type), rows, weights, sum);
        return values_of(b, sum);
      };
      expect_same(std::to_string(cols), run, gpu(), cpu());
    }
    Tensor sum = gpu().empty(DType::f32, 0, 8);
    gpu().accumulate(gpu().empty(type, 0, 8), {}, {}, sum);
    EXPECT_TRUE(gpu().choose_experts(gpu().empty(type, 0, 8), {}).experts.empty());
  }
}

TEST_F(Elementwise, Compares) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : kWidths) {
      const int64_t rows = 6;
      const auto x = random_values(static_cast<size_t>(rows * cols), 15, 3);
      auto y = x;
      for (size_t i = 0; i < y.size(); ++i) y[i] += 0.01F * static_cast<float>(i % 5);
      const Tensor a = gpu().upload(matrix(x, rows, cols), type), b = gpu().upload(matrix(y, rows, cols), type);
      const std::vector<float> held_a = values_of(gpu(), a), held_b = values_of(gpu(), b);
      std::vector<ErrorSums> sums(static_cast<size_t>(rows)), one(1);
      gpu().compare(a, b, sums);
      for (int64_t r = 0; r < rows; ++r) {
        ErrorSums exact;
        for (int64_t c = 0; c < cols; ++c) {
          const double p = held_a[static_cast<size_t>(r * cols + c)], q = held_b[static_cast<size_t>(r * cols + c)];
          exact += {.reference = p * p, .other = q * q, .difference = (q - p) * (q - p)};
        }
        const ErrorSums& got = sums[static_cast<size_t>(r)];
        EXPECT_NEAR(got.reference, exact.reference, 1e-6 * exact.reference) << cols;
        EXPECT_NEAR(got.other, exact.other, 1e-6 * exact.other) << cols;
        EXPECT_NEAR(got.difference, exact.difference, 1e-6 * exact.difference) << cols;
        gpu().compare(a.view(r, 1, 0, cols), b.view(r, 1, 0, cols), one);
        EXPECT_EQ(one[0], got) << "a row alone";
      }
      const std::vector<int64_t> windows{0, 1, 1, 6};
      std::vector<ErrorSums> by_window(3), again(3);
      gpu().compare_windows(a, b, windows, by_window);
      gpu().compare_windows(a, b, windows, again);
      gpu().settle();
      EXPECT_EQ(by_window[0], sums[0]);
      EXPECT_EQ(by_window[1], ErrorSums());
      ErrorSums rest;
      for (size_t r = 1; r < 6; ++r) rest += sums[r];
      EXPECT_NEAR(by_window[2].difference, rest.difference, 1e-12 * rest.difference);
      EXPECT_EQ(by_window, again);
    }
  }
  gpu().compare(gpu().empty(DType::f32, 0, 3), gpu().empty(DType::f32, 0, 3), {});
}

}  // namespace
}  // namespace mxlm::cuda_test
