// The LM head of the CPU backend: tiles of tokens x chunks of the vocabulary, the baseline's logits of a chunk kept
// while every variant's chunk is computed and taken in.

#include <algorithm>
#include <cassert>
#include <chrono>
#include <mutex>
#include <numeric>
#include <vector>

#include "backend/cpu/bf16_ops.hpp"
#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/gemm_driver.hpp"
#include "backend/cpu/head_rows.hpp"
#include "backend/cpu/product_scales.hpp"
#include "backend/cpu/rows.hpp"
#include "backend/cpu/score_rows.hpp"
#include "backend/cpu/scratch.hpp"
#include "base/error.hpp"

namespace mxlm {
namespace {

using Clock = std::chrono::steady_clock;

// A tile's logits and powers of the baseline, its rows and a chunk of the weight share the second-level cache; the
// taller the tile, the less often the weight is read.
constexpr int64_t kTileRows = 256;
constexpr int64_t kChunkPanels = 16;
constexpr int64_t kChunk = kChunkPanels * cpu::kPanel;
constexpr int64_t kStripRows = 32;  // rows whose logits a product leaves in the first-level cache

const cpu::PackedPanels& panels_of(const HeadJob& input) {
  return dynamic_cast<const cpu::Panels&>(*input.weight).packed();
}

bool has_transform(const HeadJob& input) {
  return input.logit_multiplier != 1 || input.logit_softcap != 0 || input.arithmetic == Arithmetic::bf16_rounded;
}

/// Products of a row, n of them, into logits where more than a bias is done to them.
void transform(cpu::Isa isa, const HeadJob& input, const float* bias, int64_t n, float* logits) {
  if (input.arithmetic == Arithmetic::bf16_rounded)
    return cpu::logits_row_bf16(bias, input.logit_multiplier, input.logit_softcap, n, logits);
  if (bias != nullptr) cpu::add_row(isa, logits, bias, 1, n, logits);
  cpu::transform_logits(isa, input.logit_multiplier, input.logit_softcap, n, logits);
}

cpu::ProductScales scales_of(const HeadJob& input) {
  return {*input.hidden, dynamic_cast<const cpu::Panels&>(*input.weight)};
}

/// Memory of one thread: the baseline's logits and powers of a tile's chunk, a strip of logits of a variant, a strip of
/// what outliers add to them.
struct TileMemory {
  float* baseline;
  float* powers;
  float* strip;
  float* outliers;
};

TileMemory tile_memory() {
  thread_local cpu::Scratch scratch;
  auto* data = reinterpret_cast<float*>(
      scratch.reserve(static_cast<size_t>(2 * (kTileRows + kStripRows)) * static_cast<size_t>(kChunk) * sizeof(float)));
  float* strips = data + 2 * kTileRows * kChunk;
  return {data, data + kTileRows * kChunk, strips, strips + kStripRows * kChunk};
}

/// One tile of rows under all inputs.
class Tile {
 public:
  Tile(cpu::Isa isa, cpu::Order order, std::span<const HeadJob> inputs, std::span<const int32_t> targets, int64_t begin,
       int64_t end)
      : isa_(isa),
        order_(order),
        inputs_(inputs),
        targets_(targets),
        begin_(begin),
        rows_(end - begin),
        memory_(tile_memory()),
        states_(inputs.size() * static_cast<size_t>(rows_)),
        rescale_(static_cast<size_t>(rows_)),
        seconds_(inputs.size()) {
    for (cpu::TokenState& token : states_) token.self = inputs[0].kind == ScoreKind::self;
  }

  void run() {
    each_strip([this](size_t i, int64_t row, const cpu::LogitChunk& chunk) { take(i, row, chunk); });
    const bool jensen_shannon = inputs_[0].jensen_shannon;
    if (jensen_shannon) {
      each_strip([this](size_t i, int64_t row, const cpu::LogitChunk& chunk) { compare(i, row, chunk); });
    }
    for (size_t i = 0; i < inputs_.size(); ++i) {
      for (int64_t r = 0; r < rows_; ++r) {
        TokenScore& score = inputs_[i].scores[static_cast<size_t>(begin_ + r)];
        score = cpu::finish_token(state(i, r), state(0, r));
        if (jensen_shannon) score.jensen_shannon = static_cast<float>(state(i, r).jensen_shannon);
      }
    }
  }

  /// Time spent on each input.
  [[nodiscard]] const std::vector<double>& seconds() const { return seconds_; }

 private:
  cpu::TokenState& state(size_t input, int64_t row) {
    return states_[input * static_cast<size_t>(rows_) + static_cast<size_t>(row)];
  }

  /// Calls `use`(input, row of the tile, its chunk of logits) for every chunk of the vocabulary, input and row.
  template <typename Use>
  void each_strip(const Use& use) {
    const int64_t panels = panels_of(inputs_[0]).panels();
    for (int64_t panel = 0; panel < panels; panel += kChunkPanels) {
      auto before = Clock::now();
      for (size_t i = 0; i < inputs_.size(); ++i) {
        for (int64_t row = 0; row < rows_; row += kStripRows) {
          strip(i, row, panel, std::min(panel + kChunkPanels, panels), use);
        }
        const auto now = Clock::now();
        seconds_[i] += std::chrono::duration<double>(now - before).count();
        before = now;
      }
    }
  }

  /// Adds a chunk to the sums of a row.
  void take(size_t i, int64_t row, const cpu::LogitChunk& chunk) {
    float* powers = memory_.powers + row * kChunk;
    double& rescale = rescale_[static_cast<size_t>(row)];
    if (i == 0) {
      rescale = cpu::add_baseline_chunk(isa_, chunk, state(0, row), powers);
    } else {
      cpu::add_variant_chunk(isa_, chunk, state(i, row), memory_.baseline + row * kChunk, powers, rescale);
    }
  }

  /// Compares a row's chunk with the baseline's when the sums of both are known.
  void compare(size_t i, int64_t row, const cpu::LogitChunk& chunk) {
    if (chunk.bias != nullptr) cpu::add_row(isa_, chunk.logits, chunk.bias, 1, chunk.count, chunk.logits);
    if (i == 0) return;
    cpu::add_jensen_shannon_chunk(memory_.baseline + row * kChunk, state(0, row), chunk.logits, state(i, row),
                                  chunk.count);
  }

  /// Logits of input i, rows [row, row + kStripRows) of the tile, panels [p0, p1), each row given to `use`.
  template <typename Use>
  void strip(size_t i, int64_t row, int64_t p0, int64_t p1, const Use& use) {
    const HeadJob& input = inputs_[i];
    const cpu::PackedPanels& weight = panels_of(input);
    const int64_t rows = std::min(kStripRows, rows_ - row);
    float* out = i == 0 ? memory_.baseline + row * kChunk : memory_.strip;
    const auto multiply = [&](const Tensor& a, float* to) {
      const auto* first = static_cast<const std::byte*>(a.data()) +
                          (begin_ + row) * a.stride() * static_cast<int64_t>(dtype_size(a.dtype()));
      cpu::gemm_tile(isa_, order_, rows, a.dtype(), first, a.stride(), weight, p0, p1, to, kChunk);
    };
    multiply(input.hidden->values, out);
    cpu::LogitChunk chunk;
    chunk.first = p0 * cpu::kPanel;
    chunk.count = std::min(p1 * cpu::kPanel, weight.n) - chunk.first;
    const Tensor& outliers = input.hidden->outliers;
    if (!outliers.empty()) multiply(outliers, memory_.outliers);
    if (const auto scales = scales_of(input); !scales.none() || !outliers.empty()) {
      for (int64_t r = 0; r < rows; ++r) {
        float* logits = out + r * kChunk;
        scales.apply(begin_ + row + r, chunk.first, logits, outliers.empty() ? nullptr : memory_.outliers + r * kChunk,
                     chunk.count, logits);
      }
    }
    chunk.bias = input.bias == nullptr ? nullptr : input.bias->row<float>(0) + chunk.first;
    if (has_transform(input)) {
      for (int64_t r = 0; r < rows; ++r) transform(isa_, input, chunk.bias, chunk.count, out + r * kChunk);
      chunk.bias = nullptr;
    }
    for (int64_t r = 0; r < rows; ++r) {
      chunk.logits = out + r * kChunk;
      chunk.target = targets_[static_cast<size_t>(begin_ + row + r)];
      use(i, row + r, chunk);
    }
  }

  const cpu::Isa isa_;
  const cpu::Order order_;
  const std::span<const HeadJob> inputs_;
  const std::span<const int32_t> targets_;
  const int64_t begin_, rows_;
  const TileMemory memory_;
  std::vector<cpu::TokenState> states_;
  std::vector<double> rescale_;  // of the baseline's current chunk
  std::vector<double> seconds_;
};

}  // namespace

void CpuBackend::score(std::span<const HeadJob> inputs, std::span<const int32_t> targets) {
  assert(!inputs.empty());
  const auto rows = static_cast<int64_t>(targets.size());
  const int64_t vocabulary = inputs[0].weight->rows();
  for (const HeadJob& input : inputs) {
    assert(input.hidden->values.rows() == rows && static_cast<int64_t>(input.scores.size()) == rows);
    assert(input.weight->rows() == vocabulary && input.weight->cols() == input.hidden->values.cols());
    assert(input.bias == nullptr || input.bias->dtype() == DType::f32);
    assert(input.kind == inputs[0].kind);
    static_cast<void>(input);
  }
  for (const int32_t target : targets) {
    if (target < 0 || target >= vocabulary) {
      fail("Token id {} is outside the LM head's vocabulary of {}; use the tokenizer that belongs to the model.",
           target, vocabulary);
    }
  }
  // Tiles as tall as keeps all threads busy; a row's figures do not depend on its tile.
  const int64_t share = (rows + pool_.threads() - 1) / pool_.threads();
  const int64_t tile_rows = std::clamp<int64_t>(cpu::round_up(share, kStripRows), kStripRows, kTileRows);

  const auto start = Clock::now();
  std::mutex mutex;
  std::vector<double> spent(inputs.size());
  pool_.run((rows + tile_rows - 1) / tile_rows, [&](int64_t task, int /*worker*/) {
    Tile tile(isa_, order_, inputs, targets, task * tile_rows, std::min((task + 1) * tile_rows, rows));
    tile.run();
    const std::lock_guard adding(mutex);
    for (size_t i = 0; i < spent.size(); ++i) spent[i] += tile.seconds()[i];
  });
  // The inputs share out the time that has passed as they share out the threads' time.
  const double wall = std::chrono::duration<double>(Clock::now() - start).count();
  const double total = std::accumulate(spent.begin(), spent.end(), 0.0);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].seconds != nullptr && total > 0) *inputs[i].seconds += wall * spent[i] / total;
  }
}

void CpuBackend::logits(const HeadJob& input, std::span<float> out) {
  const cpu::PackedPanels& weight = panels_of(input);
  const Tensor& a = input.hidden->values;
  assert(a.cols() == weight.k && static_cast<int64_t>(out.size()) == a.rows() * weight.n);
  const float* bias = input.bias == nullptr ? nullptr : input.bias->row<float>(0);
  const cpu::ProductScales scales = scales_of(input);
  const Tensor outliers = outlier_product(*input.hidden, *input.weight);
  cpu::gemm(isa_, order_, pool_, a.rows(), a.dtype(), a.data(), a.stride(), weight,
            [&](int64_t r0, int64_t r1, int64_t c0, int64_t c1, const float* tile, int64_t stride) {
              for (int64_t r = r0; r < r1; ++r) {
                float* to = out.data() + r * weight.n + c0;
                const float* sums = tile + (r - r0) * stride;
                if (!scales.none() || !outliers.empty()) {
                  scales.apply(r, c0, sums, outliers.empty() ? nullptr : outliers.row<float>(r) + c0, c1 - c0, to);
                  sums = to;
                }
                const float* part = bias == nullptr ? nullptr : bias + c0;
                cpu::finish_row(isa_, sums, input.arithmetic == Arithmetic::bf16_rounded ? nullptr : part, 1,
                                static_cast<const float*>(nullptr), c1 - c0, to);
                if (has_transform(input))
                  transform(isa_, input, input.arithmetic == Arithmetic::bf16_rounded ? part : nullptr, c1 - c0, to);
              }
            });
}

}  // namespace mxlm
